"""Rules of the warm pool (LAP REST 6): what a sandbox is made of before its session is known, for whom, and when again.

A warm sandbox is set up whole, agent and all, but knows of no session: its agent has no SESSION_ID.
"""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

PROVISIONING: Final = "provisioning"
WARM: Final = "warm"
DEAD: Final = "dead"
STATUSES: Final[tuple[str, ...]] = (PROVISIONING, WARM, DEAD)
"""A sandbox that was claimed is its session's, and has no row in the pool any more."""
LIVE: Final[tuple[str, ...]] = (PROVISIONING, WARM)

PREFIX: Final = "w-"
"""How the names of sandboxes of the pool begin; they keep them as a session's sandbox."""

REASON_LIMIT: Final = 500
FIRST_RETRY_SECONDS: Final = 60
LAST_RETRY_SECONDS: Final = 3600

_OF_ONE_SESSION: Final = frozenset({"title"})
_VARIABLES_OF_ONE_SESSION: Final = frozenset({"SESSION_ID"})


def fingerprint(key: bytes, hand_over: Mapping[str, Any]) -> str:
    """Of all that a hand-over sets up, but for what merely names its session.

    A session may have a warm sandbox if, and only if, their fingerprints are equal: whatever was changed since, and
    whatever the session has of its own, makes them differ. Keyed, because what it is made from holds secrets.
    """
    shared = {name: value for name, value in hand_over.items() if name not in _OF_ONE_SESSION}
    shared["env"] = {name: value for name, value in hand_over["env"].items() if name not in _VARIABLES_OF_ONE_SESSION}
    text = json.dumps(shared, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def next_agents(candidates: Sequence[str], have: Mapping[str, int], free: int) -> list[str]:
    """The agents that get the next `free` sandboxes.

    `candidates` are ordered by their last use, the latest first; `have` says how many each has. Who has the fewest
    comes first, so that one busy agent may fill the pool but never keeps others out of it.
    """
    counts = Counter(have)
    chosen: list[str] = []
    while candidates and len(chosen) < free:
        agent_id = min(candidates, key=lambda candidate: counts[candidate])
        counts[agent_id] += 1
        chosen.append(agent_id)
    return chosen


def retry_seconds(failures: int) -> int:
    """How long an agent gets no new sandbox after so many failures in a row: doubling, up to an hour."""
    return min(FIRST_RETRY_SECONDS << min(failures - 1, 10), LAST_RETRY_SECONDS)
