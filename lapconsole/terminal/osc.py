"""Operating system commands (OSC) and notices: what a program tells the user rather than the screen."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

#: Largest text a program may put into the clipboard, in base64 characters.
MAX_CLIPBOARD = 1 << 17
#: Longest title, notification or link kept, in characters.
MAX_TEXT = 2048

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PROGRESS = {"0": "none", "1": "normal", "2": "error", "3": "indeterminate", "4": "paused"}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something for the user. By kind:

    title: text. bell: nothing. notification: text, fields title. cwd: text is the path.
    progress: fields state (none, normal, error, indeterminate, paused) and percent ("0" to "100").
    activity: OSC 7501; fields state and, if given, app, kind, title; text is the message.
    clipboard: text, fields selection ("c", "p", ...).
    """

    kind: str
    text: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def clean(text: str) -> str:
    """Text safe to show: bounded and without control characters."""
    return _CONTROLS.sub("", text[:MAX_TEXT])


def notification(command: str, body: str) -> Notice | None:
    """OSC 9 and OSC 777: a notification, ConEmu's progress bar (9;4) or directory (9;9)."""
    if command == "777":
        verb, _, rest = body.partition(";")
        title, _, text = rest.partition(";")
        return Notice("notification", clean(text), {"title": clean(title)}) if verb == "notify" else None
    number, _, rest = body.partition(";")
    if number == "4":
        return _progress(rest)
    if number == "9" and rest:
        return Notice("cwd", clean(rest.strip('"')))
    if number.isdecimal() and len(number) < 3:
        return None  # another ConEmu command
    return Notice("notification", clean(body), {"title": ""})


def _progress(body: str) -> Notice | None:
    state, _, percent = body.partition(";")
    if state not in _PROGRESS:
        return None
    percent = percent.partition(";")[0]
    value = min(100, int(percent)) if percent.isascii() and percent.isdecimal() and len(percent) < 4 else 0
    return Notice("progress", "", {"state": _PROGRESS[state], "percent": str(value)})


def activity(body: str) -> Notice | None:
    """OSC 7501: `state=..:app=..[:kind=..][:title=BASE64][:msg=BASE64]`."""
    given = dict(part.split("=", 1) for part in body.split(":") if "=" in part)
    if not given.get("state"):
        return None
    fields = {name: clean(given[name]) for name in ("state", "app", "kind") if given.get(name)}
    if given.get("title"):
        fields["title"] = clean(_base64_text(given["title"]))
    return Notice("activity", clean(_base64_text(given.get("msg", ""))), fields)


def clipboard(body: str) -> Notice | None:
    """OSC 52: a program writes the clipboard. Reading it is never answered."""
    selection, _, data = body.partition(";")
    if data == "?" or len(data) > MAX_CLIPBOARD:
        return None
    return Notice("clipboard", _base64_text(data), {"selection": clean(selection) or "c"})


def directory(body: str) -> Notice | None:
    """OSC 7: the current directory as a file URL."""
    try:
        url = urlsplit(body)
    except ValueError:
        return None
    path = clean(unquote(url.path)) if url.scheme == "file" else ""
    return Notice("cwd", path) if path else None


def link(body: str) -> str:
    """The address of an OSC 8 hyperlink; "" ends one."""
    address = body.partition(";")[2]
    return clean(address) if len(address) <= MAX_TEXT else ""


def color(spec: str) -> tuple[int, int, int] | None:
    """An X colour, `rgb:RR/GG/BB` or `#RRGGBB` with one to four digits each, as 8-bit red, green, blue."""
    if spec.startswith("#") and len(spec) in (4, 7, 10, 13):
        size = (len(spec) - 1) // 3
        spec = "rgb:" + "/".join(spec[start : start + size] for start in range(1, len(spec), size))
    match = re.fullmatch(r"rgb:([0-9A-Fa-f]{1,4})/([0-9A-Fa-f]{1,4})/([0-9A-Fa-f]{1,4})", spec)
    if match is None:
        return None
    red, green, blue = (int(digits, 16) * 255 // (16 ** len(digits) - 1) for digits in match.groups())
    return red, green, blue


def _base64_text(data: str) -> str:
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""
