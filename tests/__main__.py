"""Runs everything that must pass: lint, format, types, tests. Extra arguments go to pytest."""

import os
import subprocess
import sys

WORKERS = min(8, 2 * (os.cpu_count() or 1))
"""Tests wait for processes more than they compute."""

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("pytest", "-n", str(WORKERS), "--dist", "loadgroup"),
)


def main() -> int:
    """Run each check in turn; the first that fails ends the run with its exit code."""
    # The tests start hundreds of programs of ours: none of them should have to compile its sources anew.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for module, *arguments in CHECKS:
        command = [sys.executable, "-m", module, *arguments]
        if module == "pytest":
            command += sys.argv[1:]
        print("$ python -m", *command[2:], flush=True)
        code = subprocess.run(command, check=False, env=environment).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
