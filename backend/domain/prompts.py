"""An agent's prompt: the skill blocks in it (LAP REST 2.6), and what comes before it in a session (LAP REST 7.1)."""

import re
from itertools import zip_longest
from typing import Final

LIMIT: Final = 1_000_000
"""Characters a prompt may have for a skill to be attached to it."""

_MARKER: Final = re.compile(r"<!-- skill:([^\s>]+) -->")
_BEGIN: Final = re.compile(r"<!-- skill(?::([^\s>]+))? -->")  # an early form of the marker had no id
_ANY: Final = re.compile(r"<!-- /?skill(?::[^\s>]+)? -->")


def attached_skill_ids(prompt: str | None) -> list[str]:
    """Ids of the skill blocks in `prompt`, in the order they stand there."""
    return _MARKER.findall(prompt or "")


def holds_marker(content: str) -> bool:
    """Whether a skill's content would be taken for a block, or the end of one, once it stands in a prompt."""
    return _ANY.search(content) is not None


def attach_skill(prompt: str | None, skill_id: str, content: str) -> str:
    """`prompt` with the skill's block at its end; unchanged when that skill is attached already."""
    prompt = prompt or ""
    if skill_id in attached_skill_ids(prompt):
        return prompt
    before = prompt.rstrip()
    block = f"<!-- skill:{skill_id} -->\n{content.strip()}\n{_end(skill_id)}"
    return f"{before}\n\n{block}" if before else block


def detach_skill(prompt: str | None, skill_id: str | None = None) -> str:
    """`prompt` without the blocks of one skill, or of all; unchanged when there are none.

    A block ends at its end marker. One without goes on to the next block or the end: the original platform knows no
    end markers, and loses what was typed after the last block.
    """
    prompt = prompt or ""
    kept, position = [], 0
    for start, end, block_id in _blocks(prompt):
        if skill_id is None or block_id == skill_id:
            kept.append(prompt[position:start].rstrip())
            position = end
    if not position:
        return prompt
    kept.append(prompt[position:])
    pieces = [kept[0], *(piece.lstrip("\r\n") for piece in kept[1:])]
    return "\n\n".join(piece for piece in pieces if piece.strip())


def composed(memory: str, prompt: str | None) -> str | None:
    """What a session's agent is told first: the memory block, then the agent's prompt. None when there is neither."""
    return "\n\n".join(part for part in (memory, prompt) if part) or None


def _end(skill_id: str) -> str:
    return f"<!-- /skill:{skill_id} -->"


def _blocks(prompt: str) -> list[tuple[int, int, str | None]]:
    """Start, end and skill id of each block, in order; the id is None for the early form of the marker."""
    begins = list(_BEGIN.finditer(prompt))
    blocks = []
    for begin, following in zip_longest(begins, begins[1:]):
        limit = following.start() if following else len(prompt)
        end = _end(begin[1])
        found = prompt.find(end, begin.end(), limit)
        blocks.append((begin.start(), limit if found < 0 else found + len(end), begin[1]))
    return blocks
