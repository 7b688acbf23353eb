"""Writes files into the sandbox without ever following a symbolic link out of it."""

import contextlib
import os
import re
from pathlib import Path, PurePosixPath

from backend.domain.files import SandboxFile, relative_target
from backend.harness.adapters import SetupError

PRIVATE = 0o600
PUBLIC = 0o644

CLAUDE_SKILLS = ".claude/skills"
SKILL_FOLDERS = {"codex": ".codex/skills", "opencode": ".config/opencode/skills"}
"""Below HOME, of the harnesses that have another one."""

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


def write_sandbox_file(root: Path, file: SandboxFile) -> None:
    """Writes one of the agent's files to its place below `root`. Raises SetupError."""
    try:
        target, data = relative_target(file.sandbox_path), file.data()
    except ValueError as error:
        raise SetupError(f"file {file.sandbox_path!r}: {error}. Correct the agent's files.") from error
    write(root, target, data, PRIVATE)


def write_skill(root: Path, harness_id: str, slug: str, content: str) -> None:
    """Writes a skill where the harness's program looks for it, and where the original platform does.

    Raises SetupError.
    """
    if not _SLUG.fullmatch(slug):
        raise SetupError(f"skill {slug!r}: a slug is a-z, 0-9 and '-', at most 60 characters. Rename the skill.")
    for folder in {CLAUDE_SKILLS, SKILL_FOLDERS.get(harness_id, CLAUDE_SKILLS)}:
        write(root, PurePosixPath("home", folder, slug, "SKILL.md"), content.encode(), PUBLIC)


def write(root: Path, target: PurePosixPath, data: bytes, mode: int) -> None:
    """Writes `data` to `root`/`target`, creating directories. Raises SetupError, also at a symbolic link."""
    try:
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in target.parent.parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=directory)
                parent, directory = (
                    directory,
                    os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory),
                )
                os.close(parent)
            _write_into(directory, target.name, data, mode)
        finally:
            os.close(directory)
    except OSError as error:
        raise SetupError(f"cannot write {target}: {error.strerror}. Choose another path for this file.") from error


def _write_into(directory: int, name: str, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK  # Never waits at a FIFO.
    with os.fdopen(os.open(name, flags, mode, dir_fd=directory), "wb") as file:
        os.fchmod(file.fileno(), mode)  # An existing file keeps its mode otherwise.
        file.write(data)
