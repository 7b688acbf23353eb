"""Skills as files: folders, front matter, names."""

import json

import pytest

from backend.domain import skills


@pytest.mark.parametrize(
    ("name", "taken", "slug"),
    [
        ("Review Code!", (), "review-code"),
        ("Crème brûlée", (), "creme-brulee"),
        ("日本", (), "skill"),
        ("日本", ("skill",), "skill-2"),
        ("a", ("a", "a-2"), "a-3"),
        ("x" * 80, (), "x" * 60),
        ("x" * 80, ("x" * 60,), "x" * 58 + "-2"),
    ],
)
def test_folders(name: str, taken: tuple[str, ...], slug: str) -> None:
    assert skills.slug(name, taken) == slug


def test_front_matter_is_added_where_there_is_none() -> None:
    own = "---\nname: mine\n---\nText"
    assert skills.document("id", "mine", "Mine", None, own) == own
    assert skills.document("id-1", "review-code", "Review Code", None, "# Text") == (
        '---\nname: review-code\nskill_id: "id-1"\ndescription: "Review Code skill"\n---\n\n# Text'
    )


def test_front_matter_holds_any_description_on_one_line() -> None:
    text = skills.document("i", "s", "n", 'say "hi": # \n\x7f\u2028 ünï 🎉 \\', "c")
    line = text.splitlines()[3]
    assert json.loads(line.removeprefix("description: ")) == 'say "hi": #     ünï 🎉 \\'
    assert text.splitlines()[4] == "---"


@pytest.mark.parametrize(
    ("content", "title"),
    [("\n\n# Review   code\nmore", "Review code"), ("---\n***", "skill"), ("x" * 80, "x" * 60), ("", "skill")],
)
def test_a_name_for_a_nameless_skill(content: str, title: str) -> None:
    assert skills.title(content) == title


def test_the_same_inline_content_is_the_same_block() -> None:
    assert skills.inline_id("a\n") == skills.inline_id(" a")
    assert skills.inline_id("a") != skills.inline_id("b")
    assert skills.inline_id("a").startswith("inline-")


def test_contents_that_cannot_be_a_skill() -> None:
    assert skills.content_problem("Use tabs.") is None
    assert skills.content_problem(" \n") == "must not be blank"
    assert "marker" in (skills.content_problem("x\n<!-- skill:a -->") or "")
