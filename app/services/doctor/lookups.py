"""How lookups stand, and how to mend them, for `sendable doctor`: by the settings, and by what all processes wrote."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.lookup import ANSWERS
from app.models.settings import LookupTable
from app.services.connection import Rows
from app.services.doctor.finding import Finding, age
from app.services.lookup.breaker import FAILS
from app.services.standing import Standing

LATE = 300.0
"""Seconds that a due lookup may wait before somebody should know: one look is made twice a second."""


def of_settings(table: LookupTable | None) -> Iterator[Finding]:
    if table is None:
        yield Finding("note", "lookups", "no lookup provider: held numbers wait for a person", "add a [lookup] table")
        return
    if not table.providers:
        mend = "name one under `providers` in `[lookup]` of the settings"
        yield Finding("note", "lookups", "no provider is named: numbers wait until one is", mend)
        return
    yield Finding("ok", "lookups", f"asked in this order: {', '.join(table.providers)}")
    if table.budget_per_day is None and {*table.providers} != {"demo"}:
        yield Finding("note", "lookups", "no budget for a day: they may cost any sum", "set `lookup.budget_per_day`")


_HEARD = text("""
SELECT provider, count(*) AS total, count(*) FILTER (WHERE outcome <> ALL(CAST(:answers AS text[]))) AS failed,
       (array_agg(outcome ORDER BY asked_at DESC))[1] AS newest
FROM lookup_answers WHERE asked_at > statement_timestamp() - interval '15 minutes' GROUP BY 1 ORDER BY 1
""")
_WAITS = text("SELECT count(*) FROM lookups WHERE waiting_for = 'budget'")
_SPENT = text("SELECT spent FROM lookup_days WHERE day = (clock_timestamp() AT TIME ZONE 'UTC')::date")


class Seen(NamedTuple):
    """What the database tells of lookups: the last quarter of an hour, what waits for the budget, today's spending."""

    heard: Rows
    unpaid: int
    spent: Decimal


async def seen(engine: AsyncEngine) -> Seen:
    async with engine.connect() as db:
        heard = (await db.execute(_HEARD, {"answers": ["ok", *ANSWERS]})).all()
        unpaid = (await db.execute(_WAITS)).scalar_one()
        return Seen(heard, unpaid, (await db.execute(_SPENT)).scalar() or Decimal(0))


def of_database(now: Standing, table: LookupTable | None, told: Seen) -> Iterator[Finding]:
    providers = table.providers if table else ()
    for stop in now.stops:
        says = (
            f"{stop.provider} refuses our account ({stop.error}) since {stop.since:%Y-%m-%d %H:%M} UTC: it is not asked"
        )
        mend = f"mend its key or pay its bill, then run `sendable lookup resume {stop.provider}`"
        yield Finding("wrong", "lookups", says, mend)
    for row in told.heard:
        if row.failed == row.total and row.total >= FAILS:
            says = f"{row.provider} failed {row.total} times in 15 minutes and never answered, last with {row.newest}"
            yield Finding("wrong", "lookups", says, f"ask {row.provider}; name another provider behind it meanwhile")
    if now.lookups.total and not providers:
        mend = "name a provider under [lookup]"
        yield Finding("note", "lookups", f"{now.lookups.total} are due and nobody makes them", mend)
    elif providers:
        yield _due(now.lookups)
    if table and providers and table.budget_per_day is not None:
        left = max(table.budget_per_day - told.spent, Decimal(0))
        yield Finding("ok", "lookups", f"{told.spent} of today's {table.budget_per_day} spent, {left} left")
    if told.unpaid:
        mend = "raise the budget under [lookup] and restart, or wait: they go on after midnight UTC"
        yield Finding("note", "lookups", f"{told.unpaid} wait for the budget", mend)


def _due(lookups: Row[Any]) -> Finding:
    says = f"{lookups.total} are due" + (f", the oldest for {age(lookups.oldest)}" if lookups.total else "")
    if (lookups.oldest or 0) < LATE:
        return Finding("ok", "lookups", says)
    return Finding("note", "lookups", says, "start `sendable serve`, which makes them, or raise `per_second`")
