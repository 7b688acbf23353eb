"""Kubernetes quantities ("100m", "1.5", "2Gi", "1e3") as whole millicores and bytes."""

import math
import re
from fractions import Fraction
from typing import Final

MAX: Final = 2**63 - 1
"""What is more counts as this, as in Kubernetes."""
_LENGTH_LIMIT: Final = 64
_EXPONENT_LIMIT: Final = 2 * _LENGTH_LIMIT
"""Beyond it a number of _LENGTH_LIMIT digits is above MAX, or below any unit, whatever the exponent."""

# "1E" is one exa, "1E3" is a thousand: an exponent has digits.
_QUANTITY: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<exponent>[+-]?[0-9]+)|(?P<suffix>[A-Za-z]{0,2}))"
)
_FACTORS: Final[dict[str, Fraction]] = {
    "": Fraction(1),
    **{suffix: Fraction(1, 1000**power) for power, suffix in enumerate("mun", 1)},
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", 1)},
}


def cpu_millicores(text: str) -> int | None:
    """Thousandths of a processor, parts of one rounded away from zero; None for what is no quantity."""
    return _rounded(_value(text), 1000)


def memory_bytes(text: str) -> int | None:
    """Bytes, parts of one rounded away from zero; None for what is no quantity."""
    return _rounded(_value(text), 1)


def _value(text: str) -> Fraction | None:
    match = _QUANTITY.fullmatch(text) if len(text) <= _LENGTH_LIMIT else None
    if match is None:
        return None
    if exponent := match["exponent"]:
        factor = Fraction(10) ** max(-_EXPONENT_LIMIT, min(_EXPONENT_LIMIT, int(exponent)))
    elif (known := _FACTORS.get(match["suffix"])) is not None:
        factor = known
    else:
        return None
    whole, _, part = match["number"].partition(".")
    size = Fraction(int(whole + part or "0"), 10 ** len(part)) * factor
    return -size if match["sign"] == "-" else size


def _rounded(value: Fraction | None, scale: int) -> int | None:
    if value is None:
        return None
    size = min(math.ceil(abs(value) * scale), MAX)
    return -size if value < 0 else size
