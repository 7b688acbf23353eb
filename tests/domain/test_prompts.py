"""Skill blocks in prompts: attaching and detaching loses nothing a user wrote."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain import prompts

ORIGINAL = re.compile(r"<!-- skill:([^\s>]+) -->")
"""How clients of the original platform find the attached skills."""

CHARACTERS = st.characters(exclude_categories=["Cs"])
IDS = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters=">"), min_size=1, max_size=8)
TEXTS = st.text(CHARACTERS, max_size=30).filter(lambda text: not prompts.holds_marker(text))
WORDS = TEXTS.map(str.strip).filter(bool)
PARTS = st.tuples(WORDS, st.sampled_from("abcdef"), TEXTS)
"""A user's text, then a skill with its content."""
ANYTHING = st.lists(
    st.one_of(
        TEXTS,
        IDS.map("<!-- skill:{} -->".format),
        IDS.map("<!-- /skill:{} -->".format),
        st.just("<!-- skill -->"),
        st.just("<!-- skill:a -->"),
        st.just("<!-- /skill:a -->"),
    )
).map("".join)
"""Prompts with markers that fit together, or do not."""


def test_blocks_as_documented() -> None:
    once = prompts.attach_skill("Be brief.\n\n", "skill_a", "\nUse tabs.\n")
    assert once == "Be brief.\n\n<!-- skill:skill_a -->\nUse tabs.\n<!-- /skill:skill_a -->"
    assert prompts.attach_skill(once, "skill_a", "newer") == once
    both = prompts.attach_skill(once, "skill_b", "B")
    assert prompts.attached_skill_ids(both) == ["skill_a", "skill_b"]
    assert prompts.attach_skill(None, "x", "y") == "<!-- skill:x -->\ny\n<!-- /skill:x -->"
    assert prompts.attached_skill_ids(None) == []


def test_what_a_user_typed_after_the_last_block_stays() -> None:
    prompt = prompts.attach_skill("Be brief.", "a", "A") + "\n\n  And be kind.\n"
    assert prompts.detach_skill(prompt, "a") == "Be brief.\n\n  And be kind.\n"
    assert prompts.detach_skill(prompt) == "Be brief.\n\n  And be kind.\n"


@pytest.mark.parametrize(
    ("prompt", "skill_id", "left"),
    [
        (None, None, ""),
        (None, "a", ""),
        ("<!-- skill:a -->\nA", "a", ""),
        ("x\n\n<!-- skill:a -->\nA\n\n<!-- skill:b -->\nB", "a", "x\n\n<!-- skill:b -->\nB"),
        ("x\n\n<!-- skill:a -->\nA\n\n<!-- skill:b -->\nB", "b", "x\n\n<!-- skill:a -->\nA"),
        ("x\n\n<!-- skill:a -->\nA\n\n<!-- skill:b -->\nB", None, "x"),
        ("x\n<!-- skill -->\nold\n<!-- skill:b -->\nB", None, "x"),
        ("x\n<!-- skill -->\nold\n<!-- skill:b -->\nB", "b", "x\n<!-- skill -->\nold"),
        ("<!-- skill:a -->1<!-- skill:a -->2", "a", ""),
        ("x <!-- /skill:a --> <!-- skill:ab -->y", "a", "x <!-- /skill:a --> <!-- skill:ab -->y"),
    ],
)
def test_blocks_of_the_original_platform(prompt: str | None, skill_id: str | None, left: str) -> None:
    assert prompts.detach_skill(prompt, skill_id) == left


@given(ANYTHING, IDS, TEXTS)
def test_attaching_is_undone_by_detaching(prompt: str, skill_id: str, content: str) -> None:
    attached = prompts.attach_skill(prompt, skill_id, content)
    if skill_id in prompts.attached_skill_ids(prompt):
        assert attached == prompt
        return
    assert ORIGINAL.findall(attached) == [*prompts.attached_skill_ids(prompt), skill_id]
    assert content.strip() in attached
    assert prompts.attach_skill(attached, skill_id, "other") == attached
    assert prompts.detach_skill(attached, skill_id) == prompt.rstrip()


@given(ANYTHING, IDS)
def test_detaching_takes_its_skill_and_no_other(prompt: str, skill_id: str) -> None:
    before = prompts.attached_skill_ids(prompt)
    after = prompts.detach_skill(prompt, skill_id)
    assert prompts.attached_skill_ids(after) == [each for each in before if each != skill_id]
    assert after == prompt or skill_id in before
    assert prompts.detach_skill(after, skill_id) == after
    assert prompts.attached_skill_ids(prompts.detach_skill(prompt)) == []


@given(st.lists(PARTS, min_size=1, max_size=6, unique_by=lambda part: part[1]), WORDS, st.data())
def test_texts_between_blocks_outlive_them(parts: list[tuple[str, str, str]], last: str, data: st.DataObject) -> None:
    """A user's texts and blocks by turns; blocks are taken out in any order, and the texts are what remains."""
    prompt = ""
    for text, skill_id, content in parts:
        prompt = prompts.attach_skill(f"{prompt}\n\n{text}" if prompt else text, skill_id, content)
    prompt += f"\n\n{last}"
    gone: set[str] = set()
    for skill_id in data.draw(st.permutations([part[1] for part in parts])):
        gone.add(skill_id)
        prompt = prompts.detach_skill(prompt, skill_id)
        assert prompts.attached_skill_ids(prompt) == [part[1] for part in parts if part[1] not in gone]
    assert prompt == "\n\n".join([*(part[0] for part in parts), last])


@pytest.mark.parametrize(
    ("content", "found"),
    [("<!-- skill:a -->", True), ("x <!-- /skill:a --> y", True), ("<!-- skill -->", True), ("<!-- skills -->", False)],
)
def test_contents_that_would_be_taken_for_blocks(content: str, found: bool) -> None:
    assert prompts.holds_marker(content) is found


def test_a_prompt_full_of_markers_is_read_in_time_proportional_to_it() -> None:
    prompt = "<!-- skill:a -->" * 200_000
    assert prompts.detach_skill(prompt, "a") == ""


def test_memory_comes_first() -> None:
    assert prompts.composed("", None) is None
    assert prompts.composed("", "") is None
    assert prompts.composed("memory", None) == "memory"
    assert prompts.composed("", "Be kind.\n") == "Be kind.\n"
    assert prompts.composed("memory", "Be kind.\n") == "memory\n\nBe kind.\n"
