"""Bodies on their way through: read piece by piece, with texts replaced in them, compressed or not."""

import zlib
from typing import Final, Protocol

from backend.domain.stubs import Found, Needles, Replacer

_PIECE: Final = 256 * 1024
_GZIP: Final = zlib.MAX_WBITS | 16


class BodyError(Exception):
    """The body is not what its headers say."""


class Body(Protocol):
    """A body that comes piece by piece."""

    async def read(self) -> bytes:
        """The next piece, b"" at the end."""
        ...


class Whole:
    """A body that is there already, and can be read again."""

    __slots__ = ("_done", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._done = False

    async def read(self) -> bytes:
        if self._done:
            return b""
        self._done = True
        return self.data

    def rewind(self) -> None:
        self._done = False


class Coding:
    """Content codings that can be seen through: none, gzip and deflate, of which clients and servers have several."""

    def __init__(self, name: bytes) -> None:
        """`name` as in a Content-Encoding header. Raises BodyError for a coding that cannot be seen through."""
        self.name = name.strip().lower()
        if self.name not in (b"", b"identity", b"gzip", b"x-gzip", b"deflate"):
            raise BodyError("unknown content coding")

    @property
    def plain(self) -> bool:
        return self.name in (b"", b"identity")


class Inflater:
    """Undoes a content coding, a bounded piece at a time."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self._inflate = zlib.decompressobj(_GZIP) if coding.name != b"deflate" else None
        self._input = b""
        self._more = False

    def feed(self, data: bytes) -> None:
        self._input += data

    def take(self) -> bytes:
        """Up to a piece of what was fed; b"" when there is no more. Raises BodyError."""
        while self._input or self._more:
            if self._inflate is None:
                if len(self._input) < 2:
                    return b""
                # "deflate" is zlib's format by the book, and the naked stream of some servers.
                zlib_format = self._input[0] & 0x0F == 8 and int.from_bytes(self._input[:2], "big") % 31 == 0
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS if zlib_format else -zlib.MAX_WBITS)
            try:
                piece = self._inflate.decompress(self._input, _PIECE)
            except zlib.error as error:
                raise BodyError(f"broken {self._coding.name.decode()} data") from error
            self._input = self._inflate.unconsumed_tail
            self._more = len(piece) == _PIECE  # it may hold more than its input shows
            if self._inflate.eof:
                # gzip may go on with another member.
                self._input = self._inflate.unused_data
                self._inflate = zlib.decompressobj(_GZIP if self._coding.name != b"deflate" else zlib.MAX_WBITS)
                self._input = self._input if self._input.startswith(b"\x1f\x8b") else b""
            if piece:
                return piece
        return b""


class Filtered:
    """A body with texts replaced in it; `deflate` puts the content coding back."""

    def __init__(
        self, body: Body, replacements: Needles, coding: Coding, *, deflate: bool, found: Found | None = None
    ) -> None:
        self._body = body
        self._replacer = Replacer(replacements, found)
        self._inflater = None if coding.plain else Inflater(coding)
        self._deflate = None
        if deflate and not coding.plain:
            self._deflate = zlib.compressobj(6, wbits=zlib.MAX_WBITS if coding.name == b"deflate" else _GZIP)
        self._ended = False

    async def read(self) -> bytes:
        while not self._ended:
            if self._inflater is not None and (piece := self._inflater.take()):
                data = self._replacer.feed(piece)
            else:
                piece = await self._body.read()
                if not piece:
                    self._ended = True
                    rest = self._replacer.finish()
                    if self._deflate is not None:
                        rest = self._deflate.compress(rest) + self._deflate.flush()
                    return rest
                if self._inflater is not None:
                    self._inflater.feed(piece)
                    continue
                data = self._replacer.feed(piece)
            if self._deflate is not None:
                # What pauses must not get stuck in here.
                data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            if data:
                return data
        return b""


class Fitted:
    """A body with texts replaced by ones of the same length, so that its length stays what was announced."""

    def __init__(self, body: Body, replacements: Needles) -> None:
        fitted = {old: new[: len(old)].ljust(len(old), b"*") for old, new in replacements.by.items()}
        self._body = Filtered(body, Needles(fitted), Coding(b""), deflate=False)

    async def read(self) -> bytes:
        return await self._body.read()


def inflated(data: bytes, coding: Coding, most: int) -> bytes | None:
    """All of a compressed text; None when it is more than `most`. Raises BodyError."""
    inflater = Inflater(coding)
    inflater.feed(data)
    parts, size = [], 0
    while piece := inflater.take():
        size += len(piece)
        if size > most:
            return None
        parts.append(piece)
    return b"".join(parts)


def deflated(data: bytes, coding: Coding) -> bytes:
    """The reverse."""
    deflate = zlib.compressobj(6, wbits=zlib.MAX_WBITS if coding.name == b"deflate" else _GZIP)
    return deflate.compress(data) + deflate.flush()
