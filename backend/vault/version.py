"""Which code this is, so that a platform can tell a vault that runs other code than its own."""

import functools
import hashlib
import sys
from pathlib import Path
from typing import Final

_PARTS: Final = ("vault", "domain")


@functools.cache
def code() -> str:
    """The same text for the same code of the vault, as it stood when this process first asked."""
    found = hashlib.sha256(sys.version.encode())
    root = Path(__file__).resolve().parents[1]
    for part in _PARTS:
        for path in sorted((root / part).glob("*.py")):
            found.update(b"%b %d\n" % (path.name.encode(), path.stat().st_size) + path.read_bytes())
    return found.hexdigest()[:16]
