"""How a number came to be so: its changes with their causes, and what checks have said of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import feed, reading, rnd
from app.services.reading import NEWEST


async def page(engine: AsyncEngine, number: str, after: int, limit: int) -> dict[str, Any]:
    """Newest first, from the one before the cursor. The checks come with the first page."""
    rows = await reading.history(engine, number, after, limit + 1)
    items = [feed.shape(row) for row in rows[:limit]]
    checks = [row._asdict() for row in await rnd.history(engine, number)] if after == NEWEST else []
    return {"items": items, "next": items[-1]["seq"] if len(rows) > limit else None, "checks": checks}
