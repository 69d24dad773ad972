"""A made-up day: who subscribed, what was sent, what became of it. The same seed and the same now make the same day.

The numbers are 555-0100 to 555-0199 of many area codes, which are kept for fiction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from random import Random
from typing import NamedTuple
from uuid import UUID

from app.models.receipt import Status

LISTS = {"24680": ("spring", "restock"), "73529": ("appointments",)}
CARRIERS = ("Verizon Wireless", "AT&T", "T-Mobile", "US Cellular", "Metro by T-Mobile", "Cricket")
AREAS = (415, *(code for code in range(201, 990) if code // 10 % 10 != 9 and code % 100 != 11 and code != 415))  # noqa: PLR2004
NUMBERS = tuple(f"+1{area}55501{line:02d}" for line in range(100) for area in AREAS)
DAY = timedelta(hours=24)
FORMS = {"openmarket": ("v3", "v4")}
GATEWAYS = {"openmarket": 25, "native": 25, "infobip": 25, "twilio": 10, "kannel": 8, "jasmin": 7}
"""Of a hundred messages, how many go out by whom."""
HOURS = (1, 1, 1, 1, 1, 2, 5, 14, 40, 75, 100, 95, 85, 70, 65, 70, 80, 95, 85, 55, 30, 12, 5, 2)
"""How busy each hour of the day is, in US Central standard time: nobody texts people out of bed."""
CENTRAL = timedelta(hours=-6)


class Fate(NamedTuple):
    """What can become of a message: of ten thousand so many, and the code for it in each vendor's own words (None: the
    vendor has none). After one that `ends`, the number is sent nothing more that day.
    """

    share: int
    status: Status
    openmarket: str
    infobip: str | None = None
    twilio: str | None = None
    ends: bool = False


DELIVERED = Fate(9_200, Status.DELIVERED, "4")
FATES = (
    DELIVERED,
    Fate(180, Status.UNDELIVERABLE, "508", "27", "30003"),  # absent
    Fate(110, Status.EXPIRED, "811", "15"),
    Fate(90, Status.UNDELIVERABLE, "628", "256"),  # a handset that takes no more
    Fate(60, Status.UNDELIVERABLE, "510", "34"),  # an error of the network
    Fate(80, Status.UNDELIVERABLE, "810", "255", "30008"),  # no detail
    Fate(20, Status.UNDELIVERABLE, "581", "581"),  # no credit
    Fate(15, Status.REJECTED, "562", "562", "30034"),  # our sender, not the person
    Fate(20, Status.UNDELIVERABLE, "569", "569", ends=True),  # suspended
    Fate(30, Status.UNDELIVERABLE, "514", "1", "30005", ends=True),  # unknown subscriber
    # The twelve
    Fate(12, Status.REJECTED, "341", ends=True),
    Fate(12, Status.UNDELIVERABLE, "345", "345", ends=True),
    Fate(8, Status.UNDELIVERABLE, "349", ends=True),
    Fate(16, Status.UNDELIVERABLE, "560", "560", "30004", ends=True),
    Fate(14, Status.UNDELIVERABLE, "561", "561", ends=True),
    Fate(8, Status.UNDELIVERABLE, "565", "565", ends=True),
    Fate(12, Status.UNDELIVERABLE, "568", "568", ends=True),
    Fate(16, Status.UNDELIVERABLE, "573", "573", ends=True),
    Fate(8, Status.UNDELIVERABLE, "592", "592", ends=True),
    Fate(30, Status.UNDELIVERABLE, "603", "603", "21610", ends=True),
    Fate(20, Status.UNDELIVERABLE, "629", "629", "30006", ends=True),
    Fate(30, Status.UNDELIVERABLE, "3041", "3041", ends=True),
    Fate(9, Status.UNDELIVERABLE, "977", "9977", "39977"),  # in no table
)


@dataclass(frozen=True, slots=True)
class Told:
    """One receipt, before its vendor writes it down. `form`: which generation of the vendor's API writes it."""

    gateway: str
    form: str
    message_id: str
    number: str
    sender: str
    status: Status
    code: str | None
    sent_at: datetime
    at: datetime


