"""The write path in SQL. Each statement stands above the one function that runs it; every function works inside the
transaction that its caller opened with `connection.transaction`. Locks are taken in one order everywhere: receipt keys,
messages, the breaker's hits, quarantines, numbers, unread, refused, counts, alarms, unknown words, and last the feed;
within each by key. So processes cannot deadlock.

Narrow rows go in as one array a column; `$1::text[]` and so on stand in the columns' order. Wide ones go in as one
JSON array of objects, named as their columns: an element of an array costs this side 0.3 µs, a member a tenth of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from msgspec import Struct, convert
from msgspec.json import Decoder, Encoder
from pydantic import TypeAdapter

from app.models.feed import Event
from app.models.lookup import Found
from app.models.number import (
    Carrier,
    Cause,
    Change,
    Consent,
    Fact,
    Number,
    OptIn,
    State,
    Step,
    Subscription,
    Waiting,
)
from app.models.policy import Policy
from app.models.receipt import Receipt
from app.services.connection import Connection
from app.services.decide import Registered, reported
from app.services.logs import masked
from app.services.merge import merge
from app.services.settle import Held, hold
from app.services.shown import consent

log = structlog.get_logger(__name__)
FEED_LOCK = 7_316_002
CHANNEL = "sendable_changes"
NAMELESS_FOR = timedelta(hours=24)
"""How long a receipt without a message id is recognised; after that the same words are a new receipt."""

_FOUND = TypeAdapter(Found)
_number_of = Decoder(Number).decode
_event_of = Decoder(Event).decode
_steps_of = Decoder(tuple[Step, ...]).decode
_carrier_of = Decoder(Carrier).decode
_cause_of = Decoder(Cause).decode


_encode = Encoder().encode


def _json(value: object) -> str:
    return _encode(value).decode()


class ListFacts(NamedTuple):
    opted_in: OptIn | None = None
    out: Fact | None = None


_list_of = Decoder(ListFacts).decode


class Arrival(NamedTuple):
    """A receipt as it is stored: with the key that recognises its repetitions, its arrival, and what it was taken for.

    `unmapped`: it failed with a code that is in no table.
    """

    receipt: Receipt
    key: UUID
    arrived: datetime
    reason: str | None = None
    brand: str | None = None
    unmapped: bool = False


_arrival_of = Decoder(Arrival).decode


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


def columns(rows: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    """Rows turned into one array a column, as `unnest` takes them."""
    return zip(*rows, strict=True)


def objects(rows: Sequence[Struct]) -> str:
    """Rows as one JSON array of objects, as `json_to_recordset` takes them. What is at its default may be left out."""
    return _json(rows)


def cause_json(cause: Cause) -> str:
    return _json(cause)


def found_json(found: Found) -> str:
    return _FOUND.dump_json(found, exclude_defaults=True).decode()


def found_of(json: str) -> Found:
    return _FOUND.validate_json(json)


def number_of(json: str) -> Number:
    return _number_of(json)


def steps_of(json: str) -> tuple[Step, ...]:
    return _steps_of(json)


def carrier_of(json: str) -> Carrier:
    return _carrier_of(json)


def cause_of(json: str) -> Cause:
    return _cause_of(json)


# Receipts ----------------------------------------------------------------------------------------------------------

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
            r.sender or (known.sender if known else None), r.status.value, r.code_space, r.code, a.reason, r.carrier,
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
WHERE r.segments > 1 AND r.status = 'delivered' AND r.received_at > $4
GROUP BY 1, 2, 3 HAVING count(DISTINCT r.segment) >= max(r.segments)
"""


async def whole_messages(db: Connection, ids: Iterable[MessageId], since: datetime) -> set[MessageId]:
    """Of messages in several parts, those whose every part has been delivered."""
    return {(row[0], row[1], row[2]) for row in await db.fetch(_WHOLE, *columns(ids), since)}


# The sent-message register -----------------------------------------------------------------------------------------

