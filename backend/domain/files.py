"""Files an agent puts into each of its sandboxes: shape, limits, and where each may land (seed 003, LAP REST 2.1)."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from backend.domain.problems import Problem

MAX_FILES: Final = 20
MAX_BASE64_CHARACTERS: Final = 10_485_760
"""Of all files together."""
MAX_PATH_BYTES: Final = 1024
MAX_COMPONENT_BYTES: Final = 255
DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SandboxFile:
    """`content` is base64 text, `size` the byte count its author declared."""

    name: str
    sandbox_path: str
    content: str
    content_type: str = DEFAULT_CONTENT_TYPE
    size: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SandboxFile":
        """From a checked JSON object; unknown keys are ignored. Raises KeyError when a required key is missing."""
        return cls(
            name=value["name"],
            sandbox_path=value["sandbox_path"],
            content=value["content"],
            content_type=value.get("content_type", DEFAULT_CONTENT_TYPE),
            size=value.get("size", 0),
        )

    def data(self) -> bytes:
        """The decoded content; line breaks in the base64 text are fine. Raises ValueError when it is not base64."""
        try:
            return base64.b64decode("".join(self.content.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("content is not base64") from error


def relative_target(sandbox_path: str) -> PurePosixPath:
    """Where `sandbox_path` lies, relative to the sandbox's own directory.

    `~/notes.md` is `home/notes.md`; `/etc/tool.conf` is `rootfs/etc/tool.conf`. Nothing ever leaves the two
    directories: raises ValueError (with the reason) for `..`, control characters, no file name, or too long a path.
    """
    if _CONTROL.search(sandbox_path):
        raise ValueError("must not contain control characters or broken Unicode")
    if len(sandbox_path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"must be at most {MAX_PATH_BYTES} bytes")
    if sandbox_path.startswith("~/"):
        root, rest = "home", sandbox_path[2:]
    elif sandbox_path.startswith("/"):
        root, rest = "rootfs", sandbox_path[1:]
    else:
        raise ValueError('must start with "/" or "~/"')
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError('must not contain ".."')
    if not parts or rest.endswith(("/", "/.")):
        raise ValueError("must name a file, not a directory")
    if any(len(part.encode()) > MAX_COMPONENT_BYTES for part in parts):
        raise ValueError(f"each part must be at most {MAX_COMPONENT_BYTES} bytes")
    return PurePosixPath(root, *parts)


def problems(files: Sequence[SandboxFile]) -> list[Problem]:
    """Everything wrong with `files`, at once; empty when they are fine. Paths start at `sandbox_files`."""
    found: list[Problem] = []
    if len(files) > MAX_FILES:
        found.append(Problem(("sandbox_files",), f"sandbox_files: max {MAX_FILES} files", "too_many"))
    if sum(len(file.content) for file in files) > MAX_BASE64_CHARACTERS:
        found.append(Problem(("sandbox_files",), "sandbox_files: total base64 size must be ≤ 10 MB", "too_big"))
    if found:
        return found  # Decoding what is too much anyway would only burn time.
    for index, file in enumerate(files):
        try:
            relative_target(file.sandbox_path)
        except ValueError as error:
            found.append(Problem(("sandbox_files", index, "sandbox_path"), str(error), "invalid_path"))
        try:
            file.data()
        except ValueError as error:
            found.append(Problem(("sandbox_files", index, "content"), str(error), "invalid_base64"))
    return found
