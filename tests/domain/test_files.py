"""Sandbox files: where they may land and how much they may be."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.files import MAX_BASE64_CHARACTERS, SandboxFile, problems, relative_target


def file(path: str = "~/a", content: str = "aGk=") -> SandboxFile:
    return SandboxFile(name="a", sandbox_path=path, content=content)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("~/notes.md", "home/notes.md"),
        ("~/.config/tool/settings.json", "home/.config/tool/settings.json"),
        ("/etc/tool.conf", "rootfs/etc/tool.conf"),
        ("//etc///tool.conf", "rootfs/etc/tool.conf"),
        ("~/./a/./b", "home/a/b"),
        ("/~/a", "rootfs/~/a"),
        ("~/...", "home/..."),
    ],
)
def test_targets(path: str, target: str) -> None:
    assert str(relative_target(path)) == target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "./a",
        "~",
        "~/",
        "/",
        "~root/a",
        "~/../a",
        "/a/../../b",
        "/..",
        "~/a/",
        "~/a/.",
        "~/a\0b",
        "~/a\nb",
        "~/\x1b",
        "~/\ud800",
        "~/" + "a" * 256,
        "/" + "a/" * 600 + "b",
    ],
)
def test_refused_paths(path: str) -> None:
    with pytest.raises(ValueError, match="must"):
        relative_target(path)


@given(st.text(st.sampled_from("~/.ab\0\n"), max_size=12))
def test_a_target_never_escapes(path: str) -> None:
    try:
        target = relative_target(path)
    except ValueError:
        return
    assert target.parts[0] in ("home", "rootfs")
    assert len(target.parts) > 1
    assert not {"..", ".", "/", ""} & set(target.parts)


@given(st.binary(max_size=200))
def test_content_comes_back(data: bytes) -> None:
    assert file(content=base64.encodebytes(data).decode()).data() == data


@pytest.mark.parametrize("content", ["a", "????", "aGk", "aGk=aGk=", "é"])
def test_bad_base64(content: str) -> None:
    [problem] = problems([file(), file(content=content)])
    assert problem.path == ("sandbox_files", 1, "content")


def test_limits() -> None:
    assert problems([file()] * 20) == []
    assert [problem.message for problem in problems([file()] * 21)] == ["sandbox_files: max 20 files"]
    half = "A" * (MAX_BASE64_CHARACTERS // 2)
    assert problems([file(content=half), file(content=half)]) == []
    [problem] = problems([file(content=half), file(content=half), file()])
    assert problem.message == "sandbox_files: total base64 size must be ≤ 10 MB"


def test_from_json_fills_defaults() -> None:
    made = SandboxFile.from_json({"name": "n", "sandbox_path": "~/n", "content": "", "future": 1})
    assert made == SandboxFile("n", "~/n", "", "application/octet-stream", 0)