_HOLD_PLACES = """
INSERT INTO messages (gateway, account, message_id, registered_at)
SELECT g, a, m, $4 FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (g, a, m) ORDER BY 1, 2, 3
ON CONFLICT (gateway, account, message_id) DO UPDATE SET registered_at = messages.registered_at
"""
_FIND_MESSAGES = """
SELECT gateway, account, message_id, number, sender, sent_at, carrier IS NOT NULL AS routed
FROM messages JOIN unnest($1::text[], $2::text[], $3::text[]) AS wanted (gateway, account, message_id)
    USING (gateway, account, message_id)
WHERE number IS NOT NULL
UNION ALL
SELECT NULL, NULL, NULL, n, NULL, NULL, NULL FROM unnest($4::text[]) n
WHERE NOT EXISTS (SELECT FROM numbers WHERE number = n)
"""


async def find_messages(
    db: Connection, ids: Iterable[MessageId], unnamed: Iterable[MessageId], numbers: Iterable[str], now: datetime
) -> tuple[dict[MessageId, Registered], set[str]]:
    """What the register tells of these messages; and of these numbers, those that have no row yet. For messages that
    lack a number or a sender a place is held and locked, so that an entry which another process is writing just now is
    either seen here or sees the receipt there.
    """
    if places := sorted(unnamed):
        await db.execute(_HOLD_PLACES, *columns(places), now)
    lacking = {*numbers}
    rows = [tuple(row) for row in await db.fetch(_FIND_MESSAGES, *columns(ids), [*lacking])]
    known = {(row[0], row[1], row[2]): Registered(*row[3:]) for row in rows if row[0] is not None}
    fresh = {row[3] for row in rows if row[0] is None}
    return known, fresh | ({one.number for one in known.values()} - lacking)


_UNDATED = """
SELECT r.gateway, r.account, message_id, r.number, r.sender, r.status, r.code_space, r.code, r.carrier, r.mcc, r.mnc,
    r.segment, r.segments, r.occurred_at, r.received_at
FROM receipts r JOIN unnest($1::text[], $2::text[], $3::text[]) AS named (gateway, account, message_id)
    USING (gateway, account, message_id)
WHERE r.received_at > $4 AND r.sent_at IS NULL AND r.number IS NOT NULL AND r.sender IS NOT NULL
    AND r.status IN ('delivered', 'undeliverable', 'rejected', 'expired')
ORDER BY r.received_at, r.key
"""
_UNDATED_FIELDS = ("gateway", "account", "message_id", "number", "sender", "status", "code_space", "code", "carrier",
                   "mcc", "mnc", "segment", "segments", "occurred_at")  # fmt: skip


async def undated(db: Connection, ids: Iterable[MessageId], since: datetime) -> list[tuple[Receipt, datetime]]:
    """Receipts of these messages that came without a send date, and lacked no name, and when; since then."""
    return [
        (convert(dict(zip(_UNDATED_FIELDS, row, strict=False)), Receipt), row["received_at"])
        for row in await db.fetch(_UNDATED, *columns(ids), since)
    ]


_REGISTER = """
INSERT INTO messages AS known (gateway, account, message_id, number, sender, carrier, sent_at, registered_at)
SELECT *, $8 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
    AS sent (g, a, m, n, s, c, t) ORDER BY g, a, m
ON CONFLICT (gateway, account, message_id) DO UPDATE SET number = excluded.number, sender = excluded.sender,
    carrier = excluded.carrier, sent_at = excluded.sent_at
"""


async def register(db: Connection, entries: Sequence[Sequence[Any]], now: datetime) -> None:
    """Add sent messages: (gateway, account, message id, number, sender, carrier, sent at)."""
    await db.execute(_REGISTER, *columns(entries), now)


_ADD_UNNAMED = """
INSERT INTO unnamed (gateway, account, message_id, key, receipt, received_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::json[], $6::timestamptz[])
"""


async def add_unnamed(db: Connection, arrivals: Iterable[Arrival]) -> None:
    """Keep receipts until the register names their number or sender."""
    rows = [(*id_of(a.receipt), a.key, _json(a), a.arrived) for a in arrivals]
    if rows:
        await db.execute(_ADD_UNNAMED, *columns(rows))


