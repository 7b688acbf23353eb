"""Patches of objects: merge patch (RFC 7396) and JSON patch (RFC 6902)."""

from typing import Any


def merge(target: Any, patch: Any) -> Any:
    """A new value: null removes, objects are merged, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Any, steps: list[dict[str, Any]]) -> Any:
    """A new value. Raises ValueError when a path is not there or a test fails."""
    for step in steps:
        kind, path = step.get("op"), _parts(step.get("path"))
        if kind == "test":
            if _read(target, path) != step.get("value"):
                raise ValueError(f"testing path {step['path']} failed")
            continue
        value = step.get("value")
        if kind in ("move", "copy"):
            value = _read(target, _parts(step.get("from")))
        if kind == "move":
            target = _write(target, _parts(step["from"]), "remove", None)
        if kind in ("add", "move", "copy", "replace", "remove"):
            kinds = {"move": "add", "copy": "add"}
            target = _write(target, path, kinds.get(kind, kind), value)
        else:
            raise ValueError(f"unexpected kind: {kind}")
    return target


def _parts(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise ValueError(f"not a path: {path}")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _read(value: Any, path: list[str]) -> Any:
    try:
        for part in path:
            value = value[int(part)] if isinstance(value, list) else value[part]
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"path /{'/'.join(path)} does not exist") from None
    return value


def _write(value: Any, path: list[str], kind: str, new: Any) -> Any:
    if not path:
        return new
    part, rest = path[0], path[1:]
    if isinstance(value, list):
        copy: Any = list(value)
        index = len(copy) if part == "-" else int(part)
        if rest:
            copy[index] = _write(_read(copy, [part]), rest, kind, new)
        elif kind == "add" and index <= len(copy):
            copy.insert(index, new)
        else:
            _read(copy, [part])
            copy[index : index + 1] = [] if kind == "remove" else [new]
        return copy
    copy = dict(value) if isinstance(value, dict) else {}
    if rest:
        copy[part] = _write(_read(copy, [part]), rest, kind, new)
    elif kind == "add":
        copy[part] = new
    else:
        _read(copy, [part])
        if kind == "remove":
            del copy[part]
        else:
            copy[part] = new
    return copy
