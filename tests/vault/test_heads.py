"""Plain heads are read without h11, and exactly as h11 reads them; what h11 refuses is never taken."""

from typing import Any

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.vault import heads
from backend.vault.limits import HEAD_BYTES

PIECE = st.one_of(
    st.sampled_from(
        [
            *(b"GET", b"POST", b"CONNECT", b" ", b"  ", b"/", b"/a?b", b"*", b"http://a/", b"HTTP/1.1", b"HTTP/1.0"),
            *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b":", b": ", b"Host: a", b"Host:", b"\r\nHost: a\r\n", b"\t", b"\0"),
            *(b"Content-Length: 5", b"content-length: 05", b"Content-Length: +5", b"Content-Length: 5, 5", b"\x0b"),
            *(b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Connection: close", b"Expect: x"),
            *(
                b"X: a b",
                b"X:  a",
                b"X: ",
                b"X: a ",
                b"X-\xe4: a",
                b"X: \xe4\x80",
                b"\r\n X: folded",
                b"200 OK",
                b"404",
            ),
        ]
    ),
    st.binary(max_size=3),
)
GOOD_FIELD = st.sampled_from(
    [
        *(b"Host: a", b"host: a:80", b"Content-Length: 5", b"Content-Length: 0", b"X: a\tb", b"X:", b"Y:c", b"Z: \xff"),
        *(b"Connection: keep-alive", b"Transfer-Encoding: chunked", b"Upgrade: websocket", b"Cookie: a=b; c=d"),
    ]
)


def message(*firsts: bytes) -> st.SearchStrategy[bytes]:
    """Heads that are nearly right, and a body or the next message."""
    fields = st.lists(st.one_of(GOOD_FIELD, GOOD_FIELD, GOOD_FIELD, PIECE), max_size=6)
    return st.builds(
        lambda first, found, rest: b"\r\n".join([first, *found]) + b"\r\n\r\n" + rest,
        st.one_of(st.sampled_from(firsts), st.lists(PIECE, max_size=6).map(b"".join)),
        fields,
        st.one_of(st.just(b""), st.binary(max_size=20), st.sampled_from([b"hello", b"GET / HTTP/1.1\r\n\r\n"])),
    )


def by_h11(connection: h11.Connection, data: bytes) -> Any:
    """The head as h11 reads it, and what follows it."""
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request | h11.Response), event
    return event


@settings(max_examples=1_000, deadline=None)
@given(message(b"GET / HTTP/1.1", b"POST /a?b=%20 HTTP/1.1", b"CONNECT a:443 HTTP/1.1", b"get http://a/ HTTP/1.1"))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n")
def test_requests(data: bytes) -> None:
    found = heads.request(data)
    if found is None:
        return
    http = h11.Connection(h11.SERVER)
    event = by_h11(http, data)  # raises where h11 refuses
    assert (found.method, found.target, found.version) == (event.method, event.target, event.http_version)
    assert found.headers == event.headers.raw_items()
    assert not found.chunked
    body = next((int(value) for name, value in event.headers if name == b"content-length"), None)
    assert found.length == body
    if not body and found.method != b"CONNECT":
        assert isinstance(http.next_event(), h11.EndOfMessage)
        assert http.trailing_data[0] == data[found.end :]


@settings(max_examples=1_000, deadline=None)
@given(message(b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.1 204 No Content", b"HTTP/1.1 100 Continue"))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
def test_responses(data: bytes) -> None:
    found = heads.response(data)
    if found is None:
        return
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"x")]))
    http.send(h11.EndOfMessage())
    event = by_h11(http, data)
    assert (found.status, found.reason) == (event.status_code, event.reason)
    assert found.headers == event.headers.raw_items()
    assert event.http_version == b"1.1"
    assert [(b"content-length", b"%d" % found.length)] == [
        (name, b"%d" % int(value)) for name, value in event.headers if name in (b"content-length", b"transfer-encoding")
    ]


@pytest.mark.parametrize(
    "more",
    [b"Content-Length: 5\r\nContent-Length: 5\r\n", b"X: " + b"a" * HEAD_BYTES + b"\r\n", b"Expect: 100-continue\r\n"],
)
def test_what_is_left_to_h11(more: bytes) -> None:
    assert heads.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") is not None
    assert heads.request(b"GET / HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n") is None
