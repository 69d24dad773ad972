"""Who makes which lookup, in SQL: claimed with a lease, never with a status; written back only under the own token.

No row is locked while a provider is asked. Each statement stands above the function that runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from app.models.lookup import Failed, Found
from app.services.connection import Connection, touched
from app.services.lookup.ask import Answer
from app.services.lookup.budget import NOTHING
from app.services.store import columns, found_json, found_of

BY_HAND = "asked"
"""The reason of a lookup that nothing but a call has asked for."""


class Claim(NamedTuple):
    """One lookup that is ours until its lease ends. `tries`: how often no provider answered this step. `forced`: a call
    asks; `early`: before the step is due, which stays where it is.
    """

    number: str
    token: UUID
    step: int
    tries: int
    forced: bool = False
    early: bool = False


# Not `clock_timestamp()`, which no index is asked for: all that are due in days to come would be looked through.
_CLAIM = """
WITH due AS (SELECT number FROM lookups
    WHERE due_at <= statement_timestamp() AND (lease_until IS NULL OR lease_until < clock_timestamp())
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
UPDATE lookups l SET token = gen_random_uuid(), lease_until = clock_timestamp() + make_interval(secs => $2)
FROM due WHERE l.number = due.number RETURNING l.number, l.token, l.step, l.tries
"""


async def claim(db: Connection, most: int, lease: float) -> list[Claim]:
    """Due lookups, the oldest first, that nobody else has."""
    return [Claim(*row) for row in await db.fetch(_CLAIM, most, lease)]


_WANT = """
INSERT INTO lookups (number, reason, cause, asked_at, due_at)
SELECT $1, $2, '{"kind": "call"}', clock_timestamp(), clock_timestamp() ON CONFLICT (number) DO NOTHING
"""
_TAKE = """
UPDATE lookups SET token = gen_random_uuid(), lease_until = clock_timestamp() + make_interval(secs => $2)
WHERE number = $1 AND (lease_until IS NULL OR lease_until < clock_timestamp())
RETURNING number, token, step, tries, true, due_at > statement_timestamp()
"""


async def take(db: Connection, number: str, lease: float) -> Claim | None:
    """The lookup of one number, made due if there is none; None when somebody else makes it just now."""
    await db.execute(_WANT, number, BY_HAND)
    row = await db.fetchrow(_TAKE, number, lease)
    return Claim(*row) if row else None


_LEASED = "SELECT lease_until > clock_timestamp() AS busy FROM lookups WHERE number = $1"


async def is_leased(db: Connection, number: str) -> bool:
    return bool(await db.fetchval(_LEASED, number))


_HOLDS = """
SELECT l.number, l.token, l.step, l.tries, forced, l.due_at > statement_timestamp()
FROM lookups l JOIN unnest($1::text[], $2::uuid[], $3::boolean[]) AS mine (number, token, forced) USING (number, token)
ORDER BY l.number FOR UPDATE OF l
"""


async def still_ours(db: Connection, claims: Iterable[Claim]) -> dict[str, Claim]:
    """Of these claims those that nobody has taken over since, locked, by number: with another step where something else
    was asked meanwhile. Ask when the numbers' own locks are held.
    """
    rows = await db.fetch(_HOLDS, *columns((c.number, c.token, c.forced) for c in claims))
    return {row[0]: Claim(*row) for row in rows}


_PROLONG = """
UPDATE lookups SET lease_until = clock_timestamp() + make_interval(secs => $3)
FROM unnest($1::text[], $2::uuid[]) AS mine (number, token)
WHERE lookups.number = mine.number AND lookups.token = mine.token
"""


async def prolong(db: Connection, claims: Iterable[Claim], lease: float) -> bool:
    """Whether any of them is still ours, from now on for as many seconds."""
    return touched(await db.execute(_PROLONG, *columns((c.number, c.token) for c in claims), lease)) > 0


_RELEASE = """
UPDATE lookups SET lease_until = NULL
FROM unnest($1::text[], $2::uuid[]) AS mine (number, token)
WHERE lookups.number = mine.number AND lookups.token = mine.token
"""


async def give_back(db: Connection, claims: Sequence[Claim]) -> None:
    """What was claimed and will not be made here, or was made before it was due: anybody may, when it is."""
    if claims:
        await db.execute(_RELEASE, *columns((c.number, c.token) for c in claims))


class Next(NamedTuple):
    """After how long a lookup is made again, and why it was not decided."""

    number: str
    step: int
    tries: int
    wait: timedelta
    waiting_for: str | None


_LATER = """
UPDATE lookups l SET step = v.step, tries = v.tries, due_at = statement_timestamp() + wait, waiting_for = v.waiting_for,
    lease_until = NULL
FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::interval[], $5::text[])
    AS v (number, step, tries, wait, waiting_for)
WHERE l.number = v.number
"""
_DONE = "DELETE FROM lookups WHERE number = ANY($1::text[])"


async def write_back(db: Connection, later: Sequence[Next], done: Sequence[str]) -> None:
    if later:
        await db.execute(_LATER, *columns(later))
    if done:
        await db.execute(_DONE, [*done])


_WAKE = """
UPDATE lookups SET due_at = clock_timestamp()
WHERE number IN (SELECT number FROM lookups WHERE waiting_for = 'budget' AND lease_until IS NULL
                 ORDER BY number FOR UPDATE SKIP LOCKED)
"""


async def wake_the_unpaid(db: Connection) -> None:
    """At a start: the budget may be another one."""
    await db.execute(_WAKE)


# Answers -----------------------------------------------------------------------------------------------------------

_KEEP = """
INSERT INTO lookup_answers (number, asked_at, provider, outcome, detail, found, price, kept_until, config)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::numeric[],
    $8::timestamptz[], $9::text[])
ON CONFLICT DO NOTHING
"""


async def keep(db: Connection, answers: Iterable[tuple[Answer, datetime | None]]) -> None:
    """Store what providers said, each with the moment until which it is used again."""
    rows = [_row(answer, kept) for answer, kept in answers]
    if rows:
        await db.execute(_KEEP, *columns(rows))


def _row(answer: Answer, kept: datetime | None) -> tuple[Any, ...]:
    said = answer.said
    return (
        said.number,
        answer.at,
        answer.provider,
        said.error if isinstance(said, Failed) else "ok",
        said.detail if isinstance(said, Failed) else "",
        found_json(said) if isinstance(said, Found) else None,
        answer.price,
        kept,
        answer.config,
    )


_KEPT = """
SELECT DISTINCT ON (number, provider) number, asked_at, provider, outcome, detail, found, config
FROM lookup_answers WHERE number = ANY($1::text[]) AND kept_until > clock_timestamp()
ORDER BY number, provider, asked_at DESC
"""


async def kept(db: Connection, numbers: Sequence[str]) -> dict[str, list[Answer]]:
    """The newest answer of each provider that is still good, by number. They cost nothing more."""
    found: dict[str, list[Answer]] = {}
    for number, at, provider, outcome, detail, record, config in await db.fetch(_KEPT, numbers):
        said = found_of(record) if record else Failed(number, outcome, detail)
        found.setdefault(number, []).append(Answer(provider, said, NOTHING, at, config))
    return found