_TAKE_UNNAMED = """
DELETE FROM unnamed USING unnest($1::text[], $2::text[], $3::text[]) AS named (g, a, m)
WHERE gateway = g AND account = a AND message_id = m RETURNING receipt
"""


async def take_unnamed(db: Connection, ids: Iterable[MessageId]) -> list[Arrival]:
    """The receipts that waited for these messages' names, in order of arrival."""
    rows = await db.fetch(_TAKE_UNNAMED, *columns(ids))
    return sorted((_arrival_of(row["receipt"]) for row in rows), key=lambda a: (a.arrived, a.key))


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


# Numbers -----------------------------------------------------------------------------------------------------------

_FACTS = "SELECT number, facts FROM numbers WHERE number = ANY($1::text[]) AND facts IS NOT NULL"


async def facts(db: Connection, numbers: Sequence[str]) -> dict[str, Number]:
    """What is known of these numbers, unlocked: to judge whether anybody need be asked, not to decide."""
    return {row[0]: _number_of(row[1]) for row in await db.fetch(_FACTS, numbers)}


_ADD_NUMBERS = "INSERT INTO numbers (number) SELECT n FROM unnest($1::text[]) n ORDER BY n ON CONFLICT DO NOTHING"
_SHOWN = """
SELECT n.number, n.facts, n.state, n.reason, n.until,
    CASE WHEN n.noted_by IS NOT NULL THEN (SELECT json_build_object('number', n.number, 'reason', n.reason, 'kind',
        CASE n.reason WHEN 'number_changed' THEN 'TRANSFER' ELSE 'DEACT' END, 'at', n.dead_since, 'guard',
        n.noted_guard, 'feed', f.feed, 'day', f.day, 'carrier', f.carrier)
        FROM feed_files f WHERE f.id = n.noted_by) END AS noted
FROM numbers n WHERE n.number = ANY($1::text[])
"""
_LOCK_NUMBERS = _SHOWN + "ORDER BY n.number FOR UPDATE OF n"


async def lock_numbers(
    db: Connection,
    numbers: Iterable[str],
    with_lists: Iterable[str],
    policy: Policy,
    now: datetime,
    *,
    lacking: set[str] | None = None,
) -> dict[str, Held]:
    """Everything held of these numbers, locked until the transaction ends. A number's lock covers its lists and blocks:
    nobody writes those without it. Lists are read only for `with_lists`, and where an end of consent may be undone. A
    number that only a file has spoken of has the facts that the file's record brings. `lacking`: which of them have no
    row yet, where somebody has just looked: to add rows that are there takes as long as to lock them.
    """
    wanted = sorted(set(numbers))
    if added := wanted if lacking is None else [number for number in wanted if number in lacking]:
        await db.execute(_ADD_NUMBERS, added)
    rows = await db.fetch(_LOCK_NUMBERS, wanted)
    if len(rows) < len(wanted):  # one was erased while its lock was waited for
        return await lock_numbers(db, wanted, with_lists, policy, now)
    known = _known(rows, policy)
    undoable = {number for number, one in known.items() if one.aside or one.unknown}
    return _held(rows, known, await lists(db, sorted(undoable.union(with_lists))), policy, now)


async def look(db: Connection, numbers: Sequence[str], policy: Policy, now: datetime) -> dict[str, Held]:
    """The same unlocked, with all lists, and without a trace of numbers that nobody has spoken of."""
    rows = [tuple(row) for row in await db.fetch(_SHOWN, numbers)]
    there = {row[0] for row in rows}
    rows += [(number, None, "unseen", None, None, None) for number in numbers if number not in there]
    return _held(rows, _known(rows, policy), await lists(db, list(numbers)), policy, now)


Rows = Iterable[Sequence[Any]]


def _known(rows: Rows, policy: Policy) -> dict[str, Number]:
    return {row[0]: _number_of(row[1]) if row[1] else _noted(row[0], row[5], policy) for row in rows}


