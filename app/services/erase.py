"""Erasure: everything of a number goes from every table, but a keyed hash that keeps it opted out.

Whoever is erased has said that they want nothing of us: an opt-in must be newer than that, also when an old list is
imported again. The hash is HMAC-SHA256. Its key stands in the database beside it, not in the settings: there it could
be lost or changed, and everybody who was erased would be subscribed again by the next import.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from asyncpg import LockNotAvailableError
from phonenumbers import national_significant_number, ndd_prefix_for_region, parse, region_code_for_country_code
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.tables import metadata
from app.services import decide, store
from app.services.connection import Connection, touched, transaction
from app.services.deactivations import files

BLOCK = 64
"""Bytes of SHA-256's block, to which HMAC pads its key."""
SHORTEST = 7
"""Digits of a number without its country; fewer are a short code too, and not looked for without it."""
WITHIN = 600.0
"""Seconds that one statement may take: the register and what could not be read are searched whole."""
WITHOUT_NUMBERS = frozenset({
    "receipt_keys", "lookup_days", "hourly_counts", "codes", "api_keys", "imports", "opt_out_hours", "list_sizes",
    "erased", "erasure_key", "quarantines", "breaker_windows", "feed_files", "lookup_stops",
})  # fmt: skip
"""Tables that hold no number. Every other one has a column `number`, or is searched below: a test says so."""
HELD_INSIDE = {
    "unread": "encode(body, 'escape') ~ $1 OR query ~ $1 OR headers::text ~ $1",
    "refused": "encode(body, 'escape') ~ $1 OR query ~ $1 OR headers::text ~ $1 OR url ~ $1",
    "alarms": "key ~ $1",
    "unknown_words": "word ~ $1 OR message_id ~ $1",
}
"""Where a number may stand in whatever form: in what nobody could read or prove, in a code that no table knows."""
SEARCHED = frozenset({"unnamed", *HELD_INSIDE})
"""Tables that hold numbers inside. So do the lines of files on their way, in a table for each file: files.py."""
_EARLIER = ("import_lines", "messages", "unnamed", "breaker_hits", "rnd_checks")
"""Locked before a number by whoever writes them, and looked through once more under its lock, without waiting."""
_LATER = ("numbers", "subscriptions", "changes")
"""Taken one by one, last: the number's lock covers the others, and roll-ups change with the latter two."""


async def erase(engine: AsyncEngine, number: str) -> dict[str, int]:
    """Erase a number in E.164. Returns how many rows went from which table, and how many about other numbers named it
    as their subscriber's new one. Locks are taken in the order in which everybody takes them (store/__init__.py).
    """
    async with transaction(engine) as db:
        lines = await files.erase(db, number)
        now = datetime.now(UTC)
        await _keep_key(db)
        while (gone := await _lock(db, number)) is None:
            pass
        gone["feed_lines"] = lines
        covered = [table for table in tables() if table not in _EARLIER + _LATER]
        gone.update({table: await _delete(db, table, number) for table in covered})
        for table, holds in HELD_INSIDE.items():
            gone[table] = await _search(db, f"DELETE FROM {table} WHERE {holds}", written(number))  # noqa: S608 - ours
        await db.execute("SELECT pg_advisory_xact_lock($1)", store.FEED_LOCK, timeout=WITHIN)
        at = await db.fetchval(_AFTER_ALL, number, now)
        gone["subscriptions"] = await db.fetchval(_SUBSCRIPTIONS, number, timeout=WITHIN)
        gone["changes"] = await db.fetchval(_CHANGES, number, timeout=WITHIN)
        await db.execute(_REMEMBER, number, at)
        gone["numbers"] += await _delete(db, "numbers", number)
    gone["hints"] = await _forget_hints(engine, number)
    return {table: rows for table, rows in sorted(gone.items()) if rows}


def tables() -> Iterator[str]:
    """Every table that has a column `number`, in one order for all."""
    yield from sorted(name for name, table in metadata.tables.items() if "number" in table.columns)


