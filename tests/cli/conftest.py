"""What the tests of the commands share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.commands import environment
from tests.cli.scripted import KEY, Script, serving


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    return environment(home)


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Script]]:
    """Start a scripted platform; it ends with the test."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(serving(script))


@pytest.fixture
def login(home: Path) -> Callable[..., None]:
    """Write the config `lap login` would."""

    def write(base: str, key: str = KEY) -> None:
        path = home / ".lap" / "config.json"
        path.parent.mkdir(mode=0o700)
        path.write_text(json.dumps({"base": base, "key": key}))

    return write


@pytest.fixture
def platform(serve: Callable[[Script], Script], login: Callable[..., None]) -> Script:
    """A scripted platform that lap is logged in to."""
    script = serve(Script())
    login(script.base)
    return script


@pytest.fixture
def standin(home: Path) -> str:
    """A PYTHONPATH on which `python -m backend` is the stand-in."""
    package = home / "standin" / "backend"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("standin.py"), package / "__main__.py")
    return str(package.parent)
