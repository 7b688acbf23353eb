"""Alt keys of terminals without the kitty protocol, told apart by Textual's parser while a terminal has the focus.

As it is, the parser gives Alt+Enter as Enter, Alt+. as a full stop, Alt+B as Ctrl+Left and Alt+1 as a symbol. Its own
widgets count on some of that, so the table is put back when the focus leaves.
"""

from __future__ import annotations

import string
from typing import Any, NamedTuple

from textual import _ansi_sequences
from textual.keys import _character_to_key


class _Name(NamedTuple):
    """What the parser's table holds: anything with the key's name as `value`."""

    value: str


def _names() -> dict[str, str]:
    names = {character: _character_to_key(character) for character in string.printable if character.isprintable()}
    names.update({letter: f"shift+{letter.lower()}" for letter in string.ascii_uppercase})
    names.update({chr(code): f"ctrl+{chr(code | 0x60)}" for code in range(1, 27)})
    names.update({"\0": "ctrl+space", "\r": "enter", "\x7f": "backspace"})
    for start in "[O\t":  # CSI, SS3, and the Shift+Tab of the Linux console
        del names[start]
    return names


_SEQUENCES: dict[str, tuple[_Name]] = {f"\x1b{key}": (_Name(f"alt+{name}"),) for key, name in _names().items()}


# The views that have the focus: while it moves from one to the next there may be two.
_holders: set[object] = set()


def claim(holder: object) -> None:
    """Let Alt keys arrive as such until `holder` releases them."""
    _holders.add(holder)
    _table().update(_SEQUENCES)


def release(holder: object) -> None:
    """Put Textual's own reading back, unless somebody else still holds the Alt keys."""
    _holders.discard(holder)
    if _holders:
        return
    table = _table()
    for sequence, keys in _BEFORE.items():
        if keys is None:
            table.pop(sequence, None)
        else:
            table[sequence] = keys


def _table() -> dict[str, Any]:
    table = _ansi_sequences.ANSI_SEQUENCES_KEYS
    assert isinstance(table, dict)
    return table


_BEFORE = {sequence: _table().get(sequence) for sequence in _SEQUENCES}
