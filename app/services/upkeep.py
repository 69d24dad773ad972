"""What time asks for: lapses told to the feed, partitions made ahead, old days dropped, the catalogue shown.

Every step is safe to run in any number of processes at once, and to be killed at any point.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.config import Settings
from app.models.catalogue import Code
from app.models.number import Cause, Verdict
from app.models.phone import sender_id
from app.models.policy import Policy, Rule
from app.services import alarms, partitions, quarantine, reading, register, store
from app.services.apply import apply
from app.services.connection import Connection, is_lost, touched, transaction
from app.services.logs import error_fields
from app.services.meaning import Meaning

log = structlog.get_logger(__name__)

LAPSES_EVERY = 20.0
"""Seconds between two looks for lapses: the feed tells each within a minute."""
HOUSE_EVERY = 3_600.0
HOUSE_FIRST = 60.0
"""Seconds after a start: done at once, it would delay that for minutes where much grew too old while nobody ran."""
KEYS_KEPT = timedelta(days=8)
WORDS_KEPT = timedelta(days=90)
ALARMS_KEPT = timedelta(days=90)
"""After they have ended."""
SPEND_KEPT = timedelta(days=31)
IMPORTS_KEPT = timedelta(days=7)
WINDOWS_KEPT = timedelta(days=90)
QUIET_FOR = timedelta(days=7)
"""After which an alarm that was not raised again is over: most tell of what happened, which nothing ends."""
AT_ONCE = 5_000
WITHIN = 600.0
"""Seconds that a look at all numbers may take. A start waits for one: the alternative is to fail."""


async def prepare(engine: AsyncEngine, settings: Settings, meaning: Meaning) -> None:
    """Before the first request: today's partition must exist, and what is shown must follow the policy in force."""
    await partitions.make_room(engine, settings.receipts_kept, datetime.now(UTC))
    await show_codes(engine, meaning)
    await end_known(engine, reading.Known(meaning.catalogue, settings.links()))
    await follow_policy(engine, meaning.policy)


async def run(engine: AsyncEngine, settings: Settings, meaning: Meaning) -> None:
    """Until cancelled. A database that is away is waited for."""
    due = HOUSE_FIRST
    while True:
        await asyncio.sleep(LAPSES_EVERY)
        due -= LAPSES_EVERY
        async with _going_on():
            await tell_lapses(engine, meaning.policy, datetime.now(UTC))
        async with _going_on():
            await quarantine.keep(engine, meaning.policy)
        async with _going_on():
            if due <= 0 or not await partitions.has_room(engine):
                await keep_house(engine, settings, datetime.now(UTC))
                await follow_policy(engine, meaning.policy)  # others may still have written by the one before
                await name_senders(engine, settings, meaning)
                due = HOUSE_EVERY


@asynccontextmanager
async def _going_on() -> AsyncIterator[None]:
    """Upkeep must not end, nor one part of it for the sake of another: each is tried again."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it was
        log.warning("upkeep failed and is tried again", lost=is_lost(error), **error_fields(error))


# Lapses ------------------------------------------------------------------------------------------------------------

# Not `clock_timestamp()`: a moment that moves while it is compared is looked for in no index, but in every number.
# Over by both clocks: what is over by the database's alone would be found here again and again, and settled as it was.
_LAPSED = "SELECT number FROM numbers WHERE until <= least(statement_timestamp(), $1) ORDER BY number LIMIT $2"


async def tell_lapses(engine: AsyncEngine, policy: Policy, now: datetime) -> int:
    """Tell the feed what has lapsed, each dated at its lapse. Readers have seen it since that instant."""
    total = 0
    while True:
        async with transaction(engine) as db:
            numbers = [row["number"] for row in await db.fetch(_LAPSED, now, AT_ONCE)]
            if not numbers:
                return total
            await _settle_again(db, numbers, policy, Cause("lapse"), now)
        total += len(numbers)


# A step is shown only behind one that ends: where the first has no end and its reason knows none, it is the only one.
_SHOWN_WRONGLY = """
SELECT number FROM numbers
WHERE state NOT IN ('active', 'unseen') AND noted_by IS NULL AND number > $1
  AND (waiting_for = ANY($2::text[]) OR ((until IS NOT NULL OR reason = ANY($3::text[])) AND EXISTS (
    SELECT FROM jsonb_array_elements(steps) AS step
    LEFT JOIN unnest($3::text[], $4::interval[]) AS rule (reason, lapse) ON rule.reason = step ->> 'reason'
    WHERE (step ->> 'until')::timestamptz IS DISTINCT FROM (step -> 'fact' ->> 'at')::timestamptz + rule.lapse))
    OR (reason = ANY($5::text[]) AND (waiting_for = 'person' OR (waiting_for IS NULL AND until IS NOT NULL))))
