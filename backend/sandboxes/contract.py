"""What every sandbox driver promises to the services, whatever runs the sandboxes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol


class SandboxError(Exception):
    """A sandbox could not be made or removed. The text names the cause and the next step and is fit for a user."""


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to start. `name` is the sandbox's identity: 1..63 characters, [a-z0-9-], starting with a letter or digit."""

    name: str
    session_id: str
    """"" for a sandbox of the warm pool, which has none yet."""
    agent_id: str
    harness_id: str
    token: str = field(repr=False)
    """What the harness asks of its callers. Never in an environment, an argument list or a file."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment of the harness process itself, not of the agent. No secret of a user."""
    repository: Path | None = None
    """A repository of this machine that set-up clones."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A started sandbox."""

    name: str
    url: str
    """`http://127.0.0.1:PORT` or alike. Takes connections at once; requests queue until the harness accepts."""
    isolation: Mapping[str, Any]
    """JSON for the session page: {"pid_namespace": bool, "filesystem": bool (its own files only), "network": "vault",
    "none" or "open" (the machine's), "limits": {...}, "reason": str | None (what is missing)}."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """A file that is to outlive its sandbox."""

    file: str
    """Its name in the directory the harness was started on."""
    target: Path
    """Where the copy goes (0600), in place of what is there."""
    max_bytes: int
    """More than this of it is not copied."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of one sandbox, as JSON in the shapes of the diagnose answer (LAP REST 5.1)."""

    pod: Mapping[str, Any]
    sandbox_cr: Mapping[str, Any]
    service: Mapping[str, Any]
    node: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]] = ()
    """What the cluster told of the sandbox lately: {"reason", "message", "at"}."""


class SandboxState(StrEnum):
    PENDING = "pending"
    """Being made: `create` has not returned, or the place it will run in is still getting ready."""
    RUNNING = "running"
    """The harness process exists."""
    GONE = "gone"
    """It does not, or there never was such a sandbox. What is left on disk stays until `delete`."""


class SandboxDriver(Protocol):
    """Makes, watches and removes sandboxes. They live on when the driver, or the whole platform, ends.

    All methods may be called concurrently, also for one name.
    """

    on_moved: Callable[[str, str], None]
    """Called with the name and the new URL of a followed sandbox whose address has changed. Does nothing until set,
    must not raise."""

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Start a sandbox; returns without waiting for the harness to answer.

        Raises SandboxError when it cannot be started or the name is taken; nothing is left behind then, nor when the
        caller is cancelled. A `delete` meanwhile wins, also when this returns.
        """
        ...

    async def state(self, name: str) -> SandboxState:
        """Whether the harness process exists."""
        ...

    async def wait_gone(self, name: str) -> str:
        """Return once the harness process has ended, with why in one line.

        "exit code 1", "signal 9 (SIGKILL)", "out of memory: ...", or "gone" when nobody can tell. An unknown name is
        "gone" at once. May wait for ever; cancel it freely.
        """
        ...

    async def waiting_for(self, name: str) -> str | None:
        """What keeps a pending sandbox from running, in one line and the words of who schedules it; None when nothing
        is known.
        """
        ...

    async def delete(self, name: str, rescue: Rescue | None = None) -> None:
        """End and remove a sandbox; returns when no process, port or directory of it is left. Idempotent.

        `rescue` is copied once nothing writes to it any more; when it is no plain file or cannot be copied, it is
        lost, and the target stays as it was. Raises SandboxError naming what is left when something would not go.
        """
        ...

    async def logs(self, name: str, tail_lines: int, since_seconds: int | None = None) -> str:
        """The end of the harness and set-up log as plain text, "" when there is none.

        `tail_lines` is clamped to 1..10_000; `since_seconds` leaves out what is older.
        """
        ...

    async def inspect(self, name: str) -> Inspection:
        """What is known of a sandbox now, also of one that is gone; never raises, parts not known have an "error"."""
        ...

    async def list(self) -> list[str]:
        """Names of all sandboxes that have anything left, running or not, sorted."""
        ...

    async def mend(self, name: str) -> str:
        """Put back what is missing around a running sandbox; what was done, in one line.

        Raises SandboxError when nothing is missing, or it cannot be put back.
        """
        ...

    def follow_address(self, name: str, url: str) -> None:
        """Call `on_moved` from now on, once `url` is no longer where the sandbox is reached."""
        ...

    def away(self) -> str | None:
        """Why nothing can be seen or made of sandboxes at present, though it may again soon; None when it can.

        Meanwhile none that was seen before is gone, and `create` waits.
        """
        ...

    def problems(self) -> Sequence[str]:
        """What keeps the driver from seeing or making sandboxes at present, a line each; none when all is well."""
        ...

    async def nodes(self) -> Sequence[dict[str, Any]]:
        """The machines sandboxes run on, by name: each as `node` of an inspection, and the "sandboxes" on it."""
        ...

    async def image_cache(self) -> Mapping[str, Any]:
        """Whether images are pulled to the nodes ahead, as the diagnose answer has it."""
        ...

    async def close(self) -> None:
        """Release watches and descriptors; who is still in `wait_gone` is cancelled. Sandboxes live on."""
        ...
