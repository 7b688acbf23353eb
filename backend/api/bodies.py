"""Request bodies: read with a limit and a time-out, parsed straight into their model, documented in OpenAPI."""

import asyncio
from typing import Any, Final, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from backend.api.errors import problems_of
from backend.services.errors import Invalid

MEGABYTE: Final = 1024 * 1024
DEFAULT_LIMIT: Final = MEGABYTE
AGENT_LIMIT: Final = 12 * MEGABYTE
"""Agents carry up to 10 MB of files."""
SESSION_LIMIT: Final = 80 * MEGABYTE
"""Sessions may come with ten attachments."""
IN_THREAD: Final = 256 * 1024
CHUNK_TIMEOUT: Final = 30.0
"""Seconds a client may be silent while it sends a body."""

REFERENCE: Final = "#/components/schemas/{model}"


class Body(BaseModel):
    """Base of request models: JSON types are not converted, unknown keys are dropped (LAP REST 1.3)."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True, defer_build=True)

    def given(self) -> dict[str, Any]:
        """The fields that were present, by name."""
        return {name: value for name, value in self.model_dump().items() if name in self.model_fields_set}


Model = TypeVar("Model", bound=Body)


async def read_bytes(request: Request, limit: int = DEFAULT_LIMIT) -> bytes:
    """The whole body. Refuses one above `limit` bytes with 413 before taking it in, a stalled one with 408."""
    too_large = HTTPException(413, f"body larger than {limit} bytes", {"connection": "close"})
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:18]) > limit:
        raise too_large
    body = bytearray()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CHUNK_TIMEOUT) as deadline:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
                deadline.reschedule(loop.time() + CHUNK_TIMEOUT)
    except TimeoutError:
        raise HTTPException(408, "the body did not arrive in time", {"connection": "close"}) from None
    return bytes(body)


async def read_json(request: Request, model: type[Model], limit: int = DEFAULT_LIMIT) -> Model:
    """The body as `model`. Raises Invalid with every problem, or 400 `invalid json`."""
    return parse(await read_bytes(request, limit), model)


def parse(body: bytes, model: type[Model]) -> Model:
    """`body` as `model`. Raises Invalid with every problem, or 400 `invalid json`."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = problems_of(error)
        if problems[0].code == "json_invalid":
            raise HTTPException(400, "invalid json") from None
        raise Invalid(problems) from None


async def parse_long(body: bytes, model: type[Model]) -> Model:
    """The same for a body that may be long: then in a thread, as it would hold up everything else."""
    return await asyncio.to_thread(parse, body, model) if len(body) > IN_THREAD else parse(body, model)


def documented(model: type[Body], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body with `read_json`; api.document adds the schema."""
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
