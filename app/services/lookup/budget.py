"""What lookups may cost: reserved before a call, settled after it, so that no number of processes spends too much.

What was reserved by a process that died stays spent: its call may have been billed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import store
from app.services.connection import Connection, transaction

NOTHING = Decimal(0)
WINDOW = timedelta(days=30)

_OPEN_DAY = "INSERT INTO lookup_days (day, spent) VALUES ($1, 0) ON CONFLICT DO NOTHING"
_LOCK_DAY = "SELECT spent FROM lookup_days WHERE day = $1 FOR UPDATE"
_SPENT = """
SELECT number, sum(spent) AS spent FROM lookup_spend WHERE number = ANY($1::text[]) AND day > $2 GROUP BY number
"""
_ADD_DAY = "UPDATE lookup_days SET spent = greatest(spent + $2, 0) WHERE day = $1"
_ADD_NUMBERS = """
INSERT INTO lookup_spend AS s (number, day, spent)
SELECT n, $1, p FROM unnest($2::text[], $3::numeric[]) AS v (n, p) ORDER BY n
ON CONFLICT (number, day) DO UPDATE SET spent = greatest(s.spent + excluded.spent, 0)
"""


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps, in the currency of the prices; None: no cap. Days are UTC."""

    engine: AsyncEngine
    per_day: Decimal | None = None
    per_number: Decimal | None = None

    async def reserve(self, numbers: Collection[str], price: Decimal) -> list[str]:
        """Those numbers whose call at this price is paid for; the others are over the day's cap or their own."""
        if not price or not numbers:
            return [*numbers]
        today = datetime.now(UTC).date()
        async with transaction(self.engine) as db:
            await db.execute(_OPEN_DAY, today)
            granted = self._granted(
                numbers, price, await _left(db, today, numbers), await db.fetchval(_LOCK_DAY, today)
            )
            await _add(db, today, dict.fromkeys(granted, price))
        return granted

    def _granted(
        self, numbers: Collection[str], price: Decimal, spent: Mapping[str, Decimal], today: Decimal
    ) -> list[str]:
        own = [n for n in numbers if self.per_number is None or spent.get(n, NOTHING) + price <= self.per_number]
        if self.per_day is None:
            return own
        return own[: max(0, int((self.per_day - today) // price))]

    async def settle(self, more: Mapping[str, Decimal]) -> None:
        """Correct what was reserved: less where a call was certainly not billed, else what the provider named."""
        changed = {number: price for number, price in more.items() if price}
        if changed:
            async with transaction(self.engine) as db:
                await _add(db, datetime.now(UTC).date(), changed)

    async def left(self) -> Decimal | None:
        """Of the day's cap, None where there is none."""
        if self.per_day is None:
            return None
        async with transaction(self.engine) as db:
            spent = await db.fetchval("SELECT spent FROM lookup_days WHERE day = $1", datetime.now(UTC).date())
        return self.per_day - (spent or NOTHING)


async def _left(db: Connection, today: date, numbers: Collection[str]) -> dict[str, Decimal]:
    return {row["number"]: row["spent"] for row in await db.fetch(_SPENT, [*numbers], today - WINDOW)}


async def _add(db: Connection, today: date, more: Mapping[str, Decimal]) -> None:
    if more:
        await db.execute(_ADD_DAY, today, sum(more.values(), NOTHING))
        await db.execute(_ADD_NUMBERS, today, *store.columns(more.items()))
