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

    Only an opt-in that is older ends: whoever agreed at that very moment stays, and lists that know days alone write
    midnight. Of a day the end is the event (whoever agreed during it may not have the number any more: nothing is
    sent), and what lies before its beginning ends (whoever agreed during it may: nobody is opted out). What lies ahead
    is the arrival.
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
    return rule.state == "deactivated" and rule.lapse is None
