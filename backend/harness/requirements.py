"""Installs an agent's Python requirements beside its home's own packages."""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from backend.harness.adapters import SetupError
from backend.harness.files import PRIVATE, write
from backend.harness.processes import Processes

TIMEOUT_SECONDS = 1800.0
"""The last resort: the platform gives a phase less."""
TARGET = ".local/lib/python-agent"
LISTED = PurePosixPath(".local/lib/python-agent.txt")
MAX_SAID = 1_200


async def install(
    processes: Processes, requirements: str, *, home: Path, env: Mapping[str, str], on_line: Callable[[str], None]
) -> None:
    """Installs `requirements` (pip's format) into TARGET below `home`. Raises SetupError with uv's last lines."""
    write(home, LISTED, requirements.encode(), PRIVATE)
    python = shutil.which("python3", path=env["PATH"]) or sys.executable  # The one that the agent will run.
    argv = [_uv(), "pip", "install", "--target", str(home / TARGET), "--python", python, "-r", str(home / LISTED)]
    argv += ["--link-mode", "copy"]  # The agent could change a shared cache through hard links.
    try:
        code, lines = await processes.run(
            argv, env={**env, "NO_COLOR": "1"}, cwd=home, timeout=TIMEOUT_SECONDS, on_line=on_line
        )
    except FileNotFoundError as error:
        raise SetupError("uv was not found. Install it with `pip install uv` for the platform's Python.") from error
    except TimeoutError as error:
        raise SetupError(f"installing took longer than {TIMEOUT_SECONDS:.0f} s. Ask for fewer packages.") from error
    if code != 0:
        said = "\n".join(line.strip() for line in lines[-8:] if line.strip())[-MAX_SAID:]
        raise SetupError(f"uv pip install failed: {said or f'exit code {code}'}\nCorrect the agent's requirements.")


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.is_file() else shutil.which("uv") or "uv"
