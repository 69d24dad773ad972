"""Lookups through the whole path, beside the same calls alone: the wire's own rate, by the same client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from time import perf_counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.lookups import PROVIDERS
from app.models.number import Carrier, Cause, Fact, Verdict
from app.services.apply import apply
from app.services.connection import connect, transaction
from app.services.lookup.ask import Source
from app.services.lookup.outcome import Plan
from app.services.lookup.service import AT_ONCE, Lookups
from app.services.lookup.transport import Transport
from app.services.meaning import Meaning
from bench.load import CannotMeasure
from bench.traffic import meaning, number

GROUP = 1_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One round: `rate` is lookups a second."""

    done: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.done / self.seconds


def with_lookups() -> Meaning:
    plain = meaning()
    return replace(plain, policy=replace(plain.policy, lookups=True))


def source(peer: str) -> Source:
    telnyx = PROVIDERS["telnyx"]
    return Source(telnyx, {"api_key": "none", "base_url": peer}, Decimal("0.0015"), 1e9)


async def whole(url: str, peer: str, numbers: Sequence[str]) -> Seen:
    """Deactivated numbers are looked up, found ported and sendable again, within a budget, each committed."""
    engine = connect(url)
    told = with_lookups()
    try:
        await _deactivate(engine, told, numbers)
        lookups = Lookups(engine, told, Plan((source(peer),), per_day=Decimal(10**6), per_number=Decimal(10**3)))
        began = perf_counter()
        running = asyncio.create_task(lookups.run())
        async with engine.connect() as db:
            while (await db.execute(text("SELECT count(*) FROM lookups"))).scalar():
                await db.rollback()
                await asyncio.sleep(0.02)
            seconds = perf_counter() - began
            found = (await db.execute(_MOVED, {"numbers": [*numbers]})).scalar()
        lookups.stop()
        await running
        if found != len(numbers):
            raise CannotMeasure(f"of {len(numbers)} lookups {found} ended as ports")
        return Seen(len(numbers), seconds)
    finally:
        await engine.dispose()


_MOVED = text("""
SELECT count(*) FROM numbers
WHERE number = ANY(:numbers) AND state = 'active' AND carrier ->> 'source' = 'telnyx'
""")


WAITING = 3_000
"""Lookups that are due while receipts are measured: more than are made in all rounds."""
BUSY = """
[lookup]
providers = ["telnyx", "plivo"]
[lookup.telnyx]
api_key = "none"
base_url = "{peer}"
[lookup.plivo]
auth_id = "none"
auth_token = "none"
base_url = "{peer}"
"""
IDLE = "[lookup]\n"
"""Numbers wait for lookups as in the other one, and nobody makes them."""


async def let_wait(url: str, population: int) -> None:
    """Numbers that nobody writes to are deactivated, and due."""
    engine = connect(url)
    await _deactivate(engine, with_lookups(), some(population, WAITING))
    await engine.dispose()


async def made(url: str) -> int:
    """Answers that are committed. Raises CannotMeasure when no lookup is left to be made."""
    engine = connect(url)
    async with engine.connect() as db:
        answers, left = (await db.execute(text(_MADE))).one()
    await engine.dispose()
    if not left:
        raise CannotMeasure("all lookups were made before the receipts were measured")
    return int(answers)


_MADE = "SELECT (SELECT count(*) FROM lookup_answers), (SELECT count(*) FROM lookups WHERE due_at < now())"


async def wire(peer: str, numbers: Sequence[str]) -> Seen:
    """The same calls with as many under way, and nothing else."""
    one, transport = source(peer), Transport()
    left = iter(numbers)

    async def worker() -> None:
        for who in left:
            answer = await transport.send(one.provider.build([who], one.options), 10)
            if answer.status != 200:
                raise CannotMeasure(f"the peer answers {answer.status}")

    began = perf_counter()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    seen = Seen(len(numbers), perf_counter() - began)
    await transport.close()
    return seen


async def _deactivate(engine: AsyncEngine, told: Meaning, numbers: Sequence[str]) -> None:
    for verdicts in _groups(numbers):
        async with transaction(engine) as db:
            await apply(db, verdicts, told.policy, datetime.now(UTC))
    async with transaction(engine) as db:
        await db.execute("DELETE FROM lookup_answers")  # else an earlier round's answers decide


def _groups(numbers: Sequence[str]) -> Iterator[list[Verdict]]:
    now, cause = datetime.now(UTC), Cause("receipt", "bench", None, "openmarket", "3041")
    dead = Fact(now, now, "deactivated", cause, lookup=True, sender="12345")
    for start in range(0, len(numbers), GROUP):
        yield [
            Verdict(who, now, cause, conditions=(("deactivated/deactivated", dead),), sender="12345",
                    carrier=Carrier(now, "bench", "AT&T", "AT&T"))
            for who in numbers[start : start + GROUP]
        ]  # fmt: skip


def some(first: int, count: int) -> list[str]:
    return [number(place) for place in range(first, first + count)]
