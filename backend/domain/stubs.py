"""Stubs: what a sandbox holds instead of credentials, and putting one in the other's place in a stream of bytes."""

import base64
import binascii
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus

PREFIX: Final = b"stub_"
PATTERN: Final = re.compile(rb"stub_[a-z0-9_]{1,64}_[0-9a-f]{32}")
"""What looks like a stub, of whichever session."""
LONGEST: Final = 5 + 64 + 1 + 32

MIN_RESTORED: Final = 8
"""Bytes of the shortest value that is put back to its stub in responses: shorter ones are found everywhere."""
TAIL: Final = 2
MIN_TAILED: Final = 12

_NAME_LIMIT: Final = 63
_SECRET_NAME: Final = re.compile(
    r"TOKEN|SECRET|KEY|PASS|PWD|PASSPHRASE|CREDENTIAL|AUTH|PRIVATE|COOKIE|SESSION|BEARER|SIGNATURE|DSN|(?:^|_)PIN(?:_|$)",
    re.IGNORECASE,
)
_SWITCH: Final = re.compile(r"(?:true|false|yes|no|on|off|none|null|[0-9]{1,5})?", re.IGNORECASE)
_PLAIN_NAMES: Final = frozenset(
    {
        *("AGENT_REQUIREMENTS", "CI", "COLORTERM", "DEBUG", "EDITOR", "ENV", "ENVIRONMENT", "FORCE_COLOR", "HOME"),
        *("LANG", "LANGUAGE", "LOGLEVEL", "LOG_LEVEL", "MANPATH", "NODE_ENV", "NODE_OPTIONS", "NO_COLOR", "PAGER"),
        *("PATH", "PIP_INDEX_URL", "PYTHONPATH", "RUST_LOG", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "VISUAL"),
        *("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
        *("GOFLAGS", "GOPROXY", "JAVA_HOME", "LD_LIBRARY_PATH", "MAKEFLAGS", "VIRTUAL_ENV", "GOPATH", "GOROOT"),
    }
)
_PLAIN_PREFIXES: Final = ("LAP_FILE_", "LC_", "XDG_")


def is_plain(name: str, value: str, marked: Collection[str] = ()) -> bool:
    """Whether an agent's variable reaches the sandbox as it is. Any other is taken for a credential.

    Plain are: what is `marked` (the agent's `env_var_plain`); settings that programs know by name, such as PATH, LANG,
    LC_*, TZ, NODE_ENV, LOG_LEVEL, PYTHONPATH, GIT_AUTHOR_NAME, AGENT_REQUIREMENTS and LAP_FILE_*, unless the value has
    a user name and password in a URL; and empty values, words like true or off, and numbers of up to five digits, if
    the name does not sound like a secret's.
    """
    if name in marked:
        return True
    if name in _PLAIN_NAMES or name.startswith(_PLAIN_PREFIXES):
        return not re.search(r"://[^/\s]*@", value)
    return _SWITCH.fullmatch(value) is not None and not _SECRET_NAME.search(name)


def sounds_secret(name: str) -> bool:
    """Whether a variable is called like a credential. Of the operator's own variables only these get stubs."""
    return name not in _PLAIN_NAMES and _SECRET_NAME.search(name) is not None


def make(name: str) -> str:
    """A new stub for a variable: `stub_<name>_<32 hexadecimal digits>`. Nobody can guess it."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:_NAME_LIMIT] or "value"
    return f"stub_{plain}_{secrets.token_hex(16)}"


def tail(value: str) -> str:
    """The last characters of a value, to know it by; "" when it is too short to show any."""
    return value[-TAIL:] if len(value) >= MIN_TAILED else ""


@dataclass(frozen=True, slots=True)
class Credential:
    """A stub and what it stands for."""

    name: str
    stub: str
    value: str = field(repr=False)


Encode = Callable[[str], bytes]


def raw(value: str) -> bytes:
    """As it is: headers, multipart, text."""
    return value.encode()


def in_url(value: str) -> bytes:
    """Within a path or a query."""
    return quote(value, safe="").encode()


def in_form(value: str) -> bytes:
    """Within a URL-encoded form."""
    return quote_plus(value).encode()


def in_json(value: str) -> bytes:
    """Within a JSON text."""
    return json.dumps(value)[1:-1].encode()


def encoder_of(content_type: str) -> Encode | None:
    """How values are written into a body of this type; None for types that must not be changed."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return in_form
    if kind.endswith(("json", "+json")) or kind in ("application/json-seq", "application/graphql-response+json"):
        return in_json
    if kind.startswith(("text/", "multipart/")) or kind.endswith(("xml", "graphql", "javascript", "yaml")) or not kind:
        return raw
    return None


def forward(credentials: Iterable[Credential], encode: Encode) -> dict[bytes, bytes]:
    """What to replace on the way out."""
    return {credential.stub.encode(): encode(credential.value) for credential in credentials}


def backward(credentials: Iterable[Credential]) -> dict[bytes, bytes]:
    """What to replace on the way in: values as they are, and as URLs, forms and JSON write them."""
    found: dict[bytes, bytes] = {}
    for credential in credentials:
        if len(credential.value.encode()) < MIN_RESTORED:
            continue
        plain_json = json.dumps(credential.value, ensure_ascii=False)[1:-1].encode()
        for written in (*(encode(credential.value) for encode in (raw, in_url, in_form, in_json)), plain_json):
            found.setdefault(written, credential.stub.encode())
            found.setdefault(_lower_escapes(written), credential.stub.encode())
    return found


def decoded_basic(value: bytes) -> bytes | None:
    """User and password of a Basic `Authorization` header; None when it is none."""
    scheme, _, encoded = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None


def encoded_basic(pair: bytes) -> bytes:
    """The reverse, without the word."""
    return base64.b64encode(pair)


Found = Callable[[bytes], object]
"""Told of each needle that was replaced."""


class Needles:
    """Texts to be replaced and by what, made ready once for any number of streams."""

    __slots__ = ("by", "firsts", "pattern", "texts")

    def __init__(self, replacements: Mapping[bytes, bytes]) -> None:
        self.by = {needle: new for needle, new in replacements.items() if needle}
        self.texts = tuple(sorted(self.by, key=len, reverse=True))
        self.pattern = re.compile(b"|".join(map(re.escape, self.texts))) if self.texts else None
        self.firsts: Sequence[tuple[bytes, bytes]] = [(needle[:1], needle) for needle in self.texts]

    def __bool__(self) -> bool:
        return bool(self.texts)

    def within(self, data: bytes) -> bool:
        """Whether there is anything to replace."""
        for needle in self.texts:  # noqa: SIM110 -- asked for each header and body: this is twice as fast
            if needle in data:
                return True
        return False


class Replacer:
    """Replaces texts in a stream, also where they lie across the border of two pieces.

    The longest wins where several match. Of what it was fed it holds back only what may be the start of a text, less
    than the longest one; so a stream that pauses is passed on up to its end.
    """

    __slots__ = ("_found", "_held", "_needles")

    def __init__(self, replacements: Needles | Mapping[bytes, bytes], found: Found | None = None) -> None:
        self._needles = replacements if isinstance(replacements, Needles) else Needles(replacements)
        self._found = found
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be passed on now."""
        if self._held:
            data = self._held + data
            self._held = b""
        if not self._needles:
            return data
        if self._needles.within(data):
            return self._replace(data)
        start = self._start_of_needle(data, 0)
        if start < len(data):
            self._held = data[start:]
            return data[:start]
        return data

    def finish(self) -> bytes:
        """The rest, at the end of the stream."""
        rest, self._held = self._held, b""
        return self._all(rest) if rest else rest

    def whole(self, data: bytes) -> bytes:
        """All of a text that is there as a whole."""
        return self._all(data) if self._needles.within(data) else data

    def _all(self, data: bytes) -> bytes:
        pattern = self._needles.pattern
        return pattern.sub(self._substitute, data) if pattern else data

    def _replace(self, data: bytes) -> bytes:
        pattern = self._needles.pattern
        assert pattern is not None
        parts: list[bytes] = []
        position = 0
        start = self._start_of_needle(data, 0)
        # What may be the start of a longer text, here or before, is not decided yet: it waits for what comes.
        while (match := pattern.search(data, position)) and match.start() < start:
            parts += (data[position : match.start()], self._substitute(match))
            position = match.end()
            if start < position:
                start = self._start_of_needle(data, position)
        self._held = data[start:]
        parts.append(data[position:start])
        return b"".join(parts)

    def _substitute(self, match: re.Match[bytes]) -> bytes:
        if self._found is not None:
            self._found(match[0])
        return self._needles.by[match[0]]

    def _start_of_needle(self, data: bytes, position: int) -> int:
        """Where the part of `data` from `position` begins that may be the start of a needle; its length if none."""
        end = len(data)
        first = end
        for letter, needle in self._needles.firsts:
            at = data.find(letter, max(position, end - len(needle) + 1))
            while 0 <= at < first:
                if needle.startswith(data[at:]):
                    first = at
                    break
                at = data.find(letter, at + 1)
        return first


def _lower_escapes(written: bytes) -> bytes:
    """Percent escapes in lower case, as some programs write them."""
    return re.sub(rb"%[0-9A-F]{2}", lambda match: match[0].lower(), written)
