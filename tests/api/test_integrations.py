"""Linear over HTTP: installing, binding, webhooks, and what sessions come to, against a stand-in (LAP harness 7)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from backend.app import create_app
from backend.domain import clock
from backend.services import linear as linear_service
from backend.settings import Settings
from backend.store import integrations as store
from backend.store.database import Transaction
from backend.store.secrets import Cipher
from backend.store.tables import integration_delivery, integration_install, oauth_state
from tests.api.conftest import AGENTS, SESSIONS, NoSandboxes, client_of
from tests.api.stand_in import Platform, Sandboxes, stand_in
from tests.api.talking import TalkingHarness
from tests.linear import (
    APP_USER,
    CLIENT_ID,
    CLIENT_SECRET,
    WEBHOOK_SECRET,
    Linear,
    issue_event,
    session_event,
    signed,
    stamped,
)
from tests.waiting import until

AUTHORIZE = "/api/integrations/oauth/linear/authorize"
CALLBACK = "/api/integrations/oauth/linear/callback"
WEBHOOKS = "/api/integrations/webhooks/linear"
INTEGRATIONS = "/api/v1/integrations"
ASKED = "Linear issue ENG-1: Login <fails>\nhttps://linear.app/acme/issue/ENG-1\n\nSteps:\n1. log in"
BASE = "https://lap.example.com"


@pytest.fixture
async def linear() -> AsyncIterator[Linear]:
    async with Linear() as linear:
        yield linear
        assert linear.problems == []


@pytest.fixture
def settings(settings: Settings, linear: Linear) -> Settings:
    return settings.model_copy(
        update={
            "linear_client_id": CLIENT_ID,
            "linear_client_secret": SecretStr(CLIENT_SECRET),
            "linear_webhook_secret": SecretStr(WEBHOOK_SECRET),
            "linear_app_base": linear.url,
            "linear_api_base": linear.url,
            "lap_base_url": BASE,
        }
    )


@pytest.fixture
async def harness() -> AsyncIterator[TalkingHarness]:
    harness = TalkingHarness()
    yield harness
    await harness.aclose()


@pytest.fixture
async def platform(settings: Settings, harness: TalkingHarness) -> AsyncIterator[Platform]:
    async with stand_in(settings, harness) as platform:
        yield platform


async def install(platform: Platform, linear: Linear) -> str:
    """The id of a new install."""
    answer = await platform.http.get(AUTHORIZE)
    assert answer.status_code == 302
    code, state = linear.agree(answer.headers["location"])
    page = await httpx.AsyncClient(base_url=platform.server.url).get(CALLBACK, params={"code": code, "state": state})
    assert page.status_code == 200, page.text
    [found] = (await platform.http.get(INTEGRATIONS)).json()["providers"][0]["installs"]
    return str(found["install_id"])


@pytest.fixture
async def agent(platform: Platform, linear: Linear) -> dict[str, Any]:
    """An agent that answers messages, bound to the workspace."""
    agent = await platform.agent(model="m", harness_id="claude-agent-sdk")
    await bind(platform, agent, await install(platform, linear))
    return agent


@pytest.fixture
async def terminal_agent(platform: Platform, linear: Linear) -> dict[str, Any]:
    agent = await platform.agent(harness_id="claude-code")
    await bind(platform, agent, await install(platform, linear))
    return agent


def rows(platform: Platform) -> AbstractAsyncContextManager[Transaction]:
    """The platform's own database."""
    return platform.app.state.services.database.begin()


@asynccontextmanager
async def over(settings: Settings, harness: TalkingHarness) -> AsyncIterator[Platform]:
    """A platform on a harness that outlives it."""
    platform = Platform(settings, harness, Sandboxes(settings.data_dir / "sandboxes", harness.url))
    async with platform.http, platform.server.running():
        yield platform