async def _delete(db: Connection, table: str, number: str) -> int:
    """Delete a number's rows."""
    done = await db.execute(f"DELETE FROM {table} WHERE number = $1", number, timeout=WITHIN)  # noqa: S608 - our tables
    return touched(done)


_IN_TURN = """
DELETE FROM {table} t USING (SELECT {key} FROM {table} WHERE {holds} ORDER BY {key} FOR UPDATE) AS v
WHERE {same}
"""


async def _delete_in_turn(db: Connection, table: str, number: str) -> int:
    """The same, locked by key as others lock them; of receipts that wait for a name, those that hold the number
    somewhere inside.
    """
    key = [column.name for column in metadata.tables[table].primary_key]
    holds = "strpos(receipt::text, $1) > 0" if table == "unnamed" else "number = $1"
    same = " AND ".join(f"t.{name} = v.{name}" for name in key)
    statement = _IN_TURN.format(table=table, key=", ".join(key), holds=holds, same=same)
    return touched(await db.execute(statement, number, timeout=WITHIN))


_ADD_NUMBER = "INSERT INTO numbers (number) VALUES ($1) ON CONFLICT DO NOTHING"
_LOCK_NUMBER = "SELECT FROM numbers WHERE number = $1 FOR UPDATE"
_WAIT_FOR_NOBODY = "SET LOCAL lock_timeout = '1ms'"
_WAIT_AGAIN = "SET LOCAL lock_timeout = 0"


async def _lock(db: Connection, number: str) -> Counter[str] | None:
    """Lock a number, also one that is not there: who opts it in just now waits, and then sees that it was erased. What
    is locked before it goes first, and what has come of that meanwhile. Returns how many rows went from which table, of
    `numbers` less the one that had to be added. None, and nothing is locked, where somebody holds what has come, who
    may need the number.
    """
    gone = Counter[str]()
    try:
        async with db.transaction():
            gone.update({table: await _delete_in_turn(db, table, number) for table in _EARLIER})
            gone["numbers"] = -touched(await db.execute(_ADD_NUMBER, number, timeout=WITHIN))
            await db.execute(_LOCK_NUMBER, number, timeout=WITHIN)
            await db.execute(_WAIT_FOR_NOBODY)
            gone.update({table: await _delete_in_turn(db, table, number) for table in _EARLIER})
            await db.execute(_WAIT_AGAIN)
    except LockNotAvailableError:
        return None
    return gone


async def _search(db: Connection, statement: str, said: str) -> int:
    done = await db.execute(statement, said, timeout=WITHIN)
    return touched(done)


_ESCAPED = r"%[0-9A-Fa-f]{2}|\\[0-7]{3}|\\+u[0-9A-Fa-f]{4}"
"""What stands for a sign or a byte: in an address, in PostgreSQL's `escape` for what is no ASCII, in JSON."""


def written(number: str) -> str:
    """A number as a gateway may have written it: with or without its country, spaced, dashed, escaped."""
    parsed = parse(number)
    code = parsed.country_code or 0
    between = f"(?:[^0-9A-Za-z]|{_ESCAPED}){{0,6}}"
    digits = national_significant_number(parsed)
    national = between.join(map(re.escape, digits))
    country = f"(?:{code}{between}){'?' if len(digits) >= SHORTEST else ''}"
    trunk = _FORMER.get(code) or ndd_prefix_for_region(region_code_for_country_code(code), strip_non_digits=True) or ""
    return f"(?:^|[^0-9]|{_ESCAPED})(?:0{{0,2}}|011){country}(?:{trunk})?0?{national}(?![0-9])"


_FORMER = {52: "1"}
"""What stood in front of mobiles until it was given up, and still is written."""