def _held(rows: Rows, known: Mapping[str, Number], lists: Mapping[str, dict[tuple[str, str], Subscription]],
          policy: Policy, now: datetime) -> dict[str, Held]:  # fmt: skip
    return {
        number: hold(
            known[number],
            Step("unseen") if noted else Step(state, reason, None, until),
            lists.get(number, {}),
            policy,
            now,
        )
        for number, _, state, reason, until, noted in rows
    }


_ERASED = """
SELECT n, e.at FROM erasure_key k CROSS JOIN unnest($1::text[]) n
JOIN erased e ON e.digest = sha256(k.outer_pad || sha256(k.inner_pad || convert_to(n, 'UTF8')))
"""


async def erased(db: Connection, numbers: Sequence[str]) -> dict[str, datetime]:
    """Of these numbers those that were erased, and when."""
    return {row[0]: row[1] for row in await db.fetch(_ERASED, numbers)}


def _noted(number: str, noted: str | None, policy: Policy) -> Number:
    """A number nobody has spoken of yet, but for a file perhaps."""
    return merge(Number(number), reported(_event_of(noted), policy)) if noted else Number(number)


_LISTS = "SELECT number, sender, list, facts FROM subscriptions WHERE number = ANY($1::text[])"


async def lists(db: Connection, numbers: list[str]) -> dict[str, dict[tuple[str, str], Subscription]]:
    found: dict[str, dict[tuple[str, str], Subscription]] = {}
    if numbers:
        for number, sender, name, facts in await db.fetch(_LISTS, numbers):
            held = Subscription(number, sender, name, *_list_of(facts))
            found.setdefault(number, {})[sender, name] = held
    return found


_SAVE_NUMBERS = """
UPDATE numbers n SET facts = v.facts, steps = v.steps, state = v.state, reason = v.reason, waiting_for = v.waiting_for,
    until = v.until, dead_since = v.dead_since, carrier = v.carrier, last_receipt_at = v.last_receipt_at,
    changed_at = CASE WHEN v.moved THEN $2 ELSE n.changed_at END, noted_by = NULL, noted_guard = NULL
FROM json_to_recordset($1::json) AS v (number text, facts json, steps jsonb, state text, reason text, waiting_for text,
    until timestamptz, dead_since timestamptz, carrier jsonb, last_receipt_at timestamptz, moved boolean)
WHERE n.number = v.number
"""
_NO_STEPS = ((Step("active"),), (Step("unseen"),))


class _NumberRow(Struct, frozen=True, gc=False):
    number: str
    facts: Number
    steps: tuple[Step, ...]
    state: State
    reason: str | None
    waiting_for: Waiting | None
    until: datetime | None
    dead_since: datetime | None
    carrier: Carrier | None
    last_receipt_at: datetime | None
    moved: bool


async def save_numbers(db: Connection, before: Mapping[str, Held], after: Mapping[str, Held], now: datetime) -> None:
    """Write back what changed, with the steps that the views show."""
    rows = [
        _number_row(held, was)
        for number, held in after.items()
        if held.number != (was := before[number]).number or held.told != was.told
    ]
    if rows:
        await db.execute(_SAVE_NUMBERS, objects(rows), now)
    await _save_blocks(db, before, after)


def _number_row(held: Held, was: Held) -> _NumberRow:
    number, shown, step = held.number, held.shown, held.told
    return _NumberRow(
        number.number,
        number,
        () if shown.steps in _NO_STEPS else shown.steps,
        step.state,
        step.reason,
        step.waiting_for,
        step.until,
        shown.dead_since,
        shown.carrier,
        number.last_receipt_at,
        (step.state, step.reason) != (was.told.state, was.told.reason),
    )


_ADD_BLOCKS = """
INSERT INTO sender_blocks (number, sender, reason, at, cause)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::jsonb[])
ON CONFLICT (number, sender) DO UPDATE SET reason = excluded.reason, at = excluded.at, cause = excluded.cause
"""
_LIFT_BLOCKS = """
DELETE FROM sender_blocks b USING unnest($1::text[], $2::text[]) AS v (number, sender)
WHERE b.number = v.number AND b.sender = v.sender
"""


