"""Names for walled sandboxes."""

import struct

import pytest

from backend.vault.dns import Resolver
from tests.vault.conftest import Box


def question(name: str, kind: int = 1, number: int = 9) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


async def test_allowed_names_only(box: Box) -> None:
    box.names |= {"a.example.test": ["93.184.216.34", "2606:4700::1"], "in.example.test": ["127.0.0.1"]}
    box.open(allow=["*.example.test", "db.other.test:5432"])
    box.names["db.other.test"] = ["10.0.0.9"]
    resolver = Resolver(box.session(), box.upstreams)

    async def asked(name: str, kind: int = 1) -> tuple[int, bytes]:
        answer = await resolver.answer(question(name, kind))
        return answer[3] & 15, answer[len(question(name)) :]

    code, answers = await asked("A.Example.TEST")
    assert code == 0 and answers.endswith(bytes([0, 4, 93, 184, 216, 34]))
    code, answers = await asked("a.example.test", 28)
    assert code == 0 and len(answers) == 28
    assert (await asked("a.example.test", 16))[0] == 0  # TXT: nothing there
    assert (await asked("db.other.test"))[0] == 0
    assert box.session().names_of == {
        **dict.fromkeys(("93.184.216.34", "2606:4700::1"), "a.example.test"),
        "10.0.0.9": "db.other.test",
    }
    before = list(box.asked)
    assert await asked("c2VjcmV0.evil.test") == (5, b"")
    assert box.asked == before  # no resolver outside has heard of it
    assert (await asked("in.example.test"))[0] == 5
    assert (await asked("none.example.test"))[0] == 2
    assert {note.rule for note in box.notes()} == {"allow_out: no entry matches", "always refused: a loopback address"}


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 11, b"\0" * 12, b"\xff" * 100, question("a")[:-2], question("a" * 63 + ".b") + b"x" * 500]
)
async def test_broken_questions(box: Box, data: bytes) -> None:
    box.open()
    answer = await Resolver(box.session(), box.upstreams).answer(data)
    assert len(answer) < 600
