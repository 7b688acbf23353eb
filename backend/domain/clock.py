"""Time as the platform stores and shows it: ISO 8601 in UTC with milliseconds and `Z` (LAP REST 1.3).

The texts have one width, so they sort and compare as the moments they name.
"""

from datetime import UTC, datetime


def now() -> str:
    """The present moment, e.g. `2026-05-15T22:33:26.283Z`."""
    return text(datetime.now(UTC))


def text(moment: datetime) -> str:
    """`moment` (aware) in the stored form."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(stored: str) -> datetime:
    """The aware datetime of a stored text. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(stored)
    if moment.tzinfo is None:
        raise ValueError("a stored time must name its zone")
    return moment


def seconds_since(stored: str) -> float:
    """Seconds from a stored moment until now; negative when it lies ahead."""
    return (datetime.now(UTC) - parse(stored)).total_seconds()
