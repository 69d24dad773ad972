"""What the breaker has taken out of the past: the times of its quarantines, and which receipts fell into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from app.models.catalogue import Carriers
from app.models.number import Verdict
from app.models.policy import Policy
from app.services import breaker
from app.services.connection import Connection
from app.services.decide import Registered
from app.services.meaning import Meaning
from app.services.store import Arrival


class _Time(NamedTuple):
    carrier: str
    since: datetime
    upto: datetime


@dataclass(frozen=True, slots=True)
class TakenOut:
    """The times of which failures wait for a person or were decided by one, by key of the breaker without carrier."""

    carriers: Carriers
    times: dict[tuple[str, ...], list[_Time]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.times)

    def has(self, arrival: Arrival, known: Registered | None, verdict: Verdict, policy: Policy) -> bool:
        """Whether the breaker took this receipt apart. The register may have told its carrier before or after it came;
        and what the register told may be forgotten: then any carrier may have been the one.
        """
        own = breaker.own_carrier(arrival)
        key = breaker.key_of(arrival, own, verdict, policy)
        if key is None:
            return False
        may_be = {own, breaker.carrier_of(arrival, known, self.carriers)}
        forgotten = not own and known is None
        return any(
            time.since <= arrival.arrived <= time.upto and (forgotten or time.carrier in may_be)
            for time in self.times.get(key[:4], ())
        )


_TIMES = """
SELECT gateway, code_space, code, sender, carrier, opened_at, decided_at FROM quarantines
WHERE $1 OR decision IS DISTINCT FROM 'release'
"""


async def taken_out(db: Connection, meaning: Meaning, now: datetime, *, released: bool = True) -> TakenOut:
    """All quarantines, or without the `released` ones: what those held has happened after all."""
    found = TakenOut(meaning.carriers)
    for *key, carrier, opened_at, decided_at in await db.fetch(_TIMES, released):
        time = _Time(carrier, opened_at - meaning.policy.breaker.window, decided_at or now)
        found.times.setdefault(tuple(key), []).append(time)
    return found
