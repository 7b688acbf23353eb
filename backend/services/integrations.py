"""Integrations: installing one in a workspace, binding agents to it, and taking its webhooks in (LAP REST 7.6)."""

import asyncio
import hashlib
import secrets
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from backend.domain import clock
from backend.integrations.linear import webhooks
from backend.integrations.linear.client import LinearAway, LinearClient, LinearError, LinearRefused, Tokens
from backend.services.errors import NotFound, Unavailable, agent_not_found
from backend.settings import Settings
from backend.store import agents
from backend.store import integrations as store
from backend.store.database import Database, Row, Transaction
from backend.store.secrets import Cipher, DecryptError

LINEAR: Final = "linear"
STATE_BYTES: Final = 16
STATE_SECONDS: Final = 600
STATE_LENGTH: Final = 2 * STATE_BYTES
MAX_CODE: Final = 2_000
REFRESH_SECONDS: Final = 300
"""An access token with less time left is renewed before it is used."""

PROVIDERS: Final = {LINEAR: {"display_name": "Linear", "icon": "linear", "docs_url": "https://linear.app/developers"}}


class OAuthFailed(Exception):
    """An authorization did not come to its end; the text says why, without any secret."""


class WebhookRefused(Exception):
    """A webhook that is not carried out. `status` is the HTTP status, the text the reason (LAP harness 7.1)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class IntegrationsService:
    """Installs with their tokens, bindings, and deliveries as far as the store; services.linear carries them out."""

    def __init__(self, database: Database, cipher: Cipher, settings: Settings) -> None:
        self._database = database
        self._cipher = cipher
        self._renewing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._webhook_secret = _text(settings.linear_webhook_secret)
        self.on_delivery: Callable[[], None] = lambda: None
        """Called once a delivery is stored."""
        self.linear: LinearClient | None = None
        """None unless all settings of Linear are given."""
        if settings.linear_client_id and settings.linear_client_secret and self._webhook_secret:
            self.linear = LinearClient(
                client_id=settings.linear_client_id,
                client_secret=_text(settings.linear_client_secret),
                app_base=settings.linear_app_base,
                api_base=settings.linear_api_base,
            )

    async def aclose(self) -> None:
        """Close all connections."""
        if self.linear is not None:
            await self.linear.aclose()

    async def providers(self, agent_id: str | None) -> list[dict[str, Any]]:
        """All integrations, with the binding of one agent if it is asked for. Raises NotFound for an unknown one."""
        async with self._database.read() as tx:
            if agent_id is not None and not await agents.known(tx, agent_id):
                raise agent_not_found(agent_id)
            return [await self._provider(tx, name, agent_id) for name in PROVIDERS]

    async def _provider(self, tx: Transaction, name: str, agent_id: str | None) -> dict[str, Any]:
        bound = await store.binding(tx, agent_id, name) if agent_id is not None else None
        return {
            "id": name,
            **PROVIDERS[name],
            "enabled": self.linear is not None,
            "has_manifest": False,
            "installs": [
                {
                    "install_id": row["id"],
                    "workspace_id": row["workspace_id"],
                    "workspace_name": row["workspace_name"],
                }
                for row in await store.installs(tx, name)
            ],
            "binding": _binding(bound) if bound else None,
        }

    async def authorize(self, provider: str, base_url: str) -> str:
        """Where to agree to an install; within ten minutes the callback gets its end. Raises NotFound."""
        linear = self._enabled(provider)
        state = secrets.token_hex(STATE_BYTES)
        redirect_uri = f"{base_url}/api/integrations/oauth/{provider}/callback"
        values = {
            "digest": _digest(state),
            "integration_id": provider,
            "redirect_uri": redirect_uri,
            "expires_at": _in(STATE_SECONDS),
        }
        async with self._database.begin() as tx:
            await store.add_state(tx, values, _in(-STATE_SECONDS))
        return linear.authorize_url(redirect_uri, state)

    async def install(self, provider: str, *, code: str, state: str, error: str) -> Row:
        """The install that an authorization ends with. Raises NotFound, OAuthFailed, Unavailable."""
        linear = self._enabled(provider)
        begun = None
        if 0 < len(state) <= STATE_LENGTH:
            async with self._database.begin() as tx:  # whatever comes of it, the state is used up
                begun = await store.take_state(tx, _digest(state))
        if begun is None:
            raise OAuthFailed("OAuth state not found: start the install anew")
        if begun["expires_at"] <= clock.now():
            raise OAuthFailed("OAuth state expired: start the install anew")
        if begun["integration_id"] != provider:
            raise OAuthFailed("OAuth state belongs to a different integration")
        if error:
            raise OAuthFailed(f"{PROVIDERS[provider]['display_name']} says: {error[:200]}")
        if not 0 < len(code) <= MAX_CODE:
            raise OAuthFailed("the code is missing: start the install anew")
        try:
            tokens = await linear.exchange(code, begun["redirect_uri"])
            workspace = await linear.workspace(tokens.access)
        except LinearError as failed:
            raise Unavailable(str(failed)) from failed
        now = clock.now()
        values = {
            "id": str(uuid.uuid4()),
            "integration_id": provider,
            "workspace_id": workspace.id,
            "workspace_name": workspace.name,
            "app_user_id": workspace.app_user_id,
            **self._sealed(tokens),
            "scope": tokens.scope,
            "created_at": now,
            "updated_at": now,
        }
        async with self._database.begin() as tx:
            return await store.add_install(tx, values)

    async def bind(self, agent_id: str, provider: str, install_id: str) -> dict[str, Any]:
        """Let an agent work for a workspace; of several, the one bound last gets what comes. Raises NotFound."""
        _known(provider)
        async with self._database.begin() as tx:
            if not await agents.known(tx, agent_id):
                raise agent_not_found(agent_id)
            install = await store.install(tx, install_id)
            if install is None or install["integration_id"] != provider:
                raise NotFound(f"install '{install_id}' not found")
            values = {
                "id": str(uuid.uuid4()),
                "agent_id": agent_id,
                "integration_id": provider,
                "install_id": install_id,
                "enabled": True,
                "created_at": clock.now(),
            }
            await store.bind(tx, values, install)
        return _binding({**values, "workspace_name": install["workspace_name"]})

    async def unbind(self, agent_id: str, provider: str) -> int:
        """Undo that; how many bindings there were. Sessions go on. Raises NotFound."""
        _known(provider)
        async with self._database.begin() as tx:
            if not await agents.known(tx, agent_id):
                raise agent_not_found(agent_id)
            return await store.unbind(tx, agent_id, provider)

    async def receive(self, provider: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Take a webhook in; False when there is nothing to do. `headers` have lower-case names.

        Nothing is looked up before the signature is found good. Raises WebhookRefused.
        """
        if provider not in PROVIDERS or self.linear is None:
            raise WebhookRefused(404, f"unknown integration '{provider}'")
        if not webhooks.is_genuine(self._webhook_secret, body, headers.get("linear-signature", "")):
            raise WebhookRefused(401, "bad signature")
        try:
            payload = webhooks.parsed(body)
            if not webhooks.is_fresh(payload, time.time()):
                raise WebhookRefused(401, "webhookTimestamp is too old, or missing")
            workspace_id = webhooks.workspace_of(payload)
            digest = hashlib.sha256(body).hexdigest()
            stored = await self._store(
                provider, workspace_id, payload, _delivery_id(headers) or f"body {digest}", digest
            )
        except webhooks.BadPayload as error:
            raise WebhookRefused(400, str(error)) from error
        except IntegrityError:  # the same twice at the same moment
            raise WebhookRefused(409, "this delivery has come before") from None
        if stored:
            self.on_delivery()
        return stored

    async def _store(
        self, provider: str, workspace_id: str, payload: Mapping[str, Any], delivery: str, digest: str
    ) -> bool:
        async with self._database.begin() as tx:
            if await store.is_known(tx, delivery, digest):
                raise WebhookRefused(409, "this delivery has come before")
            install = await store.install_in(tx, provider, workspace_id)
            if install is None:
                raise WebhookRefused(404, "install not found")
            event = webhooks.event_of(payload, install["app_user_id"])
            if event is None:
                return False
            if event.kind in ("opened", "assigned") and await store.bound_agent(tx, install["id"]) is None:
                raise WebhookRefused(404, "no agent bound to this install")
            if event.kind in ("prompted", "stopped") and not await _is_ours(tx, install["id"], event.agent_session_id):
                raise WebhookRefused(404, "no session for that external id")
            now = clock.now()
            values = {
                "id": str(uuid.uuid4()),
                "install_id": install["id"],
                "delivery": delivery,
                "body_digest": digest,
                "event": event.json(),
                "state": store.WAITING,
                "due_at": now,
                "received_at": now,
            }
            await store.add_delivery(tx, values)
        return True

    async def access_token(self, install_id: str, *, refused: str | None = None) -> str:
        """A token good for some minutes more; not `refused`, which Linear does not take any more.

        Raises LinearError, NotFound.
        """
        assert self.linear is not None
        async with self._renewing[install_id]:  # a refresh token can be used once
            async with self._database.read() as tx:
                row = await store.install(tx, install_id)
            if row is None:
                raise NotFound(f"install '{install_id}' not found")
            try:
                token = self._cipher.decrypt(row["access_token"])
                refresh = self._cipher.decrypt(row["refresh_token"]) if row["refresh_token"] else None
            except DecryptError as error:
                raise LinearRefused(str(error)) from error
            soon = row["expires_at"] is not None and clock.seconds_since(row["expires_at"]) > -REFRESH_SECONDS
            if token != refused and not soon:
                return token
            if refresh is None:
                if token != refused and clock.seconds_since(row["expires_at"]) < 0:
                    return token
                raise LinearRefused(
                    f"the access to workspace {row['workspace_name']} is over: install the integration again"
                )
            try:
                tokens = await self.linear.refresh(refresh)
            except LinearAway:
                if token != refused and clock.seconds_since(row["expires_at"]) < 0:
                    return token
                raise
            values = self._sealed(tokens)
            if tokens.refresh is None:  # it goes on with the one it has
                del values["refresh_token"]
            async with self._database.begin() as tx:
                await store.change_install(tx, install_id, {**values, "updated_at": clock.now()})
            return tokens.access

    def _enabled(self, provider: str) -> LinearClient:
        _known(provider)
        if self.linear is None:
            raise NotFound(
                f"integration '{provider}' is not set up: set LINEAR_CLIENT_ID, LINEAR_CLIENT_SECRET and "
                "LINEAR_WEBHOOK_SECRET"
            )
        return self.linear

    def _sealed(self, tokens: Tokens) -> dict[str, Any]:
        return {
            "access_token": self._cipher.encrypt(tokens.access),
            "refresh_token": self._cipher.encrypt(tokens.refresh) if tokens.refresh else None,
            "expires_at": _in(tokens.expires_in) if tokens.expires_in else None,
        }


async def _is_ours(tx: Transaction, install_id: str, agent_session_id: str) -> bool:
    """Whether there is a session for it, or will be: what opens it was taken in, but is not carried out yet."""
    if await store.link(tx, install_id, agent_session_id) is not None:
        return True
    coming = (row for row in await store.deliveries(tx, store.WAITING) if row["install_id"] == install_id)
    return any(row["event"]["agent_session_id"] == agent_session_id for row in coming)


def _known(provider: str) -> None:
    if provider not in PROVIDERS:
        raise NotFound(f"unknown integration '{provider}'")


def _binding(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "binding_id": row["id"],
        "install_id": row["install_id"],
        "workspace_name": row["workspace_name"],
        "enabled": row["enabled"],
    }


def _delivery_id(headers: Mapping[str, str]) -> str:
    given = headers.get("linear-delivery", "")
    return given if len(given) <= webhooks.MAX_ID and given.isprintable() else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _in(seconds: float) -> str:
    return clock.text(datetime.now(UTC) + timedelta(seconds=seconds))


def _text(secret: Any) -> str:
    return secret.get_secret_value() if secret is not None else ""
