"""Who is attached to the terminal, and who of them drives it: at most one."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from backend.harness.state import State, iso

MAX_VIEWERS = 64


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a viewer is sent away: the agent ended (`exit_code` or `signal`), or could not be shown (`reason`)."""

    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None


class Viewer(Protocol):
    """What the terminal needs of a connection."""

    id: str
    name: str
    since: float
    size: tuple[int, int] | None
    """Columns and rows of its window, once it has told them."""

    def show(self, data: bytes) -> None:
        """Sends output."""

    def refresh(self, scrollback: int = 0) -> None:
        """Sends a repaint in place of all output that waits to be sent."""

    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a control message, if it is of the kind that gets any."""

    def end(self, ending: Ending | None) -> None:
        """Sends what is left and closes; without an ending because the harness stops."""

    def pause(self, paused: bool) -> None:
        """Stops or starts to read what it types."""


class Audience:
    """The viewers of one terminal. Each change is told to all of them and to the state."""

    def __init__(self, state: State) -> None:
        self.driver: Viewer | None = None
        self._state = state
        self._viewers: list[Viewer] = []
        self._announcing = False

    def __iter__(self) -> Iterator[Viewer]:
        return iter(tuple(self._viewers))

    def __len__(self) -> int:
        return len(self._viewers)

    def add(self, viewer: Viewer, *, drive: bool) -> None:
        """Lets `viewer` in, as the driver or to watch."""
        self._viewers.append(viewer)
        if drive:
            self._drive(viewer)
        self.changed()

    def remove(self, viewer: Viewer) -> None:
        """Forgets `viewer`; nothing happens when it is not here."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)
            if self.driver is viewer:
                self.driver = None
            self.changed()

    def drive(self, viewer: Viewer) -> None:
        """Makes `viewer` the driver; it and the former one are told. Nothing happens when it is already."""
        if viewer is not self.driver:
            self._drive(viewer)
            viewer.tell({"type": "mode", "mode": "drive", "by": viewer.name})
            self.changed()

    def watch(self, viewer: Viewer) -> None:
        """Makes the driver one who only watches, and tells it."""
        if viewer is self.driver:
            self.driver = None
            viewer.tell({"type": "mode", "mode": "watch", "by": viewer.name})
            self.changed()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a control message to everybody."""
        for viewer in self:
            viewer.tell(message)

    def mode(self, viewer: Viewer) -> str:
        return "drive" if viewer is self.driver else "watch"

    def describe(self) -> list[dict[str, Any]]:
        """The viewers as protocol 2 tells them: id, name, mode, cols, rows, since."""
        return [
            {
                "id": viewer.id,
                "name": viewer.name,
                "mode": self.mode(viewer),
                "cols": viewer.size[0] if viewer.size else None,
                "rows": viewer.size[1] if viewer.size else None,
                "since": iso(viewer.since),
            }
            for viewer in self._viewers
        ]

    def changed(self) -> None:
        """Tells everybody who is here, once for all changes of one turn."""
        if not self._announcing:
            self._announcing = True
            asyncio.get_running_loop().call_soon(self._announce)

    def _drive(self, viewer: Viewer) -> None:
        former, self.driver = self.driver, viewer
        if former is not None:
            former.tell({"type": "mode", "mode": "watch", "by": viewer.name})

    def _announce(self) -> None:
        self._announcing = False
        viewers = self.describe()
        self._state.update(
            viewers=len(viewers),
            attached=[{name: viewer[name] for name in ("name", "mode", "since")} for viewer in viewers],
        )
        self.tell({"type": "viewers", "viewers": viewers})
