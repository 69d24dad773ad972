"""What could not be read, and what was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from app.services.connection import Connection, touched
from app.services.store.rows import columns


class Kept(NamedTuple):
    """What could not be read, as it came. `digest` is its identity: a repeated body is kept once."""

    digest: UUID
    gateway: str
    account: str
    reason: str
    method: str
    headers: str
    query: str
    body: bytes


_KEEP_UNREAD = """
INSERT INTO unread AS u (digest, gateway, account, reason, method, headers, query, body, times, first_at, last_at)
SELECT *, $10, $10 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::text[],
    $8::bytea[], $9::int[]) AS v (d) ORDER BY d
ON CONFLICT (digest) DO UPDATE
SET times = least(u.times + excluded.times::bigint, 2147483647), last_at = excluded.last_at
"""


async def keep_unread(db: Connection, kept: Sequence[Kept], now: datetime) -> None:
    """Each once, and how often it came."""
    if kept:
        times = Counter(one.digest for one in kept)
        rows = [(*one, times[digest]) for digest, one in {one.digest: one for one in kept}.items()]
        await db.execute(_KEEP_UNREAD, *columns(rows), now)


_DROP_UNREAD = """
DELETE FROM unread USING (SELECT digest FROM unread WHERE id = ANY($1::bigint[]) ORDER BY digest FOR UPDATE) AS v
WHERE unread.digest = v.digest
"""
_DROP_REFUSED = """
DELETE FROM refused USING (SELECT id FROM refused WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE) AS v
WHERE refused.id = v.id
"""


async def drop_unread(db: Connection, ids: Sequence[int]) -> int:
    """Forget unread callbacks. Returns how many were still there."""
    return await _dropped(db, _DROP_UNREAD, ids)


async def drop_refused(db: Connection, ids: Sequence[int]) -> int:
    """Forget refused requests. Returns how many were still there."""
    return await _dropped(db, _DROP_REFUSED, ids)


async def _dropped(db: Connection, statement: str, ids: Sequence[int]) -> int:
    return touched(await db.execute(statement, ids)) if ids else 0
