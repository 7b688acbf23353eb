"""The console as a process: it brings a platform along, and takes only that one away again."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import LAPCONSOLE, InTerminal, run, until

Env = dict[str, str]
QUIT = "\x11"


@pytest.fixture
def console_env(env: Env, standin: str) -> Iterator[Env]:
    env |= {"PYTHONPATH": standin}
    yield env
    run(LAPCONSOLE, "down", env=env)


@pytest.fixture
def record(home: Path) -> Path:
    return home / "data" / "lapconsole" / "platform.json"


def process_of(record: Path) -> Path:
    until(record.exists, "the platform")
    return Path("/proc") / str(json.loads(record.read_text())["pid"])


def test_quitting_ends_the_platform_it_started(console_env: Env, record: Path) -> None:
    with InTerminal(LAPCONSOLE, env=console_env) as console:
        platform = process_of(record)
        console.type(QUIT)
        assert console.end() == 0
        assert not platform.exists() and not record.exists()
        assert console.mode() == console.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_both_in_order(console_env: Env, record: Path, number: signal.Signals) -> None:
    with InTerminal(LAPCONSOLE, env=console_env) as console:
        platform = process_of(record)
        console.process.send_signal(number)
        assert console.end() == 128 + number
        assert not platform.exists()
        assert console.mode() == console.before and "Traceback" not in console.shown


def test_a_platform_that_ran_before_stays(console_env: Env, record: Path) -> None:
    assert run(LAPCONSOLE, "up", "--detach", "--port", "0", env=console_env).returncode == 0
    platform = process_of(record)
    with InTerminal(LAPCONSOLE, env=console_env) as console:
        console.expect("embedded")
        console.type(QUIT)
        assert console.end() == 0
        assert platform.exists()


def test_the_master_key_is_asked_for_where_none_is_known(console_env: Env) -> None:
    with InTerminal(LAPCONSOLE, "--platform", "http://127.0.0.1:1", env=console_env) as console:
        console.expect("Master key of http://127.0.0.1:1:")
        console.type("sk-typed\n")
        console.expect("••••••••")
        console.expect("127.0.0.1:1")
        console.type(QUIT)
        assert console.end() == 0
        assert "sk-typed" not in console.shown