class Subscriber(NamedTuple):
    number: str
    carrier: str
    lists: tuple[tuple[str, str], ...]
    consented_at: datetime


class Day(NamedTuple):
    """`told`: distinct receipts; `due`: all but the story's as they arrive, with repeats. `late`: ids of messages that
    the register hears of only after their receipts. `story`: one number's day in order, with an opt-in in the middle.
    """

    mark: str
    subscribers: list[Subscriber]
    told: list[Told]
    due: list[Told]
    late: frozenset[str]
    story: list[Told | Subscriber]


def people(receipts: int) -> int:
    """How many subscribers a day of so many receipts has."""
    return min(len(NUMBERS), max(20, receipts // 5))


def make(receipts: int, seed: int, now: datetime, numbers: Sequence[str] = NUMBERS) -> Day:
    """A day that ends at `now` and brings this many receipts, repeats included. `numbers`: whom it may concern."""
    random = Random(seed)  # noqa: S311 - a play, not a secret
    mark = f"{seed}-{now:%Y%m%d%H%M%S}"
    subscribers = _subscribers(numbers[: people(receipts)], random, now)
    story = [*_story(subscribers[0], mark, now)]
    own = [step for step in story if isinstance(step, Told)]
    repeats = receipts // 100
    crowd = [*_crowd(subscribers[1:], receipts - repeats - len(own), mark, random, now)]
    again = random.choices(crowd, k=repeats)
    nameless = sorted({told.message_id for told in crowd if told.form == "v3" or told.gateway == "jasmin"})
    return Day(
        mark, subscribers, own + crowd, _as_they_arrive(crowd, again, random),
        frozenset(random.sample(nameless, len(nameless) // 100)), story,
    )  # fmt: skip


def _subscribers(numbers: Sequence[str], random: Random, now: datetime) -> list[Subscriber]:
    every = [(sender, name) for sender, names in LISTS.items() for name in names]
    wanted = [every, *(sorted(random.sample(every, random.choice((1, 1, 1, 2)))) for _ in numbers[1:])]
    return [
        Subscriber(number, random.choice(CARRIERS), tuple(lists), now - DAY - timedelta(days=random.randint(5, 400)))
        for number, lists in zip(numbers, wanted, strict=True)
    ]


def _crowd(subscribers: Sequence[Subscriber], receipts: int, mark: str, random: Random,
           now: datetime) -> Iterator[Told]:  # fmt: skip
    """So many receipts, as their messages were sent. Of one message in twelve it is also told that it is on its way."""
    gone: set[str] = set()
    moments = iter(_moments(receipts, random, now))
    told = 0
    while told < receipts:
        sent_at, person = next(moments), _someone(subscribers, gone, random)
        gateway = random.choices([*GATEWAYS], [*GATEWAYS.values()])[0]
        fate = _fate(gateway, random)
        if fate.ends:
            gone.add(person.number)
        one = _told(gateway, person, fate, sent_at, f"{mark}/{told}", random, now)
        if told + 1 < receipts and random.random() < 1 / 12:
            yield _on_its_way(one)
            told += 1
        yield one
        told += 1


def _someone(subscribers: Sequence[Subscriber], gone: set[str], random: Random) -> Subscriber:
    while (person := random.choice(subscribers)).number in gone:
        pass
    return person


def _fate(gateway: str, random: Random) -> Fate:
    return random.choices(_KNOWN[gateway], [fate.share for fate in _KNOWN[gateway]])[0]


_KNOWN = {
    gateway: [
        fate for fate in FATES if fate is DELIVERED or gateway not in {"infobip", "twilio"} or getattr(fate, gateway)
    ]
    for gateway in GATEWAYS
}


def _told(gateway: str, person: Subscriber, fate: Fate, sent_at: datetime, mark: str, random: Random,  # noqa: PLR0917
          now: datetime) -> Told:  # fmt: skip
    took = timedelta(seconds=random.expovariate(1 / 8) if fate is DELIVERED else random.uniform(5, 1_800))
    sender = random.choice(person.lists)[0]
    form = random.choice(FORMS.get(gateway, ("",)))
    return Told(
        gateway, form, message_id(gateway, mark), person.number, sender, fate.status, code_of(gateway, fate), sent_at,
        min(now, sent_at + took).replace(microsecond=0),
    )  # fmt: skip


def _on_its_way(told: Told) -> Told:
    """The receipt before the last: the operator has taken the message."""
    code = "3" if told.gateway == "openmarket" else None
    return replace(told, status=Status.SENT, code=code, at=told.sent_at.replace(microsecond=0))


def code_of(gateway: str, fate: Fate) -> str | None:
    """The code as it stands in the receipt. Only OpenMarket has one for what went well."""
    if fate is DELIVERED:
        return fate.openmarket if gateway == "openmarket" else None
    return {"infobip": fate.infobip, "twilio": fate.twilio}.get(gateway, fate.openmarket)


def message_id(gateway: str, of: str) -> str:
    """An id as this vendor writes them."""
    digest = blake2b(of.encode(), digest_size=16).hexdigest()
    if gateway == "twilio":
        return f"SM{digest}"
    if gateway == "jasmin":
        return str(UUID(digest))
    if gateway == "openmarket":
        return f"{digest[:5]}-{digest[5:10]}-{digest[10:15]}-{digest[15:20]}".upper()
    return digest[:20]


def _moments(many: int, random: Random, now: datetime) -> list[datetime]:
    """When messages were sent: within the last 24 hours, by the shape of a day, the last one ten minutes ago."""
    start = now - DAY
    minutes = [start + timedelta(minutes=minute) for minute in range(24 * 60 - 10)]
    busy = [HOURS[(minute + CENTRAL).hour] for minute in minutes]
    picked = random.choices(minutes, busy, k=many)
    return sorted(minute + timedelta(seconds=random.uniform(0, 59)) for minute in picked)


def _as_they_arrive(crowd: Iterable[Told], again: Iterable[Told], random: Random) -> list[Told]:
    """By the moment of each, but for one in thirty that comes up to two hours late, and for the repeats."""
    late = ((told, random.uniform(600, 7_200) if random.random() < 1 / 30 else 0.0) for told in crowd)
    repeated = ((told, random.uniform(30, 7_200)) for told in again)
    arrivals = [(told.at + timedelta(seconds=wait), told) for told, wait in (*late, *repeated)]
    return [told for _, told in sorted(arrivals, key=lambda arrival: arrival[0])]


# One number's day --------------------------------------------------------------------------------------------------


def _story(person: Subscriber, mark: str, now: datetime) -> Iterator[Told | Subscriber]:
    """The person says STOP, then START; the number goes out of service; and later a message arrives all the same."""

    def receipt(hour: float, gateway: str, sender: str, status: Status, code: str | None) -> Told:
        at = (now - DAY + timedelta(hours=hour)).replace(microsecond=0)
        id_ = message_id(gateway, f"{mark}/story/{hour}")
        form, sent_at = FORMS.get(gateway, ("",))[0], at - timedelta(seconds=20)
        return Told(gateway, form, id_, person.number, sender, status, code, sent_at, at)

    yield receipt(2, "infobip", "24680", Status.DELIVERED, None)
    yield receipt(5, "kannel", "24680", Status.UNDELIVERABLE, "603")
    yield person._replace(lists=(("24680", "spring"),), consented_at=now - DAY + timedelta(hours=8))
    yield receipt(9, "native", "24680", Status.DELIVERED, None)
    yield receipt(14, "openmarket", "73529", Status.UNDELIVERABLE, "3041")
    yield receipt(20, "openmarket", "73529", Status.DELIVERED, "4")
