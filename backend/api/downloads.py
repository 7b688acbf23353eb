"""Bodies that are passed on while they arrive, from a sandbox or a file."""

import logging

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from backend.services.harness_client import HarnessUnreachable
from backend.services.sessions import Download

logger = logging.getLogger(__name__)

SAFE_HEADERS = {
    "cache-control": "no-store",
    # What a sandbox gives is never to act in a browser in the name of the platform.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "x-content-type-options": "nosniff",
}


class Passed(StreamingResponse):
    """Sends a download and releases what it holds, also when the client goes away or never reads.

    When its source breaks the response stays unfinished, so that the client sees that it did not get all.
    """

    def __init__(self, download: Download, media_type: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(download.pieces, media_type=media_type, headers={**SAFE_HEADERS, **(headers or {})})
        self._download = download

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._download.held:
            try:
                await super().__call__(scope, receive, send)
            except HarnessUnreachable as error:
                logger.warning("%s was cut off: %s", scope["path"], error)
