"""Imported before the toolkit: what has to be settled by then for a quick start and a slow link."""

from __future__ import annotations

import gc
import os

# No animation and fewer frames over SSH; the toolkit reads these once, when it is imported.
if os.environ.get("SSH_CONNECTION"):
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    os.environ.setdefault("TEXTUAL_FPS", "15")

gc.disable()


def imported() -> None:
    """Everything is imported. It stays, so looking through it for garbage would only delay the frames to come."""
    from lapconsole.terminal import garbage

    gc.freeze()
    garbage.only_when_calm()
    gc.enable()
