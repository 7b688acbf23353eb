"""Saves a file of a sandbox that is about to be removed."""

import logging
import os
import stat
from pathlib import Path

from backend.sandboxes.contract import Rescue

CHUNK = 1_048_576

logger = logging.getLogger(__name__)


def copy(root: Path, rescue: Rescue) -> None:
    """Copy the file out of the sandbox's directory, whole or not at all; a failure is logged."""
    try:
        # What ran inside may have put anything there: a link to a file elsewhere, a pipe that never ends.
        source = os.open(root / rescue.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(source).st_mode):
            _copy(source, rescue)
    except OSError as error:
        logger.error("%s of sandbox %s is lost: %s", rescue.file, root.name, error)
    finally:
        os.close(source)


def _copy(source: int, rescue: Rescue) -> None:
    rescue.target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = rescue.target.with_name(f".{rescue.target.name}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            left = rescue.max_bytes
            while data := os.read(source, min(CHUNK, left)):
                target.write(data)
                left -= len(data)
        partial.replace(rescue.target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