async def bind(platform: Platform, agent: dict[str, Any], install_id: str) -> dict[str, Any]:
    path = f"{AGENTS}/{agent['id']}/integrations/linear/bind"
    answer = await platform.http.post(path, json={"install_id": install_id})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def deliver(platform: Platform, payload: Any, status: int = 202, **headers: str) -> httpx.Response:
    """A webhook, without any key."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    async with httpx.AsyncClient(base_url=platform.server.url) as client:
        answer = await client.post(WEBHOOKS, content=body, headers={**signed(body), **headers})
    assert answer.status_code == status, answer.text
    return answer


async def sessions(platform: Platform) -> list[dict[str, Any]]:
    return (await platform.http.get(SESSIONS)).json()


async def told(linear: Linear, count: int, agent_session_id: str = "as-1") -> list[tuple[str, str]]:
    await until(lambda: len(linear.told(agent_session_id)) >= count, f"{count} activities are posted")
    return linear.told(agent_session_id)


async def opened(platform: Platform, linear: Linear) -> dict[str, Any]:
    """The session of an issue that was delegated, once it has answered."""
    await deliver(platform, session_event("created"))
    await told(linear, 3)
    [session] = await sessions(platform)
    return session


class TestInstall:
    async def test_an_install_keeps_its_tokens_to_itself(
        self, platform: Platform, linear: Linear, settings: Settings
    ) -> None:
        install_id = await install(platform, linear)
        [exchange] = linear.token_calls
        assert exchange["grant_type"] == "authorization_code"
        assert exchange["redirect_uri"] == linear.redirect_uri == f"{BASE}{CALLBACK}"
        shown = (await platform.http.get(INTEGRATIONS)).json()
        assert shown["providers"] == [
            {
                "id": "linear",
                "display_name": "Linear",
                "icon": "linear",
                "docs_url": "https://linear.app/developers",
                "enabled": True,
                "has_manifest": False,
                "installs": [{"install_id": install_id, "workspace_id": "org-1", "workspace_name": "Acme <Inc>"}],
                "binding": None,
            }
        ]
        async with rows(platform) as tx:
            row = await store.install(tx, install_id)
        assert row is not None
        cipher = Cipher(settings.encryption_key_value)
        assert cipher.decrypt(row["access_token"]).startswith("lin_oauth_")
        assert "lin_oauth_" not in row["access_token"] + row["refresh_token"]
        assert row["app_user_id"] == APP_USER

    async def test_the_page_is_escaped_and_has_no_secrets(self, platform: Platform, linear: Linear) -> None:
        code, state = linear.agree((await platform.http.get(AUTHORIZE)).headers["location"])
        async with client_of(platform.app, key=None) as anyone:
            page = await anyone.get(CALLBACK, params={"code": code, "state": state})
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-store", "no-referrer")
        assert "Acme &lt;Inc&gt;" in page.text
        assert not any(secret in page.text for secret in ("lin_oauth_", CLIENT_SECRET, code, state, "<Inc>"))

    async def test_installing_again_renews_it(self, platform: Platform, linear: Linear, agent: dict[str, Any]) -> None:
        before = (await platform.http.get(INTEGRATIONS, params={"agent_id": agent["id"]})).json()
        await install(platform, linear)
        assert (await platform.http.get(INTEGRATIONS, params={"agent_id": agent["id"]})).json() == before

    async def test_a_state_is_good_once(self, platform: Platform, linear: Linear) -> None:
        code, state = linear.agree((await platform.http.get(AUTHORIZE)).headers["location"])
        assert (await platform.http.get(CALLBACK, params={"code": code, "state": state})).status_code == 200
        again = await platform.http.get(CALLBACK, params={"code": code, "state": state})
        assert (again.status_code, "OAuth state not found" in again.text) == (400, True)

    @pytest.mark.parametrize("state", ["", "0" * 32, "x" * 100_000, "\0", "ü"])
    async def test_a_state_of_nobody(self, platform: Platform, state: str) -> None:
        page = await platform.http.get(CALLBACK, params={"code": "c", "state": state[:5000]})
        assert (page.status_code, "OAuth state not found" in page.text) == (400, True)

    async def test_a_state_that_is_too_old(self, platform: Platform, linear: Linear) -> None:
        code, state = linear.agree((await platform.http.get(AUTHORIZE)).headers["location"])
        async with rows(platform) as tx:
            row = await tx.row(select(oauth_state))
            assert row is not None
            assert 590 < -clock.seconds_since(row["expires_at"]) <= 600
            assert state not in str(row)
            await tx.execute(update(oauth_state).values(expires_at=clock.now()))
        page = await platform.http.get(CALLBACK, params={"code": code, "state": state})
        assert (page.status_code, "OAuth state expired" in page.text) == (400, True)
        assert linear.token_calls == []

    async def test_a_state_of_another_integration(self, platform: Platform, linear: Linear) -> None:
        code, state = linear.agree((await platform.http.get(AUTHORIZE)).headers["location"])
        async with rows(platform) as tx:
            await tx.execute(update(oauth_state).values(integration_id="slack"))
        page = await platform.http.get(CALLBACK, params={"code": code, "state": state})
        assert (page.status_code, "belongs to a different integration" in page.text) == (400, True)

    async def test_who_does_not_agree(self, platform: Platform, linear: Linear) -> None:
        _, state = linear.agree((await platform.http.get(AUTHORIZE)).headers["location"])
        page = await platform.http.get(CALLBACK, params={"error": "<script>denied", "state": state})
        assert page.status_code == 400
        assert "Linear says: &lt;script&gt;denied" in page.text

    async def test_a_code_that_linear_does_not_take(self, platform: Platform, linear: Linear) -> None:
        _, state = linear.agree((await platform.http.get(AUTHORIZE)).headers["location"])
        page = await platform.http.get(CALLBACK, params={"code": "guessed", "state": state})
        assert page.status_code == 502
        assert "invalid_grant: used up &lt;b&gt;or&lt;/b&gt; unknown" in page.text
        assert (await platform.http.get(INTEGRATIONS)).json()["providers"][0]["installs"] == []

    async def test_only_the_master_key_begins_one(self, platform: Platform) -> None:
        async with client_of(platform.app, key=None) as anyone:
            assert (await anyone.get(AUTHORIZE)).status_code == 401
            assert (await anyone.get(INTEGRATIONS)).status_code == 401

    async def test_an_integration_that_does_not_exist(self, platform: Platform) -> None:
        assert (await platform.http.get(AUTHORIZE.replace("linear", "x<y"))).status_code == 404
        page = await platform.http.get(CALLBACK.replace("linear", "x<y"), params={"state": "s"})
        assert (page.status_code, "x&lt;y" in page.text) == (404, True)
        assert (await platform.http.post(WEBHOOKS.replace("linear", "other"))).status_code == 404


class TestBinding:
    async def test_bind_and_unbind(self, platform: Platform, linear: Linear, agent: dict[str, Any]) -> None:
        async def shown() -> Any:
            answer = await platform.http.get(INTEGRATIONS, params={"agent_id": agent["id"]})
            return answer.json()["providers"][0]["binding"]

        first = await shown()
        assert first.keys() == {"binding_id", "install_id", "workspace_name", "enabled"}
        assert (first["workspace_name"], first["enabled"]) == ("Acme <Inc>", True)
        assert await bind(platform, agent, first["install_id"]) == await shown()
        path = f"{AGENTS}/{agent['id']}/integrations/linear/bind"
        assert (await platform.http.delete(path)).json() == {"deleted": 1}
        assert (await platform.http.delete(path)).json() == {"deleted": 0}
        assert await shown() is None
        await deliver(platform, session_event("created"), 404)

    async def test_what_cannot_be_bound(self, platform: Platform, agent: dict[str, Any]) -> None:
        mine = f"{AGENTS}/{agent['id']}/integrations"
        for path, body, status, text in (
            (f"{mine}/linear/bind", {"install_id": "nope"}, 404, "install 'nope' not found"),
            (f"{mine}/other/bind", {"install_id": "x"}, 404, "unknown integration 'other'"),
            (f"{AGENTS}/nobody/integrations/linear/bind", {"install_id": "x"}, 404, "agent 'nobody' not found"),
            (f"{mine}/linear/bind", {}, 400, "install_id"),
        ):
            answer = await platform.http.post(path, json=body)
            assert answer.status_code == status
            assert text in answer.json()["error"]
        assert (await platform.http.get(INTEGRATIONS, params={"agent_id": "nobody"})).status_code == 404

    async def test_the_last_bound_agent_gets_the_work(
        self, platform: Platform, linear: Linear, agent: dict[str, Any]
    ) -> None:
        [found] = (await platform.http.get(INTEGRATIONS)).json()["providers"][0]["installs"]
        other = await platform.agent(model="m", harness_id="claude-agent-sdk")
        await bind(platform, other, found["install_id"])
        session = await opened(platform, linear)
        assert session["agent_id"] == other["id"]


class TestWebhook:
    async def test_a_bad_signature(self, platform: Platform, agent: dict[str, Any]) -> None:
        payload = session_event("created")
        body = json.dumps(payload).encode()
        good = signed(body)["linear-signature"]
        for signature in ("", good[:-1], good.upper(), good + "0", f"sha256={good}"):
            answer = await deliver(platform, body, 401, **{"linear-signature": signature})
            assert answer.json() == {"error": "bad signature", "code": "UNAUTHORIZED"}
        await deliver(platform, body, 401, **{"linear-signature": signed(body, "another")["linear-signature"]})
        await deliver(platform, body + b" ", 401, **{"linear-signature": good})
        assert await sessions(platform) == []

    async def test_the_signature_comes_before_everything_else(self, platform: Platform) -> None:
        for body in (b"{", b"{}", json.dumps(session_event("created", organizationId="nobody")).encode()):
            answer = await deliver(platform, body, 401, **{"linear-signature": "0" * 64})
            assert answer.json()["error"] == "bad signature"

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000])
    async def test_what_is_no_json(self, platform: Platform, body: bytes) -> None:
        answer = await deliver(platform, body, 400)
        assert answer.json()["error"].startswith("invalid json")

    @pytest.mark.parametrize("offset", [-61, 61, -86_400, None, "x", True])
    async def test_a_timestamp_that_is_not_now(self, platform: Platform, agent: dict[str, Any], offset: Any) -> None:
        sent = time.time() * 1000 + offset * 1000 if type(offset) is int else offset
        answer = await deliver(platform, session_event("created", webhookTimestamp=sent), 401)
        assert "webhookTimestamp" in answer.json()["error"]
        assert await sessions(platform) == []

    async def test_a_body_that_is_too_long(self, platform: Platform) -> None:
        await deliver(platform, b" " * (1024 * 1024 + 1), 413)

    @pytest.mark.parametrize(
        ("payload", "text"),
        [
            ({"type": "AgentSessionEvent"}, "could not resolve workspace"),
            ({"type": "AgentSessionEvent", "organizationId": 7}, "could not resolve workspace"),
        ],
    )
    async def test_no_workspace(self, platform: Platform, payload: dict[str, Any], text: str) -> None:
        answer = await deliver(platform, {"webhookTimestamp": time.time() * 1000, **payload}, 400)
        assert text in answer.json()["error"]

    @pytest.mark.parametrize(
        "payload",
        [
            {"type": "AgentSessionEvent", "action": "created"},
            {"type": "AgentSessionEvent", "action": "created", "agentSession": {}},
            {"type": "AgentSessionEvent", "action": "created", "agentSession": {"id": "x" * 201}},
            {"type": "AgentSessionEvent", "action": "created", "agentSession": {"id": "a", "issue": {"id": 3}}},
            {"type": "AgentSessionEvent", "action": "prompted", "agentSession": {"id": "a"}},
            {"type": "Issue", "action": "update", "data": []},
            {"type": "AppUserNotification", "action": "issueAssignedToYou", "notification": {}},
        ],
    )
    async def test_payloads_that_are_not_as_documented(
        self, platform: Platform, agent: dict[str, Any], payload: dict[str, Any]
    ) -> None:
        await deliver(platform, stamped(payload), 400)

    async def test_unknown_workspace_agent_and_session(self, platform: Platform, linear: Linear) -> None:
        answer = await deliver(platform, session_event("created"), 404)
        assert answer.json()["error"] == "install not found"
        await install(platform, linear)
        answer = await deliver(platform, session_event("created"), 404)
        assert answer.json()["error"] == "no agent bound to this install"
        answer = await deliver(platform, session_event("prompted", text="hi"), 404)
        assert answer.json()["error"] == "no session for that external id"

    async def test_a_replay_is_refused(self, platform: Platform, linear: Linear, agent: dict[str, Any]) -> None:
        body = json.dumps(session_event("created")).encode()
        headers = signed(body)
        await deliver(platform, body, **headers)
        assert "come before" in (await deliver(platform, body, 409, **headers)).json()["error"]
        # Another id for the same body, and the same id for another body.
        await deliver(platform, body, 409)
        other = session_event("created", "as-2")
        await deliver(platform, other, 409, **{"linear-delivery": headers["linear-delivery"]})
        await told(linear, 3)
        assert len(await sessions(platform)) == 1

    async def test_the_same_at_the_same_moment(self, platform: Platform, linear: Linear, agent: Any) -> None:
        body = json.dumps(session_event("created")).encode()
        async with httpx.AsyncClient(base_url=platform.server.url) as client:
            answers = await asyncio.gather(
                *(client.post(WEBHOOKS, content=body, headers=signed(body)) for _ in range(5))
            )
        assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]

    @pytest.mark.parametrize(
        "payload",
        [
            {"type": "Comment", "action": "create", "data": {}},
            {"type": "AgentSessionEvent", "action": "something new"},
            {"type": "AppUserNotification", "action": "issueEmojiReaction"},
            {"type": ["odd"], "action": None},
            issue_event("update", {"title": "before"}),
            issue_event("update", {"title": "before"}, assigneeId=APP_USER),
            issue_event("update", {"assigneeId": None}, assigneeId="user-2"),
            issue_event("update", {"assigneeId": None}, assigneeId=APP_USER, actor=APP_USER),
            session_event("created", agentSession={"id": "a", "creatorId": APP_USER}),
            session_event("prompted", text="an echo of ours", user=APP_USER),
            session_event("prompted", text=" "),
        ],
    )
    async def test_what_is_ignored(
        self, platform: Platform, linear: Linear, agent: dict[str, Any], payload: dict[str, Any]
    ) -> None:
        now = {"webhookTimestamp": time.time() * 1000}  # the parameters are older
        answer = await deliver(platform, stamped(payload | now), 204)
        assert answer.content == b""
        assert await sessions(platform) == []

    async def test_deliveries_are_forgotten_after_a_day(self, platform: Platform, linear: Linear, agent: Any) -> None:
        await opened(platform, linear)
        async with rows(platform) as tx:
            assert (await tx.row(select(integration_delivery)))["event"] == {}  # type: ignore[index]
            await store.forget_deliveries(tx, clock.text(datetime.now(UTC) - timedelta(days=1)))
            assert await tx.row(select(integration_delivery)) is not None
            await store.forget_deliveries(tx, clock.text(datetime.now(UTC) + timedelta(seconds=1)))
            assert await tx.row(select(integration_delivery)) is None


class TestSession:
    async def test_a_delegated_issue(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: dict[str, Any]
    ) -> None:
        session = await opened(platform, linear)
        place = f"[session {session['id']}]({BASE}/sessions/{session['id']})"
        assert linear.told("as-1") == [
            ("thought", "Picking up ENG-1."),
            ("thought", f"At work in {place}."),
            ("response", f"echo: {ASKED}"),
        ]
        assert linear.links == {"as-1": f"{BASE}/sessions/{session['id']}"}
        assert harness.texts()[-1] == ASKED
        assert (session["agent_id"], session["title"], session["origin"]) == (agent["id"], "ENG-1", None)
        assert (await platform.session(session))["origin"] == {
            "integration_id": "linear",
            "external_session_id": "as-1",
            "external_ref": "ENG-1",
            "workspace_name": "Acme <Inc>",
            "url": None,
        }

    async def test_a_session_of_one_s_own_has_no_origin(self, platform: Platform, agent: dict[str, Any]) -> None:
        assert (await platform.session(await platform.create(agent)))["origin"] is None

    async def test_a_mention(self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: Any) -> None:
        await deliver(platform, session_event("created", comment="@agent look\nhere"))
        await told(linear, 3)
        assert harness.texts()[-1] == f"{ASKED}\n\n@-mention from Ann Lee:\n@agent look\nhere"

    async def test_the_comment_that_linear_writes_itself_is_left_out(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: Any
    ) -> None:
        await deliver(platform, session_event("created", comment="This thread is for an agent session with Agent."))
        await told(linear, 3)
        assert harness.texts()[-1] == ASKED

    async def test_without_an_issue(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: Any
    ) -> None:
        await deliver(platform, session_event("created", issue=None, comment="@agent hello"))
        assert (await told(linear, 3))[0] == ("thought", "Picking up task.")
        assert harness.texts()[-1] == "@-mention from Ann Lee:\n@agent hello"

    async def test_a_second_delivery_for_the_same_agent_session(
        self, platform: Platform, linear: Linear, agent: Any
    ) -> None:
        await opened(platform, linear)
        await deliver(platform, session_event("created", previousComments=[]))
        await deliver(platform, session_event("prompted", text="after it"))
        assert (await told(linear, 4))[3:] == [("response", "echo: after it")]
        assert len(await sessions(platform)) == 1

    async def test_a_follow_up(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: dict[str, Any]
    ) -> None:
        await opened(platform, linear)
        await deliver(platform, session_event("prompted", text="and now?"))
        assert (await told(linear, 4))[3] == ("response", "echo: and now?")
        assert harness.texts() == ["and now?"]

    async def test_follow_ups_wait_for_the_session(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: Any
    ) -> None:
        harness.tell(setup="running")
        await deliver(platform, session_event("created"))
        await deliver(platform, session_event("prompted", text="one"))
        await deliver(platform, session_event("prompted", text="two"))
        harness.tell(setup="done")
        assert [body for kind, body in await told(linear, 5) if kind == "response"] == [
            f"echo: {ASKED}",
            "echo: one",
            "echo: two",
        ]

    async def test_a_turn_that_fails(self, platform: Platform, linear: Linear, agent: Any) -> None:
        await opened(platform, linear)
        await deliver(platform, session_event("prompted", text="fail"))
        assert (await told(linear, 4))[3] == ("error", "no credit left")
        await deliver(platform, session_event("prompted", text="refuse"))
        kind, body = (await told(linear, 5))[4]
        assert (kind, "the model said no" in body) == ("error", True)

    async def test_stop_and_go_on(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: Any
    ) -> None:
        session = await opened(platform, linear)
        await deliver(platform, session_event("prompted", text="", signal="stop"))
        assert (await told(linear, 4))[3] == ("response", "Stopped.")
        assert (await platform.session(session))["status"] == "dead"
        await deliver(platform, session_event("prompted", text="go on"))
        assert (await told(linear, 5))[4:] == [("response", "echo: go on")]
        after = await platform.session(session)
        assert (after["status"], after["origin"]["external_session_id"]) == ("ready", "as-1")

    async def test_a_session_that_does_not_come_up(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: Any
    ) -> None:
        harness.tell(setup="failed", failure="git said no")
        await deliver(platform, session_event("created"))
        kind, body = (await told(linear, 2))[1]
        assert kind == "error"
        assert body.startswith("Failed to start session: ")
        assert "git said no" in body

    async def test_a_session_that_dies(self, platform: Platform, linear: Linear, agent: Any) -> None:
        session = await opened(platform, linear)
        platform.sandboxes.end(session, "exit code 1")
        kind, body = (await told(linear, 4))[3]
        assert (kind, "exit code 1" in body) == ("error", True)

    async def test_a_session_that_is_stopped_on_the_platform(
        self, platform: Platform, linear: Linear, agent: Any
    ) -> None:
        session = await opened(platform, linear)
        await platform.http.post(f"{SESSIONS}/{session['id']}/stop")
        kind, body = (await told(linear, 4))[3]
        assert (kind, body.startswith("The session is over: stopped")) == ("response", True)

    async def test_an_agent_that_goes_meanwhile(
        self, platform: Platform, linear: Linear, settings: Settings, agent: dict[str, Any]
    ) -> None:
        await opened(platform, linear)
        assert (await platform.http.delete(f"{AGENTS}/{agent['id']}")).status_code in (200, 204)
        await deliver(platform, session_event("prompted", text="anybody?"), 404)
        await deliver(platform, session_event("created", "as-2"), 404)

    async def test_a_long_answer_is_told_whole(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: Any
    ) -> None:
        await opened(platform, linear)
        await deliver(platform, session_event("prompted", text="y" * 9_000))
        assert (await told(linear, 4))[3] == ("response", "echo: " + "y" * 9_000)


class TestTerminal:
    async def test_what_its_state_says(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, terminal_agent: Any
    ) -> None:
        await deliver(platform, session_event("created"))
        await told(linear, 2)
        [session] = await sessions(platform)
        assert harness.bodies[-1]["initial_prompt"] == ASKED
        place = f"[session {session['id']}]({BASE}/sessions/{session['id']})"
        for state, reason, message, kind, body in (
            ("idle", "started", None, None, None),
            ("working", None, "Edit", None, None),
            (
                "waiting_for_input",
                "permission",
                "Bash: rm x",
                "elicitation",
                f"The agent asks for permission: Bash: rm x\n\nAnswer in {place}.",
            ),
            ("working", None, None, None, None),
            (
                "idle",
                "turn_finished",
                None,
                "response",
                f"The agent has finished its turn.\n\nLook at it in {place}.",
            ),
            ("idle", "exited", "exit code 7", "response", None),
            ("idle", "crashed", "signal 9", "error", None),
        ):
            before = len(linear.told("as-1"))
            since = clock.now()
            harness.tell(activity={"state": state, "reason": reason, "since": since, "message": message})
            await platform.until(
                session,
                lambda now, since=since: now["activity"] and now["activity"]["since"] == since,
                "the activity is noted",
            )
            if kind is not None:
                await told(linear, before + 1)
                assert linear.told("as-1")[-1][0] == kind
            if body is not None:
                assert linear.told("as-1")[-1][1] == body
        assert [kind for kind, _ in linear.told("as-1")] == [
            *("thought", "thought", "elicitation", "response", "response", "error")
        ]

    async def test_it_takes_no_messages(self, platform: Platform, linear: Linear, terminal_agent: Any) -> None:
        await deliver(platform, session_event("created"))
        await told(linear, 2)
        await deliver(platform, session_event("prompted", text="hi"))
        kind, body = (await told(linear, 3))[2]
        assert (kind, "takes no messages" in body, f"{BASE}/sessions/" in body) == ("response", True, True)
        await deliver(platform, session_event("prompted", text="", signal="stop"))
        await told(linear, 4)
        await deliver(platform, session_event("prompted", text="hi again"))
        kind, body = (await told(linear, 5))[4]
        assert (kind, "Assign the issue again" in body) == ("error", True)


class TestIssue:
    @pytest.mark.parametrize("field", ["assigneeId", "delegateId"])
    async def test_assigning_opens_and_unassigning_stops(
        self, platform: Platform, linear: Linear, harness: TalkingHarness, agent: Any, field: str
    ) -> None:
        await deliver(platform, issue_event("update", {field: None}, **{field: APP_USER}))
        await told(linear, 3, "proactive-1")
        assert linear.told("proactive-1")[0] == ("thought", "Picking up ENG-1.")
        assert linear.opened_on == ["issue-1"]
        assert harness.texts()[-1] == ASKED
        [session] = await sessions(platform)
        await deliver(platform, issue_event("update", {"title": "t"}, **{field: APP_USER}), 204)
        await deliver(platform, issue_event("update", {field: APP_USER}, **{field: None}))
        assert (await told(linear, 4, "proactive-1"))[3] == (
            "response",
            "Stopped: the issue is not the agent's any more.",
        )
        assert (await platform.session(session))["status"] == "dead"

    async def test_an_issue_that_is_created_assigned_and_then_removed(
        self, platform: Platform, linear: Linear, agent: Any
    ) -> None:
        await deliver(platform, issue_event("create", assigneeId=APP_USER))
        await told(linear, 3, "proactive-1")
        await deliver(platform, issue_event("remove", assigneeId=APP_USER))
        assert len(await told(linear, 4, "proactive-1")) == 4

    async def test_inbox_notifications(self, platform: Platform, linear: Linear, agent: Any) -> None:
        def notification(action: str) -> dict[str, Any]:
            told = {"issue": issue_event("x")["data"]}
            return stamped({"type": "AppUserNotification", "action": action, "notification": told})

        await deliver(platform, notification("issueAssignedToYou"))
        await told(linear, 3, "proactive-1")
        await deliver(platform, notification("issueUnassignedFromYou"))
        assert (await told(linear, 4, "proactive-1"))[3][0] == "response"

    async def test_both_kinds_of_webhooks_open_one_session(
        self, platform: Platform, linear: Linear, agent: Any
    ) -> None:
        await deliver(platform, issue_event("update", {"assigneeId": None}, assigneeId=APP_USER))
        await told(linear, 3, "proactive-1")
        await deliver(platform, session_event("created", "as-1"))
        assert await told(linear, 1) == [("thought", "Picking up ENG-1.")]
        await deliver(platform, session_event("prompted", "as-1", text="more"))
        assert (await told(linear, 2))[1] == ("response", "echo: more")
        [session] = await sessions(platform)
        assert (await platform.session(session))["origin"]["external_session_id"] == "as-1"

    async def test_the_other_way_round(self, platform: Platform, linear: Linear, agent: Any) -> None:
        await opened(platform, linear)
        await deliver(platform, issue_event("update", {"assigneeId": None}, assigneeId=APP_USER))
        await deliver(platform, session_event("prompted", text="more"))
        await told(linear, 4)
        assert (linear.opened_on, len(await sessions(platform))) == ([], 1)


class TestTokens:
    async def test_a_token_that_ends_soon_is_renewed(self, platform: Platform, linear: Linear, agent: Any) -> None:
        async with rows(platform) as tx:
            soon = clock.text(datetime.now(UTC) + timedelta(seconds=299))
            await tx.execute(update(integration_install).values(expires_at=soon))
        await opened(platform, linear)
        assert [call["grant_type"] for call in linear.token_calls] == ["authorization_code", "refresh_token"]

    async def test_one_with_more_time_is_not(self, platform: Platform, linear: Linear, agent: Any) -> None:
        async with rows(platform) as tx:
            later = clock.text(datetime.now(UTC) + timedelta(seconds=330))
            await tx.execute(update(integration_install).values(expires_at=later))
        await opened(platform, linear)
        assert len(linear.token_calls) == 1

    async def test_one_that_is_taken_no_more_is_renewed(self, platform: Platform, linear: Linear, agent: Any) -> None:
        linear.revoke()
        await opened(platform, linear)
        assert [call["grant_type"] for call in linear.token_calls] == ["authorization_code", "refresh_token"]

    async def test_linear_away(
        self, platform: Platform, linear: Linear, agent: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(linear_service, "BACK_OFF", (0.05,) * 100)
        monkeypatch.setattr(linear_service, "LOOK_SECONDS", 0.05)
        linear.away = True
        await deliver(platform, session_event("created"))
        await until(lambda: sessions(platform), "the session is opened all the same")
        await deliver(platform, issue_event("update", {"assigneeId": None}, number=2, assigneeId=APP_USER))
        linear.away = False
        assert [kind for kind, _ in await told(linear, 3)] == ["thought", "thought", "response"]
        await told(linear, 3, "proactive-1")
        assert linear.opened_on == ["issue-2"]


class TestAfterARestart:
    async def test_what_was_taken_in_is_carried_out(
        self, settings: Settings, linear: Linear, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        harness = TalkingHarness()
        with monkeypatch.context() as patch:
            patch.setattr(linear_service.LinearWork, "_carry_out", _nothing)
            patch.setattr(linear_service.LinearWork, "_post_all", _nothing)
            async with stand_in(settings, harness) as platform:
                agent = await platform.agent(model="m", harness_id="claude-agent-sdk")
                await bind(platform, agent, await install(platform, linear))
                await deliver(platform, session_event("created"))
                await deliver(platform, session_event("prompted", text="and then?"))
                assert linear.activities == []
        harness = TalkingHarness()
        async with stand_in(settings, harness) as platform:
            found = await told(linear, 4)
            assert [body for kind, body in found if kind == "response"] == [f"echo: {ASKED}", "echo: and then?"]
            assert len(await sessions(platform)) == 1
            await harness.aclose()

    async def test_an_answer_that_came_meanwhile_is_told_once(self, settings: Settings, linear: Linear) -> None:
        harness = TalkingHarness()
        async with harness.running():
            async with over(settings, harness) as platform:
                agent = await platform.agent(model="m", harness_id="claude-agent-sdk")
                await bind(platform, agent, await install(platform, linear))
                await opened(platform, linear)
                await deliver(platform, session_event("prompted", text="hold"))
                await until(lambda: harness.held, "the agent is at it")
            harness.released.set()
            async with over(settings, harness) as platform:
                assert (await told(linear, 4))[3] == ("response", "echo: hold")
                await deliver(platform, session_event("prompted", text="last"))
                assert (await told(linear, 5))[4] == ("response", "echo: last")
            await harness.aclose()
        assert [text for body in harness.got for text in [body["parts"][-1]["text"]]].count("hold") == 1


async def test_off_unless_it_is_set_up(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"linear_webhook_secret": None}), NoSandboxes())
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get(INTEGRATIONS)).json()["providers"][0]["enabled"] is False
        answer = await client.get(AUTHORIZE)
        assert (answer.status_code, "LINEAR_WEBHOOK_SECRET" in answer.json()["error"]) == (404, True)
        body = json.dumps(session_event("created")).encode()
        assert (await client.post(WEBHOOKS, content=body, headers=signed(body, ""))).status_code == 404


async def _nothing(_self: Any) -> None:
    pass
