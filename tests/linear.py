"""A stand-in for Linear: its OAuth server, the part of its GraphQL schema that agents use, and its signed webhooks.

    async with Linear() as linear: ...
    python -m tests.linear --port 4100 --key KEY --agent AGENT   # by hand: LINEAR_APP_BASE=LINEAR_API_BASE=its address

It refuses what Linear would refuse: other OAuth parameters than those it was set up with, codes and refresh tokens used
twice, wrong bearers, and operations or inputs that are not in the schema.
"""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import secrets
import time
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CLIENT_ID = "linear-client"
CLIENT_SECRET = "linear-client-secret"
WEBHOOK_SECRET = "linear-webhook-secret"
ORGANIZATION = {"id": "org-1", "name": "Acme <Inc>", "urlKey": "acme"}
APP_USER = "app-user-1"
SCOPE = "read,write,app:assignable,app:mentionable"
MAX_BODY = 20_000

# What the operations may be given, as the schema has it: required keys, then optional ones.
INPUTS: dict[str, tuple[set[str], set[str]]] = {
    "agentActivityCreate": ({"agentSessionId", "content"}, {"id", "ephemeral", "signal", "signalMetadata"}),
    "agentSessionCreateOnIssue": ({"issueId"}, {"externalUrls"}),
    "agentSessionUpdate": ({"externalUrls"}, set()),
}
VARIABLES = {
    "viewer": "",
    "agentActivityCreate": "($input: AgentActivityCreateInput!)",
    "agentSessionCreateOnIssue": "($input: AgentSessionCreateOnIssue!)",
    "agentSessionUpdate": "($id: String!, $input: AgentSessionUpdateInput!)",
}
BODY_TYPES = {"thought", "response", "error", "elicitation"}


