"""The write path in SQL. Each statement stands above the one function that runs it; every function works inside the
transaction that its caller opened. Locks are taken in one order everywhere: receipt keys, messages, numbers, unread,
counts, alarms, and last the feed; within each by key. So processes cannot deadlock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models.number import Carrier, Cause, Change, Fact, Number, OptIn, Step, Subscription
from app.models.policy import Policy
from app.models.receipt import Receipt
from app.services.decide import Held, Registered, consent, hold

FEED_LOCK = 7_316_002
CHANNEL = "sendable_changes"

_NUMBER = TypeAdapter(Number)
_STEPS = TypeAdapter(tuple[Step, ...])
_CAUSE = TypeAdapter(Cause)


class ListFacts(NamedTuple):
    opted_in: OptIn | None = None
    out: Fact | None = None


_LIST = TypeAdapter(ListFacts)


class Arrival(NamedTuple):
    """A receipt as it is stored: with the key that recognises its repetitions, its arrival, and what it was taken for.
    `unmapped`: it failed with a code that is in no table."""

    receipt: Receipt
    key: UUID
    arrived: datetime
    reason: str | None = None
    brand: str | None = None
    unmapped: bool = False


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


MessageId = tuple[str, str, str]


def id_of(receipt: Receipt) -> MessageId:
    return (receipt.gateway, receipt.account, receipt.message_id or "")


def columns(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Rows turned into one array a column, as `unnest` takes them."""
    turned = [*zip(*rows, strict=True)] or [()] * len(names)
    return {name: list(column) for name, column in zip(names, turned, strict=True)}


# Receipts ----------------------------------------------------------------------------------------------------------

# A key without a message id is a digest of the receipt itself: after a day the same words are a new receipt.
_ADD_KEYS = text("""
INSERT INTO receipt_keys AS known (key, arrived_at)
SELECT k, :now FROM unnest(CAST(:keys AS uuid[])) k ORDER BY k
ON CONFLICT (key) DO UPDATE SET arrived_at = excluded.arrived_at
WHERE known.key = ANY(CAST(:nameless AS uuid[])) AND known.arrived_at < excluded.arrived_at - interval '24 hours'
RETURNING key
""")


async def add_keys(db: AsyncConnection, arrivals: Mapping[UUID, Arrival], now: datetime) -> set[UUID]:
    """Keys that are new. A concurrent process that adds the same key is waited for."""
    nameless = [key for key, arrival in arrivals.items() if arrival.receipt.message_id is None]
    rows = await db.execute(_ADD_KEYS, {"keys": [*arrivals], "nameless": nameless, "now": now})
    return {row.key for row in rows}


_RECEIPT_COLUMNS = (
    "received_at", "key", "gateway", "account", "message_id", "number", "sender", "status", "code_space", "code",
    "reason", "carrier", "mcc", "mnc", "segment", "segments", "occurred_at", "sent_at",
)  # fmt: skip
_ADD_RECEIPTS = text(f"""
INSERT INTO receipts ({", ".join(_RECEIPT_COLUMNS)})
SELECT * FROM unnest(
    CAST(:received_at AS timestamptz[]), CAST(:key AS uuid[]), CAST(:gateway AS text[]), CAST(:account AS text[]),
    CAST(:message_id AS text[]), CAST(:number AS text[]), CAST(:sender AS text[]), CAST(:status AS text[]),
    CAST(:code_space AS text[]), CAST(:code AS text[]), CAST(:reason AS text[]), CAST(:carrier AS text[]),
    CAST(:mcc AS text[]), CAST(:mnc AS text[]), CAST(:segment AS smallint[]), CAST(:segments AS smallint[]),
    CAST(:occurred_at AS timestamptz[]), CAST(:sent_at AS timestamptz[]))
""")  # noqa: S608 - the columns are a constant above


