"""The line of truth on top: where we are connected, how old the data is, and what needs a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from lapconsole.live.model import Link, LinkState
from lapconsole.widgets.parts import Look, Part, Parts, fit_parts, one_line, plain, tone
from lapconsole.widgets.words import age, clean, duration

if TYPE_CHECKING:
    from lapconsole.client.nodes import PlatformProblem

AMISS_CHARACTERS = 32


def environment(label: str) -> str:
    """What a platform is for, judged by the name a person gave it: decides the band's colour and how deletes ask."""
    words = label.lower()
    if words in ("embedded", "localhost") or "local" in words or words.startswith("127."):
        return "local"
    if "prod" in words:
        return "production"
    return "staging" if any(part in words for part in ("stag", "test", "dev", "qa")) else "other"


def link_parts(link: Link, look: Look, *, brief: bool = False) -> Parts:
    """The state of the link: `● live`, or how stale the data is, why, and when the next attempt comes."""
    glyphs = look.glyphs
    if link.state is LinkState.LIVE:
        return ((f"{glyphs.ready} live", "good"),)
    if link.state is LinkState.POLLING:
        return ((f"{glyphs.ready} polling", "good"),)
    retry = _retry(link, look.now)
    reason = clean(link.reason or "no answer")
    if link.state is LinkState.CONNECTING:
        words = f"connecting: {reason}" if link.reason else "connecting"
        return ((f"{glyphs.creating} {words}{'' if brief else retry}", "warn" if link.reason else "busy"),)
    old = duration(int((look.now - link.since).total_seconds())).removesuffix(".0s")
    old = old if old[-1:].isalpha() else f"{old}s"
    what = f"{glyphs.stuck} stale {old}"
    return ((what if brief else f"{what}: {reason}{retry}", "bad" if link.key_refused else "warn"),)


def _retry(link: Link, now: datetime) -> str:
    if link.next_retry is None:
        return ", retrying" if link.attempt else ""
    seconds = max(0, round((link.next_retry - now).total_seconds()))
    return f", retry in {seconds}s"


def count_parts(counts: Mapping[str, int], needing: int, stuck: int, look: Look) -> Parts:
    """`1 needs you · 2 failed · 1 too long · 3 creating · 41 ready`; nothing is said of none.

    `counts` are of sessions that need nobody, `stuck` of them are coming up too long.
    """
    creating = max(0, counts.get("creating", 0) - stuck)
    ready = counts.get("ready", 0)
    shown = [
        (f"{needing} need{'s' * (needing == 1)} you", "warn", needing),
        (f"{counts.get('failed', 0)} failed", "bad", counts.get("failed", 0)),
        (f"{stuck} too long", "warn", stuck),
        (f"{creating} creating", "busy", creating),
        (f"{ready} ready", "good", ready),
    ]
    parts: list[Part] = []
    for words, name, count in shown:
        if count:
            parts += [(f" {look.glyphs.dot} ", "muted")] * bool(parts) + [(words, name)]
    return tuple(parts)


def amiss_parts(problems: Sequence[PlatformProblem], look: Look, most: int = AMISS_CHARACTERS) -> Parts:
    """`▲ Kubernetes does not answer 4m +1`: the oldest of what does not work on the platform; nothing of none."""
    if not problems:
        return ()
    first = problems[0]
    seconds = None if first.since is None else max(0.0, (look.now - first.since).total_seconds())
    words = clean(first.brief)
    words = words if len(words) <= most else f"{words[: most - 1]}{look.glyphs.ellipsis}"
    for_long = "" if seconds is None else f" {age(seconds)}"
    return ((f"{look.glyphs.stuck} {words}{for_long}{f' +{len(problems) - 1}' if len(problems) > 1 else ''}", "bad"),)


class StatusLine(Widget):
    """One line at every size. Parts give way in this order: clock, that all is isolated, breadcrumb, healthy counts,
    what is amiss with the walls, then with the platform, reasons, faults."""

    def __init__(self, label: str) -> None:
        super().__init__()
        one_line(self, "top")
        self._label = clean(label) or "platform"
        self._band = environment(label)
        self._variants: list[tuple[Parts, Parts]] = []

    def show(
        self,
        link: Link,
        counts: Mapping[str, int],
        needing: int,
        stuck: int,
        errors: int,
        crumb: str,
        look: Look,
        walls: Parts = (),
        problems: Sequence[PlatformProblem] = (),
    ) -> None:
        """Take over what is to be told; the line is drawn again only when it reads differently.

        `walls` say how the sandboxes are shut in, `problems` what does not work on the platform: that is of now only
        while the link is.
        """
        full, brief = link_parts(link, look), link_parts(link, look, brief=True)
        where: Parts = ((f"{crumb}  ", "strong"),) if crumb else ()
        told = count_parts(counts, needing, stuck, look)
        faults = count_parts({"failed": counts.get("failed", 0)}, needing, stuck, look)
        wrong: Parts = ((f"   ! {errors}", "bad"),) if errors else ()
        clock: Parts = ((look.now.strftime("   %H:%MZ"), "muted"),)
        dot: Parts = ((f" {look.glyphs.dot} ", "muted"),)
        trouble = amiss_parts(problems, look) if link.current else ()
        cut = amiss_parts(problems, look, AMISS_CHARACTERS // 2) if link.current else ()
        broken: Parts = (*dot, *trouble) if trouble else ()
        shut: Parts = (*broken, *dot, *walls) if walls else broken
        amiss = shut if any(name != "muted" for _, name in walls) else broken
        variants = [
            ((*where, *full, *shut), (*told, *wrong, *clock)),
            ((*where, *full, *shut), (*told, *wrong)),
            ((*where, *full, *amiss), (*told, *wrong)),
            ((*full, *amiss), (*told, *wrong)),
            ((*full, *amiss), (*faults, *wrong)),
            ((*full, *broken), (*faults, *wrong)),
            (trouble or full, (*faults, *wrong)),
            (cut or full, (*faults, *wrong)),
            (brief, (*faults, *wrong)),
            (brief, wrong),
        ]
        if variants != self._variants:
            self._variants = variants
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style + tone(self, "line")
        band = tone(self, f"band-{self._band}")
        name = f" {self._label[: max(8, width // 4)]} "
        room = width - cell_len(name) - 2
        left, right = next(
            (pair for pair in self._variants if cell_len(plain(pair[0])) + cell_len(plain(pair[1])) + 2 <= room),
            self._variants[-1] if self._variants else ((), ()),
        )
        right = (*right, (" ", "plain"))
        left_width = max(0, width - cell_len(name) - 1 - cell_len(plain(right)))
        segments = [Segment(name, band), Segment(" ", base)]
        segments += [
            Segment(text, base + tone(self, part)) for text, part in (*fit_parts(left, left_width), *right) if text
        ]
        return Strip(segments).adjust_cell_length(width, base)
