"""Refusals as the API server words them: a Status object with code, reason, message and details."""

from typing import Any

from tests.kubernetes.double.resources import Resource

_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


class Refused(Exception):
    """An answer other than what was asked for: `code` and the Status body; `headers` such as Retry-After."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None, **headers: str
    ) -> None:
        super().__init__(message)
        self.code, self.headers = code, headers
        self.body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.body |= {"message": message, "reason": reason, "code": code}
        if details:
            self.body["details"] = details


class NoSuchPath(Exception):
    """A path nothing is served at: answered in plain text."""


def _details(resource: Resource, name: str = "") -> dict[str, Any]:
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    return {key: value for key, value in details.items() if value}


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def unauthorized() -> Refused:
    return Refused(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, resource: Resource, namespace: str, name: str, subresource: str = "") -> Refused:
    what = f"{resource.plural}/{subresource}" if subresource else resource.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    subject = f'{resource.full} "{name}"' if name else resource.full
    text = f'cannot {verb} resource "{what}" in API group "{resource.group}" {where}'
    return Refused(403, "Forbidden", f'{subject} is forbidden: User "{user}" {text}', _details(resource, name))


def not_admitted(resource: Resource, name: str, why: str) -> Refused:
    return Refused(403, "Forbidden", f'{resource.full} "{name}" is forbidden: {why}', _details(resource, name))


def not_found(resource: Resource, name: str) -> Refused:
    return Refused(404, "NotFound", f'{resource.full} "{name}" not found', _details(resource, name))


def exists(resource: Resource, name: str) -> Refused:
    return Refused(409, "AlreadyExists", f'{resource.full} "{name}" already exists', _details(resource, name))


def conflict(resource: Resource, name: str, why: str | None = None) -> Refused:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    text = f'Operation cannot be fulfilled on {resource.full} "{name}": {why}'
    return Refused(409, "Conflict", text, _details(resource, name))


def unsupported_media(accepted: str) -> Refused:
    text = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    return Refused(415, "UnsupportedMediaType", text)


def invalid(kind: str, group: str, name: str, causes: list[dict[str, str]]) -> Refused:
    """`causes`: {"reason", "message", "field"} each."""
    said = [f"{cause['field']}: {cause['message']}" for cause in causes]
    subject = f"{kind}.{group}" if group else kind
    details: dict[str, Any] = {"name": name, "group": group, "kind": kind, "causes": causes}
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    message = f'{subject} "{name}" is invalid: {text}'
    return Refused(422, "Invalid", message, {key: value for key, value in details.items() if value})


def bad_name(resource: Resource, name: str) -> Refused:
    rule = _LABEL_RULE if resource.plural in ("namespaces", "services") else _NAME_RULE
    cause = {"reason": "FieldValueInvalid", "message": f'Invalid value: "{name}": {rule}', "field": "metadata.name"}
    return invalid(resource.kind, resource.group, name, [cause])


def gone(message: str, **metadata: str) -> Refused:
    refused = Refused(410, "Expired", message)
    refused.body["metadata"] = metadata
    return refused


def throttled(retry_after: int) -> Refused:
    text = "Too many requests, please try again later."
    return Refused(
        429, "TooManyRequests", text, {"retryAfterSeconds": retry_after}, **{"Retry-After": f"{retry_after}"}
    )
