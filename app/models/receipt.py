"""What gateways say: a callback as it came, and the receipts read out of it. Facts, no policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from msgspec import Struct

from app.models.http import Call, HttpAnswer, Options
from app.models.lookup import LineType


class Status(StrEnum):
    """What became of one message, in the seven words that every gateway is translated into."""

    ACCEPTED = "accepted"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERABLE = "undeliverable"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


NEVER = datetime.min.replace(tzinfo=UTC)
"""When a callback came that nobody has dated: no signed time is near it."""

FAILED = frozenset({Status.UNDELIVERABLE, Status.REJECTED, Status.EXPIRED})
"""Final failures: the only statuses whose code acts."""
FINAL = FAILED | {Status.DELIVERED}
"""After these nothing more is to come."""


class Callback(Struct, frozen=True, gc=False):
    """One HTTP request of a gateway, as bytes.

    `url` is the URL the vendor called: with the link's `public_url` in front when it is set, else as received.
    `headers` have lower-case names. `query` is the raw query string without the `?`. `body` is decompressed.
    `at` is when it came, in UTC: signed times are held against it. `certificate` was fetched from where the gateway's
    `certificate` said, and is empty for every other one.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    query: str
    body: bytes
    at: datetime = NEVER
    certificate: bytes = b""

    def params(self) -> dict[str, str]:
        """Query parameters; of a repeated name the last one. Bytes that are not UTF-8 become U+FFFD, NULs vanish."""
        return _pairs(self.query)

    def form(self) -> dict[str, str]:
        """An `application/x-www-form-urlencoded` body, read as `params` are."""
        return _pairs(self.body.decode("latin-1"))

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


def _pairs(text: str) -> dict[str, str]:
    return {k: v.replace("\0", "") for k, v in parse_qsl(text, keep_blank_values=True, errors="replace")}


class Receipt(Struct, frozen=True, gc=False, omit_defaults=True):
    """A delivery receipt, normalised: what one gateway says about one message (or one part of it).

    Codes are text exactly as received. `number` and `sender` are as the vendor wrote them until `gateways.read` makes
    them E.164 and canonical. `occurred_at`, `sent_at` may come without a zone from a parser; `gateways.read` adds the
    link's zone or drops them. `code_space` None means: the space that the link's settings name. `segment` is the part
    of `segments` that it speaks of; without one it speaks of the whole message, however many parts that has. `word` is
    the status as the vendor wrote it: it is kept where no table knows it, so that somebody adds it. `supposed`: its
    sender is that of the link's settings, and the register may know better.
    """

    message_id: str | None
    status: Status
    number: str | None = None
    sender: str | None = None
    code: str | None = None
    code_space: str | None = None
    carrier: str | None = None
    mcc: str | None = None
    mnc: str | None = None
    line_type: LineType | None = None
    ported: bool | None = None
    segment: int | None = None
    segments: int | None = None
    occurred_at: datetime | None = None
    sent_at: datetime | None = None
    gateway: str = ""
    account: str = ""
    malformed: bool = False
    word: str | None = None
    supposed: bool = False

    @property
    def is_part(self) -> bool:
        """Whether it speaks of one of several parts of a message: that is delivered only when all of them are; where
        nobody tells how many there are, all up to this one.
        """
        return self.segment is not None and (self.segments or self.segment) > 1 and self.message_id is not None


@dataclass(frozen=True, slots=True)
class Broken:
    """A callback, or one element of a batch, that could not be read. `raw` is kept, `reason` names no number."""

    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message of a person to us, or an event about no SMS of ours, on the address of the receipts: it is counted, and
    nothing of it is kept.
    """


class Reply(NamedTuple):
    """What this vendor counts as success."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain"


OK = Reply()


@dataclass(frozen=True, slots=True)
class Link:
    """How one gateway (and account) is connected to us: `[gateways.NAME]` of the settings."""

    gateway: str
    account: str = ""
    secrets: tuple[str, ...] = ()
    window: timedelta = timedelta(minutes=5)
    public_url: str | None = None
    sender: str | None = None
    timezone: tzinfo | None = None
    code_space: str | None = None
    codes: Mapping[str, str] = field(default_factory=dict)
    region: str = "US"

    @property
    def table(self) -> str:
        """Where the settings speak of it: `gateways.twilio.accounts.eu`."""
        own = f"gateways.{self.gateway.replace('/', '.')}"
        return f"{own}.accounts.{self.account}" if self.account else own


