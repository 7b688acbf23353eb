"""What the drivers of tests have in common: nothing to wait for, nothing to know."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backend.sandboxes.contract import Inspection, SandboxError


class PlainDriver:
    """The part of contract.SandboxDriver that most tests do not care about."""

    on_moved: Callable[[str, str], None] = staticmethod(lambda _name, _url: None)

    async def waiting_for(self, name: str) -> str | None:
        return None

    async def logs(self, name: str, tail_lines: int, since_seconds: int | None = None) -> str:
        return ""

    async def inspect(self, name: str) -> Inspection:
        nothing = {"exists": False, "error": "this stand-in knows nothing"}
        return Inspection(nothing, nothing, nothing, nothing)

    async def mend(self, name: str) -> str:
        raise SandboxError("nothing to mend")

    def follow_address(self, name: str, url: str) -> None:
        pass

    def away(self) -> str | None:
        return None

    def problems(self) -> Sequence[str]:
        return []

    async def nodes(self) -> Sequence[dict[str, Any]]:
        return []

    async def image_cache(self) -> Mapping[str, Any]:
        return {"daemonset_exists": False}

    async def close(self) -> None:
        pass
