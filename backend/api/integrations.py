"""Routes of integrations: installing, binding, webhooks (LAP REST 7.6, LAP harness 7.1)."""

import html

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from backend.api.bodies import documented, read_bytes, read_json
from backend.api.context import Responses, documented_refusals, services_of
from backend.api.document import Route
from backend.api.errors import refusal
from backend.api.models import ApiBinding, BindingCreate, Integrations, Unbound
from backend.services.errors import NotFound, Unavailable
from backend.services.integrations import OAuthFailed, WebhookRefused

WEBHOOK_LIMIT = 1024 * 1024

router = APIRouter(tags=["integrations"], route_class=Route)

_BINDING = "/api/v1/managed_agents/agents/{agent_id}/integrations/{provider}/bind"
_HTML: Responses = {
    status: {"content": {"text/html": {"schema": {"type": "string"}}}} for status in (200, 400, 404, 502)
}
_PAGE_HEADERS = {
    "cache-control": "no-store",  # its address has a code in it
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@router.get("/api/v1/integrations", responses={200: {"model": Integrations}, **documented_refusals(404)})
async def page(request: Request, agent_id: str | None = None) -> Response:
    """All integrations with their installs, and the binding of `agent_id` where it is given."""
    return JSONResponse({"providers": await services_of(request).integrations.providers(agent_id or None)})


@router.post(
    _BINDING,
    responses={200: {"model": ApiBinding}, **documented_refusals(400, 404, 413)},
    openapi_extra=documented(BindingCreate),
)
async def bind(request: Request, agent_id: str, provider: str) -> Response:
    """Let the agent work for an install, in place of the one it had. Of several agents the one bound last gets the
    work.
    """
    body = await read_json(request, BindingCreate)
    return JSONResponse(await services_of(request).integrations.bind(agent_id, provider, body.install_id))


@router.delete(_BINDING, responses={200: {"model": Unbound}, **documented_refusals(404)})
async def unbind(request: Request, agent_id: str, provider: str) -> Response:
    """Undo that. Sessions that were opened go on."""
    return JSONResponse({"deleted": await services_of(request).integrations.unbind(agent_id, provider)})


@router.get(
    "/api/integrations/oauth/{provider}/authorize",
    status_code=302,
    response_class=RedirectResponse,
    responses=documented_refusals(404),
)
async def authorize(request: Request, provider: str) -> Response:
    """To where an administrator of a workspace agrees to the install, within ten minutes."""
    services = services_of(request)
    base = services.settings.lap_base_url or str(request.base_url).rstrip("/")
    return RedirectResponse(
        await services.integrations.authorize(provider, base), 302, headers={"cache-control": "no-store"}
    )


@router.get("/api/integrations/oauth/{provider}/callback", response_class=HTMLResponse, responses=_HTML)
async def callback(request: Request, provider: str, code: str = "", state: str = "", error: str = "") -> Response:
    """Where the browser comes back to; a page for who agreed. Needs no key: `state` is good once."""
    try:
        install = await services_of(request).integrations.install(provider, code=code, state=state, error=error)
    except OAuthFailed as failed:
        return _page(400, "The install did not work", str(failed))
    except NotFound as failed:
        return _page(404, "There is no such integration", str(failed))
    except Unavailable as failed:
        return _page(502, "The install did not work", f"{failed}. Start the install anew.")
    text = f"Installed in {install['workspace_name']}. Bind an agent to it now; this page can be closed."
    return _page(200, "Installed", text)


@router.post(
    "/api/integrations/webhooks/{provider}", status_code=202, responses=documented_refusals(400, 401, 404, 409, 413)
)
async def webhook(request: Request, provider: str) -> Response:
    """What the other side tells, signed by it: 202 once it is stored, to be carried out soon; 204 for what is ignored.

    409 for what has come before.
    """
    body = await read_bytes(request, WEBHOOK_LIMIT)
    try:
        accepted = await services_of(request).integrations.receive(provider, request.headers, body)
    except WebhookRefused as refused:
        return refusal(refused.status, str(refused))
    return JSONResponse({"accepted": True}, 202) if accepted else Response(status_code=204)


def _page(status: int, title: str, text: str) -> Response:
    title, text = html.escape(title), html.escape(text)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1><p>{text}</p></body></html>"
    )
    return HTMLResponse(page, status, _PAGE_HEADERS)