Links: TypeAlias = Mapping[tuple[str, str], Link]
"""By gateway and account."""


@dataclass(frozen=True, slots=True)
class Missed:
    """A sent message without a final receipt, as the register knows it. `number` is E.164."""

    message_id: str
    number: str
    sender: str | None
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Inquiry:
    """How a gateway is asked what became of messages. Pure: `ask` makes the request for at most `batch` of them,
    `answer` reads a 200; a message that the answer does not name is not known there. `needs` are the settings without
    which it cannot be asked, in `[gateways.NAME.reconcile]`, and `may` those that it can do without. `answer` may raise
    what a parser may.
    """

    docs: str
    base_url: str
    needs: tuple[str, ...]
    ask: Callable[[Sequence[Missed], Options], Call]
    answer: Callable[[HttpAnswer, Sequence[Missed]], list[Receipt | Broken]]
    may: tuple[str, ...] = ()
    batch: int = 1
    per_second: float = 10.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """One vendor: how it proves its origin, how its bytes read, what it wants to hear where a bare 200 is not enough.

    `verify` is asked once for each live secret. `parse` may raise LookupError, ValueError, TypeError or AttributeError
    for bytes it cannot read; `gateways.read` is the one boundary that turns those into `Broken`. Where a callback may
    be a batch, `split` gives each element of it, in the order of `parse`, as a body that reads alone: what is kept of
    it when it is broken. `code_space` is what codes mean where neither the receipt nor the link says it. `statuses` are
    those that a code alone tells, by code space: where a vendor's numbers mean one thing or another and only the
    settings know, `parse` leaves the status unknown and the space open. `hides` are headers and parameters, in lower
    case, that prove an origin under a name that does not say so: they are not kept; `presents` are those of them that
    hold the secret itself: of a refused request only a digest of those is kept. `words` are names, in lower case,
    under which it tells the words of a message (gateways/_words.py): what stands there is not kept either.

    `nonce` gives what a vendor signs but once: seen again within the link's window, the callback is a copy. Ask for it
    by `gateways.once`, of proven callbacks only. `nonce_alone` says that other words with it make no other callback, as
    the signature need not cover them. `sign` makes of a callback what this vendor would send with such a secret: for
    `sendable doctor --gateway`. It is None, or gives None, where the vendor alone has the key; it may raise what a
    parser may, for what is no secret of this vendor. `inquiry` is how it is asked for receipts that never came.

    Two addresses are given here and called by the edge: `certificate` says where the certificate lies that the proof
    needs, `confirmation` what to call once a handshake has been proven. Both give addresses of hosts that they know,
    and no others. Ask through `gateways.certificate_at` and `gateways.confirmation_at`. `consent` are the headers by
    which a vendor that asks, by OPTIONS, hears that it may post; None where it never asks. `challenge` is what to
    answer, in `WWW-Authenticate`, to a vendor that sends its credentials only after a 401; it is None, or gives None,
    where there is nothing to ask for.
    """

    name: str
    docs: str
    parse: Callable[[Callback], Sequence[Receipt | Broken | Inbound]]
    verify: Callable[[Callback, str, Link], bool]
    reply: Callable[[Callback], Reply] = lambda _: OK
    code_space: str | None = None
    hint: str = ""
    split: Callable[[Callback], list[bytes]] | None = None
    nonce: Callable[[Callback], str | None] | None = None
    nonce_alone: bool = False
    statuses: Mapping[str, Mapping[str, Status]] = field(default_factory=dict)
    hides: frozenset[str] = frozenset()
    presents: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    certificate: Callable[[Callback, Link], str | None] | None = None
    confirmation: Callable[[Callback], str | None] | None = None
    consent: Callable[[Callback], Mapping[str, str]] | None = None
    challenge: Callable[[Callback, Link], str | None] | None = None
    sign: Callable[[Callback, str, Link], Callback | None] | None = None
    inquiry: Inquiry | None = None
