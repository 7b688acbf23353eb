"""The OpenAPI document against the platform that answers: every route, with what it says it takes and what it does not.

The examples are the same in every run. Sandboxes are stand-ins with one harness, which echoes.
"""

import asyncio
import re
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import pytest
import requests
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from backend.api.models import ApiError
from backend.app import create_app
from backend.settings import Settings
from tests.api.conftest import AGENTS, KEY, SESSIONS
from tests.api.stand_in import Platform, stand_in
from tests.api.talking import TalkingHarness

T = TypeVar("T")

EXAMPLES = 3
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
HEADERS = {"Authorization": f"Bearer {KEY}"}
TIMEOUT = 20

ENDLESS = {"GET /api/v1/events": {"after": "no number"}}
"""Streams without an end: what would be refused is asked of them, see test_events for the rest."""
ONLY_ENDED = {
    "GET /api/v1/managed_agents/sessions/{session_id}/events",
    "GET /api/v1/managed_agents/sessions/{session_id}/stream",
}
"""Streams that last as long as a session: asked of ones that have ended, see test_message_streams for the rest."""

OWN_SHAPE = {
    "GET /api/integrations/oauth/{provider}/callback",  # a page for people
    *(
        f"{method} /api/v1/managed_agents/sessions/{{session_id}}/opencode/{{path}}"
        for method in ("GET", "POST", "DELETE")
    ),
}


async def _screen(request: Request) -> Response:
    cells = {"columns": 1, "rows": 1, "cursor": {"x": 0, "y": 0, "visible": True}, "title": "", "alternate": False}
    shown = request.query_params["format"] == "cells"
    return JSONResponse(cells | {"lines": [[{"text": "$"}]]}) if shown else Response("$")


def _document() -> Any:
    with tempfile.TemporaryDirectory() as directory:
        loaded = Settings.load(data_dir=Path(directory), master_key=KEY).with_keys()
        return schemathesis.openapi.from_dict(create_app(loaded).openapi())


SCHEMA = _document()
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations()}


