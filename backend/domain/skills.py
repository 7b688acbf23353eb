"""How a skill becomes a file in a sandbox: its folder name and its front matter (LAP REST 7.2)."""

import json
import re
import unicodedata
from collections.abc import Collection
from typing import Final

SLUG_LIMIT: Final = 60


def slug(name: str, taken: Collection[str] = ()) -> str:
    """ASCII kebab-case of `name`, at most 60 characters, with -2, -3 ... where it is taken already."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    base = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:SLUG_LIMIT].rstrip("-") or "skill"
    candidate, number = base, 1
    while candidate in taken:
        number += 1
        suffix = f"-{number}"
        candidate = base[: SLUG_LIMIT - len(suffix)].rstrip("-") + suffix
    return candidate


def document(skill_id: str, name: str, description: str | None, content: str) -> str:
    """The text of SKILL.md: `content`, with front matter put before it when it has none of its own."""
    if content.startswith("---"):
        return content
    # A JSON string is a YAML string: whatever a name holds, it stays one value.
    lines = [f"name: {json.dumps(name)}", f"skill_id: {json.dumps(skill_id)}"]
    if description:
        lines.append(f"description: {json.dumps(description)}")
    return "---\n" + "\n".join(lines) + f"\n---\n\n{content}"
