"""Runs everything that must pass: lint, format, types, tests. Extra arguments go to pytest."""

import subprocess
import sys

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("pytest", "-n", "2", "--dist", "loadgroup"),
)


def main() -> int:
    """Run each check in turn; the first that fails ends the run with its exit code."""
    for module, *arguments in CHECKS:
        command = [sys.executable, "-m", module, *arguments]
        if module == "pytest":
            command += sys.argv[1:]
        print("$ python -m", *command[2:], flush=True)
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
