"""What gateways post on an ordinary day: one population, one mix of outcomes, for all who are measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count, cycle
from pathlib import Path
from random import Random

from app.catalogue import carriers, load
from app.catalogue.policy import load_policy
from app.models.receipt import Receipt, Status
from app.services.meaning import Meaning

SENDERS = ("12345", "24680", "55512", "77007")
CARRIERS = ("Verizon Wireless", "AT&T", "T-Mobile", "US Cellular")
LIST = "news"

# In a thousand receipts. Nine of ten are delivered; of the failures most pass by themselves, few end a subscription.
MIX = (
    (900, Status.DELIVERED, None),
    (30, Status.UNDELIVERABLE, "508"),  # absent
    (18, Status.EXPIRED, "811"),
    (12, Status.UNDELIVERABLE, "628"),  # handset error
    (10, Status.UNDELIVERABLE, "510"),  # network error
    (8, Status.UNDELIVERABLE, "810"),  # no detail
    (6, Status.UNDELIVERABLE, "3041"),  # deactivated
    (4, Status.UNDELIVERABLE, "514"),  # unknown subscriber
    (4, Status.UNDELIVERABLE, "561"),  # content blocked for this subscriber
    (3, Status.UNDELIVERABLE, "629"),  # cannot receive SMS
    (2, Status.UNDELIVERABLE, "560"),  # blocked by the carrier
    (2, Status.UNDELIVERABLE, "603"),  # opted out
    (1, Status.REJECTED, "349"),  # no carrier found
)
OUTCOMES = tuple((status, code) for share, status, code in MIX for _ in range(share))


def meaning() -> Meaning:
    """As the service understands receipts without any settings."""
    return Meaning(load(), carriers(), load_policy(Path(__file__).with_name("policy.toml")))


def number(place: int) -> str:
    return f"+1555{place:07d}"


def sender_of(place: int) -> str:
    return SENDERS[place % len(SENDERS)]


def carrier_of(place: int) -> str:
    return CARRIERS[place % len(CARRIERS)]


def receipts(population: int, prefix: str) -> Iterator[Receipt]:
    """As the native gateway would have read them, each with a message id of its own."""
    random = Random(prefix)  # noqa: S311 - a load, not a secret
    for serial in count():
        place = random.randrange(population)
        status, code = random.choice(OUTCOMES)
        yield Receipt(
            message_id=f"{prefix}-{serial}", status=status, number=number(place), sender=sender_of(place), code=code,
            code_space="openmarket" if code else None, carrier=carrier_of(place), gateway="native",
            occurred_at=datetime.now(UTC).replace(microsecond=0),
        )  # fmt: skip


def write_for_wrk(path: Path, population: int) -> None:
    """The same traffic as a table that the load generator's script reads."""
    ends = [json.dumps({"status": status.value} | ({"code": code} if code else {}))[1:] for status, code in OUTCOMES]
    table = {"senders": SENDERS, "carriers": CARRIERS, "outcomes": ends}
    lines = [f"{name} = {{{', '.join(map(json.dumps, values))}}}," for name, values in table.items()]
    path.write_text(f"return {{ population = {population},\n" + "\n".join(lines) + "\n}\n")


def some_numbers(population: int, most: int) -> list[str]:
    """Distinct numbers of the population, around and around where it is smaller than what is asked for."""
    places = Random(most).sample(range(population), min(population, most))  # noqa: S311 - a load, not a secret
    around = cycle(places)
    return [number(next(around)) for _ in range(most)]
