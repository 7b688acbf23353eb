"""What both ends of HTTP/2 need: bodies in and out under its flow control."""

import asyncio
from collections import deque
from collections.abc import Callable

import h2.connection
import h2.exceptions

from backend.vault.bodies import Body
from backend.vault.limits import STALL_SECONDS
from backend.vault.link import Closed, Link
from backend.vault.messages import Response


class Inbox:
    """Data of one stream on its way in. What is not read yet keeps the sender's window closed."""

    def __init__(self, http: h2.connection.H2Connection, number: int, flush: Callable[[], None]) -> None:
        self._http = http
        self._number = number
        self._flush = flush
        self._pieces: deque[tuple[bytes, int]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self.ended = False

    def put(self, data: bytes, size: int) -> None:
        self._pieces.append((data, size))
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        if not self.ended:
            self._error = error
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self, seconds: float) -> bytes:
        """The next piece, b"" at the end. Raises Closed."""
        while True:
            while self._pieces:
                data, size = self._pieces.popleft()
                self._acknowledge(size)
                if data:
                    return data
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._waiter
            except TimeoutError:
                raise Closed("nothing came in time") from None
            finally:
                self._waiter = None

    def discard(self) -> None:
        """Give back the window of what nobody reads."""
        while self._pieces:
            self._acknowledge(self._pieces.popleft()[1])

    def _acknowledge(self, size: int) -> None:
        if size:
            try:
                self._http.acknowledge_received_data(size, self._number)
            except h2.exceptions.ProtocolError:
                return
            self._flush()


class Window:
    """Waits until the other end takes more."""

    def __init__(self, http: h2.connection.H2Connection, flush: Callable[[], None]) -> None:
        self._http = http
        self._flush = flush
        self._opened = asyncio.Event()

    def wake(self) -> None:
        self._opened.set()
        self._opened = asyncio.Event()

    async def room(self, number: int) -> int:
        """How many bytes may be sent on a stream now, at least one. Raises Closed."""
        while True:
            try:
                size = min(self._http.local_flow_control_window(number), self._http.max_outbound_frame_size)
            except h2.exceptions.ProtocolError as error:
                raise Closed("the stream has ended") from error
            if size > 0:
                return size
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._opened.wait()
            except TimeoutError:
                raise Closed("the other end takes nothing") from None


async def send_body(
    http: h2.connection.H2Connection,
    link: Link,
    window: Window,
    number: int,
    body: Body,
    response: Response | None = None,
) -> None:
    """Send a body and the end of its stream, with the trailers that the response has by then."""
    while data := await body.read():
        view = memoryview(data)
        while view:
            size = min(await window.room(number), len(view))
            http.send_data(number, bytes(view[:size]))
            view = view[size:]
            link.write(http.data_to_send())
            await link.drain()
    if response is not None and response.trailers:
        http.send_headers(number, response.trailers, end_stream=True)
    else:
        http.end_stream(number)
    link.write(http.data_to_send())