class Running:
    """A platform in a thread of its own, and the ids of things that are in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        self.http = requests.Session()
        self.http.headers.update(HEADERS)
        self.platform: Platform
        self.ids: dict[str, list[str]] = {}
        self.worn = False

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        loaded = Settings.load(data_dir=self._directory, master_key=KEY, reconcile_interval_seconds=3600).with_keys()
        harness = TalkingHarness()
        harness.answers["screen"] = _screen
        async with stand_in(loaded, harness) as self.platform:
            self._ready.set()
            await self._end.wait()
            await harness.aclose()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def populate(self) -> None:
        """Have something of each kind, whatever was done to the former."""
        platform = self.platform
        agents = [await platform.agent(harness_id=name, prompt="Be kind.") for name in ("claude-agent-sdk", "codex")]
        talking, terminal = [await platform.ready(agent) for agent in agents]
        dead = await platform.ready(agents[0])
        await platform.http.delete(f"{SESSIONS}/{dead['id']}")
        memory = await platform.http.post(f"{AGENTS}/{agents[0]['id']}/memory", json={"text": "It was the clock."})
        skill = await platform.http.post("/api/v1/skills", json={"name": "s", "content": "c"})
        self.ids = {
            "agent_id": [agents[0]["id"], agents[1]["id"]],
            "session_id": [talking["id"], terminal["id"], dead["id"]],
            "memory_id": [memory.json()["id"]],
            "skill_id": [skill.json()["id"]],
            "provider": ["linear"],
        }
        self.ended = [dead["id"], "00000000-0000-4000-8000-000000000000"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("contract")) as running:
        yield running


@pytest.mark.parametrize("label", OPERATIONS)
def test_operation(running: Running, label: str) -> None:
    """No 5xx, no status and no body that the document does not have."""
    if not running.ids or running.worn:
        running.do(running.populate())
    running.worn = label.startswith("DELETE") or label.endswith("/stop")
    operation = OPERATIONS[label]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(list(GenerationMode)))
        try:
            case = data.draw(operation.as_strategy(generation_mode=mode))
        except schemathesis.errors.SchemathesisError:
            return
        for name in case.path_parameters or {}:
            known = running.ended if label in ONLY_ENDED and name == "session_id" else running.ids.get(name)
            if known and (label in ONLY_ENDED or data.draw(st.integers(0, 3))):
                case.path_parameters[name] = data.draw(st.sampled_from(known))
        if label in ENDLESS:
            case.query = ENDLESS[label]
        response = case.call(base_url=running.platform.server.url, session=running.http, timeout=TIMEOUT)
        case.validate_response(response, checks=CHECKS)

    ask()


ODD_TEXTS = ["\x00", "\U0010ffff\u202e", "é" * 300, "%", "..;", "-1", "9" * 40, "1e400", "null", "'\"\\", "‮\ufeff"]
ODD_PATHS = ["%00", "%FF%FE", "%ED%A0%80", "%F0%9F", *(quote(text, safe="") for text in ODD_TEXTS[1:])]
ODD_BODIES = [
    *(b"", b"null", b"[]", b"0", b'"x"', b"{", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"NaN", b"{}{}", b'{"model":NaN}'),
    *(b"[" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b"9" * 5_000),
    *(
        b'{"%s":"%s"}' % (name, text)
        for name in (b"model", b"text", b"name", b"title")
        for text in (rb"\ud800", rb"\u0000")
    ),
    b'{"model":"m","name":"\\u0000\\u202e","prompt":"\\u0000","env_vars":{"\\u0000":"\\u0000"}}',
    b'{"model":"m","env_vars":{"A":"\\ud800"}}',
    b'{"name":"n","content":"\\u0000","description":"\\u0000"}',
    b'{"text":"\\u0000","priority":99999999999999999999999999,"tags":["\\u0000"]}',
    b'{"text":"t","priority":1e400}',
    b'{"parts":[{"type":"text","text":"\\u0000"},{"type":"\\u0000"}]}',
    b'{"phase":"\\u0000","detail":"\\u0000"}',
    b'{"model":"m","preload_memory_limit":-9223372036854775809}',
]


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label not in (*ENDLESS, *ONLY_ENDED)])
def test_odd_values(running: Running, label: str) -> None:
    """What no client means to send is refused, or taken for what it is: never a failure, always a documented shape."""
    if not running.ids or running.worn:
        running.do(running.populate())
    running.worn = label.startswith("DELETE") or label.endswith("/stop")
    operation = OPERATIONS[label]
    known = {name: values[0] for name, values in running.ids.items()} | {"path": "session/x/message"}
    names = [parameter.name for parameter in operation.path_parameters]
    query = [parameter.name for parameter in operation.query]
    asked: list[tuple[str, bytes | None]] = []
    for odd in ODD_PATHS:
        asked += [(operation.path.format(**known | {name: odd}), None) for name in names]
        if query:
            asked.append((f"{operation.path.format(**known)}?{'&'.join(f'{name}={odd}' for name in query)}", None))
    if operation.body:
        asked += [(operation.path.format(**known), body) for body in ODD_BODIES]
    with httpx.Client(base_url=running.platform.server.url, headers=HEADERS, trust_env=False, timeout=TIMEOUT) as http:
        for path, body in asked:
            headers = {} if body is None else {"content-type": "application/json"}
            response = http.request(operation.method.upper(), path, content=body, headers=headers)
            where = f"{path} {(body or b'')[:60]!r}: {response.status_code} {response.text[:200]}"
            assert response.status_code < 500, where
            if response.status_code >= 400 and label not in OWN_SHAPE:
                told = ApiError.model_validate(response.json())
                assert told.error, where
                assert str(response.status_code) in (*operation.definition.raw["responses"], "404", "405"), where


@pytest.mark.parametrize("label", OPERATIONS)
def test_without_a_key(running: Running, label: str) -> None:
    """Every route that is documented to need the key refuses who has none, in the shape of all refusals."""
    operation = OPERATIONS[label]
    path = re.sub(r"{[^}]+}", "x", operation.path)
    response = httpx.request(operation.method.upper(), running.platform.server.url + path, trust_env=False)
    if operation.definition.raw.get("security") == [{"masterKey": []}]:
        assert response.status_code == 401
        assert response.json() == {"error": "unauthorized", "code": "UNAUTHORIZED"}
    else:
        assert '"unauthorized"' not in response.text


def test_every_route_is_documented() -> None:
    """Nothing answers below the API but what is in the document."""
    with tempfile.TemporaryDirectory() as directory:
        app = create_app(Settings.load(data_dir=Path(directory), master_key=KEY).with_keys())
    hidden = {route.path for route in app.routes if isinstance(route, APIRoute) and not route.include_in_schema}
    assert hidden == set()
