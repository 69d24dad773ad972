"""Checks against the Reassigned Numbers Database, kept as evidence: each question, its date, its answer.

A `yes` says that the number was permanently disconnected on the date of consent or later: every opt-in up to the end of
that day ends, on all senders' lists, and the number is `reassigned` until a newer opt-in. `no` and `no_data` change
nothing; only a `no` that was wrong gives the safe harbour of 47 CFR 64.1200(m), and the row is what shows that it was
said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.lookups import rnd
from app.models.http import Options
from app.models.number import Cause, Fact, Verdict
from app.models.policy import Policy
from app.services import store
from app.services.apply import apply
from app.services.connection import Connection, Rows, read, transaction
from app.services.lookup.transport import Transport, Unreached

AT_ONCE = 5_000
WITHIN = 30.0
"""Seconds that a call may take: a thousand pairs are slower than a lookup."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One question and what came of it. `told` None: no answer, and `detail` says why."""

    asked: rnd.Asked
    asked_at: datetime
    told: rnd.Told | None
    detail: str | None = None


# What is to be asked -----------------------------------------------------------------------------------------------

_CONSENTS = text("""
SELECT DISTINCT number, (opted_in_at AT TIME ZONE 'UTC')::date AS consented_on FROM subscriptions
WHERE consent = 'opted_in' AND (CAST(:number AS text) IS NULL OR number = :number) AND number > :after
  AND (opted_in_at AT TIME ZONE 'UTC')::date < (now() AT TIME ZONE 'UTC')::date
  AND (CAST(:sender AS text) IS NULL OR sender = :sender) AND (CAST(:list AS text) IS NULL OR list = :list)
  AND number ~ '^[+]1[0-9]{10}$'
ORDER BY number, consented_on LIMIT :limit
""")


async def consents(engine: AsyncEngine, number: str, sender: str | None, list_: str | None) -> list[rnd.Asked]:
    """The dates, before today, of the consents that stand for a number: on a list, with a sender, or all of them."""
    given = {"number": number, "sender": sender, "list": list_, "after": "", "limit": AT_ONCE}
    return [rnd.Asked(row.number, row.consented_on) for row in await read(engine, _CONSENTS, given)]


async def of_list(engine: AsyncEngine, sender: str, list_: str) -> AsyncIterator[list[rnd.Asked]]:
    """Who is opted in to a list, with the date of it, in order of number."""
    after = ""
    while True:
        given = {"number": None, "sender": sender, "list": list_, "after": after, "limit": AT_ONCE}
        asked = [rnd.Asked(row.number, row.consented_on) for row in await read(engine, _CONSENTS, given)]
        if not asked:
            return
        yield asked
        after = asked[-1].number


_SENDERS = text("SELECT sender FROM list_sizes WHERE list = :list ORDER BY 1")


async def senders_of(engine: AsyncEngine, list_: str) -> list[str]:
    """Whose lists have this name."""
    return [row.sender for row in await read(engine, _SENDERS, {"list": list_})]


# By the API --------------------------------------------------------------------------------------------------------


async def check(engine: AsyncEngine, asked: Sequence[rnd.Asked], options: Options, policy: Policy) -> list[Checked]:
    """Ask, keep each question with its answer, and act on it. A call that fails is kept as that, and one that is killed
    as a question: it may have been answered, and counted.
    """
    transport, done = Transport(), []
    try:
        for start in range(0, len(asked), rnd.AT_ONCE):
            part = asked[start : start + rnd.AT_ONCE]
            at = await _put(engine, part, "api", "asked, and no answer was kept")
            told, why = await _ask(transport, part, options)
            checked = [Checked(one, at, told.get(one), None if one in told else why) for one in part]
            await _heard(engine, checked, at, policy)
            done += checked
    finally:
        await transport.close()
    return done


async def _ask(
    transport: Transport, asked: Sequence[rnd.Asked], options: Options
) -> tuple[Mapping[rnd.Asked, rnd.Told], str]:
    try:
        token = rnd.id_token(await transport.send(rnd.sign_in(options), WITHIN))
        answer = await transport.send(rnd.build(asked, token, options), WITHIN)
        return rnd.read(answer, asked), "the answer says nothing clear about this number"
    except (rnd.Unclear, Unreached) as error:
        return {}, str(error)