async def add_receipts(db: AsyncConnection, arrivals: Sequence[tuple[Arrival, Registered | None]]) -> None:
    """Store receipts; what the register knows fills in a missing number or sender."""
    rows = [
        (
            a.arrived, a.key, a.receipt.gateway, a.receipt.account, a.receipt.message_id,
            a.receipt.number or (known.number if known else None),
            a.receipt.sender or (known.sender if known else None),
            a.receipt.status.value, a.receipt.code_space, a.receipt.code, a.reason, a.receipt.carrier, a.receipt.mcc,
            a.receipt.mnc, a.receipt.segment, a.receipt.segments, a.receipt.occurred_at, a.receipt.sent_at,
        )
        for a, known in arrivals
    ]  # fmt: skip
    if rows:
        await db.execute(_ADD_RECEIPTS, columns(rows, _RECEIPT_COLUMNS))


_WHOLE = text("""
SELECT r.gateway, r.account, r.message_id
FROM receipts r JOIN unnest(CAST(:gateway AS text[]), CAST(:account AS text[]), CAST(:message_id AS text[]))
    AS wanted (gateway, account, message_id) USING (gateway, account, message_id)
WHERE r.segments > 1 AND r.status = 'delivered' AND r.received_at > CAST(:since AS timestamptz)
GROUP BY 1, 2, 3 HAVING count(DISTINCT r.segment) >= max(r.segments)
""")


async def whole_messages(
    db: AsyncConnection, ids: Iterable[tuple[str, str, str]], since: datetime
) -> set[tuple[str, ...]]:
    """Of messages in several parts, those whose every part has been delivered."""
    rows = await db.execute(_WHOLE, columns(ids, ("gateway", "account", "message_id")) | {"since": since})
    return {tuple(row) for row in rows}


# The sent-message register -----------------------------------------------------------------------------------------

_HOLD_PLACES = text("""
INSERT INTO messages (gateway, account, message_id, registered_at)
SELECT g, a, m, :now FROM unnest(CAST(:gateway AS text[]), CAST(:account AS text[]), CAST(:message_id AS text[]))
    AS wanted (g, a, m) ORDER BY 1, 2, 3
ON CONFLICT (gateway, account, message_id) DO UPDATE SET registered_at = messages.registered_at
""")
_FIND_MESSAGES = text("""
SELECT gateway, account, message_id, number, sender, sent_at, carrier IS NOT NULL AS routed
FROM messages JOIN unnest(CAST(:gateway AS text[]), CAST(:account AS text[]), CAST(:message_id AS text[]))
    AS wanted (gateway, account, message_id) USING (gateway, account, message_id)
WHERE number IS NOT NULL
""")


async def find_messages(db: AsyncConnection, ids: Iterable[MessageId], unnamed: set[MessageId],
                        now: datetime) -> dict[MessageId, Registered]:  # fmt: skip
    """What the register tells of these messages. For those that lack a number or a sender a place is held and locked, so
    that an entry which another process is writing just now is either seen here or sees the receipt there."""
    names = ("gateway", "account", "message_id")
    if unnamed:
        await db.execute(_HOLD_PLACES, columns(sorted(unnamed), names) | {"now": now})
    rows = await db.execute(_FIND_MESSAGES, columns(set(ids), names))
    return {(r.gateway, r.account, r.message_id): Registered(r.number, r.sender, r.sent_at, r.routed) for r in rows}


_REGISTER = text("""
INSERT INTO messages AS known (gateway, account, message_id, number, sender, carrier, sent_at, registered_at)
SELECT *, :now FROM unnest(CAST(:gateway AS text[]), CAST(:account AS text[]), CAST(:message_id AS text[]),
    CAST(:number AS text[]), CAST(:sender AS text[]), CAST(:carrier AS text[]), CAST(:sent_at AS timestamptz[]))
    AS sent (g, a, m, n, s, c, t) ORDER BY g, a, m
ON CONFLICT (gateway, account, message_id) DO UPDATE SET number = excluded.number, sender = excluded.sender,
    carrier = excluded.carrier, sent_at = excluded.sent_at
""")


async def register(db: AsyncConnection, entries: Sequence[Sequence[Any]], now: datetime) -> None:
    """Add sent messages: (gateway, account, message id, number, sender, carrier, sent at)."""
    names = ("gateway", "account", "message_id", "number", "sender", "carrier", "sent_at")
    await db.execute(_REGISTER, columns(entries, names) | {"now": now})


