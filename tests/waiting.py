"""Waiting for a condition, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
Condition = Callable[[], T | Awaitable[T]]

INTERVAL = 0.02


async def until(condition: Condition[T], what: str, seconds: float = 20.0) -> T:
    """The first true value of `condition`, sync or async; fails naming `what` and the last value after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s; last seen: {value!r}")
        await asyncio.sleep(INTERVAL)
