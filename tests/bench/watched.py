"""Runs a module as a program, and notes how long each turn of its event loop takes.

`python -m tests.bench.watched REPORT MODULE ...`: on SIGUSR1 the longest turns since the last one go to REPORT.
"""

import asyncio
import json
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

KEPT = 8


class Watch:
    """The longest turns: milliseconds on the clock, milliseconds of this thread's own work, and whose turn it was."""

    def __init__(self) -> None:
        self.longest: list[tuple[float, float, str]] = []
        self._least = 1.0
        run = asyncio.Handle._run  # type: ignore[attr-defined]

        def timed(handle: Any) -> None:
            whose = handle._callback  # it is gone when the handle has run
            began, worked = time.perf_counter(), time.thread_time()
            run(handle)
            taken = (time.perf_counter() - began) * 1000
            if taken > self._least:
                self.note(taken, (time.thread_time() - worked) * 1000, whose)

        asyncio.Handle._run = timed  # type: ignore[attr-defined]

    def note(self, taken: float, worked: float, whose: Any) -> None:
        task = getattr(whose, "__self__", None)
        name = task.get_coro().__qualname__ if isinstance(task, asyncio.Task) else getattr(whose, "__qualname__", "")
        if isinstance(task, asyncio.Task):
            name = f"{name} of {task.get_name()}"
        self.longest = sorted([*self.longest, (taken, worked, name or repr(whose)[:120])], reverse=True)[:KEPT]
        if len(self.longest) == KEPT:
            self._least = self.longest[-1][0]

    def report(self, path: Path) -> None:
        """Write the turns noted, and begin anew."""
        coming = path.with_suffix(".new")
        coming.write_text(json.dumps(self.longest))
        coming.rename(path)
        self.longest, self._least = [], 1.0


def main() -> None:
    watch, path = Watch(), Path(sys.argv[1])
    signal.signal(signal.SIGUSR1, lambda *_: watch.report(path))
    sys.argv = sys.argv[2:]
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # its turns cannot be seen; asyncio's are longer
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