async def _save_blocks(db: Connection, before: Mapping[str, Held], after: Mapping[str, Held]) -> None:
    added, lifted = [], []
    for number, held in after.items():
        was, now = before[number].shown.blocks, held.shown.blocks
        if was == now:
            continue
        added += [
            (number, sender, fact.reason, fact.at, cause_json(fact.cause))
            for sender, fact in now.items()
            if was.get(sender) != fact
        ]
        lifted += [(number, sender) for sender in was.keys() - now.keys()]
    if added:
        await db.execute(_ADD_BLOCKS, *columns(added))
    if lifted:
        await db.execute(_LIFT_BLOCKS, *columns(lifted))


_SAVE_LISTS = """
INSERT INTO subscriptions AS s (number, sender, list, facts, consent, opted_in_at, reason, code_space, code, at)
SELECT * FROM json_to_recordset($1::json) AS v (number text, sender text, list text, facts json, consent text,
    opted_in_at timestamptz, reason text, code_space text, code text, at timestamptz)
ON CONFLICT (number, sender, list) DO UPDATE SET facts = excluded.facts, consent = excluded.consent,
    opted_in_at = excluded.opted_in_at, reason = excluded.reason, code_space = excluded.code_space,
    code = excluded.code, at = excluded.at
"""


class ListRow(Struct, frozen=True, gc=False):
    """One list of one number, as it is stored."""

    number: str
    sender: str
    list: str
    facts: ListFacts
    consent: Consent
    opted_in_at: datetime | None
    reason: str | None
    code_space: str | None
    code: str | None
    at: datetime | None


async def save_lists(db: Connection, before: Mapping[str, Held], after: Mapping[str, Held]) -> None:
    """Write consent back: for every list whose facts changed, or that a wider opt-out reached."""
    rows = []
    for number, held in after.items():
        was = before[number]
        for key, subscription in held.lists.items():
            known = was.lists.get(key)
            if known != subscription or consent(was.acting, known) != consent(held.acting, subscription):
                rows.append(list_row(held.acting, subscription))
    if rows:
        await db.execute(_SAVE_LISTS, objects(rows))


def list_row(number: Number, held: Subscription) -> ListRow:
    now, out = consent(number, held)
    facts = ListFacts(held.opted_in, held.out)
    opted_in_at = held.opted_in.at if held.opted_in else None
    at = out.at if out else opted_in_at
    cause = out.cause if out else Cause("call")
    reason = out.reason if out else None
    return ListRow(
        number.number, held.sender, held.list, facts, now, opted_in_at, reason, cause.code_space, cause.code, at
    )


# Lookups, counts, alarms, unread -----------------------------------------------------------------------------------

_ASK_LOOKUPS = """
INSERT INTO lookups (number, reason, cause, asked_at, due_at)
SELECT n, r, c, $4, $4 FROM unnest($1::text[], $2::text[], $3::jsonb[]) AS wanted (n, r, c) ORDER BY n
ON CONFLICT (number) DO NOTHING
"""
# What is under way just now answers for the new question too.
_ASK_ANEW = """
UPDATE lookups SET step = 0, tries = 0, due_at = $2, waiting_for = NULL
WHERE number = ANY($1::text[]) AND (lease_until IS NULL OR lease_until < $2)
"""
_DROP_LOOKUPS = "DELETE FROM lookups WHERE number = ANY($1::text[])"


async def save_lookups(db: Connection, before: Mapping[str, Held], after: Mapping[str, Held], now: datetime) -> None:
    """Ask for the lookups that the numbers now wait for, and forget those that nothing waits for any more. What is
    asked besides something older has the whole timetable too, from now on.
    """
    asked, anew, dropped = [], [], []
    for number, held in after.items():
        wanted, was = held.shown.lookup, before[number].shown.lookup
        if wanted:
            asked.append((number, wanted.reason, cause_json(wanted.cause)))
            if was and held.shown.asked - before[number].shown.asked:
                anew.append(number)
        elif was:
            dropped.append(number)
    if asked:
        await db.execute(_ASK_LOOKUPS, *columns(asked), now)
    if anew:
        await db.execute(_ASK_ANEW, anew, now)
    if dropped:
        await db.execute(_DROP_LOOKUPS, dropped)


