"""One finding about a value that came from outside: where it is, what is wrong, a code to match on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` leads into the request body, as in LAP REST 1.2; `message` never repeats a value, it may be secret."""

    path: tuple[str | int, ...]
    message: str
    code: str = "invalid"
