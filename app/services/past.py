"""What is kept of the past of numbers: receipts with what the register knew, changes, calls, lookups' answers. Read in
one transaction that can write nothing, a page of numbers at a time, so that memory does not grow with the history.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.lookup import Failed
from app.models.number import Change, Number, Subscription
from app.models.receipt import Receipt, Status
from app.services import store
from app.services.arrival import arrival
from app.services.connection import Connection, transaction
from app.services.decide import Registered
from app.services.heard import Said
from app.services.meaning import Meaning
from app.services.store import Arrival

AT_ONCE = 500
"""Numbers in one page."""
WITHIN = 3_600.0
"""Seconds that one statement may take: it reads months."""


class Dated(NamedTuple):
    """A change, and when it was committed."""

    change: Change
    committed_at: datetime


class Past(NamedTuple):
    """What is kept of one number. Changes are all of them, in the feed's order; receipts and answers of the period.
    `known`: what is known of it now.
    """

    number: str
    receipts: list[tuple[Arrival, Registered | None]]
    changes: list[Dated]
    lists: list[Subscription]
    answers: list[tuple[datetime, Said]]
    known: Number


@asynccontextmanager
async def looking(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """One moment of the database, in which nothing can be written. Nobody waits for it, so it may sleep (Ctrl-Z)."""
    async with transaction(engine) as db:
        await db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await db.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield db


_COUNT = "SELECT count(DISTINCT number) FROM receipts WHERE received_at >= $1"


async def count_numbers(db: Connection, since: datetime) -> int:
    """How many numbers have receipts since then."""
    return int(await db.fetchval(_COUNT, since, timeout=WITHIN))


_NUMBERS = """
SELECT number FROM receipts WHERE number > $1 AND received_at >= $2 GROUP BY number ORDER BY number LIMIT $3
"""


async def numbers(db: Connection, since: datetime) -> AsyncIterator[list[str]]:
    """The numbers that have receipts since then, in pages, in their order."""
    async for page in _pages(db, _NUMBERS, since):
        yield page


# What files told is rare in the history: it is read only as far as the page of the receipts goes, else each page reads
# all that lies behind it. The end of a last page is a number too: no letter is behind all of them in every collation.
_HEARD = """
WITH page AS (SELECT number FROM receipts WHERE number > $1 AND received_at >= $2
              GROUP BY number ORDER BY number LIMIT $3),
upto AS (SELECT max(number) AS number FROM page HAVING count(*) = $3)
SELECT number FROM page
UNION
SELECT number FROM changes
WHERE number > $1 AND number <= coalesce((SELECT number FROM upto), (SELECT max(number) FROM changes))
    AND committed_at >= $2 AND cause->>'kind' = 'file'
ORDER BY number LIMIT $3
"""
_COUNT_HEARD = """
SELECT count(*) FROM (SELECT number FROM receipts WHERE received_at >= $1
    UNION SELECT number FROM changes WHERE committed_at >= $1 AND cause->>'kind' = 'file') AS heard
"""


async def count_heard_of(db: Connection, since: datetime) -> int:
    """How many numbers `heard_of` gives."""
    return int(await db.fetchval(_COUNT_HEARD, since, timeout=WITHIN))


async def heard_of(db: Connection, since: datetime) -> AsyncIterator[list[str]]:
    """The numbers that have receipts since then, and those of whom a file has told, in pages, in their order."""
    async for page in _pages(db, _HEARD, since):
        yield page


async def _pages(db: Connection, statement: str, since: datetime) -> AsyncIterator[list[str]]:
    after = ""
    while page := [row[0] for row in await db.fetch(statement, after, since, AT_ONCE, timeout=WITHIN)]:
        yield page
        after = page[-1]


_RECEIPTS = """
SELECT r.*, m.number AS sent_to, m.sender AS sent_from, m.sent_at AS registered, m.carrier AS sent_by
FROM receipts r LEFT JOIN messages m USING (gateway, account, message_id)
WHERE r.number = ANY($1::text[]) AND r.received_at >= $2 ORDER BY r.number, r.received_at, r.key
"""
_CHANGES = """
SELECT number, sender, list, kind, before, after, reason, cause, occurred_at, committed_at
FROM changes WHERE number = ANY($1::text[]) ORDER BY number, seq
"""
_ANSWERS = """
SELECT number, asked_at, provider, outcome, detail, found FROM lookup_answers
WHERE number = ANY($1::text[]) AND asked_at >= $2 AND outcome IN ('ok', 'not_found') ORDER BY number, asked_at, provider
"""


async def past(db: Connection, page: Sequence[str], since: datetime, meaning: Meaning) -> list[Past]:
    """The past of each number of a page."""
    known = await store.facts(db, page)
    found = {number: Past(number, [], [], [], [], known.get(number) or Number(number)) for number in page}
    for row in await db.fetch(_RECEIPTS, page, since, timeout=WITHIN):
        found[row["number"]].receipts.append(_arrived(row, meaning))
    for row in await db.fetch(_CHANGES, page, timeout=WITHIN):
        found[row["number"]].changes.append(Dated(store.change_of(row), row["committed_at"]))
    for number, lists in (await store.lists(db, [*page])).items():
        found[number].lists.extend(lists.values())
    for row in await db.fetch(_ANSWERS, page, since, timeout=WITHIN):
        answer = store.found_of(row["found"]) if row["found"] else Failed(row["number"], row["outcome"], row["detail"])
        found[row["number"]].answers.append((row["asked_at"], Said(row["provider"], answer)))
    return [*found.values()]


def _arrived(row: Mapping[str, Any], meaning: Meaning) -> tuple[Arrival, Registered | None]:
    """A receipt as far as it is kept, and what the register, while it is kept, knows of its message."""
    receipt = Receipt(
        row["message_id"], Status(row["status"]), row["number"], row["sender"], row["code"], row["code_space"],
        row["carrier"], row["mcc"], row["mnc"], segment=row["segment"], segments=row["segments"],
        occurred_at=row["occurred_at"], sent_at=row["sent_at"], gateway=row["gateway"], account=row["account"],
    )  # fmt: skip
    known = None
    if row["sent_to"] is not None:
        known = Registered(row["sent_to"], row["sent_from"], row["registered"], row["sent_by"])
    said = arrival(receipt, row["received_at"], meaning)
    return replace(said, key=row["key"], reason=row["reason"]), known
