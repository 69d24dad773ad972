"""What the world says about a few dozen numbers, without end, from a seed: receipts of two gateways, the messages that
were sent, opt-ins and opt-outs.

Every fact carries its own time, and what a number's carrier is stays the same, so that what must follow from a set of
facts does not depend on the order in which they arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import quote

import orjson

from app.gateways import GATEWAYS, read
from app.models.number import OptIn, Scope
from app.models.receipt import Broken, Callback, Link, Receipt
from app.services.register import Sent

JSON = "application/json"
NUMBERS = tuple(f"+155555501{place:02}" for place in range(48))
SENDERS = ("12345", "67890")
LISTS = (("12345", "spring"), ("12345", "summer"), ("12345", "news"), ("67890", "spring"))
CARRIERS = ("AT&T", "Verizon Wireless", "T-Mobile", "a carrier that nobody knows")
CODES = (
    "341", "345", "349", "560", "561", "565", "568", "573", "592", "603", "629", "3041",  # the twelve
    "351", "352", "566", "2024", "4012", "508", "509", "564", "343", "999999",
)  # fmt: skip
"""The twelve, then one code each of the other reasons that act, of some that do not, and one that no table has. Not the
unknown subscriber: its ladder knows eight deliveries, and here a number has scores of them, heard of in any order.
"""
FINAL = ("delivered", "undeliverable", "undeliverable", "undeliverable")
WINDOW = 60
"""Facts among which the next one is drawn: a message's register entry and its receipts come in any order."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: bytes = b""
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Posted:
    """A callback of a gateway. `again` is what it posts when it repeats itself: with a later time, as some do.
    `insists`: it goes on until it is answered; else it posts once and gives up.
    """

    gateway: str
    body: bytes
    again: bytes
    copies: int = 1
    insists: bool = True

    def request(self, copy: int = 0) -> Request:
        kind = JSON if self.gateway == "native" else "text/xml"
        return Request("POST", f"/v1/receipts/{self.gateway}", self.again if copy else self.body, kind)

    def understood(self) -> list[Receipt | Broken]:
        return read(GATEWAYS[self.gateway], Callback("POST", "", {}, "", self.body), Link(self.gateway))


@dataclass(frozen=True, slots=True)
class Registered:
    """Messages that were sent."""

    entries: tuple[Sent, ...]
    copies: int = 1
    insists: bool = True

    def request(self, _: int = 0) -> Request:
        return Request("POST", "/v1/messages", orjson.dumps([one._asdict() for one in self.entries]))


@dataclass(frozen=True, slots=True)
class OptedIn:
    number: str
    sender: str
    list: str
    given: OptIn
    copies: int = 1
    insists: bool = True

    def request(self, _: int = 0) -> Request:
        said = {"consented_at": self.given.at, "source": self.given.source, "evidence": self.given.evidence}
        return Request("PUT", _subscriber(self.number, self.sender, self.list), orjson.dumps(said))


@dataclass(frozen=True, slots=True)
class OptedOut:
    number: str
    sender: str
    list: str
    at: datetime
    scope: Scope
    copies: int = 1
    insists: bool = True

    def request(self, _: int = 0) -> Request:
        asked = f"?scope={self.scope}&at={quote(self.at.isoformat())}"
        return Request("DELETE", _subscriber(self.number, self.sender, self.list) + asked)


Fact = Posted | Registered | OptedIn | OptedOut


