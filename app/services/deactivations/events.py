"""From a file's record to what it does: when it counts from, what it means, the verdict on a number."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from app.models.feed import GONE, SPACE, Kind
from app.models.policy import Policy
from app.services.decide import INSTANT, OLDEST, believed
from app.services.meaning import Meaning

LAST = timedelta(days=1) - INSTANT
PASSING: frozenset[Kind] = frozenset({"SUSPEND", "RESUME", "PORT"})


@lru_cache(maxsize=4_096)
def when(told: date | datetime | None, kind: Kind, arrived: datetime) -> tuple[datetime, datetime]:
    """The moment of an event, and the one that an opt-in must be newer than to survive it.

    An opt-in of that very moment survives too: lists that know days alone write midnight. Where a day is all that is
    told, the event lies at its end, since whoever agreed during it may have lost the number: nothing is sent. The other
    moment lies just before its beginning, since they may as well have just got it: nobody is opted out. A time that
    lies ahead counts as the arrival.
    """
    if isinstance(told, datetime):
        at = believed(told, arrived) or arrived
        return at, at if kind in PASSING else at - INSTANT
    if told is None:
        return arrived, arrived
    start = datetime.combine(told, time(), UTC)
    if not OLDEST < start <= arrived:
        return arrived, arrived
    return (start, start) if kind in PASSING else (min(start + LAST, arrived), start - INSTANT)


def reason_of(kind: Kind, meaning: Meaning) -> str:
    """What a kind means, by the catalogue. A port that names no new carrier is what a gateway calls a wrong carrier."""
    code = meaning.catalogue.find(SPACE, kind)
    return code.reason if code else "wrong_carrier"


def noted_kinds(meaning: Meaning) -> list[str]:
    """Kinds of which a number that nobody has spoken of is only noted: those that leave it deactivated, for ever."""
    return [kind for kind in sorted(GONE) if _is_for_ever(reason_of(kind, meaning), meaning.policy)]


def _is_for_ever(reason: str, policy: Policy) -> bool:
    rule = policy.rule(reason)
    lapses = rule.lapse or (rule.alone_lapse and not policy.lookups)
    return rule.state == "deactivated" and not lapses