ORDER BY number LIMIT $6
"""
# Of one that is answered the facts say so as soon as nothing is kept aside: it is found here once more at most.
_UNASKED = """
SELECT DISTINCT number FROM sender_blocks b JOIN numbers n USING (number)
WHERE b.reason = ANY($2::text[]) AND number > $1 AND strpos(n.facts::text, '"lookup":true') > 0
  AND NOT EXISTS (SELECT FROM lookups l WHERE l.number = n.number)
ORDER BY number LIMIT $3
"""
# Of whom a provider that was taken away would be paid for, were it configured again. A block is asked about anew then.
_OF_NOBODY = """
(lease_until IS NULL OR lease_until < clock_timestamp())
AND NOT EXISTS (SELECT FROM numbers n WHERE n.number = lookups.number AND n.state NOT IN ('active', 'unseen'))
"""
_BLOCKED_WRONGLY = """
SELECT DISTINCT b.number FROM sender_blocks b JOIN numbers n USING (number)
WHERE b.number > $1 AND b.reason = ANY($2::text[]) AND (n.facts #>> '{cleared,port}')::timestamptz >= b.at
ORDER BY b.number LIMIT $3
"""


async def follow_policy(engine: AsyncEngine, policy: Policy) -> None:
    """Numbers that were shown under another policy: with or without a lookup provider, with other lapses; those of a
    block that nobody could be asked about; and those blocked for a reason that a port lifts now. Lookups that nobody
    makes are forgotten once their numbers are active.
    """
    waits = ["no_lookup_provider"] if policy.lookups else ["lookup", "budget"]
    lapses = {rule.reason: lapse for rule in policy.rules.values() if (lapse := policy.lapse(rule))}
    asks = [rule.reason for rule in policy.rules.values() if policy.lookups and rule.lookup and _lapses_alone(rule)]
    await _settle_all(engine, policy, _SHOWN_WRONGLY, waits, [*lapses], [*lapses.values()], asks)
    if policy.lookups:
        blocks = [rule.reason for rule in policy.rules.values() if rule.block and rule.lookup]
        await _settle_all(engine, policy, _UNASKED, blocks)
    else:
        await _delete(engine, _prune("lookups", _OF_NOBODY))
    lifted = [rule.reason for rule in policy.rules.values() if rule.lifted_by_port]
    await _settle_all(engine, policy, _BLOCKED_WRONGLY, lifted)


async def _settle_all(engine: AsyncEngine, policy: Policy, which: str, *given: object) -> None:
    after = ""
    while True:
        async with transaction(engine) as db:
            rows = await db.fetch(which, after, *given, AT_ONCE, timeout=WITHIN)
            numbers = [row["number"] for row in rows]
            if not numbers:
                return
            await _settle_again(db, numbers, policy, Cause("policy"), datetime.now(UTC))
        after = numbers[-1]


def _lapses_alone(rule: Rule) -> bool:
    """Whether without a provider it lapses, or waits for a person, in place of `no_lookup_provider`."""
    return bool(rule.alone_lapse or rule.lapse)


async def _settle_again(db: Connection, numbers: Sequence[str], policy: Policy, cause: Cause, now: datetime) -> None:
    there = await store.still_there(db, numbers)
    applied = await apply(db, [Verdict(number, now, cause) for number in there], policy, now, again=True)
    await store.publish(db, applied.every_change)


# Senders -----------------------------------------------------------------------------------------------------------


async def name_senders(engine: AsyncEngine, settings: Settings, meaning: Meaning) -> None:
    """What came while the settings of its link named no sender yet has one now."""
    for (gateway, account), link in settings.links().items():
        if link.sender:
            sender = sender_id(link.sender, link.region)
            if applied := await register.name_senders(engine, gateway, account, sender, meaning):
                log.info("receipts that waited for a sender have one", gateway=gateway, receipts=applied)


# Retention -----------------------------------------------------------------------------------------------------------

_PRUNED_AT_ONCE = 20_000


def _prune(table: str, old: str) -> str:
    """The condition stands twice: of a row renewed meanwhile, not every PostgreSQL looks at the inner one again."""
    return f"""
DELETE FROM {table} WHERE {old} AND ctid = ANY (ARRAY (SELECT ctid FROM {table} WHERE {old} LIMIT {_PRUNED_AT_ONCE}))
"""  # noqa: S608 - names of this file


async def keep_house(engine: AsyncEngine, settings: Settings, now: datetime) -> None:
    """Partitions made and dropped, and what only serves for days pruned."""
    await partitions.make_room(engine, settings.receipts_kept, now)
    now = await partitions.slower_clock(engine, now)
    history = now - settings.changes_kept
    for table, column, oldest in (
        ("receipt_keys", "arrived_at", now - KEYS_KEPT),
        ("messages", "registered_at", now - register.KEPT),
        ("unnamed", "received_at", now - register.KEPT),
        ("changes", "committed_at", history),
        ("unknown_words", "last_at", now - WORDS_KEPT),
        ("alarms", "cleared_at", now - ALARMS_KEPT),
        ("refused", "arrived_at", now - settings.receipts_kept),
        ("lookup_answers", "asked_at", history),
        ("breaker_windows", "starts", now - WINDOWS_KEPT),
        ("lookup_spend", "day", (now - SPEND_KEPT).date()),
        ("imports", "touched_at", now - IMPORTS_KEPT),
        ("opt_out_hours", "hour", history),
        ("rnd_checks", "asked_at", history),
    ):
        await _delete(engine, _prune(table, f"{column} < $1"), oldest)
    await _delete(engine, _prune("import_lines", "import NOT IN (SELECT id FROM imports)"))
    async with transaction(engine) as db:
        await store.clear_quiet_alarms(db, [*alarms.OF_WHAT_STANDS], now, now - QUIET_FOR)


async def _delete(engine: AsyncEngine, statement: str, *given: date) -> None:
    """In parts: a day's worth at once would hold its locks, and its connection, for longer than we wait for any. Each
    may look through a whole table for its last few.
    """
    while True:
        async with transaction(engine) as db:
            deleted = touched(await db.execute(statement, *given, timeout=WITHIN))
        if deleted < _PRUNED_AT_ONCE:
            return


# Alarms ------------------------------------------------------------------------------------------------------------


async def end_known(engine: AsyncEngine, known: reading.Known) -> None:
    """The alarms of codes that the tables have, or the settings explain, by now."""
    keys = await reading.known_by_now(engine, known)
    async with transaction(engine) as db:
        await store.clear_alarms(db, ["unknown_code"], datetime.now(UTC), keys)


# The catalogue -----------------------------------------------------------------------------------------------------

_SHOW_CODES = """
INSERT INTO codes SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::text[], $8::text[]) AS v (space, code, meaning, level, permanence, reason, confidence, source)
ON CONFLICT (space, code) DO UPDATE SET meaning = excluded.meaning, level = excluded.level,
    permanence = excluded.permanence, reason = excluded.reason, confidence = excluded.confidence,
    source = excluded.source
WHERE codes IS DISTINCT FROM excluded
"""
_CELLS = attrgetter(*(cell.name for cell in fields(Code)))
_HIDE_CODES = "DELETE FROM codes WHERE (space, code) NOT IN (SELECT * FROM unnest($1::text[], $2::text[]))"


async def show_codes(engine: AsyncEngine, meaning: Meaning) -> None:
    """The code tables in `published.codes`, as this process reads them."""
    rows = [*store.columns(map(_CELLS, meaning.catalogue.codes.values()))]
    async with transaction(engine) as db:
        await db.execute("SELECT pg_advisory_xact_lock($1)", partitions.LOCK)
        await db.execute(_HIDE_CODES, *rows[:2])
        await db.execute(_SHOW_CODES, *rows)
