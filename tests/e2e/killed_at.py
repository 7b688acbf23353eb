"""The platform, which kills itself where it is told: `python -m tests.e2e.killed_at WHEN WHAT ...`.

WHEN is `before` or `after` the transaction that writes WHAT, a phase or a column, of a session for the first time.
"""

import os
import signal
import sys
from typing import Any

from backend import __main__ as platform
from backend.store import sessions
from backend.store.database import Database


def main() -> int:
    when, what = sys.argv[1:3]
    transition, commit = sessions.transition, Database._commit
    reached = False

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def watched_transition(tx: Any, session_id: str, **change: Any) -> Any:
        nonlocal reached
        values = change["values"]
        if values.get("phase") == what or values.get(what):
            reached = True
            if when == "before":
                die()
        return await transition(tx, session_id, **change)

    async def watched_commit(self: Database, *parts: Any) -> None:
        await commit(self, *parts)
        if reached:
            die()

    sessions.transition = watched_transition
    Database._commit = watched_commit  # type: ignore[method-assign]
    return platform.main(sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
