"""Texts of strangers made fit to be shown and kept: bounded, without control characters."""

import re

# Controls, line separators, what turns the writing direction, and halves of characters, which no one can encode.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def fit(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, each run of unfit ones a blank."""
    return _UNFIT.sub(" ", text[: 4 * limit]).strip()[:limit]