_ADD_UNNAMED = text("""
INSERT INTO unnamed (gateway, account, message_id, key, receipt, received_at)
SELECT * FROM unnest(CAST(:gateway AS text[]), CAST(:account AS text[]), CAST(:message_id AS text[]),
    CAST(:key AS uuid[]), CAST(:receipt AS jsonb[]), CAST(:received_at AS timestamptz[]))
""")
_ARRIVAL = TypeAdapter(Arrival)


async def add_unnamed(db: AsyncConnection, arrivals: Sequence[Arrival]) -> None:
    """Keep receipts until the register names their number or sender."""
    rows = [
        (a.receipt.gateway, a.receipt.account, a.receipt.message_id, a.key, _ARRIVAL.dump_json(a).decode(), a.arrived)
        for a in arrivals
    ]
    if rows:
        names = ("gateway", "account", "message_id", "key", "receipt", "received_at")
        await db.execute(_ADD_UNNAMED, columns(rows, names))


_TAKE_UNNAMED = text("""
DELETE FROM unnamed
USING unnest(CAST(:gateway AS text[]), CAST(:account AS text[]), CAST(:message_id AS text[])) AS named (g, a, m)
WHERE gateway = g AND account = a AND message_id = m
RETURNING receipt
""")
_NAME_RECEIPTS = text("""
UPDATE receipts r SET number = v.number, sender = v.sender
FROM unnest(CAST(:received_at AS timestamptz[]), CAST(:key AS uuid[]), CAST(:message_id AS text[]),
    CAST(:number AS text[]), CAST(:sender AS text[])) AS v (received_at, key, message_id, number, sender)
WHERE r.received_at = v.received_at AND r.key = v.key AND r.message_id = v.message_id
""")


async def take_unnamed(db: AsyncConnection, ids: Iterable[MessageId]) -> list[Arrival]:
    """The receipts that waited for these messages' names, in order of arrival."""
    rows = await db.execute(_TAKE_UNNAMED, columns(ids, ("gateway", "account", "message_id")))
    return sorted((_ARRIVAL.validate_json(row.receipt) for row in rows), key=lambda a: (a.arrived, a.key))


async def name_receipts(db: AsyncConnection, named: Sequence[tuple[Arrival, Registered]]) -> None:
    rows = [
        (a.arrived, a.key, a.receipt.message_id, a.receipt.number or known.number, a.receipt.sender or known.sender)
        for a, known in named
    ]
    if rows:
        await db.execute(_NAME_RECEIPTS, columns(rows, ("received_at", "key", "message_id", "number", "sender")))


# Numbers -----------------------------------------------------------------------------------------------------------

_ADD_NUMBERS = text("""
INSERT INTO numbers (number) SELECT n FROM unnest(CAST(:numbers AS text[])) n ORDER BY n ON CONFLICT DO NOTHING
""")
_LOCK_NUMBERS = text("""
SELECT number, facts, state, reason, until FROM numbers
WHERE number = ANY(CAST(:numbers AS text[])) ORDER BY number FOR UPDATE
""")
_LISTS = text("""
SELECT number, sender, list, facts FROM subscriptions WHERE number = ANY(CAST(:numbers AS text[]))
""")


async def lock_numbers(db: AsyncConnection, numbers: Iterable[str], with_lists: Iterable[str], policy: Policy,
                       now: datetime) -> dict[str, Held]:  # fmt: skip
    """Everything held of these numbers, locked until the transaction ends. A number's lock covers its lists and blocks:
    nobody writes those without it. Lists are read only for `with_lists`."""
    wanted = sorted(set(numbers))
    await db.execute(_ADD_NUMBERS, {"numbers": wanted})
    rows = (await db.execute(_LOCK_NUMBERS, {"numbers": wanted})).all()
    lists = await _lists(db, sorted(set(with_lists)))
    return {
        row.number: hold(
            _NUMBER.validate_json(row.facts) if row.facts != "{}" else Number(row.number),
            Step(row.state, row.reason, None, row.until),
            lists.get(row.number, {}),
            policy,
            now,
        )
        for row in rows
    }


