"""Credentials in the text frames of WebSockets."""

import json
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from backend.vault.frames import Frames
from backend.vault.limits import WHOLE_BODY
from tests.vault.conftest import REAL, Box
from tests.vault.servers import Trust


def change(text: bytes) -> bytes:
    return text.replace(b"stub", b"a longer value")


def read(data: bytes, *, mask: bool) -> list[Frame]:
    """The frames that a stream consists of, as the library reads them."""
    reader = StreamReader()
    reader.feed_data(data)
    found = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=mask)
        try:
            next(parsing)
        except StopIteration as done:
            found.append(done.value)
    return found


OPCODES = st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING])
PAYLOADS = st.one_of(
    st.binary(max_size=125),
    st.sampled_from(
        [b"stub", b"stubs and stub " * 8, b"x" * 126, b"stub" * 5_000, b"x" * 65_536, b"stub" + b"x" * 65_530]
    ),
)


@given(st.lists(st.tuples(OPCODES, PAYLOADS, st.booleans()), max_size=5), st.booleans(), st.data())
def test_texts_are_changed_wherever_the_stream_is_cut(
    given_frames: list[tuple[Opcode, bytes, bool]], mask: bool, data: st.DataObject
) -> None:
    sent = []
    for opcode, payload, end in given_frames:
        payload = payload[:125] if opcode is Opcode.PING else payload
        sent.append(Frame(opcode, payload, fin=True if opcode is Opcode.PING else end))
    stream = b"".join(frame.serialize(mask=mask) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    frames = Frames(change)
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    got = read(b"".join(frames.feed(piece) for piece in pieces), mask=mask)
    wanted, text = [], False
    for frame in sent:
        text = frame.opcode is Opcode.TEXT or (text and frame.opcode is not Opcode.BINARY)
        changes = frame.opcode is Opcode.TEXT or (frame.opcode is Opcode.CONT and text)
        wanted.append((frame.opcode, change(bytes(frame.data)) if changes else bytes(frame.data), frame.fin))
    assert [(frame.opcode, bytes(frame.data), frame.fin) for frame in got] == wanted


def test_what_is_too_long_or_of_an_extension_passes() -> None:
    compressed = bytearray(Frame(Opcode.TEXT, b"stub" * 50).serialize(mask=True))
    compressed[0] |= 0x40
    for stream in (Frame(Opcode.TEXT, b"stub" + b"x" * WHOLE_BODY).serialize(mask=True), bytes(compressed)):
        frames = Frames(change)
        assert frames.feed(stream[:100]) == stream[:100]
        assert frames.feed(stream[100:]) == stream[100:]


@pytest.mark.parametrize("as_json", [True, False])
async def test_a_stub_in_a_message(box: Box, trust: Trust, as_json: bool) -> None:
    got: list[str | bytes] = []

    async def repeat(socket: ServerConnection) -> None:
        async for message in socket:
            got.append(message)
            await socket.send(message)

    async with serve(repeat, "127.0.0.1", 0, ssl=trust.context("api.example.test")) as server:
        port = server.sockets[0].getsockname()[1]
        box.names["api.example.test"] = ["127.0.0.1"]
        credentials = {"TOKEN": REAL, "OTHER": ("for-another", ["else.test"])}
        made = box.open(credentials=credentials, reachable=[["api.example.test", port]])
        async with connect(
            f"wss://api.example.test:{port}/",
            proxy=box.proxy(),
            ssl=ssl.create_default_context(cafile=str(box.certificate)),
        ) as socket:
            message = json.dumps({"auth": made["TOKEN"]}) if as_json else f"auth {made['TOKEN']}"
            for text in (message, f"for another {made['OTHER']}", "x" * 70_000, made["TOKEN"].encode()):
                await socket.send(text)
                assert await socket.recv() == text  # the server has repeated the real one
    assert got[0] == (json.dumps({"auth": REAL}) if as_json else f"auth {REAL}")
    assert got[1] == f"for another {made['OTHER']}"
    assert got[3] == made["TOKEN"].encode()  # binary is not changed
    assert {note.kind for note in box.notes()} == {"swapped", "missed"}
