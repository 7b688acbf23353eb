"""Servers on loopback with certificates of a made-up authority, and clients' view of what they got."""

import asyncio
import base64
import contextlib
import datetime
import gzip
import hashlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PIECE = b"0123456789abcdef" * 4096


class Trust:
    """A certificate authority for servers."""

    def __init__(self, directory: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test servers")])
        self._certificate = self._make(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file = directory / "servers.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, *names: str, protocols: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """A server's context for hosts and addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.pem(*names))
            file.flush()
            context.load_cert_chain(file.name)
        context.set_alpn_protocols(list(protocols))
        return context

    def pem(self, *names: str) -> bytes:
        """A certificate for hosts and addresses, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        found = x509.SubjectAlternativeName([_general(name) for name in names])
        certificate = self._make(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), key, found)
        return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def _make(self, subject: x509.Name, key: Any, *extensions: Any) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    import ipaddress

    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


class Server:
    """HTTP/1.1 that answers by path, and keeps what it was sent in `requests`.

    /echo: what was sent, as JSON; /gzip: the same compressed; /repeat: the body as it came; /size/N: N bytes;
    /headers: the request's headers as response headers `x-was-…`; /pieces: the value of ?text= in pieces of one byte;
    /ws: a WebSocket echo; /wait: nothing, for ever; /early: 413 before the body is read.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.gone = asyncio.Event()
        """Set when a client of /wait has gone."""

    @contextlib.asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context, limit=1 << 20, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        with contextlib.suppress(Exception):
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.raw.append(head)
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        lower = dict(headers)
        if path.startswith("/early"):
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch")
            await writer.drain()
            return False
        body = await read_body(reader, lower)
        self.requests.append({"method": method, "path": path, "headers": headers, "body": body})
        shown = json.dumps(
            {"method": method, "path": path, "headers": headers, "body": body.decode("latin-1")}
        ).encode()
        if path.startswith("/ws"):
            key = lower["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            writer.write(
                f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            while True:  # one masked text frame after the other, sent back unmasked
                start = await reader.readexactly(2)
                size = start[1] & 0x7F
                mask = await reader.readexactly(4)
                data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(size)))
                writer.write(bytes([start[0], size]) + data)
                await writer.drain()
                if start[0] & 0x0F == 8:
                    return False
        if path.startswith("/wait"):
            await reader.read(1)
            self.gone.set()
            return False
        if path.startswith("/size/"):
            left = int(path.removeprefix("/size/").partition("?")[0])
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n".encode())
            while left:
                writer.write(PIECE[: min(left, len(PIECE))])
                left -= min(left, len(PIECE))
                await writer.drain()
            return True
        if path.startswith("/pieces"):
            text = path.partition("text=")[2].encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for byte in text:
                writer.write(b"1\r\n%c\r\n" % byte)
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        answer, extra = shown, "Content-Type: application/json\r\n"
        if path.startswith("/gzip"):
            answer, extra = gzip.compress(shown), extra + "Content-Encoding: gzip\r\n"
        elif path.startswith("/repeat"):
            answer, extra = body, f"Content-Type: {lower.get('content-type', 'application/octet-stream')}\r\n"
        elif path.startswith("/headers"):
            answer, extra = b"ok", "".join(f"X-Was-{name}: {value}\r\n" for name, value in headers)
        writer.write(f"HTTP/1.1 200 OK\r\n{extra}Content-Length: {len(answer)}\r\n\r\n".encode())
        writer.write(b"" if method == "HEAD" else answer)
        await writer.drain()
        return True


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """The body of a request with these headers, their names in lower case."""
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", "0")))
    parts = []
    while size := int((await reader.readline()).strip(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


class Http2Server:
    """HTTP/2 that sends back what it was sent, as JSON, and a trailer."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self, context: ssl.SSLContext) -> AsyncIterator["Http2Server"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        streams: dict[int, dict[str, Any]] = {}
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            writer.write(http.data_to_send())
            while data := await reader.read(65536):
                for event in http.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        streams[event.stream_id] = {"headers": event.headers, "body": b""}
                    elif isinstance(event, h2.events.DataReceived):
                        streams[event.stream_id]["body"] += event.data
                        http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.StreamEnded):
                        got = streams.pop(event.stream_id)
                        self.requests.append(got)
                        shown = json.dumps({"headers": got["headers"], "body": got["body"].decode("latin-1")}).encode()
                        http.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/json")])
                        http.send_data(event.stream_id, shown[:16000])
                        http.send_headers(event.stream_id, [("x-trailer", "end")], end_stream=True)
                writer.write(http.data_to_send())
                await writer.drain()
        with contextlib.suppress(Exception):
            writer.close()
