"""What is held of numbers: locked, read, and written back with their blocks and the lookups they wait for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from app.models.number import Carrier, Fact, Number, State, Step, Subscription, Waiting
from app.models.policy import Policy
from app.services.connection import Connection
from app.services.decide import reported
from app.services.merge import merge
from app.services.settle import Held, hold
from app.services.store.consents import lists
from app.services.store.rows import cause_json, cause_of, columns, encoded, event_of, number_of, objects

_FACTS = "SELECT number, facts FROM numbers WHERE number = ANY($1::text[]) AND facts IS NOT NULL"


async def facts(db: Connection, numbers: Sequence[str]) -> dict[str, Number]:
    """What is known of these numbers, unlocked: to judge whether anybody need be asked, not to decide."""
    return {row[0]: number_of(row[1]) for row in await db.fetch(_FACTS, numbers)}


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


_BLOCKS = "SELECT number, sender, reason, at, cause FROM sender_blocks WHERE number = ANY($1::text[])"


async def with_blocks(db: Connection, held: Mapping[str, Held]) -> dict[str, Held]:
    """The same, with the blocks that stand beside those that the facts show: under another policy they did."""
    found = dict(held)
    for number, sender, reason, at, cause in await db.fetch(_BLOCKS, [*held]):
        one = found[number]
        blocks = {sender: Fact(at, at, reason, cause_of(cause))} | one.shown.blocks
        found[number] = replace(one, shown=replace(one.shown, blocks=blocks))
    return found


_STILL_THERE = "SELECT number FROM numbers WHERE number = ANY($1::text[]) ORDER BY number FOR UPDATE"


async def still_there(db: Connection, numbers: Sequence[str]) -> list[str]:
    """Those that were not erased since they were looked for, locked: to act on an erased one would add it anew."""
    return [row[0] for row in await db.fetch(_STILL_THERE, numbers)]


_DROP_BLANK = """
DELETE FROM numbers WHERE number = ANY($1::text[]) AND facts IS NULL AND noted_by IS NULL RETURNING number
"""


async def drop_blank(db: Connection, numbers: Sequence[str]) -> set[str]:
    """Of these, which are locked, those that nothing is known of, as after an erasure: to lock them has added them."""
    return {row[0] for row in await db.fetch(_DROP_BLANK, numbers)} if numbers else set()


async def look(db: Connection, numbers: Sequence[str], policy: Policy, now: datetime) -> dict[str, Held]:
    """The same unlocked, with all lists, and without a trace of numbers that nobody has spoken of."""
    rows = [tuple(row) for row in await db.fetch(_SHOWN, numbers)]
    there = {row[0] for row in rows}
    rows += [(number, None, "unseen", None, None, None) for number in numbers if number not in there]
    return _held(rows, _known(rows, policy), await lists(db, list(numbers)), policy, now)


Rows = Iterable[Sequence[Any]]


def _known(rows: Rows, policy: Policy) -> dict[str, Number]:
    return {row[0]: number_of(row[1]) if row[1] else _noted(row[0], row[5], policy) for row in rows}


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


ERASING = 7_316_006
"""An advisory lock, the first of a transaction: shared by those that write what was read before it, whole for an
erasure. So nothing that was read before an erasure acts after it.
"""
ERASES_WITHIN = 600.0
"""Seconds that an erasure may take at most."""
_HOLD_OFF = "SELECT pg_advisory_xact_lock_shared($1)"


async def hold_off_erasures(db: Connection) -> None:
    """Wait for the one that is under way, and let no other begin until the transaction ends."""
    await db.execute(_HOLD_OFF, ERASING, timeout=ERASES_WITHIN)


def _noted(number: str, noted: str | None, policy: Policy) -> Number:
    """A number that nobody has spoken of yet, unless a file has."""
    return merge(Number(number), reported(event_of(noted), policy)) if noted else Number(number)


_SAVE_NUMBERS = """
UPDATE numbers n SET facts = v.facts::json, steps = v.steps, state = v.state, reason = v.reason,
    waiting_for = v.waiting_for, until = v.until, dead_since = v.dead_since, carrier = v.carrier,
    last_receipt_at = v.last_receipt_at, changed_at = coalesce(v.since, n.changed_at), noted_by = NULL,
    noted_guard = NULL
