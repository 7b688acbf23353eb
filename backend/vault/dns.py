"""DNS for a walled sandbox: only names it may connect to are looked up, so that names carry nothing outside."""

import asyncio
import struct
from typing import Any, Final

from backend.domain.egress import BadHost, normal
from backend.vault.sessions import BLOCKED, Session
from backend.vault.upstream import Refused, Unreachable, Upstreams

_A, _AAAA, _IN = 1, 28, 1
_SECONDS: Final = 5
_NO_ERROR, _FORMAT_ERROR, _SERVER_FAILURE, _NOT_IMPLEMENTED, _REFUSED = 0, 1, 2, 4, 5
_QUESTIONS: Final = 128
"""Questions answered at a time."""
_NAMES: Final = 4_096
_ANSWERS: Final = 16
_HTTPS: Final = 443


class Resolver(asyncio.DatagramProtocol):
    """Answers questions on one sandbox's own socket."""

    def __init__(self, session: Session, upstreams: Upstreams) -> None:
        self._session = session
        self._upstreams = upstreams
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._session.connections.add(self)

    def datagram_received(self, data: bytes, source: Any) -> None:
        if len(self._tasks) < _QUESTIONS:
            task = asyncio.ensure_future(self._answer(data, source))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def connection_lost(self, error: Exception | None) -> None:
        self._session.connections.discard(self)
        for task in self._tasks:
            task.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _answer(self, data: bytes, source: Any) -> None:
        answer = await self.answer(data)
        if answer and self._transport is not None:
            self._transport.sendto(answer, source)

    async def answer(self, data: bytes) -> bytes:
        """The answer to a question, b"" to what is none."""
        if len(data) < 12 or data[2] & 0x80:
            return b""
        number, flags, questions = struct.unpack_from("!HHH", data)
        if flags & 0x7800:
            return _reply(number, flags, _NOT_IMPLEMENTED, b"", [])
        question = _question(data) if questions == 1 else None
        if question is None:
            return _reply(number, flags, _FORMAT_ERROR, b"", [])
        name, kind, family, raw = question
        try:
            host = normal(name)
        except BadHost:
            return _reply(number, flags, _REFUSED, raw, [])
        # No port is known yet: a rule for any port of the host will do.
        ports = [_HTTPS, 80, *(rule.port for rule in self._session.policy.allow if rule.port)]
        verdicts = [self._session.verdict(host, port) for port in dict.fromkeys(ports)]
        port = next((port for port, each in zip(dict.fromkeys(ports), verdicts, strict=True) if each.allowed), None)
        if port is None:
            self._session.note(BLOCKED, "DNS", host, 53, "", verdicts[0].rule)
            return _reply(number, flags, _REFUSED, raw, [])
        if family != _IN or kind not in (_A, _AAAA):
            return _reply(number, flags, _NO_ERROR, raw, [])
        try:
            addresses = await self._upstreams.resolve(self._session, host, port)
        except Refused as refused:
            self._session.note(BLOCKED, "DNS", host, 53, "", str(refused))
            return _reply(number, flags, _REFUSED, raw, [])
        except Unreachable:
            return _reply(number, flags, _SERVER_FAILURE, raw, [])
        fitting = [ip for ip in addresses if ip.version == (4 if kind == _A else 6)][:_ANSWERS]
        for ip in fitting:
            self._session.names_of[str(ip)] = host
            self._session.names_of.move_to_end(str(ip))
        while len(self._session.names_of) > _NAMES:
            self._session.names_of.popitem(last=False)
        return _reply(number, flags, _NO_ERROR, raw, [ip.packed for ip in fitting])


def _question(data: bytes) -> tuple[str, int, int, bytes] | None:
    """Name, type, class and the bytes of the only question."""
    labels, position = [], 12
    while position < len(data) and (length := data[position]):
        if length > 63 or position + 1 + length > len(data) or position > 12 + 254:
            return None
        labels.append(data[position + 1 : position + 1 + length])
        position += 1 + length
    if position + 5 > len(data) or not labels:
        return None
    kind, family = struct.unpack_from("!HH", data, position + 1)
    try:
        name = b".".join(labels).decode("ascii")
    except UnicodeDecodeError:
        return None
    return name, kind, family, data[12 : position + 5]


def _reply(number: int, flags: int, code: int, question: bytes, addresses: list[bytes]) -> bytes:
    head = struct.pack("!HHHHHH", number, 0x8080 | (flags & 0x0100) | code, 1 if question else 0, len(addresses), 0, 0)
    answers = b"".join(
        struct.pack("!HHHIH", 0xC00C, _A if len(packed) == 4 else _AAAA, _IN, _SECONDS, len(packed)) + packed
        for packed in addresses
    )
    return head + question + answers
