"""The first screen must not wait for network libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["lapconsole.client", "lapconsole.live"])
def test_importing_pulls_in_no_network_library(package: str) -> None:
    code = f"import sys, {package}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not {"httpx", "httpcore", "websockets", "kubernetes", "textual", "rich", "backend"} & set(loaded)