class Linear:
    """`activities` are those posted, each with its `agentSessionId`; `links` the addresses shown; `problems` what it
    had to refuse for being wrong. `away` answers 503, `expires_in` is what new tokens get.
    """

    def __init__(self, port: int = 0) -> None:
        self.activities: list[dict[str, Any]] = []
        self.links: dict[str, str] = {}
        self.problems: list[str] = []
        self.opened_on: list[str] = []
        self.token_calls: list[dict[str, str]] = []
        self.expires_in: int | None = 86_400
        self.away = False
        self.redirect_uri: str | None = None
        self._codes: dict[str, str] = {}
        self._access: set[str] = set()
        self._refresh: set[str] = set()
        self._ids: set[str] = set()
        app = Starlette(
            routes=[
                Route("/oauth/token", self._token, methods=["POST"]),
                Route("/graphql", self._graphql, methods=["POST"]),
            ]
        )
        self._config = uvicorn.Config(app, port=port, log_level="error", access_log=False, lifespan="off")
        self._server = uvicorn.Server(self._config)
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        self.url = ""

    async def __aenter__(self) -> "Linear":
        self._socket = self._config.bind_socket()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._task = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task
        self._socket.close()

    def agree(self, authorize_url: str) -> tuple[str, str]:
        """An administrator agrees; the code and state that the callback gets. Checks the request."""
        parts = urlsplit(authorize_url)
        query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        state, self.redirect_uri = query.pop("state"), query.pop("redirect_uri")
        assert authorize_url.startswith(f"{self.url}/oauth/authorize?")
        wanted = {"client_id": CLIENT_ID, "response_type": "code", "scope": SCOPE, "actor": "app"}
        assert query == wanted, query
        assert re.fullmatch("[0-9a-f]{32}", state), "128 bits"
        code = secrets.token_hex()
        self._codes[code] = self.redirect_uri
        return code, state

    def revoke(self) -> None:
        """Take no access token any more that was given so far."""
        self._access.clear()

    def told(self, agent_session_id: str) -> list[tuple[str, str]]:
        """Type and body of what was posted in an agent session."""
        return [
            (activity["content"]["type"], activity["content"]["body"])
            for activity in self.activities
            if activity["agentSessionId"] == agent_session_id
        ]

    async def _token(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.token_calls.append(form)
        if self.away:
            return Response(status_code=503)
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return JSONResponse({"error": "invalid_client"}, 401)
        if form["grant_type"] == "authorization_code":
            good = self._codes.pop(form["code"], None) == form["redirect_uri"]
        else:
            good = form["grant_type"] == "refresh_token" and form["refresh_token"] in self._refresh
            self._refresh.discard(form.get("refresh_token", ""))
        if not good:
            return JSONResponse({"error": "invalid_grant", "error_description": "used up <b>or</b> unknown"}, 400)
        access, refresh = f"lin_oauth_{secrets.token_hex()}", secrets.token_hex()
        self._access.add(access)
        self._refresh.add(refresh)
        answer = {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "scope": SCOPE}
        return JSONResponse(answer | ({"expires_in": self.expires_in} if self.expires_in else {}))

    async def _graphql(self, request: Request) -> Response:
        if self.away:
            return Response(status_code=503)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self._access:
            error = {"message": "Authentication required", "extensions": {"code": "AUTHENTICATION_ERROR"}}
            return JSONResponse({"errors": [error]}, 401)
        body = await request.json()
        try:
            return JSONResponse({"data": self._resolved(body["query"], body["variables"])})
        except ValueError as error:
            self.problems.append(str(error))
            refusal = {"message": str(error), "extensions": {"code": "INVALID_INPUT"}}
            return JSONResponse({"errors": [refusal]}, 400)

    def _resolved(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        shape = re.fullmatch(r"(query|mutation) \w+ ?(\([^)]*\))? ?\{ ?(\w+)(.*)\}", query, re.DOTALL)
        if shape is None:
            raise ValueError(f"not a document this stand-in reads: {query}")
        kind, declared, field, rest = shape.groups()
        if field not in VARIABLES or (declared or "") != VARIABLES[field]:
            raise ValueError(f"no such operation: {query}")
        if (kind == "query") != (field == "viewer") or rest.count("{") != rest.count("}"):
            raise ValueError(f"malformed document: {query}")
        if field == "viewer":
            if rest.strip() != "{ id name } organization { id name urlKey }":
                raise ValueError(f"unknown selection: {rest}")
            return {"viewer": {"id": APP_USER, "name": "Agent"}, "organization": ORGANIZATION}
        given = variables["input"]
        required, optional = INPUTS[field]
        if not required <= given.keys() <= required | optional:
            raise ValueError(f"{field}: wrong input {sorted(given)}")
        return {field: {"success": True, **getattr(self, f"_{field}")(variables, given)}}

    def _agentActivityCreate(self, _variables: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        content = given["content"]
        if content.keys() != {"type", "body"} or content["type"] not in BODY_TYPES or not content["body"].strip():
            raise ValueError(f"agentActivityCreate: wrong content {content}")
        if len(content["body"]) > MAX_BODY:
            raise ValueError("agentActivityCreate: the body is too long")
        if uuid.UUID(given["id"]).version != 4 or given["id"] in self._ids:
            raise ValueError("agentActivityCreate: id must be a fresh UUID v4")
        self._ids.add(given["id"])
        self.activities.append(given)
        return {}

    def _agentSessionCreateOnIssue(self, _variables: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        self.opened_on.append(given["issueId"])
        return {"agentSession": {"id": f"proactive-{len(self.opened_on)}"}}

    def _agentSessionUpdate(self, variables: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        [link] = given["externalUrls"]
        if link.keys() != {"label", "url"}:
            raise ValueError(f"agentSessionUpdate: wrong link {link}")
        self.links[variables["id"]] = link["url"]
        return {}


def issue(number: int = 1, **fields: Any) -> dict[str, Any]:
    """An issue as webhooks have it."""
    return {
        "id": f"issue-{number}",
        "identifier": f"ENG-{number}",
        "title": "Login <fails>",
        "url": f"https://linear.app/acme/issue/ENG-{number}",
        "description": "Steps:\n1. log in",
        "teamId": "team-1",
        **fields,
    }


def session_event(action: str, agent_session_id: str = "as-1", **fields: Any) -> dict[str, Any]:
    """An AgentSessionEvent; `comment` of the session and `text`, `signal`, `user` of the activity as they are given."""
    comment, text = fields.pop("comment", None), fields.pop("text", None)
    session = {
        "id": agent_session_id,
        "creatorId": "user-1",
        "creator": {"id": "user-1", "name": "Ann Lee"},
        "appUserId": APP_USER,
        "organizationId": ORGANIZATION["id"],
        "issue": fields.pop("issue", issue()),
        "comment": {"id": "c-1", "body": comment} if comment else None,
        "status": "pending",
        "type": "commentThread",
    }
    payload = {"type": "AgentSessionEvent", "action": action, "agentSession": session}
    if action == "prompted":
        payload["agentActivity"] = {
            "id": str(uuid.uuid4()),
            "agentSessionId": agent_session_id,
            "userId": fields.pop("user", "user-1"),
            "content": {"type": "prompt", "body": text},
            "signal": fields.pop("signal", None),
        }
    return stamped(payload | fields)


def issue_event(action: str, before: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A plain webhook on an issue; `before` is what has changed, as it was."""
    actor = {"id": fields.pop("actor", "user-1"), "name": "Ann Lee"}
    payload = {"type": "Issue", "action": action, "actor": actor, "data": issue(**fields)}
    return stamped(payload | ({"updatedFrom": before} if before is not None else {}))


def stamped(payload: dict[str, Any]) -> dict[str, Any]:
    """With what every webhook has."""
    return {
        "organizationId": ORGANIZATION["id"],
        "webhookId": "hook-1",
        "createdAt": "2026-05-01T00:00:00.000Z",
        "webhookTimestamp": time.time_ns() // 1_000_000,
        **payload,
    }


def signed(body: bytes, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    """The headers of a delivery, signed as Linear signs."""
    return {
        "content-type": "application/json; charset=utf-8",
        "linear-delivery": str(uuid.uuid4()),
        "linear-event": "AgentSessionEvent",
        "linear-signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        "user-agent": "Linear-Webhook",
    }


async def _by_hand(arguments: argparse.Namespace) -> None:
    """Install, bind, and have an issue assigned; then print what is posted until it is interrupted."""
    async with Linear(arguments.port) as linear, httpx.AsyncClient(base_url=arguments.platform) as platform:
        key = {"authorization": f"Bearer {arguments.key}"}
        print(f"Linear's stand-in is at {linear.url}")
        answer = await platform.get("/api/integrations/oauth/linear/authorize", headers=key)
        code, state = linear.agree(answer.headers["location"])
        page = await platform.get("/api/integrations/oauth/linear/callback", params={"code": code, "state": state})
        print(page.status_code, page.text)
        [install] = (await platform.get("/api/v1/integrations", headers=key)).json()["providers"][0]["installs"]
        bind = f"/api/v1/managed_agents/agents/{arguments.agent}/integrations/linear/bind"
        print((await platform.post(bind, json={"install_id": install["install_id"]}, headers=key)).text)
        body = json.dumps(session_event("created", issue=issue(title=arguments.title))).encode()
        hook = await platform.post("/api/integrations/webhooks/linear", content=body, headers=signed(body))
        print(hook.status_code, hook.text)
        shown = 0
        while True:
            for activity in linear.activities[shown:]:
                print(json.dumps(activity))
                shown += 1
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=4100)
    parser.add_argument("--platform", default="http://127.0.0.1:3000")
    parser.add_argument("--key", required=True)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--title", default="Fix the login")
    asyncio.run(_by_hand(parser.parse_args()))
