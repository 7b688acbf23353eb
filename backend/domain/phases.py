"""The ten bring-up phases of a session: their order, who reports them, how long each may last (seed 000)."""

from types import MappingProxyType
from typing import Final, Literal

Owner = Literal["platform", "harness"]

PLATFORM: Final = "platform"
HARNESS: Final = "harness"

OWNERS: Final = MappingProxyType[str, Owner](
    {
        "creating_sandbox": PLATFORM,
        "pod_pending": PLATFORM,
        "pod_running": PLATFORM,
        "injecting_files": PLATFORM,
        "waiting_harness": PLATFORM,
        "harness_ready": PLATFORM,
        "cloning_repo": HARNESS,
        "installing_deps": HARNESS,
        "harness_listening": HARNESS,
        "ready": PLATFORM,
    }
)
PHASES: Final[tuple[str, ...]] = tuple(OWNERS)
HARNESS_REPORTED: Final[frozenset[str]] = frozenset(phase for phase, owner in OWNERS.items() if owner == HARNESS)

DETAIL_LIMIT: Final = 500
"""Longest `phase_detail` in characters (LAP REST 3.2)."""

DEFAULT_TIMEOUTS: Final = MappingProxyType[str, float](
    {
        "creating_sandbox": 60,
        "pod_pending": 300,
        "pod_running": 60,
        "injecting_files": 60,
        "waiting_harness": 120,
        "harness_ready": 60,
        "cloning_repo": 600,
        "installing_deps": 600,
        "harness_listening": 120,
    }
)
"""Seconds a session may stay in each phase. `ready` is where it rests, so it has none."""


def step(phase: str) -> int:
    """1 for `creating_sandbox` up to 10 for `ready`. Raises ValueError for a name that is no phase."""
    return PHASES.index(phase) + 1
