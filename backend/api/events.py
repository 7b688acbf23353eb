"""The event feed as server-sent events, and the log behind it."""

import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from backend.api.context import documented_refusals, services_of
from backend.api.document import Route
from backend.api.models import EventPage
from backend.api.query import clamped, position, words
from backend.services.events import FeedClosed, Filter, Subscription
from backend.store import events

HEARTBEAT_SECONDS = 15.0
MAX_LOG_LIMIT = 1000

router = APIRouter(prefix="/api/v1/events", tags=["events"], route_class=Route)

_STREAM_HEADERS = {
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


@router.get("", responses={200: {"content": {"text/event-stream": {}}}, **documented_refusals(400)})
async def feed(
    request: Request,
    types: str | None = None,
    agent_id: str | None = None,
    session_id: str | None = None,
    after: str | None = None,
) -> Response:
    """Every change from now on, or after the event `after`; the header `Last-Event-ID` wins over it.

    The first frame is `feed.opened` with the `seq` the stream starts after. `feed.reset` follows when the events
    asked for are gone: list everything anew. `types` is comma-separated.
    """
    last_seen = position(request.headers.get("last-event-id"), "Last-Event-ID")
    start = position(after, "after") if last_seen is None else last_seen
    wanted = Filter(types=words(types), agent_id=agent_id, session_id=session_id)
    subscription = await services_of(request).feed.subscribe(start, wanted)
    return StreamingResponse(
        _frames(subscription), media_type="text/event-stream; charset=utf-8", headers=_STREAM_HEADERS
    )


@router.get("/log", responses={200: {"model": EventPage}, **documented_refusals(400)})
async def log(
    request: Request,
    after: str | None = None,
    session_id: str | None = None,
    agent_id: str | None = None,
    types: str | None = None,
    limit: str | None = None,
) -> Response:
    """Events after the sequence number `after` (0), oldest first; `limit` 1..1000 (1000)."""
    count = clamped(limit, MAX_LOG_LIMIT, 1, MAX_LOG_LIMIT)
    async with services_of(request).database.read() as tx:
        found = await events.read(
            tx,
            after=position(after, "after") or 0,
            limit=count + 1,
            types=words(types),
            agent_id=agent_id,
            session_id=session_id,
        )
    shown = found[:count]
    following = shown[-1].seq if len(found) > count else None
    body = f'{{"data":[{",".join(event.json() for event in shown)}],"next":{json.dumps(following)}}}'
    return Response(body, media_type="application/json")


async def _frames(subscription: Subscription) -> AsyncIterator[str]:
    yield f'event: feed.opened\ndata: {{"seq":{subscription.position}}}\n\n'
    if subscription.lost:
        yield f'event: feed.reset\ndata: {{"seq":{subscription.position}}}\n\n'
    try:
        while True:
            found = await subscription.next(HEARTBEAT_SECONDS)
            # Many events in one chunk: after a bulk change each would cost a packet of its own.
            yield "".join(_frame(event) for event in found) or ": heartbeat\n\n"
    except FeedClosed:
        return


def _frame(event: events.Event) -> str:
    return f"id: {event.seq}\nevent: {event.type}\ndata: {event.json()}\n\n"
