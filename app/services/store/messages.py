"""The sent-message register, and the receipts that wait for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import convert

from app.models.receipt import Receipt
from app.services.connection import Connection
from app.services.decide import Registered
from app.services.store.receipts import Arrival, MessageId, arrival_of, id_of
from app.services.store.rows import columns, encoded

_HOLD_PLACES = """
INSERT INTO messages (gateway, account, message_id, registered_at)
SELECT g, a, m, $4 FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (g, a, m) ORDER BY 1, 2, 3
ON CONFLICT (gateway, account, message_id) DO UPDATE SET registered_at = messages.registered_at
"""
_FIND_MESSAGES = """
SELECT gateway, account, message_id, number, sender, sent_at, carrier
FROM messages JOIN unnest($1::text[], $2::text[], $3::text[]) AS wanted (gateway, account, message_id)
    USING (gateway, account, message_id)
WHERE number IS NOT NULL
UNION ALL
SELECT NULL, NULL, NULL, n, NULL, NULL, NULL FROM unnest($4::text[]) n
WHERE NOT EXISTS (SELECT FROM numbers WHERE number = n)
"""


async def find_messages(
    db: Connection, ids: Iterable[MessageId], awaited: Iterable[MessageId], numbers: Iterable[str], now: datetime
) -> tuple[dict[MessageId, Registered], set[str]]:
    """What the register tells of these messages, and which of these numbers have no row yet. For messages of which more
    is `awaited`, a name or another part, a place is held and locked: what another process is writing of them just now
    is then either seen here, or sees the receipt there.
    """
    if places := sorted(awaited):
        await db.execute(_HOLD_PLACES, *columns(places), now)
    lacking = {*numbers}
    rows = [tuple(row) for row in await db.fetch(_FIND_MESSAGES, *columns(ids), [*lacking])]
    known = {(row[0], row[1], row[2]): Registered(*row[3:]) for row in rows if row[0] is not None}
    fresh = {row[3] for row in rows if row[0] is None}
    return known, fresh | ({one.number for one in known.values()} - lacking)


_UNDATED = """
SELECT r.gateway, r.account, message_id, r.number, r.sender, r.status, r.code_space, r.code, r.carrier, r.mcc, r.mnc,
    r.segment, r.segments, r.occurred_at, r.sent_at, r.received_at
FROM receipts r JOIN unnest($1::text[], $2::text[], $3::text[]) AS named (gateway, account, message_id)
    USING (gateway, account, message_id)
WHERE r.received_at > $4 AND (r.sent_at IS NULL OR r.reason = ANY($5::text[]))
    AND r.number IS NOT NULL AND r.sender IS NOT NULL
    AND r.status IN ('delivered', 'undeliverable', 'rejected', 'expired')
ORDER BY r.received_at, r.key
"""
_UNDATED_FIELDS = ("gateway", "account", "message_id", "number", "sender", "status", "code_space", "code", "carrier",
                   "mcc", "mnc", "segment", "segments", "occurred_at", "sent_at")  # fmt: skip


async def undated(db: Connection, ids: Iterable[MessageId], dated: Sequence[str],
                  since: datetime) -> list[tuple[Receipt, datetime]]:  # fmt: skip
    """Receipts of these messages that came since then without a send date, and lacked no name; of reasons in `dated`
    also those with one. And when each came.
    """
    return [
        (convert(dict(zip(_UNDATED_FIELDS, row, strict=False)), Receipt), row["received_at"])
        for row in await db.fetch(_UNDATED, *columns(ids), since, dated)
    ]


_REGISTER = """
INSERT INTO messages AS known (gateway, account, message_id, number, sender, carrier, sent_at, registered_at)
SELECT *, $8 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
    AS sent (g, a, m, n, s, c, t) ORDER BY g, a, m
ON CONFLICT (gateway, account, message_id) DO UPDATE SET number = excluded.number, sender = excluded.sender,
    carrier = excluded.carrier, sent_at = excluded.sent_at, registered_at = excluded.registered_at
"""


async def register(db: Connection, entries: Sequence[Sequence[Any]], now: datetime) -> None:
    """Add sent messages: (gateway, account, message id, number, sender, carrier, sent at)."""
    await db.execute(_REGISTER, *columns(entries), now)


_ADD_UNNAMED = """
INSERT INTO unnamed (gateway, account, message_id, key, receipt, received_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::json[], $6::timestamptz[])
ON CONFLICT DO NOTHING
"""


async def add_unnamed(db: Connection, arrivals: Iterable[Arrival]) -> None:
    """Keep receipts until the register names their number or sender. One may be there already: it can wait for longer
    than its repetitions are recognised.
    """
    rows = [(*id_of(a.receipt), a.key, encoded(a), a.arrived) for a in arrivals]
    if rows:
        await db.execute(_ADD_UNNAMED, *columns(rows))


_TAKE_UNNAMED = """
DELETE FROM unnamed USING unnest($1::text[], $2::text[], $3::text[]) AS named (g, a, m)
WHERE gateway = g AND account = a AND message_id = m RETURNING receipt
"""


async def take_unnamed(db: Connection, ids: Iterable[MessageId]) -> list[Arrival]:
    """The receipts that waited for these messages' names, in order of arrival."""
    return _in_order(await db.fetch(_TAKE_UNNAMED, *columns(ids)))


def _in_order(rows: Iterable[Mapping[str, Any]]) -> list[Arrival]:
    return sorted((arrival_of(row["receipt"]) for row in rows), key=lambda a: (a.arrived, a.key))


_TAKE_SENDERLESS = """
DELETE FROM unnamed WHERE (gateway, account, message_id, key) IN (
    SELECT gateway, account, message_id, key FROM unnamed
    WHERE gateway = $1 AND account = $2 AND receipt -> 0 ->> 'number' IS NOT NULL
    LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING receipt
"""


async def take_senderless(db: Connection, gateway: str, account: str, most: int) -> list[Arrival]:
    """Receipts of one link that waited for the name of their sender alone, in order of arrival."""
    return _in_order(await db.fetch(_TAKE_SENDERLESS, gateway, account, most))


_NAME_RECEIPTS = """
UPDATE receipts r SET number = v.number, sender = v.sender
FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::text[])
    AS v (received_at, key, message_id, number, sender)
WHERE r.received_at = v.received_at AND r.key = v.key AND r.message_id = v.message_id
"""


async def name_receipts(db: Connection, named: Iterable[tuple[Arrival, Registered]]) -> None:
    rows = [
        (a.arrived, a.key, a.receipt.message_id, a.receipt.number or known.number, a.receipt.sender or known.sender)
        for a, known in named
    ]
    if rows:
        await db.execute(_NAME_RECEIPTS, *columns(rows))