_COUNT = """
INSERT INTO hourly_counts AS c (hour, sender, carrier, outcome, total)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS v (h, s, c, o, t)
ORDER BY h, s, c, o
ON CONFLICT (hour, sender, carrier, outcome) DO UPDATE SET total = c.total + excluded.total
"""
CountKey = tuple[datetime, str, str, str]
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


_KEEP_UNREAD = """
INSERT INTO unread AS u (digest, gateway, account, reason, method, headers, query, body, first_at, last_at)
SELECT *, $9, $9 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::text[],
    $8::bytea[]) AS v (d) ORDER BY d
ON CONFLICT (digest) DO UPDATE SET times = u.times + 1, last_at = excluded.last_at
"""


async def keep_unread(db: Connection, kept: Iterable[Kept], now: datetime) -> None:
    if rows := {one.digest: one for one in kept}.values():
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
    return int((await db.execute(statement, ids)).removeprefix("DELETE ")) if ids else 0


# The feed ----------------------------------------------------------------------------------------------------------

# The lock comes before the first sequence value is taken and goes with the commit: so the feed's order is the order of
# commits, and a reader of "seq > cursor" passes nothing that is still in flight.
_PUBLISH = f"""
WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({FEED_LOCK})),
added AS (
    INSERT INTO changes (number, sender, list, kind, before, after, reason, cause, occurred_at, committed_at)
    SELECT v.*, clock_timestamp() FROM turn, json_to_recordset($1::json) AS v (number text, sender text, list text,
        kind text, before text, after text, reason text, cause jsonb, occurred_at timestamptz)
    RETURNING sender, list, kind, before, after, reason, occurred_at){{roll_ups}}
SELECT pg_notify('{CHANNEL}', '') FROM (SELECT count(*) FROM added) AS _
"""  # noqa: S608 - two constants of this file

# The roll-ups' rows are locked under the feed's lock, so in no order of their own. Only changes of consent have them.
_ROLL_UPS = """,
left_by_hour AS (
    INSERT INTO opt_out_hours AS o (sender, list, hour, reason, total)
    SELECT sender, list, date_trunc('hour', occurred_at, 'UTC'), coalesce(reason, ''),
        sum(CASE kind WHEN 'list.opted_out' THEN 1 ELSE -1 END)
    FROM added
    WHERE kind = 'list.opted_out' AND before = 'opted_in' OR kind = 'list.opted_in' AND reason IS NOT NULL
    GROUP BY 1, 2, 3, 4
    ON CONFLICT (sender, list, hour, reason) DO UPDATE SET total = o.total + excluded.total),
sized AS (
    INSERT INTO list_sizes AS l (sender, list, opted_in, opted_out)
    SELECT sender, list, sum((after = 'opted_in')::int - (before IS NOT DISTINCT FROM 'opted_in')::int),
        sum((after = 'opted_out')::int - (before IS NOT DISTINCT FROM 'opted_out')::int)
    FROM added WHERE list IS NOT NULL GROUP BY 1, 2
    ON CONFLICT (sender, list) DO UPDATE
    SET opted_in = l.opted_in + excluded.opted_in, opted_out = l.opted_out + excluded.opted_out)"""
_PUBLISH_ALONE, _PUBLISH_COUNTED = _PUBLISH.format(roll_ups=""), _PUBLISH.format(roll_ups=_ROLL_UPS)


async def publish(db: Connection, changes: Sequence[Change]) -> None:
    """The last statement of a transaction, and only when something truly changed."""
    if changes:
        counted = any(c.list is not None for c in changes)
        await db.fetch(_PUBLISH_COUNTED if counted else _PUBLISH_ALONE, objects(changes))
