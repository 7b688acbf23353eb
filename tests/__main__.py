"""Runs everything that must pass: lint, format, types, tests. Extra arguments go to pytest."""

import os
import subprocess
import sys

WORKERS = min(8, 2 * (os.cpu_count() or 1))
"""Tests wait for processes more than they compute."""

QUICK = (("ruff", "check", "."), ("ruff", "format", "--check", "."))
TYPES = ("mypy",)
TESTS = ("pytest", "-n", str(WORKERS), "--dist", "loadgroup")


def main() -> int:
    """Run the quick checks in turn, then the types beside the tests; the exit code is that of the first that failed."""
    # The tests start hundreds of programs of ours: none of them should have to compile its sources anew.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def command(module: str, *arguments: str) -> list[str]:
        print("$ python -m", module, *arguments, flush=True)
        return [sys.executable, "-m", module, *arguments]

    for check in QUICK:
        code = subprocess.run(command(*check), check=False, env=environment).returncode
        if code:
            return code
    with subprocess.Popen(command(*TYPES), env=environment, stdout=subprocess.PIPE, text=True) as types:
        code = subprocess.run(command(*TESTS, *sys.argv[1:]), check=False, env=environment).returncode
        told, _ = types.communicate()
    print("mypy:", told.strip(), flush=True)
    return types.returncode or code


if __name__ == "__main__":
    sys.exit(main())
