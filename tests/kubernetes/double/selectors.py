"""Label and field selectors as functions of an object."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.kubernetes.double import errors
from tests.kubernetes.double.store import Object, labels

Matcher = Callable[[Object], bool]


def _terms(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    return [term.strip() for term in re.split(r",(?![^()]*\))", text) if term.strip()]


def label_matcher(text: str) -> Matcher | None:
    """A labelSelector; None matches all. Raises Refused (400)."""
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    for term in _terms(text):
        if match := re.fullmatch(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)", term):
            key, wanted, values = match[1], match[2] == "in", {value.strip() for value in match[3].split(",")}
            tests.append(lambda have, key=key, wanted=wanted, values=values: (have.get(key) in values) == wanted)
        elif match := re.fullmatch(r"([^=!\s]+)\s*(==?|!=)\s*(\S*)", term):
            key, same, value = match[1], match[2] != "!=", match[3]
            tests.append(lambda have, key=key, same=same, value=value: (have.get(key) == value) == same)
        elif match := re.fullmatch(r"(!?)([^=!\s()]+)", term):
            key, present = match[2], not match[1]
            tests.append(lambda have, key=key, present=present: (key in have) == present)
        else:
            raise errors.bad_request(f"unable to parse requirement: found '{term}'")
    return (lambda obj: all(test(labels(obj)) for test in tests)) if tests else None


def field_matcher(text: str, known: tuple[str, ...]) -> Matcher | None:
    """A fieldSelector over `known` fields, name and namespace; None matches all. Raises Refused (400)."""
    tests: list[tuple[list[str], str, bool]] = []
    for term in _terms(text):
        match = re.fullmatch(r"([^=!]+)(==?|!=)(.*)", term)
        if match is None:
            raise errors.bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
        if match[1] not in (*known, "metadata.name", "metadata.namespace"):
            raise errors.bad_request(f"field label not supported: {match[1]}")
        tests.append((match[1].split("."), match[3], match[2] != "!="))

    def value(obj: Any, path: list[str]) -> str:
        for name in path:
            obj = obj.get(name) if isinstance(obj, dict) else None
        if isinstance(obj, bool):
            return str(obj).lower()
        if path == ["source"] and isinstance(obj, dict):
            return str(obj.get("component", ""))
        return "" if obj is None else str(obj)

    return (lambda obj: all((value(obj, path) == want) == same for path, want, same in tests)) if tests else None
