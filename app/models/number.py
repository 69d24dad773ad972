"""What is held of a number: dated conditions, the reach of senders, consent. Values; services/shown.py reads them.

Every part keeps its newest event by event time, so any order and any repetition of the same events ends the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from msgspec import Struct, field

State = Literal[
    "unseen", "active", "held", "porting", "suspended", "unreachable", "not_sms_capable",
    "deactivated", "disconnected", "reassigned", "invalid",
]  # fmt: skip
Waiting = Literal["lookup", "no_lookup_provider", "budget", "person", "sender"]
Consent = Literal["opted_in", "opted_out"]
Scope = Literal["list", "sender", "all"]
ChangeKind = Literal[
    "number.state", "number.carrier", "sender.blocked", "sender.unblocked", "list.opted_in", "list.opted_out",
]  # fmt: skip
LadderName = Literal["unknown_subscriber", "soft", "no_detail"]
Decision = Literal["release", "discard"]

PRECEDENCE: tuple[State, ...] = (
    "reassigned", "deactivated", "disconnected", "invalid", "not_sms_capable",
    "suspended", "porting", "held", "unreachable",
)  # fmt: skip
"""Of several conditions in force the first of these is shown."""


class Cause(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a fact rests on. Copied into every fact and change, since receipts are dropped long before those."""

    kind: Literal["receipt", "register", "lookup", "file", "call", "person", "lapse", "policy"]
    gateway: str | None = None
    account: str | None = None
    code_space: str | None = None
    code: str | None = None
    message_id: str | None = None
    source: str | None = None
    evidence: str | None = None


class Fact(Struct, frozen=True, gc=False, omit_defaults=True):
    """One dated event. `at` is when it happened; `guard` the moment that an opt-in must be newer than to survive it
    (for receipts, when the message was sent). `lookup`: a carrier lookup is to decide what follows, and `sender` is
    whose consent that lookup may end. `rungs`: of a strike, with how many of them consent ends.
    """

    at: datetime
    guard: datetime
    reason: str
    cause: Cause
    lookup: bool = False
    sender: str | None = None
    rungs: int | None = None


class Stalled(Struct, frozen=True, gc=False, omit_defaults=True):
    """Why lookups that were asked for up to `at` are not made. `waiting_for` may also be `lookup`: they are made again.
    Where `reasons` are named, it concerns facts with these reasons alone: of others nobody had heard by then.
    """

    at: datetime
    waiting_for: Waiting
    reasons: tuple[str, ...] = ()


class Carrier(Struct, frozen=True, gc=False, omit_defaults=True):
    """Who serves a number, since when we know, and who told us."""

    at: datetime
    source: str
    name: str | None = None
    name_raw: str | None = None
    mcc: str | None = None
    mnc: str | None = None
    line_type: str | None = None
    ported: bool | None = None
    ported_at: datetime | None = None


class Strike(NamedTuple):
    """One failure on a ladder. `message` marks whose it was, in eight digits; "" where nobody knows."""

    at: datetime
    message: str


class Reach(Struct, frozen=True, gc=False, omit_defaults=True):
    """One sender's reach to one number: its blocks by reason, and the dates that lift them: when the newest message
    that was `delivered` had been sent, and when the person last `opted_in`. `out` is the newest end of consent on all
    lists of this sender; `struck` the one that a ladder has reached, computed anew with each strike.
    """

    blocks: dict[str, Fact] = field(default_factory=dict)
    out: Fact | None = None
    delivered: datetime | None = None
    opted_in: datetime | None = None
    struck: Fact | None = None


UNREACHED = Reach()
"""That of a sender of which nothing is known."""


class Aside(Struct, frozen=True, gc=False, omit_defaults=True):
    """What came lately and may still be undone: verdicts of one key of the breaker, oldest first. They act as if they
    were merged, until `case` names the quarantine in which they wait for a person.
    """

    acts: tuple[Verdict, ...] = ()
    case: int | None = None


