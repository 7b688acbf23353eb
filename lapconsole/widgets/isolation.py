"""Whether sandboxes are isolated, and whether the vault stands before them, in words."""

from __future__ import annotations

from lapconsole.client.egress import Switch, Walls, isolation_of
from lapconsole.client.models import Session
from lapconsole.widgets.parts import Look, Part, Parts
from lapconsole.widgets.words import clean

VAULT_OFF = "The vault is off: agents hold their real credentials, and none of their traffic is seen or refused."
ANYWHERE = "Their sandboxes may connect anywhere."
VAULT_ON = "To switch it on, start the platform without LAP_VAULT=off; sessions made from then on have stubs."


def isolation_words(switch: Switch) -> str:
    """`isolated`, `not isolated: why`; "" where the platform does not tell."""
    if switch.on is None:
        return ""
    return "isolated" if switch.on else f"not isolated: {clean(switch.reason) or 'no reason is given'}"


def isolation_parts(session: Session, look: Look) -> list[Part]:
    """The same of a session, after a dot; nothing where it is not told, or there is no sandbox any more."""
    switch = isolation_of(session.isolation)
    if switch.on is None or not session.active:
        return []
    return [(f"  {look.glyphs.dot}  ", "muted"), (isolation_words(switch), "muted" if switch.on else "warn")]


def brief_parts(walls: Walls) -> Parts:
    """The same in two words, for the line on top: what is amiss, else `isolated`; nothing where it is not told."""
    vault, isolation = walls.vault, walls.isolation
    amiss: list[str] = ["vault down" if vault.down else "vault off"] if vault.on is False else []
    if isolation.on is False:
        amiss.append("not isolated")
    if amiss:
        return ((", ".join(amiss), "bad" if vault.down else "warn"),)
    return (("isolated", "muted"),) if isolation.on else ()


def vault_parts(walls: Walls, look: Look) -> Parts:
    """`● vault on  ·  isolated`, as far as the platform tells."""
    vault, told, glyphs = walls.vault, isolation_words(walls.isolation), look.glyphs
    parts: list[Part] = []
    if vault.on is True:
        parts.append((f"{glyphs.ready} vault on", "good"))
    elif vault.on is False:
        why = f" ({clean(vault.reason)})" if vault.reason else ""
        words = f"vault down{why}: nothing leaves the sandboxes" if vault.down else "vault off"
        parts.append((f"{glyphs.failed if vault.down else glyphs.stuck} {words}", "bad" if vault.down else "warn"))
    if told:
        parts += [(f"  {glyphs.dot}  ", "muted")] * bool(parts)
        parts.append((told, "good" if walls.isolation.on else "warn"))
    return tuple(parts)
