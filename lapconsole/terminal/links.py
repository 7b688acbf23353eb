"""The links a terminal shows: hyperlinks of the program (OSC 8), and web addresses in plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from lapconsole.terminal.document import Document

MAX_LINKS = 200
MAX_LENGTH = 2048
#: Lines looked through, from the newest back.
MAX_LINES = 1000

#: What a platform's opener may be given; a file or a program's own scheme could start anything.
OPENABLE = ("http", "https", "mailto")

_ADDRESS = re.compile(r"https?://[^\s<>\"'`{}|\\^\x00-\x20\x7f-\xa0│┃║]{1,2048}", re.IGNORECASE)
_PAIRS = {")": "(", "]": "["}


def links(document: Document) -> list[str]:
    """The addresses, the newest first, each once."""
    found: dict[str, None] = {}
    for group in document.groups_back():
        for address in _in_group(document, group):
            found.setdefault(address)
        if len(found) >= MAX_LINKS or len(document) - group.start >= MAX_LINES:
            break
    return list(found)[:MAX_LINKS]


def _in_group(document: Document, group: range) -> Iterator[str]:
    """The addresses of one written line, the last first."""
    hidden = [link for index in group for link in document.lines[index].links]
    yield from (link for link in reversed(hidden) if link.isprintable() and len(link) <= MAX_LENGTH)
    if len(group) == 1 and "://" not in document.lines[group.start].text.replace("\0", ""):
        return
    for match in reversed(list(_ADDRESS.finditer(document.joined(group).text))):
        yield _without_punctuation(match[0])


def _without_punctuation(address: str) -> str:
    """The address without what belongs to the sentence it stands in."""
    while address:
        last = address[-1]
        unpaired = last in _PAIRS and address.count(last) > address.count(_PAIRS[last])
        if last not in ".,;:!?*" and not unpaired:
            break
        address = address[:-1]
    return address


def openable(address: str) -> bool:
    """Whether an address may be given to the platform's opener."""
    try:
        return urlsplit(address).scheme.lower() in OPENABLE and address.isprintable()
    except ValueError:
        return False
