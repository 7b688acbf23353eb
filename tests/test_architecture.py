"""The import arrows of the design: who may use whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("backend", "lapconsole")

# What each part may import of ours, itself aside. Anything not listed is free within its own program.
ALLOWED = {
    "backend.domain": (),
    "backend.store": ("backend.domain",),
    "backend.sandboxes": ("backend.domain",),
    "backend.harness": ("backend.domain", "lapconsole.terminal"),
    "backend.vault": ("backend.domain",),
    "backend.integrations": ("backend.domain",),
    "backend.services": (
        "backend.domain",
        "backend.store",
        "backend.sandboxes",
        "backend.vault",
        "backend.integrations",
        "backend.settings",
    ),
    "backend.api": ("backend.domain", "backend.store", "backend.sandboxes", "backend.services", "backend.settings"),
    "backend.settings": ("backend.domain",),
    "backend.app": ("backend",),
    "backend.__main__": ("backend",),
    "lapconsole.client": (),
    "lapconsole.terminal": ("lapconsole.client",),
    "lapconsole.live": ("lapconsole.client",),
    "lapconsole.widgets": (
        "lapconsole.client",
        "lapconsole.live",
        "lapconsole.terminal",
        "lapconsole.keys",
        "lapconsole.themes",
    ),
}
HEADLESS = "lapconsole.terminal.emulator"
"""The emulator and all it imports: no Textual, nothing of the network, so that the harness may use it."""
NOT_HEADLESS = ("textual", "rich", "httpx", "websockets", "lapconsole.client")
DRAWS_NOTHING = ("backend", "lapconsole.client", "lapconsole.live")


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours with its file."""
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


FILES = dict(modules())


def imports(name: str) -> set[str]:
    """The modules that a module of ours names in its imports, wherever they stand."""
    path = FILES[name]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            # `from package import module` names a module only if there is one.
            found |= {full if (full := f"{base}.{alias.name}") in FILES else base for alias in node.names}
    return found


def within(name: str, parts: tuple[str, ...]) -> bool:
    """Whether a module is one of `parts`, or in one of them."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def test_there_is_something_to_check() -> None:
    assert {"backend.domain.phases", "backend.store.tables", "lapconsole.client.platform"} <= FILES.keys()
    assert "backend.domain.clock" in imports("backend.store.events")


@pytest.mark.parametrize("name", sorted(FILES))
def test_arrows(name: str) -> None:
    used = {module for module in imports(name) if within(module, OURS) and module not in OURS}
    for part, allowed in ALLOWED.items():
        if within(name, (part,)):
            wrong = {module for module in used if not within(module, (part, *allowed))}
            assert not wrong, f"{name} must not import {', '.join(sorted(wrong))}"
    other = "lapconsole" if within(name, ("backend",)) else "backend"
    bridge = (HEADLESS,) if within(name, ("backend.harness",)) else ()
    across = {module for module in used if within(module, (other,)) and not within(module, bridge)}
    assert not across, f"{name} must not import {', '.join(sorted(across))} of the other program"


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if within(name, DRAWS_NOTHING)])
def test_what_draws_nothing_imports_no_textual(name: str) -> None:
    assert not {module for module in imports(name) if within(module, ("textual", "rich"))}


@pytest.mark.skipif(HEADLESS not in FILES, reason="the emulator is not there yet")
def test_the_emulator_is_headless() -> None:
    seen: set[str] = set()
    waiting = [HEADLESS]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        used = imports(name)
        wrong = {module for module in used if within(module, NOT_HEADLESS)}
        assert not wrong, f"{name}, which the emulator needs, must not import {', '.join(sorted(wrong))}"
        # Importing a module runs the packages above it.
        parents = {name.rpartition(".")[0]} if "." in name else set()
        waiting += [module for module in used | parents if module in FILES]