FROM ROWS FROM (
        json_to_recordset($1::json) AS (number text, steps jsonb, state text, reason text, waiting_for text,
            until timestamptz, dead_since timestamptz, carrier jsonb, last_receipt_at timestamptz, since timestamptz),
        unnest($2::text[])
    ) AS v (number, steps, state, reason, waiting_for, until, dead_since, carrier, last_receipt_at, since, facts)
WHERE n.number = v.number
"""
_NO_STEPS = ((Step("active"),), (Step("unseen"),))


class _NumberRow(Struct, frozen=True, gc=False, omit_defaults=True):
    number: str
    steps: tuple[Step, ...]
    state: State
    reason: str | None = None
    waiting_for: Waiting | None = None
    until: datetime | None = None
    dead_since: datetime | None = None
    carrier: Carrier | None = None
    last_receipt_at: datetime | None = None
    since: datetime | None = None


async def save_numbers(db: Connection, before: Mapping[str, Held], after: Mapping[str, Held],
                       since: Mapping[str, datetime]) -> None:  # fmt: skip
    """Write back what changed, with the steps that the views show. `since`: when a number came to its state."""
    changed = [
        held for number, held in after.items() if held.number != (was := before[number]).number or held.told != was.told
    ]
    if changed:
        rows = [_number_row(held, since.get(held.number.number)) for held in changed]
        await db.execute(_SAVE_NUMBERS, objects(rows), [encoded(held.number) for held in changed])
    await _save_blocks(db, before, after)


def _number_row(held: Held, since: datetime | None) -> _NumberRow:
    number, shown, step = held.number, held.shown, held.told
    return _NumberRow(
        number.number,
        () if shown.steps in _NO_STEPS else shown.steps,
        step.state,
        step.reason,
        step.waiting_for,
        step.until,
        shown.dead_since,
        shown.carrier,
        number.last_receipt_at,
        since,
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


_ASK_LOOKUPS = """
INSERT INTO lookups (number, reason, cause, asked_at, due_at)
SELECT n, r, c, statement_timestamp(), statement_timestamp()
FROM unnest($1::text[], $2::text[], $3::jsonb[]) AS wanted (n, r, c) ORDER BY n
ON CONFLICT (number) DO NOTHING
"""
# What is under way just now answers for the new question too, as the first step of its timetable.
_ASK_ANEW = """
UPDATE lookups SET step = 0, tries = 0, due_at = statement_timestamp(), waiting_for = NULL
WHERE number = ANY($1::text[])
"""
# One that is under way stays until its answer has come: that is paid for, and a call may wait for it.
_DROP_LOOKUPS = """
DELETE FROM lookups
WHERE number = ANY($1::text[]) AND (lease_until IS NULL OR lease_until < clock_timestamp())
"""


async def save_lookups(db: Connection, before: Mapping[str, Held], after: Mapping[str, Held],
                       *, answered: bool = False) -> None:  # fmt: skip
    """Ask for the lookups that the numbers now wait for, and forget those that nothing waits for any more. A new
    question beside an older one begins the timetable anew; one that comes with a lookup's answer (`answered`) does not.
    """
    asked, anew, dropped = [], [], []
    for number, held in after.items():
        wanted, was = held.shown.lookup, before[number].shown.lookup
        if wanted:
            asked.append((number, wanted.reason, cause_json(wanted.cause)))
            if was and not answered and held.shown.asked - before[number].shown.asked:
                anew.append(number)
        elif was:
            dropped.append(number)
    if asked:
        await db.execute(_ASK_LOOKUPS, *columns(asked))
    if anew:
        await db.execute(_ASK_ANEW, anew)
    if dropped:
        await db.execute(_DROP_LOOKUPS, dropped)
