"""Counts, alarms, and the words that no table knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial

import structlog

from app.services.connection import Connection
from app.services.logs import masked
from app.services.store.receipts import Arrival
from app.services.store.rows import columns

log = structlog.get_logger(__name__)

_COUNT = """
INSERT INTO hourly_counts AS c (hour, sender, carrier, outcome, total)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS v (h, s, c, o, t)
ORDER BY h, s, c, o
ON CONFLICT (hour, sender, carrier, outcome) DO UPDATE SET total = c.total + excluded.total
"""
CountKey = tuple[datetime, str, str, str]
_begins = lru_cache(maxsize=256)(partial(datetime, tzinfo=UTC))


def hour_of(at: datetime) -> datetime:
    """The UTC hour in which a time lies: the same object for all of them, whose hash is worked out once."""
    at = at if at.tzinfo is UTC else at.astimezone(UTC)
    return _begins(at.year, at.month, at.day, at.hour)


OPTED_OUT = "list.opted_out"
"""The outcome of whoever left, by whatever reason: one reason is named `opted_out`, and counts by itself."""


async def count(db: Connection, totals: Mapping[CountKey, int]) -> None:
    rows = [(*key, total) for key, total in totals.items() if total]
    if rows:
        await db.execute(_COUNT, *columns(rows))


_ALARM = """
INSERT INTO alarms AS a (kind, key, since, last_at, count)
SELECT k, key, $4, $4, n FROM unnest($1::text[], $2::text[], $3::bigint[]) AS v (k, key, n) ORDER BY k, key
ON CONFLICT (kind, key) DO UPDATE SET last_at = excluded.last_at, cleared_at = NULL,
    count = CASE WHEN a.cleared_at IS NULL THEN a.count ELSE 0 END + excluded.count,
    since = CASE WHEN a.cleared_at IS NULL THEN a.since ELSE excluded.since END
RETURNING kind, key, since = last_at AS raised
"""


async def alarm(db: Connection, alarms: Mapping[tuple[str, str], int], now: datetime) -> None:
    """Raise (kind, key) alarms, each with a line of log, or count them up while they stand."""
    rows = await db.fetch(_ALARM, *columns((*key, times) for key, times in alarms.items()), now) if alarms else ()
    for row in rows:
        if row["raised"]:
            log.warning("alarm", kind=row["kind"], key=masked(row["key"]))


_CLEAR = """
UPDATE alarms a SET cleared_at = $1
FROM (SELECT kind, key FROM alarms WHERE cleared_at IS NULL AND {which} ORDER BY kind, key FOR UPDATE) AS over
WHERE (a.kind, a.key) = (over.kind, over.key)
"""
_CLEAR_KINDS = _CLEAR.format(which="kind = ANY($2::text[]) AND ($3::text[] IS NULL OR key = ANY($3))")
_CLEAR_QUIET = _CLEAR.format(which="kind <> ALL($2::text[]) AND last_at < $3")


async def clear_alarms(db: Connection, kinds: Sequence[str], now: datetime, keys: Sequence[str] | None = None) -> None:
    """End the alarms that stand of these kinds; with `keys`, those of them alone."""
    await db.execute(_CLEAR_KINDS, now, kinds, keys)


async def clear_quiet_alarms(db: Connection, but: Sequence[str], now: datetime, since: datetime) -> None:
    """End alarms that were not raised again since then, all `but` those of kinds that something else ends."""
    await db.execute(_CLEAR_QUIET, now, but, since)


_UNKNOWN = """
INSERT INTO unknown_words AS u (gateway, account, kind, space, word, status, message_id, first_at, last_at, count)
SELECT g, a, k, s, w, st, m, $9, $9, n
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
    AS v (g, a, k, s, w, st, m, n) ORDER BY g, a, k, s, w
ON CONFLICT (gateway, account, kind, space, word) DO UPDATE SET status = excluded.status,
    message_id = coalesce(excluded.message_id, u.message_id), last_at = excluded.last_at,
    count = u.count + excluded.count
"""


async def note_unknown(db: Connection, arrivals: Iterable[Arrival], now: datetime) -> None:
    """Count codes and status words that no table knows, each with one message that had it."""
    seen: dict[tuple[str, str, str, str, str], list[Arrival]] = {}
    for a in arrivals:
        r = a.receipt
        if a.unmapped:
            seen.setdefault((r.gateway, r.account, "code", r.code_space or "", r.code or ""), []).append(a)
        if r.word:
            seen.setdefault((r.gateway, r.account, "status", "", r.word), []).append(a)
    if seen:
        rows = [(*key, same[-1].receipt.status.value, same[-1].receipt.message_id, len(same))
                for key, same in seen.items()]  # fmt: skip
        await db.execute(_UNKNOWN, *columns(rows), now)
