"""The system call filter of a walled sandbox: what its namespaces would let through.

It is for sockets that belong to no network namespace (to a virtual machine's host, the kernel's own), for the kernel's
keys, which processes inherit, and for ways round this filter itself. Anything else is held by namespaces, by having no
capability, and by what is mounted.
"""

import errno
import platform
import struct
from typing import Final

# Numbers by machine: audit architecture, and each call's.
_CALLS: Final = {
    "x86_64": (
        0xC000003E,
        41,  # socket
        {
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "perf_event_open": 298,
            "open_by_handle_at": 304,
            "bpf": 321,
            "userfaultfd": 323,
            "io_uring_setup": 425,
            "io_uring_enter": 426,
            "io_uring_register": 427,
            "pidfd_getfd": 438,
        },
    ),
    "aarch64": (
        0xC00000B7,
        198,
        {
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "perf_event_open": 241,
            "open_by_handle_at": 265,
            "bpf": 280,
            "userfaultfd": 282,
            "io_uring_setup": 425,
            "io_uring_enter": 426,
            "io_uring_register": 427,
            "pidfd_getfd": 438,
        },
    ),
}
_FAMILIES: Final = (1, 2, 10, 16)
"""Sockets that may be opened: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK."""
_X32: Final = 0x40000000

_ALLOW: Final = 0x7FFF0000
_FAIL: Final = 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16


def program(machine: str | None = None) -> bytes | None:
    """The filter as an array of `struct sock_filter`; None for a machine whose numbers are not known here."""
    known = _CALLS.get(machine or platform.machine())
    if known is None:
        return None
    architecture, socket_call, calls = known
    refused, unknown = _FAIL | errno.EPERM, _FAIL | errno.ENOSYS
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, unknown),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, unknown),
    ]
    for number in calls.values():
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refused)]
    code += [(_EQUAL, 1, 0, socket_call), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)]
    for family in _FAMILIES:
        code += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _FAIL | errno.EAFNOSUPPORT))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