# When the clock of whoever told of an opt-in ran ahead of ours, as late as that.
_AFTER_ALL = "SELECT greatest($2, max(opted_in_at)) FROM subscriptions WHERE number = $1"
_SUBSCRIPTIONS = """
WITH gone AS (DELETE FROM subscriptions WHERE number = $1 RETURNING sender, list, consent),
sized AS (
    UPDATE list_sizes l SET opted_in = l.opted_in - (g.consent = 'opted_in')::int,
        opted_out = l.opted_out - (g.consent = 'opted_out')::int
    FROM gone g WHERE l.sender = g.sender AND l.list = g.list)
SELECT count(*) FROM gone
"""
_CHANGES = """
WITH gone AS (DELETE FROM changes WHERE number = $1 RETURNING sender, list, kind, before, reason, occurred_at),
counted AS (
    UPDATE opt_out_hours o SET total = o.total - g.total
    FROM (SELECT sender, list, date_trunc('hour', occurred_at, 'UTC') AS hour, coalesce(reason, '') AS reason,
                 sum(CASE kind WHEN 'list.opted_out' THEN 1 ELSE -1 END) AS total
          FROM gone
          WHERE kind = 'list.opted_out' AND before = 'opted_in' OR kind = 'list.opted_in' AND reason IS NOT NULL
          GROUP BY 1, 2, 3, 4) g
    WHERE (o.sender, o.list, o.hour, o.reason) = (g.sender, g.list, g.hour, g.reason))
SELECT count(*) FROM gone
"""

# Hints -------------------------------------------------------------------------------------------------------------

# Other numbers are locked after this one has gone: in its own transaction, or in no order. By an expression: all are
# read, and by the index that is in the order of numbers it took ten times as long.
_HINTED = """
SELECT number FROM numbers WHERE strpos(facts::text, $1) > 0 OR strpos(steps::text, $1) > 0
ORDER BY number || '' FOR UPDATE
"""
_IN_NUMBERS = """
UPDATE numbers SET facts = replace(facts::text, $2, $3)::json, steps = replace(steps::text, $2, $3)::jsonb
WHERE number = ANY($1::text[])
"""
_IN_LOOKUPS = """
UPDATE lookups SET cause = replace(cause::text, $2, $3)::jsonb WHERE number = ANY($1::text[])
"""
_IN_CHANGES = "UPDATE changes SET cause = replace(cause::text, $1, $2)::jsonb WHERE strpos(cause::text, $1) > 0"


async def _forget_hints(engine: AsyncEngine, number: str) -> int:
    """Take the number out of the records of others who have changed theirs to it, which name it at their end. Nothing
    followed from that. Returns how many rows named it.
    """
    hint, nothing = (f'{decide.NOW}{said}"' for said in (number, "a number that was erased"))
    async with transaction(engine) as db:
        hinted = [row["number"] for row in await db.fetch(_HINTED, hint, timeout=WITHIN)]
        if hinted:
            await db.execute(_IN_NUMBERS, hinted, hint, nothing, timeout=WITHIN)
            await db.execute(_IN_LOOKUPS, hinted, hint, nothing, timeout=WITHIN)
        done = await db.execute(_IN_CHANGES, hint, nothing, timeout=WITHIN)
    return len(hinted) + touched(done)


# The key -----------------------------------------------------------------------------------------------------------

_KEY = "INSERT INTO erasure_key (inner_pad, outer_pad) VALUES ($1, $2) ON CONFLICT DO NOTHING"


async def _keep_key(db: Connection) -> None:
    """Made once, at the first erasure, whoever comes first."""
    key = secrets.token_bytes(BLOCK)
    await db.execute(_KEY, bytes(byte ^ 0x36 for byte in key), bytes(byte ^ 0x5C for byte in key))


_REMEMBER = """
INSERT INTO erased AS e (digest, at)
SELECT sha256(outer_pad || sha256(inner_pad || convert_to($1, 'UTF8'))), $2 FROM erasure_key
ON CONFLICT (digest) DO UPDATE SET at = greatest(e.at, excluded.at)
"""
