"""Linear's OAuth and GraphQL API: installs, and what is posted into agent sessions there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

SCOPE: Final = "read,write,app:assignable,app:mentionable"
SECONDS: Final = 15.0
MAX_ANSWER: Final = 1024 * 1024
MAX_TOKEN: Final = 4096
REASON: Final = 300

WHO: Final = "query Me { viewer { id name } organization { id name urlKey } }"
ACTIVITY: Final = (
    "mutation AgentActivityCreate($input: AgentActivityCreateInput!) { agentActivityCreate(input: $input) { success } }"
)
OPEN_SESSION: Final = (
    "mutation AgentSessionCreateOnIssue($input: AgentSessionCreateOnIssue!) "
    "{ agentSessionCreateOnIssue(input: $input) { success agentSession { id } } }"
)
UPDATE_SESSION: Final = (
    "mutation AgentSessionUpdate($id: String!, $input: AgentSessionUpdateInput!) "
    "{ agentSessionUpdate(id: $id, input: $input) { success } }"
)


class LinearError(Exception):
    """Linear did not do what it was asked. The text says why, without any secret."""


class LinearAway(LinearError):
    """It could not be asked, or asks to be left alone for now: try again later."""


class LinearRefused(LinearError):
    """It will not do it, however often it is asked."""


class LinearUnauthorized(LinearError):
    """The token is not, or no more, good."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an install can speak with. `expires_in` is in seconds, None for ever."""

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    expires_in: int | None
    scope: str


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the app was installed, and its own user there."""

    id: str
    name: str
    app_user_id: str


class LinearClient:
    """Speaks for one OAuth application. `app_base` is where people go, `api_base` where programs do."""

    def __init__(self, *, client_id: str, client_secret: str, app_base: str, api_base: str) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._app_base = app_base
        self._api_base = api_base
        import httpx  # it takes a tenth of the platform's start, and few are bound to Linear

        self._http = httpx.AsyncClient(timeout=SECONDS, follow_redirects=False)
        self._away = httpx.HTTPError

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def authorize_url(self, redirect_uri: str, state: str) -> str:
        """Where an administrator of a workspace agrees to the install, as the app and not as themselves."""
        query = {
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "scope": SCOPE,
            "state": state,
            "actor": "app",
        }
        return f"{self._app_base}/oauth/authorize?{urlencode(query)}"

    async def exchange(self, code: str, redirect_uri: str) -> Tokens:
        """The tokens for a code that the callback got. Raises LinearError."""
        return await self._token({"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri})

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens; a new refresh token takes the old one's place. Raises LinearError."""
        return await self._token({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def workspace(self, access_token: str) -> Workspace:
        """Whose token it is. Raises LinearError."""
        data = await self._graphql(access_token, WHO, {})
        viewer, organization = _object(data, "viewer"), _object(data, "organization")
        name = organization.get("name") or organization.get("urlKey")
        return Workspace(_id(organization), str(name or "Linear")[:200], _id(viewer))

    async def create_activity(
        self, access_token: str, agent_session_id: str, content: Mapping[str, Any], activity_id: str
    ) -> None:
        """Post into an agent session. `activity_id` (UUIDv4) makes that it appears once, also when told twice."""
        given = {"agentSessionId": agent_session_id, "content": dict(content), "id": activity_id}
        data = await self._graphql(access_token, ACTIVITY, {"input": given})
        _successful(data, "agentActivityCreate")

    async def open_agent_session(self, access_token: str, issue_id: str) -> str:
        """A new agent session on an issue; returns its id."""
        data = await self._graphql(access_token, OPEN_SESSION, {"input": {"issueId": issue_id}})
        return _id(_object(_successful(data, "agentSessionCreateOnIssue"), "agentSession"))

    async def link_session(self, access_token: str, agent_session_id: str, label: str, url: str) -> None:
        """Show in an agent session where to find it on the platform."""
        given = {"externalUrls": [{"label": label, "url": url}]}
        data = await self._graphql(access_token, UPDATE_SESSION, {"id": agent_session_id, "input": given})
        _successful(data, "agentSessionUpdate")

    async def _token(self, form: Mapping[str, str]) -> Tokens:
        form = {**form, "client_id": self._client_id, "client_secret": self._client_secret}
        status, answer = await self._post("/oauth/token", data=form)
        if status != 200:
            raise LinearRefused(f"Linear gave no token: {_oauth_reason(answer, status)}")
        access, refresh = answer.get("access_token"), answer.get("refresh_token")
        if not isinstance(access, str) or not _is_token(access):
            raise LinearRefused("Linear gave no token: its answer has no usable access_token")
        seconds = answer.get("expires_in")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 2**31:
            seconds = None
        scope = answer.get("scope")
        told = " ".join(map(str, scope)) if isinstance(scope, list) else str(scope or "")
        return Tokens(access, refresh if _is_token(refresh) else None, int(seconds) if seconds else None, told[:500])

    async def _graphql(self, access_token: str, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The `data` of the answer. Raises LinearError."""
        headers = {"authorization": f"Bearer {access_token}"}
        status, answer = await self._post(
            "/graphql", json={"query": query, "variables": dict(variables)}, headers=headers
        )
        errors = answer.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        extensions = first.get("extensions")
        code = extensions.get("code") if isinstance(extensions, dict) else None
        reason = _line(first.get("message")) or f"status {status}"
        if status == 401 or code == "AUTHENTICATION_ERROR":
            raise LinearUnauthorized(f"Linear does not take the token: {reason}")
        if code == "RATELIMITED":
            raise LinearAway(f"Linear asks for fewer requests: {reason}")
        data = answer.get("data")
        if status != 200 or errors or not isinstance(data, dict):
            raise LinearRefused(f"Linear refused: {reason}")
        return data

    async def _post(self, path: str, **request: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer. Raises LinearAway."""
        try:
            async with self._http.stream("POST", f"{self._api_base}{path}", **request) as response:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_ANSWER:
                        raise LinearAway(f"Linear answered with more than {MAX_ANSWER} bytes")
        except self._away as error:
            raise LinearAway(f"Linear cannot be reached: {str(error) or type(error).__name__}") from error
        if response.status_code == 429 or response.status_code >= 500:
            raise LinearAway(f"Linear answered with status {response.status_code}")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        return response.status_code, answer if isinstance(answer, dict) else {}


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TOKEN and all("!" <= letter <= "~" for letter in value)


def _oauth_reason(answer: Mapping[str, Any], status: int) -> str:
    told = [_line(answer.get(name)) for name in ("error", "error_description")]
    return ": ".join(filter(None, told)) or f"status {status}"


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    if not isinstance(value, dict):
        raise LinearRefused(f"Linear's answer has no {name}")
    return value


def _successful(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    payload = _object(data, name)
    if payload.get("success") is not True:
        raise LinearRefused(f"Linear did not do it: {name} was no success")
    return payload


def _id(thing: Mapping[str, Any]) -> str:
    value = thing.get("id")
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise LinearRefused("Linear's answer has no usable id")
    return value


def _line(text: Any) -> str:
    return " ".join(text.split())[:REASON] if isinstance(text, str) else ""