async def _lists(db: AsyncConnection, numbers: list[str]) -> dict[str, dict[tuple[str, str], Subscription]]:
    found: dict[str, dict[tuple[str, str], Subscription]] = {}
    if numbers:
        for row in await db.execute(_LISTS, {"numbers": numbers}):
            facts = _LIST.validate_json(row.facts)
            found.setdefault(row.number, {})[row.sender, row.list] = Subscription(
                row.number, row.sender, row.list, *facts
            )
    return found


_SAVE_NUMBERS = text("""
UPDATE numbers n SET facts = v.facts, steps = v.steps, state = v.state, reason = v.reason, waiting_for = v.waiting_for,
    until = v.until, dead_since = v.dead_since, carrier = v.carrier, last_receipt_at = v.last_receipt_at,
    changed_at = CASE WHEN v.moved THEN :now ELSE n.changed_at END
FROM unnest(CAST(:number AS text[]), CAST(:facts AS jsonb[]), CAST(:steps AS jsonb[]), CAST(:state AS text[]),
    CAST(:reason AS text[]), CAST(:waiting_for AS text[]), CAST(:until AS timestamptz[]),
    CAST(:dead_since AS timestamptz[]), CAST(:carrier AS jsonb[]), CAST(:last_receipt_at AS timestamptz[]),
    CAST(:moved AS boolean[]))
    AS v (number, facts, steps, state, reason, waiting_for, until, dead_since, carrier, last_receipt_at, moved)
WHERE n.number = v.number
""")
_NUMBER_COLUMNS = (
    "number", "facts", "steps", "state", "reason", "waiting_for", "until", "dead_since", "carrier", "last_receipt_at",
    "moved",
)  # fmt: skip
_CARRIER = TypeAdapter(Carrier)
_ACTIVE = (Step("active"),)


async def save_numbers(
    db: AsyncConnection, before: Mapping[str, Held], after: Mapping[str, Held], now: datetime
) -> None:
    """Write back what changed, with the steps that the views show."""
    rows = [
        _number_row(held, before[number])
        for number, held in after.items()
        if held.number != before[number].number or held.told != before[number].told
    ]
    if rows:
        await db.execute(_SAVE_NUMBERS, columns(rows, _NUMBER_COLUMNS) | {"now": now})
    await _save_blocks(db, before, after)


def _number_row(held: Held, was: Held) -> tuple[Any, ...]:
    number, shown, step = held.number, held.shown, held.told
    steps = "[]" if shown.steps == _ACTIVE else _STEPS.dump_json(shown.steps, exclude_defaults=True).decode()
    return (
        number.number, _NUMBER.dump_json(number, exclude_defaults=True).decode(), steps, step.state, step.reason,
        step.waiting_for, step.until, shown.dead_since,
        _CARRIER.dump_json(shown.carrier, exclude_defaults=True).decode() if shown.carrier else None,
        number.last_receipt_at, (step.state, step.reason) != (was.told.state, was.told.reason),
    )  # fmt: skip


_ADD_BLOCKS = text("""
INSERT INTO sender_blocks (number, sender, reason, at, cause)
SELECT * FROM unnest(CAST(:number AS text[]), CAST(:sender AS text[]), CAST(:reason AS text[]),
    CAST(:at AS timestamptz[]), CAST(:cause AS jsonb[]))
ON CONFLICT (number, sender) DO UPDATE SET reason = excluded.reason, at = excluded.at, cause = excluded.cause
""")
_LIFT_BLOCKS = text("""
DELETE FROM sender_blocks b USING unnest(CAST(:number AS text[]), CAST(:sender AS text[])) AS v (number, sender)
WHERE b.number = v.number AND b.sender = v.sender
""")


