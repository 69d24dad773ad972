"""Alarms that a person ends: most tell of what happened, so that nothing but time ends them by itself."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import breaker, store
from app.services.connection import transaction
from app.services.lookup import stops

OF_WHAT_STANDS = {
    breaker.ALARM: "decide on it: see `sendable quarantine list`",
    stops.ALARM: "run `sendable lookup resume`",
}
"""Kinds of what still stands, and what ends that: it would not raise its alarm again."""

_STANDING = "SELECT key FROM alarms WHERE kind = $1 AND ($2::text IS NULL OR key = $2) AND cleared_at IS NULL"


async def clear(engine: AsyncEngine, kind: str, key: str | None) -> int:
    """End the alarms of a kind, or one of them, until it is raised again. Returns how many stood."""
    async with transaction(engine) as db:
        keys = [row["key"] for row in await db.fetch(_STANDING, kind, key)]
        await store.clear_alarms(db, [kind], datetime.now(UTC), keys)
    return len(keys)