class World:
    """A world that goes on until `end`, and then tells what it has begun. Everything in it happened within the hours
    before, and lapses only days after.
    """

    def __init__(self, seed: int, *, numbers: Sequence[str] = NUMBERS, calls: float = 0.2,
                 batches: float = 0.1) -> None:  # fmt: skip
        """`calls`: the share of opt-ins and opt-outs. `batches`: of the rest, that of many receipts in one callback."""
        self._random = Random(seed)  # noqa: S311 - chance, not secrets
        self._now = datetime.now(UTC)
        self._numbers = numbers
        self._calls = calls
        self._batches = batches
        self._name = f"{seed:x}"
        self._told = 0
        self._waiting: list[Fact] = []
        self._ended = False

    def __iter__(self) -> World:
        return self

    def __next__(self) -> Fact:
        while not self._ended and len(self._waiting) < WINDOW:
            self._waiting += self._happening()
        if not self._waiting:
            raise StopIteration
        place = self._random.randrange(len(self._waiting))
        self._waiting[place], self._waiting[-1] = self._waiting[-1], self._waiting[place]
        return self._waiting.pop()

    def end(self) -> None:
        """Nothing new happens; what waits in the window is still told."""
        self._ended = True

    def tell_again(self, facts: Iterable[Fact]) -> None:
        self._waiting += facts

    def _happening(self) -> list[Fact]:
        if self._random.random() < self._calls:
            return [self._opted_in() if self._random.random() < 0.8 else self._opted_out()]
        if self._random.random() < self._batches:
            return [self._batch()]
        return self._message()

    def _opted_in(self) -> Fact:
        sender, list_ = self._random.choice(LISTS)
        given = OptIn(self._moment(), "web form", f"form {self._id()}")
        return OptedIn(self._random.choice(self._numbers), sender, list_, given, self._copies())

    def _opted_out(self) -> Fact:
        sender, list_ = self._random.choice(LISTS)
        scope: Scope = self._random.choice(("list", "list", "sender", "all"))
        return OptedOut(self._random.choice(self._numbers), sender, list_, self._moment(), scope, self._copies())

    def _message(self) -> list[Fact]:
        """One sent message: its receipts, and its entry in the register where a receipt does not name all."""
        lacks = self._random.choice(("nothing", "nothing", "nothing", "id", "sender", "number", "both", "ticket"))
        number, sender, sent_at = self._random.choice(self._numbers), self._random.choice(SENDERS), self._moment()
        message = self._id()
        if lacks == "ticket":
            number = self._random.choice(self._numbers[::2])
            told = [self._openmarket(message) for _ in range(self._random.choice((1, 1, 2)))]
        else:
            told = [self._native([one]) for one in self._receipts(message, number, sender, sent_at, lacks)]
        if lacks in {"nothing", "id"}:
            return [*told]
        gateway = "openmarket" if lacks == "ticket" else "native"
        carrier = self._carrier(number) if self._random.random() < 0.5 else None
        return [*told, Registered((Sent(gateway, "", message, number, sender, carrier, sent_at),), self._copies())]

    def _batch(self) -> Fact:
        """Receipts about several numbers in one callback, now and then with an element that nobody can read."""
        many = []
        for _ in range(self._random.randint(2, 12)):
            number, sender = self._random.choice(self._numbers), self._random.choice(SENDERS)
            many += self._receipts(self._id(), number, sender, self._moment(), "nothing")
        if self._random.random() < 0.3:
            many.insert(self._random.randrange(len(many)), {"message_id": self._id(), "status": None})
        return self._native(many)

    def _receipts(self, message: str, number: str, sender: str, sent_at: datetime, lacks: str) -> list[dict[str, Any]]:
        said: dict[str, Any] = {"message_id": message, "number": number, "sender": sender, "sent_at": sent_at}
        if carrier := self._carrier(number):
            said["carrier"] = carrier
        for name in {"id": ("message_id",), "both": ("number", "sender")}.get(lacks, (lacks,)):
            said.pop(name, None)
        receipts = []
        if self._random.random() < 0.2:
            receipts.append(said | {"status": "sent", "occurred_at": sent_at})
        at = min(self._now, sent_at + timedelta(seconds=self._random.randint(1, 3_600)))
        final = said | {"status": self._random.choice(FINAL), "occurred_at": at}
        if final["status"] != "delivered":
            final["code"] = self._random.choice(CODES)
        return [*receipts, final]

    def _native(self, receipts: list[dict[str, Any]]) -> Fact:
        body = receipts[0] if len(receipts) == 1 else receipts
        later = [self._repeated(one) for one in receipts]
        again = later[0] if len(later) == 1 else later
        insists = len(receipts) > 1 or self._random.random() < 0.8
        copies = self._copies() if insists else 1
        return Posted("native", orjson.dumps(body), orjson.dumps(again), copies, insists)

    def _repeated(self, one: dict[str, Any]) -> dict[str, Any]:
        """The receipt as it is posted again: where it has an id, now and then with another time."""
        if "message_id" in one and "occurred_at" in one and self._random.random() < 0.3:
            return one | {"occurred_at": one["occurred_at"] + timedelta(seconds=1)}
        return one

    def _openmarket(self, ticket: str) -> Fact:
        """The ticket alone: who it was about, the register knows; when it was, only the clock at its arrival."""
        code = "4" if self._random.random() < 0.25 else self._random.choice(CODES)
        body = f'<deliveryReceipt ticketId="{ticket}"><response code="{code}"/></deliveryReceipt>'.encode()
        return Posted("openmarket", body, body, self._copies())

    def _carrier(self, number: str) -> str | None:
        """Every second number has a carrier that all its receipts name; the others never have one."""
        return CARRIERS[int(number) // 2 % len(CARRIERS)] if int(number) % 2 else None

    def _copies(self) -> int:
        return self._random.choice((1, 1, 1, 2, 3))

    def _moment(self) -> datetime:
        return self._now - timedelta(milliseconds=self._random.randint(10_000, 8 * 3_600_000))

    def _id(self) -> str:
        self._told += 1
        return f"{self._name}-{self._told:x}"


def _subscriber(number: str, sender: str, list_: str) -> str:
    return f"/v1/senders/{sender}/lists/{list_}/subscribers/{quote(number)}"