_HEARD = """
UPDATE rnd_checks c SET answer = v.answer, answered_at = CASE WHEN v.answer IS NOT NULL THEN $5::timestamptz END,
    detail = v.detail
FROM unnest($1::text[], $2::date[], $3::text[], $4::text[]) AS v (number, consented_on, answer, detail)
WHERE (c.number, c.consented_on, c.asked_at) = (v.number, v.consented_on, $6)
RETURNING c.number, c.consented_on
"""


async def _heard(engine: AsyncEngine, checked: Sequence[Checked], at: datetime, policy: Policy) -> None:
    """The evidence and what follows from it, in one transaction; nothing of a number that was erased meanwhile."""
    now = datetime.now(UTC)
    rows = [(*one.asked, one.told, one.detail) for one in checked]
    async with transaction(engine) as db:
        there = {rnd.Asked(*row) for row in await db.fetch(_HEARD, *store.columns(rows), now, at)}
        await _act(db, [one for one in checked if one.asked in there], policy, now)


# By file -----------------------------------------------------------------------------------------------------------


async def exported(engine: AsyncEngine, asked: Sequence[rnd.Asked]) -> None:
    """Keep the questions of a file: their answers come with another one."""
    await _put(engine, asked, "file", "exported")


_ANSWER = """
UPDATE rnd_checks c SET answer = v.answer, answered_at = $4, detail = NULL
FROM unnest($1::text[], $2::date[], $3::text[]) AS v (number, consented_on, answer)
WHERE (c.number, c.consented_on) = (v.number, v.consented_on) AND c.via = 'file' AND c.answer IS NULL
RETURNING c.number, c.consented_on, c.answer
"""
_KNOWN = """
SELECT count(*) FROM unnest($1::text[], $2::date[]) AS v (number, consented_on)
WHERE EXISTS (SELECT FROM rnd_checks c WHERE (c.number, c.consented_on) = (v.number, v.consented_on))
"""


async def answered(engine: AsyncEngine, told: Mapping[rnd.Asked, rnd.Told], policy: Policy) -> tuple[int, int]:
    """Take in what a file says: how many questions of ours it answers, and how many pairs nobody had asked for. An
    answer that was taken already is not taken again.
    """
    now = datetime.now(UTC)
    async with transaction(engine) as db:
        rows = await db.fetch(_ANSWER, *store.columns((*asked, word) for asked, word in told.items()), now)
        fresh = [Checked(one, now, word) for one, word in {rnd.Asked(*row[:2]): row[2] for row in rows}.items()]
        known = await db.fetchval(_KNOWN, *store.columns(told))
        await _act(db, fresh, policy, now)
    return len(fresh), len(told) - known


# Keeping and acting ------------------------------------------------------------------------------------------------

_PUT = """
INSERT INTO rnd_checks (number, consented_on, asked_at, via, detail)
SELECT n, d, $3, $4, $5 FROM unnest($1::text[], $2::date[]) AS v (n, d) ON CONFLICT DO NOTHING
"""


async def _put(engine: AsyncEngine, asked: Sequence[rnd.Asked], via: str, detail: str) -> datetime:
    """Keep questions. Returns as of when."""
    at = datetime.now(UTC)
    async with transaction(engine) as db:
        await db.execute(_PUT, *store.columns(asked), at, via, detail)
    return at


async def _act(db: Connection, checked: Iterable[Checked], policy: Policy, now: datetime) -> None:
    verdicts = [verdict(one, now) for one in sorted(checked, key=lambda one: one.asked) if one.told == "yes"]
    if verdicts:
        applied = await apply(db, verdicts, policy, now)
        await store.publish(db, applied.every_change)


def verdict(checked: Checked, now: datetime) -> Verdict:
    """What a `yes` says: since when exactly the number is another's is not told, so it speaks of the consents up to the
    end of the day that was asked for, and of no later one.
    """
    number, on = checked.asked
    end = min(datetime.combine(on + timedelta(days=1), time(), UTC) - timedelta(microseconds=1), now)
    cause = Cause("lookup", source="rnd", evidence=f"yes, asked {_moment(checked.asked_at)} about {on}")
    fact = Fact(end, end, "reassigned", cause)
    return Verdict(number, now, cause, conditions=(("reassigned/reassigned", fact),), out=fact, scope="all")


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


_HISTORY = text("""
SELECT consented_on, asked_at, via, answer, answered_at, detail FROM rnd_checks
WHERE number = :number ORDER BY asked_at DESC, consented_on
""")


async def history(engine: AsyncEngine, number: str) -> Rows:
    """Every check of a number, newest first."""
    return await read(engine, _HISTORY, {"number": number})
