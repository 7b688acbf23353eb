"""`python -m backend.vault`: a vault process.

--directory DIR [--port N]
    The vault of one platform on this machine, which starts it.
--serve [--host ADDRESS] [--port N] [--control-port N] [--health-port N]
    A vault for sandboxes elsewhere. The key it shares with its platforms is in LAP_VAULT_KEY, or in the file that
    LAP_VAULT_KEY_FILE names.
"""

import argparse
import asyncio
import ctypes
import json
import logging
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

PROXY_PORT: Final = 14322
CONTROL_PORT: Final = 14323
HEALTH_PORT: Final = 14324
_PR_SET_DUMPABLE: Final = 4


def _hide() -> None:
    """Let no process of the same user read this one's memory, nor stop it in a debugger; and leave no core behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _shared_key() -> str:
    """Raises ValueError, OSError."""
    from backend.vault.identity import MIN_KEY

    key = os.environ.pop("LAP_VAULT_KEY", "")
    if not key and (path := os.environ.get("LAP_VAULT_KEY_FILE")):
        key = Path(path).read_text()
    if len(key.strip()) < MIN_KEY:
        raise ValueError(f"LAP_VAULT_KEY, or the file that LAP_VAULT_KEY_FILE names, must have {MIN_KEY} characters")
    return key.strip()


async def _serve(options: argparse.Namespace) -> None:
    def ready(told: dict[str, int]) -> None:
        print(json.dumps({**told, "pid": os.getpid()}), flush=True)
        if not options.serve:  # nobody reads on
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.close(null)

    if options.serve:
        from backend.vault.service import Service

        ports = (options.port, options.control_port, options.health_port)
        await Service(_shared_key()).run(options.host, ports, ready)
    else:
        from backend.vault.process import Process

        await Process(options.directory).run(options.port, lambda port: ready({"port": port}))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend.vault")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--directory", type=Path)
    kind.add_argument("--serve", action="store_true")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int)
    parser.add_argument("--control-port", type=int, default=CONTROL_PORT)
    parser.add_argument("--health-port", type=int, default=HEALTH_PORT)
    options = parser.parse_args()
    if options.port is None:
        options.port = PROXY_PORT if options.serve else 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s vault: %(message)s", stream=sys.stderr)
    _hide()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
    try:
        import uvloop
    except ImportError:
        run: Callable[..., Any] = asyncio.run
    else:
        run = uvloop.run
    try:
        run(_serve(options))
    except (OSError, ValueError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
