"""How wide text is, and what joins into one cell: grapheme clusters by Unicode's rules, data from wcwidth."""

from __future__ import annotations

from functools import lru_cache

from wcwidth import iter_graphemes, wcswidth

#: A cell never holds more code points than this: the rest of an endless run of combining marks is dropped.
MAX_CLUSTER = 32

ZWJ = "\u200d"

# The two classes below are fast paths, not the rules: characters of a certain width that start a cluster of their own
# whatever stands before them (except after a ZWJ). All others go through `joins` and `width`, one by one. A test
# holds each member against wcwidth's tables.

#: Character class of characters one column wide: Latin, Greek, Cyrillic, Armenian, Ethiopic, punctuation, currency,
#: arrows, mathematics, box drawing, blocks, dingbats, Braille, private use (icon fonts), half-width kana.
NARROW = (
    "\x20-\x7e\xa0-\xac\xae-\u02ff\u0370-\u0482\u048a-\u058f\u1200-\u135c\u1e00-\u1fff\u2000-\u200a"
    "\u2010-\u2027\u202f-\u205f\u2070-\u20cf\u20f1-\u2319\u231c-\u2328\u232b-\u23e8\u23ed-\u23ef\u23f1\u23f2"
    "\u23f4-\u25fc\u25ff-\u2613\u2616-\u262f\u2638-\u2647\u2654-\u267e\u2690-\u2692\u2694-\u26a0\u26a2-\u26a9"
    "\u2706-\u2709\u270c-\u2727\u2729-\u274b\u2756\u2758-\u2794\u2798-\u27af\u27c0-\u2b1a\u2b1d-\u2b4f"
    "\ue000-\uf8ff\uff61-\uff9d"
)

#: Character class of characters two columns wide: CJK, kana, Hangul syllables, full-width forms, most emoji.
WIDE = (
    "\u2e80-\u2e99\u2e9b-\u2ef3\u2f00-\u2fd5\u3000-\u3029\u3041-\u3096\u309b-\u30ff\u3105-\u312f\u3250-\ua48c"
    "\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe52\uff01-\uff60\uffe0-\uffe6"
    "\U0001f300-\U0001f320\U0001f32d-\U0001f335\U0001f3a0-\U0001f3ca\U0001f400-\U0001f43e\U0001f442-\U0001f4fc"
    "\U0001f4ff-\U0001f53d\U0001f550-\U0001f567\U0001f5fb-\U0001f64f\U0001f680-\U0001f6c5\U0001f90c-\U0001f93a"
)


@lru_cache(maxsize=4096)
def joins(cluster: str, character: str) -> bool:
    """Whether `character` written right after `cluster` becomes part of it (UAX 29), e.g. an accent or a skin tone."""
    return next(iter(iter_graphemes(cluster + character))) != cluster


@lru_cache(maxsize=4096)
def width(cluster: str) -> int:
    """Columns of a grapheme cluster: 0, 1 or 2."""
    return min(2, max(0, wcswidth(cluster)))
