"""Collects garbage when nothing else is to be done: a screen full of colours is ten thousands of objects to look at.

Young objects are collected as ever, which is quick. Looking through all of them is kept for calm moments.
"""

from __future__ import annotations

import asyncio
import gc
from time import process_time

CALM_SECONDS = 1.0
CALM_SHARE = 0.02
"""Of a processor's time: with less used for a while, nobody waits for anything."""
COLLECT_SECONDS = 60.0
LONGEST_SECONDS = 900.0
"""Without any calm moment it is done all the same after this."""
MIN_ROUNDS = 10
"""Collections of young objects before it is worth it to look at all."""
_NEVER = 1 << 30


def only_when_calm() -> None:
    """From now on all objects are looked at only by `collect_when_calm`."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


async def collect_when_calm() -> None:
    """Collect garbage every now and then, until cancelled."""
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        waited, used, before = 0.0, CALM_SECONDS, process_time()
        while waited < LONGEST_SECONDS and used > CALM_SHARE * CALM_SECONDS:
            await asyncio.sleep(CALM_SECONDS)
            waited += CALM_SECONDS
            used, before = process_time() - before, process_time()
        if gc.get_count()[2] >= MIN_ROUNDS:
            gc.collect()
