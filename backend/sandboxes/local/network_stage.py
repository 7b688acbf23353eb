"""Makes a sandbox's network: run in a user and a network namespace of its own, on a socket that takes descriptors.

`python -I -S network_stage.py FD`, the standard library only. It gives the loopback interface an address and a
default route, loads rules that turn every TCP connection to one local port and every DNS question to another, opens
the listeners, and sends them and both namespaces through FD, with one JSON line {"forced": bool, "reason": str | None}.
Then it ends: nothing of ours stays in there, and whoever holds the descriptors decides what gets out.

There is no IPv6 but `::1`, and no other UDP, ICMP or raw packet leaves the namespace: nothing in it can change that,
since the sandbox gets no capability there.
"""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys

ADDRESS = "10.0.2.100"
"""Of the sandbox itself; it is seen by nobody else."""
EXPLICIT_PORT = 3128
TRANSPARENT_PORT = 3129
DNS_PORT = 53
BACKLOG = 1024
NFT_SECONDS = 5.0

RULES = f"""
table inet lap {{
  chain turned {{
    type nat hook output priority -100; policy accept;
    ip daddr {{ 127.0.0.0/8, {ADDRESS} }} accept
    meta nfproto ipv4 udp dport 53 redirect to :{DNS_PORT}
    meta nfproto ipv4 meta l4proto tcp redirect to :{TRANSPARENT_PORT}
  }}
  chain kept {{
    type filter hook output priority 0; policy drop;
    ip daddr {{ 127.0.0.0/8, {ADDRESS} }} accept
    ip6 daddr ::1 accept
  }}
}}
"""

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_LOOPBACK = 1
"""The interface's number: the first of every network namespace."""
_RTM_NEWADDR, _RTM_NEWROUTE = 20, 24
_REQUEST, _ACKNOWLEDGE, _CREATE, _EXCLUSIVE = 1, 4, 0x400, 0x200
_IFA_ADDRESS, _IFA_LOCAL, _RTA_OIF = 1, 2, 4
_MAIN_TABLE, _STATIC, _LINK_SCOPE, _UNICAST = 254, 4, 253, 1


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        _raise_loopback()
        reason = _load_rules()
        if reason is None:
            # Without the rules no route either: then only what asks the proxy gets out.
            _add_route()
        descriptors = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")]
        listeners = [_tcp(EXPLICIT_PORT), _tcp(TRANSPARENT_PORT), _udp(DNS_PORT)]
        told = json.dumps({"forced": reason is None, "reason": reason}).encode()
        socket.send_fds(channel, [told], [*descriptors, *(listener.fileno() for listener in listeners)])


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
    address = socket.inet_aton(ADDRESS)
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, _LOOPBACK)
    _netlink(_RTM_NEWADDR, body + _attribute(_IFA_LOCAL, address) + _attribute(_IFA_ADDRESS, address))


def _add_route() -> None:
    fields = (socket.AF_INET, 0, 0, 0, _MAIN_TABLE, _STATIC, _LINK_SCOPE, _UNICAST, 0)
    _netlink(_RTM_NEWROUTE, struct.pack("=8BI", *fields) + _attribute(_RTA_OIF, struct.pack("=I", _LOOPBACK)))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value


def _netlink(kind: int, body: bytes) -> None:
    """One request to the kernel's network configuration. Raises OSError when it is refused."""
    flags = _REQUEST | _ACKNOWLEDGE | _CREATE | _EXCLUSIVE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answer = link.recv(4096)
    (code,) = struct.unpack_from("=i", answer, 16)
    if code:
        raise OSError(-code, os.strerror(-code))


def _load_rules() -> str | None:
    """Load the rules; None when they hold, else why they do not."""
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if nft is None:
        return "nft is missing (install nftables)"
    try:
        done = subprocess.run(
            [nft, "-f", "-"], input=RULES.encode(), capture_output=True, timeout=NFT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nft: {error}"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"nft: {lines[0][:200]}" if lines else f"nft ended with {done.returncode}"


def _tcp(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)


def _udp(port: int) -> socket.socket:
    # On this address, not on all: answers must come from where the rules have turned the question to.
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", port))
    return listener


if __name__ == "__main__":
    main()
