"""Turns of the event loop: in each of them everybody who can go on goes on once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """How many there have been."""

    count = 0


@asynccontextmanager
async def counted() -> AsyncIterator[Turns]:
    """What happens at different counts lets others be answered in between."""
    turns = Turns()

    async def turn() -> None:
        while True:
            turns.count += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    yield turns
    turning.cancel()
