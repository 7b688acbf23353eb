"""How much, how many and how long: bounds on everything that comes from a sandbox or from a server."""

from typing import Final

HEAD_BYTES: Final = 64 * 1024
"""Of a request or response without its body."""
BUFFER: Final = 256 * 1024
"""Read from one connection and not yet consumed, or written to it and not yet sent."""
WHOLE_BODY: Final = 1024 * 1024
"""Request bodies up to this are read whole before they are sent, so that their length is known."""

HANDSHAKE_SECONDS: Final = 15.0
HEAD_SECONDS: Final = 30.0
"""From the first byte of a request to the end of its head."""
IDLE_SECONDS: Final = 300.0
"""Between two requests on one connection."""
BODY_SECONDS: Final = 120.0
"""Between two pieces of a request's body."""
CONNECT_SECONDS: Final = 10.0
"""To resolve a name, and to connect."""
RESPONSE_SECONDS: Final = 900.0
"""For a response to begin, and between two pieces of it: a model may think for long."""
STALL_SECONDS: Final = 120.0
"""How long a receiver may take nothing."""
TUNNEL_SECONDS: Final = 3_600.0
"""How long an upgraded or opaque connection may be silent."""
KEPT_SECONDS: Final = 30.0
"""How long an idle connection to a server is kept for the next request."""

CONNECTIONS: Final = 512
"""Open at a time from one session."""
KEPT: Final = 32
"""Idle connections to servers kept for one session."""
STREAMS: Final = 100
"""HTTP/2 requests at a time on one connection."""
STREAM_WINDOW: Final = 256 * 1024
RESETS: Final = 1_000
"""HTTP/2 streams a client may abandon before its connection is closed."""
HOSTS: Final = 256
"""Hosts with a certificate in memory."""