class Number(Struct, frozen=True, gc=False, omit_defaults=True):
    """All that is known of a number, but its lists.

    `seen`: something was said of the number itself; a mere entry of the sent-message register leaves it unseen.
    `conditions` are keyed `state/reason` (`held/stale_carrier`); a hold that waits for a sender's name is keyed
    `held/reason/message`. `strikes` are the event times of reasons that count repetitions, newest first. `aside` is
    keyed by `Verdict.apart`.

    `cleared` has newest moments: by state, or `port`, up to when its conditions are over; by `sender`, up to when holds
    that wait for a name are; by `same/space/code`, when a lookup found nothing wrong though that code had said
    otherwise; by `asked/ladder`, up to when the question of that ladder is answered.

    `ladders` holds the strikes of those ladders that end in `unreachable`, `unknown` those of the one that ends
    consent. `deliveries` are the newest send times of delivered messages, in seconds since 1970: one that lies between
    two strikes in `unknown` clears those before it. All three are oldest first.
    """

    number: str
    seen: bool = False
    conditions: dict[str, Fact] = field(default_factory=dict)
    cleared: dict[str, datetime] = field(default_factory=dict)
    strikes: dict[str, tuple[datetime, ...]] = field(default_factory=dict)
    ladders: dict[LadderName, tuple[Strike, ...]] = field(default_factory=dict)
    unknown: tuple[Fact, ...] = ()
    deliveries: tuple[int, ...] = ()
    senders: dict[str, Reach] = field(default_factory=dict)
    aside: dict[str, Aside] = field(default_factory=dict)
    out: Fact | None = None
    delivered: Fact | None = None
    opted_in: datetime | None = None
    carrier: Carrier | None = None
    last_receipt_at: datetime | None = None
    stalled: Stalled | None = None


class Step(Struct, frozen=True, gc=False, omit_defaults=True):
    """What is shown of a number until `until` (None: until something happens)."""

    state: State
    reason: str | None = None
    waiting_for: Waiting | None = None
    until: datetime | None = None
    fact: Fact | None = None


class OptIn(Struct, frozen=True, gc=False, omit_defaults=True):
    """Consent as the person gave it."""

    at: datetime
    source: str
    evidence: str | None = None


class Subscription(Struct, frozen=True, gc=False, omit_defaults=True):
    """Consent of a number on one list of a sender: the newest opt-in and the newest opt-out of that list alone."""

    number: str
    sender: str
    list: str
    opted_in: OptIn | None = None
    out: Fact | None = None


class Change(Struct, frozen=True, gc=False, omit_defaults=True):
    """What truly changed: one entry of the feed and of the number's history."""

    number: str
    kind: ChangeKind
    before: str | None
    after: str | None
    reason: str | None
    cause: Cause
    occurred_at: datetime
    sender: str | None = None
    list: str | None = None


class Verdict(Struct, frozen=True, gc=False, omit_defaults=True):
    """What one event does to one number: facts to merge. A receipt, a call, a lookup, a lapse: each ends as one.

    `named`: the key of a hold that waited for its sender's name, which is known now. `released`: a person ends every
    hold there is, whatever its date. `rung`: a strike on this `ladder`; with the `rungs`-th of them consent ends, if
    that is what the ladder leads to. `dated`: the same event was heard before, when nobody knew yet when its message
    had been sent.

    `apart`: the key under which it is kept aside, the breaker's or `undated`; `apart_at`: since when the breaker may
    undo it, which may be long after it was received. `case`: the quarantine in which it waits there. `closed`: that
    quarantine is over, and what waited in it happens, or is dropped.
    """

    number: str
    at: datetime
    cause: Cause
    conditions: tuple[tuple[str, Fact], ...] = ()
    cleared: tuple[tuple[str, datetime], ...] = ()
    strike: str | None = None
    carrier: Carrier | None = None
    delivered: Fact | None = None
    sender: str | None = None
    block: Fact | None = None
    out: Fact | None = None
    scope: Scope = "sender"
    list: str | None = None
    opted_in: OptIn | None = None
    named: str | None = None
    released: bool = False
    received_at: datetime | None = None
    stalled: Stalled | None = None
    ladder: LadderName | None = None
    rung: Fact | None = None
    rungs: int = 2
    apart: str | None = None
    apart_at: datetime | None = None
    case: int | None = None
    closed: Decision | None = None
    dated: bool = False
