"""The platform, which kills itself where it is told: `python -m tests.e2e.killed_at WHEN WHAT ...`.

WHEN is `before` or `after` the transaction that writes WHAT, a phase or a column, for the first time of a session that
was made by this process: what earlier ones left, it may bring up.
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
    add, transition, commit = sessions.add, sessions.transition, Database._commit
    reached = False
    mine = set()

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def watched_add(tx: Any, row: Any) -> Any:
        mine.add(row["id"])
        return await add(tx, row)

    async def watched_transition(tx: Any, session_id: str, **change: Any) -> Any:
        nonlocal reached
        values = change["values"]
        if session_id in mine and (values.get("phase") == what or values.get(what)):
            reached = True
            if when == "before":
                die()
        return await transition(tx, session_id, **change)

    async def watched_commit(self: Database, *parts: Any) -> None:
        await commit(self, *parts)
        if reached:
            die()

    sessions.add, sessions.transition = watched_add, watched_transition
    Database._commit = watched_commit  # type: ignore[method-assign]
    return platform.main(sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