async def _save_blocks(db: AsyncConnection, before: Mapping[str, Held], after: Mapping[str, Held]) -> None:
    set_, lifted = [], []
    for number, held in after.items():
        was, now = before[number].shown.blocks, held.shown.blocks
        if was == now:
            continue
        set_ += [
            (number, sender, fact.reason, fact.at, _CAUSE.dump_json(fact.cause, exclude_defaults=True).decode())
            for sender, fact in now.items()
            if was.get(sender) != fact
        ]
        lifted += [(number, sender) for sender in was.keys() - now.keys()]
    if set_:
        await db.execute(_ADD_BLOCKS, columns(set_, ("number", "sender", "reason", "at", "cause")))
    if lifted:
        await db.execute(_LIFT_BLOCKS, columns(lifted, ("number", "sender")))


_SAVE_LISTS = text("""
INSERT INTO subscriptions AS s (number, sender, list, facts, consent, opted_in_at, reason, code_space, code, at)
SELECT * FROM unnest(CAST(:number AS text[]), CAST(:sender AS text[]), CAST(:list AS text[]), CAST(:facts AS jsonb[]),
    CAST(:consent AS text[]), CAST(:opted_in_at AS timestamptz[]), CAST(:reason AS text[]), CAST(:code_space AS text[]),
    CAST(:code AS text[]), CAST(:at AS timestamptz[]))
ON CONFLICT (number, sender, list) DO UPDATE SET facts = excluded.facts, consent = excluded.consent,
    opted_in_at = excluded.opted_in_at, reason = excluded.reason, code_space = excluded.code_space,
    code = excluded.code, at = excluded.at
""")


async def save_lists(db: AsyncConnection, before: Mapping[str, Held], after: Mapping[str, Held]) -> None:
    """Write consent back: for every list whose facts changed, or that a wider opt-out reached."""
    rows = []
    for number, held in after.items():
        was = before[number]
        for key, subscription in held.lists.items():
            known = was.lists.get(key)
            row = _list_row(held.number, subscription)
            if known is None or row != _list_row(was.number, known):
                rows.append(row)
    if rows:
        names = ("number", "sender", "list", "facts", "consent", "opted_in_at", "reason", "code_space", "code", "at")
        await db.execute(_SAVE_LISTS, columns(sorted(rows, key=lambda r: (r[0], r[1], r[2])), names))


def _list_row(number: Number, held: Subscription) -> tuple[Any, ...]:
    now, out = consent(number, held)
    facts = _LIST.dump_json(ListFacts(held.opted_in, held.out)).decode()
    opted_in_at = held.opted_in.at if held.opted_in else None
    at = out.at if out else opted_in_at
    cause = out.cause if out else Cause("call")
    reason = out.reason if out else None
    return (number.number, held.sender, held.list, facts, now, opted_in_at, reason, cause.code_space, cause.code, at)


# Lookups, counts, alarms, unread -----------------------------------------------------------------------------------

_ASK_LOOKUPS = text("""
INSERT INTO lookups (number, reason, cause, asked_at, due_at)
SELECT n, r, c, :now, :now FROM unnest(CAST(:number AS text[]), CAST(:reason AS text[]), CAST(:cause AS jsonb[]))
    AS wanted (n, r, c) ORDER BY n
ON CONFLICT (number) DO NOTHING
""")
_DROP_LOOKUPS = text("DELETE FROM lookups WHERE number = ANY(CAST(:numbers AS text[]))")


async def save_lookups(
    db: AsyncConnection, before: Mapping[str, Held], after: Mapping[str, Held], now: datetime
) -> None:
    """Ask for the lookups that the numbers now wait for, and forget those that nothing waits for any more."""
    asked, dropped = [], []
    for number, held in after.items():
        wanted, was = held.shown.lookup, before[number].shown.lookup
        if wanted:
            asked.append((number, wanted.reason, _CAUSE.dump_json(wanted.cause, exclude_defaults=True).decode()))
        elif was:
            dropped.append(number)
    if asked:
        await db.execute(_ASK_LOOKUPS, columns(asked, ("number", "reason", "cause")) | {"now": now})
    if dropped:
        await db.execute(_DROP_LOOKUPS, {"numbers": dropped})


