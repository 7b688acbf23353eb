"""The subset of OpenAPI v3 that CustomResourceDefinitions use: defaults, unknown fields, and what is wrong."""

import json
import re
from datetime import datetime
from typing import Any

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}
_UNCHECKED = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"  # noqa: E501
_DEFAULTS = "x-double-defaults"
_BLOCKING = {"FieldValueNotSupported", "FieldValueRequired", "FieldValueTypeInvalid", "FieldValueTooLong"}


def complete(value: Any, schema: dict[str, Any], path: str = "") -> tuple[Any, list[str]]:
    """`value` with defaults and without what the schema does not know; the paths of what was dropped."""
    unknown: list[str] = []
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        result: dict[str, Any] = {}
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            at = f"{path}.{key}" if path else key
            inner = properties.get(key, more if isinstance(more, dict) else None)
            if inner is not None:
                result[key], dropped = complete(item, inner, at)
                unknown += dropped
            elif more:
                result[key] = item
            else:
                unknown.append(at)
        for key, default in _defaults(schema):
            if result.get(key) is None:
                result[key] = default
        return result, unknown
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        items = [complete(item, schema["items"], f"{path}[{number}]") for number, item in enumerate(value)]
        return [item for item, _ in items], [at for _, dropped in items for at in dropped]
    return value, unknown


def _defaults(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    """The properties with a default, looked up once for each schema, which has dozens of others."""
    if _DEFAULTS not in schema:
        properties = schema.get("properties", {})
        schema[_DEFAULTS] = [(key, inner["default"]) for key, inner in properties.items() if "default" in inner]
    found: list[tuple[str, Any]] = schema[_DEFAULTS]
    return found


def causes(value: Any, schema: dict[str, Any]) -> list[dict[str, str]]:
    """What is wrong with a whole object, as the causes of a 422; empty when it is valid."""
    found: list[dict[str, str]] = []
    for part in ("spec", "status"):
        if part in value or part in schema.get("required", ()):
            _check(value.get(part), schema["properties"][part], part, found)
    if any(cause["reason"] in _BLOCKING for cause in found) and "x-kubernetes-validations" in json.dumps(schema):
        found.append(_cause("FieldValueInvalid", "<nil>", f"Invalid value: null: {_UNCHECKED}"))
    return found


def _cause(reason: str, path: str, message: str) -> dict[str, str]:
    return {"reason": reason, "message": message, "field": path}


def _check(value: Any, schema: dict[str, Any], path: str, found: list[dict[str, str]]) -> None:
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            found.append(_wrong_type(value, "integer,string", path))
        elif isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(_should(value, path, f"match '{schema['pattern']}'"))
        return
    kind = schema.get("type")
    if kind and not _is(value, kind):
        found.append(_wrong_type(value, kind, path))
        return
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(json.dumps(item) for item in schema["enum"])
        text = f"Unsupported value: {json.dumps(value)}: supported values: {allowed}"
        found.append(_cause("FieldValueNotSupported", path, text))
    if isinstance(value, dict):
        _check_object(value, schema, path, found)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check(item, schema.get("items", {}), f"{path}[{number}]", found)
    elif isinstance(value, str):
        _check_text(value, schema, path, found)
    elif isinstance(value, int | float):
        if value < schema.get("minimum", value):
            found.append(_should(value, path, f"be greater than or equal to {schema['minimum']}"))
        if value > schema.get("maximum", value):
            found.append(_should(value, path, f"be less than or equal to {schema['maximum']}"))


def _check_object(value: dict[str, Any], schema: dict[str, Any], path: str, found: list[dict[str, str]]) -> None:
    for key in schema.get("required", ()):
        if key not in value:
            found.append(_cause("FieldValueRequired", f"{path}.{key}", "Required value"))
    more = schema.get("additionalProperties")
    for key, item in value.items():
        inner = schema.get("properties", {}).get(key, more if isinstance(more, dict) else None)
        if inner is not None and item is not None:
            _check(item, inner, f"{path}.{key}", found)


def _check_text(value: str, schema: dict[str, Any], path: str, found: list[dict[str, str]]) -> None:
    if len(value) > schema.get("maxLength", len(value)):
        text = f"Too long: may not be more than {schema['maxLength']} bytes"
        found.append(_cause("FieldValueTooLong", path, text))
    if len(value) < schema.get("minLength", 0):
        found.append(_should(value, path, f"be at least {schema['minLength']} chars long"))
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(_should(value, path, f"match '{schema['pattern']}'"))
    if schema.get("format") == "date-time":
        try:
            datetime.fromisoformat(value)
        except ValueError:
            found.append(_wrong_type(value, "date-time", path, shown=value))


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES[kind])


def _wrong_type(value: Any, kind: str, path: str, shown: str | None = None) -> dict[str, str]:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    quoted = f'"{shown if shown is not None else names.get(type(value), "null")}"'
    text = f"Invalid value: {quoted}: {path} in body must be of type {kind}: {quoted}"
    return _cause("FieldValueTypeInvalid", path, text)


def _should(value: Any, path: str, what: str) -> dict[str, str]:
    return _cause("FieldValueInvalid", path, f"Invalid value: {json.dumps(value)}: {path} in body should {what}")
