"""Receipts as they are stored, and what recognises their repetitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct
from msgspec.json import Decoder

from app.models.receipt import Receipt
from app.services.connection import Connection
from app.services.decide import Registered
from app.services.store.rows import columns

NAMELESS_FOR = timedelta(hours=24)
"""How long a receipt without a message id is recognised; after that the same words are a new receipt."""


class Arrival(Struct, frozen=True, gc=False, array_like=True):
    """A receipt as it is stored: with the key that recognises its repetitions, its arrival, and what it was taken for.

    `unmapped`: it failed with a code that is in no table; `spelled`: its code as its table writes it (0629 is 629).
    """

    receipt: Receipt
    key: UUID
    arrived: datetime
    reason: str | None = None
    brand: str | None = None
    unmapped: bool = False
    spelled: str | None = None


arrival_of = Decoder(Arrival).decode
MessageId = tuple[str, str, str]


def id_of(receipt: Receipt) -> MessageId:
    return (receipt.gateway, receipt.account, receipt.message_id or "")


_ADD_KEYS = """
INSERT INTO receipt_keys AS known (key, arrived_at)
SELECT k, $3 FROM unnest($1::uuid[]) k ORDER BY k
ON CONFLICT (key) DO UPDATE SET arrived_at = excluded.arrived_at
WHERE known.key = ANY($2::uuid[]) AND known.arrived_at < $4
RETURNING key
"""


async def add_keys(db: Connection, arrivals: Mapping[UUID, Arrival], now: datetime) -> set[UUID]:
    """Keys that are new. A concurrent process that adds the same key is waited for."""
    nameless = [key for key, arrival in arrivals.items() if arrival.receipt.message_id is None]
    return {row["key"] for row in await db.fetch(_ADD_KEYS, [*arrivals], nameless, now, now - NAMELESS_FOR)}


_STORED = "SELECT key FROM receipts WHERE message_id = ANY($1::text[]) AND key = ANY($2::uuid[])"


async def stored(db: Connection, arrivals: Iterable[Arrival]) -> set[UUID]:
    """Keys of those that were taken and are still stored, however long ago: longer than repetitions are known."""
    named = [(a.receipt.message_id, a.key) for a in arrivals if a.receipt.message_id is not None]
    return {row["key"] for row in await db.fetch(_STORED, *columns(named))} if named else set()


_ADD_NONCES = """
INSERT INTO receipt_keys (key, arrived_at) SELECT k, $2 FROM unnest($1::uuid[]) k ORDER BY k
ON CONFLICT DO NOTHING RETURNING key
"""


async def add_nonces(db: Connection, nonces: Iterable[UUID], now: datetime) -> set[UUID]:
    """Nonces that are new. They are remembered as receipts' keys are, and pruned with them; taken before those."""
    return {row["key"] for row in await db.fetch(_ADD_NONCES, [*nonces], now)}


_RECEIPT_COLUMNS = (
    "received_at", "key", "gateway", "account", "message_id", "number", "sender", "status", "code_space", "code",
    "reason", "carrier", "mcc", "mnc", "segment", "segments", "occurred_at", "sent_at",
)  # fmt: skip


async def add_receipts(db: Connection, arrivals: Sequence[tuple[Arrival, Registered | None]]) -> None:
    """Store receipts; what the register knows fills in a missing number or sender.

    By COPY: their keys are known to be new, so nothing can conflict here (a third of what `unnest` costs both sides).
    """
    rows = [
        (
            a.arrived, a.key, r.gateway, r.account, r.message_id, r.number or (known.number if known else None),
            r.sender or (known.sender if known else None), str(r.status), r.code_space, r.code, a.reason, r.carrier,
            r.mcc, r.mnc, r.segment, r.segments, r.occurred_at, r.sent_at,
        )
        for a, known in arrivals
        for r in (a.receipt,)
    ]  # fmt: skip
    await db.copy_records_to_table("receipts", records=rows, columns=_RECEIPT_COLUMNS)


_WHOLE = """
SELECT r.gateway, r.account, r.message_id
FROM receipts r JOIN unnest($1::text[], $2::text[], $3::text[]) AS wanted (gateway, account, message_id)
    USING (gateway, account, message_id)
WHERE r.segment IS NOT NULL AND r.status = 'delivered' AND r.received_at > $4
GROUP BY 1, 2, 3 HAVING count(DISTINCT r.segment) >= coalesce(max(r.segments), max(r.segment))
"""


async def whole_messages(db: Connection, ids: Iterable[MessageId], since: datetime) -> set[MessageId]:
    """Of messages in several parts, those whose every part has been delivered."""
    return {(row[0], row[1], row[2]) for row in await db.fetch(_WHOLE, *columns(ids), since)}