_COUNT = text("""
INSERT INTO hourly_counts AS c (hour, sender, carrier, outcome, total)
SELECT * FROM unnest(CAST(:hour AS timestamptz[]), CAST(:sender AS text[]), CAST(:carrier AS text[]),
    CAST(:outcome AS text[]), CAST(:total AS bigint[])) AS v (h, s, c, o, t) ORDER BY h, s, c, o
ON CONFLICT (hour, sender, carrier, outcome) DO UPDATE SET total = c.total + excluded.total
""")
CountKey = tuple[datetime, str, str, str]


async def count(db: AsyncConnection, totals: Mapping[CountKey, int]) -> None:
    rows = [(*key, total) for key, total in totals.items() if total]
    if rows:
        await db.execute(_COUNT, columns(rows, ("hour", "sender", "carrier", "outcome", "total")))


_ALARM = text("""
INSERT INTO alarms AS a (kind, key, since, last_at, count)
SELECT k, key, :now, :now, n FROM unnest(CAST(:kind AS text[]), CAST(:key AS text[]), CAST(:count AS bigint[]))
    AS v (k, key, n) ORDER BY k, key
ON CONFLICT (kind, key) DO UPDATE SET last_at = excluded.last_at, cleared_at = NULL,
    count = CASE WHEN a.cleared_at IS NULL THEN a.count ELSE 0 END + excluded.count,
    since = CASE WHEN a.cleared_at IS NULL THEN a.since ELSE excluded.since END
""")


async def alarm(db: AsyncConnection, alarms: Mapping[tuple[str, str], int], now: datetime) -> None:
    """Raise (kind, key) alarms, or count them up while they stand."""
    rows = [(*key, times) for key, times in alarms.items()]
    if rows:
        await db.execute(_ALARM, columns(rows, ("kind", "key", "count")) | {"now": now})


_KEEP_UNREAD = text("""
INSERT INTO unread AS u (digest, gateway, account, reason, method, headers, query, body, first_at, last_at)
SELECT *, :now, :now FROM unnest(CAST(:digest AS uuid[]), CAST(:gateway AS text[]), CAST(:account AS text[]),
    CAST(:reason AS text[]), CAST(:method AS text[]), CAST(:headers AS jsonb[]), CAST(:query AS text[]),
    CAST(:body AS bytea[])) AS v (d) ORDER BY d
ON CONFLICT (digest) DO UPDATE SET times = u.times + 1, last_at = excluded.last_at
""")


async def keep_unread(db: AsyncConnection, kept: Iterable[Kept], now: datetime) -> None:
    rows = [*{one.digest: one for one in kept}.values()]
    if rows:
        await db.execute(_KEEP_UNREAD, columns(rows, Kept._fields) | {"now": now})


# The feed ----------------------------------------------------------------------------------------------------------

# The lock comes before the first sequence value is taken and goes with the commit: so the feed's order is the order of
# commits, and a reader of "seq > cursor" passes nothing that is still in flight.
_PUBLISH = text(f"""
WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({FEED_LOCK})),
added AS (
    INSERT INTO changes (number, sender, list, kind, before, after, reason, cause, occurred_at, committed_at)
    SELECT v.*, clock_timestamp() FROM turn, unnest(CAST(:number AS text[]), CAST(:sender AS text[]),
        CAST(:list AS text[]), CAST(:kind AS text[]), CAST(:before AS text[]), CAST(:after AS text[]),
        CAST(:reason AS text[]), CAST(:cause AS jsonb[]), CAST(:occurred_at AS timestamptz[])) AS v
    RETURNING seq)
SELECT pg_notify('{CHANNEL}', '') FROM (SELECT count(*) FROM added) AS _
""")  # noqa: S608 - two constants of this file


async def publish(db: AsyncConnection, changes: Sequence[Change]) -> None:
    """The last statement of a transaction, and only when something truly changed."""
    rows = [
        (c.number, c.sender, c.list, c.kind, c.before, c.after, c.reason,
         _CAUSE.dump_json(c.cause, exclude_defaults=True).decode(), c.occurred_at)
        for c in changes
    ]  # fmt: skip
    if rows:
        names = ("number", "sender", "list", "kind", "before", "after", "reason", "cause", "occurred_at")
        await db.execute(_PUBLISH, columns(rows, names))
