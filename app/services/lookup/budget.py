"""What lookups may cost: reserved before a call, settled after it, so that no number of processes spends too much.

What was reserved by a process that died stays spent: its call may have been billed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import store
from app.services.connection import Connection, is_lost, transaction
from app.services.logs import error_fields

log = structlog.get_logger(__name__)

NOTHING = Decimal(0)
WINDOW = timedelta(days=30)

_LOCK_DAY = """
INSERT INTO lookup_days AS d (day, spent) VALUES ($1, 0) ON CONFLICT (day) DO UPDATE SET spent = d.spent RETURNING spent
"""
_SPENT = """
SELECT number, sum(spent) AS spent FROM lookup_spend WHERE number = ANY($1::text[]) AND day > $2 GROUP BY number
"""
_ADD_DAY = """
INSERT INTO lookup_days AS d (day, spent) VALUES ($1, greatest($2::numeric, 0))
ON CONFLICT (day) DO UPDATE SET spent = greatest(d.spent + $2, 0)
"""
# Of a number that was erased while it was asked about, nothing is written any more but what the day has cost.
_ADD_NUMBERS = """
INSERT INTO lookup_spend AS s (number, day, spent)
SELECT n, $1, p FROM unnest($2::text[], $3::numeric[]) AS v (n, p)
WHERE EXISTS (SELECT FROM lookups WHERE number = n) OR EXISTS (SELECT FROM lookup_spend WHERE number = n) ORDER BY n
ON CONFLICT (number, day) DO UPDATE SET spent = greatest(s.spent + excluded.spent, 0)
"""


def _today() -> date:
    return datetime.now(UTC).date()


class _Asked(NamedTuple):
    """Calls that somebody wants to make, and who waits for leave."""

    numbers: Sequence[str]
    price: Decimal
    granted: asyncio.Future[Granted]


class Granted(NamedTuple):
    """Numbers whose call is paid for, and the day (UTC) whose budget pays: an answer may come on the next one."""

    numbers: list[str]
    day: date


class Budget:
    """Caps, in the currency of the prices; None: no cap. Days are UTC. `most` is for this process alone, in all.

    While one transaction reserves, the next ones gather: all processes take turns at the day's one row.
    """

    def __init__(self, engine: AsyncEngine, per_day: Decimal | None = None, per_number: Decimal | None = None,
                 most: Decimal | None = None, today: Callable[[], date] = _today) -> None:  # fmt: skip
        self.engine = engine
        self.per_day = per_day
        self.per_number = per_number
        self._most, self._own = most, NOTHING
        self._today = today
        self._waiting: list[_Asked] = []
        self._owed: list[tuple[date, Mapping[str, Decimal]]] = []
        self._reserving: asyncio.Task[None] | None = None

    async def reserve(self, numbers: Sequence[str], price: Decimal) -> Granted:
        """Those numbers whose call at this price is paid for; the others are over the day's cap or their own."""
        if not price:
            return Granted([*numbers], self._today())
        asked = _Asked(numbers, price, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._reserving is None:
            self._reserving = asyncio.create_task(self._reserve_all())
        return await asked.granted

    async def _reserve_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                granted = await self._reserve(group)
            except Exception as error:  # noqa: BLE001 - each who waits must hear of it
                for one in group:
                    if not one.granted.done():
                        one.granted.set_exception(error)
            else:
                for one, theirs in zip(group, granted, strict=True):
                    if not one.granted.done():
                        one.granted.set_result(theirs)
        self._reserving = None

    async def idle(self) -> None:
        """Wait until nothing is being reserved: those who asked may have gone, their reservation has not."""
        if self._reserving:
            await asyncio.wait([self._reserving])

    async def _reserve(self, group: Sequence[_Asked]) -> list[Granted]:
        today = self._today()
        async with transaction(self.engine) as db:
            spent, own = NOTHING, dict[str, Decimal]()
            if self.per_day is not None or self.per_number is not None:
                spent = await db.fetchval(_LOCK_DAY, today)  # all processes take turns from here on
            if self.per_number is not None:
                own = await _spent(db, today, [number for one in group for number in one.numbers])
            granted, more, mine = [], dict[str, Decimal](), self._own
            for one in group:
                left = [n for n in one.numbers if self._within(own.get(n, NOTHING) + more.get(n, NOTHING), one.price)]
                if self.per_day is not None:
                    left = left[: max(0, int((self.per_day - spent) // one.price))]
                if self._most is not None:
                    left = left[: max(0, int((self._most - mine) // one.price))]
                spent += one.price * len(left)
                mine += one.price * len(left)
                for number in left:
                    more[number] = more.get(number, NOTHING) + one.price
                granted.append(Granted(left, today))
            await _add(db, today, more)
        self._own += sum(more.values(), NOTHING)
        return granted

    def _within(self, spent: Decimal, price: Decimal) -> bool:
        return self.per_number is None or spent + price <= self.per_number

    async def settle(self, more: Mapping[str, Decimal], day: date) -> None:
        """Correct what was reserved that day: less where a call was certainly not billed, else what it did cost. Never
        raises, since an answer would be lost with it: what cannot be written now is with the next correction.
        """
        changed = {number: price for number, price in more.items() if price}
        if not changed:
            return
        self._own += sum(changed.values(), NOTHING)
        owed, self._owed = [*self._owed, (day, changed)], []
        try:
            async with transaction(self.engine) as db:
                for its_day, its_changed in owed:
                    await _add(db, its_day, its_changed)
        except Exception as error:  # noqa: BLE001 - see above
            self._owed += owed
            log.warning("what lookups cost was not corrected", lost=is_lost(error), **error_fields(error))

    async def left(self) -> Decimal | None:
        """Of the day's cap, None where there is none."""
        if self.per_day is None:
            return None
        async with transaction(self.engine) as db:
            spent = await db.fetchval("SELECT spent FROM lookup_days WHERE day = $1", self._today())
        return self.per_day - (spent or NOTHING)


async def _spent(db: Connection, today: date, numbers: Collection[str]) -> dict[str, Decimal]:
    return {row["number"]: row["spent"] for row in await db.fetch(_SPENT, [*numbers], today - WINDOW)}


async def _add(db: Connection, today: date, more: Mapping[str, Decimal]) -> None:
    if more:
        await db.execute(_ADD_DAY, today, sum(more.values(), NOTHING))
        await db.execute(_ADD_NUMBERS, today, *store.columns(more.items()))
