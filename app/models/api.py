"""The API's answers and questions, as its document shows them.

Answers go out without passing through these models: they are made of values that were checked when they came in.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.models.number import Consent, State, Waiting

AT_MOST = 10_000
NUMBER = "+15555551234"
WHEN = "2026-11-21T18:42:07.120000Z"
CAUSE = {
    "kind": "receipt", "gateway": "openmarket", "code_space": "openmarket", "code": "3041", "message_id": "0d8f1c2e",
}  # fmt: skip

Number = Annotated[str, Field(description="E.164", examples=[NUMBER])]
Sender = Annotated[str, Field(description="Short code, phone number (E.164) or name", examples=["12345"])]
Reason = Annotated[str | None, Field(description="Why not; null when it may be texted", examples=["deactivated"])]
When = Annotated[datetime, Field(description="UTC", examples=[WHEN])]
Given = list[Any]
"""Stands here because a field called `list` hides the word."""
Next = Annotated[str | None, Field(description="Pass it as `after` for the next page; null on the last one")]
NextPlace = Annotated[int | None, Field(description="Pass it as `after` for the next page; null on the last one")]


# May I text this number? -------------------------------------------------------------------------------------------


class Carrier(BaseModel):
    """Who serves the number, as far as anybody has told."""

    name: str | None = Field(description="The carrier's one name where it is known, else as it was written",
                             examples=["T-Mobile"])  # fmt: skip
    name_raw: str | None = Field(examples=["T-Mobile USA, Inc."])
    mcc: str | None = Field(examples=["310"])
    mnc: str | None = Field(examples=["260"])
    line_type: str | None = Field(examples=["mobile"])
    ported: bool | None
    ported_at: When | None
    source: str = Field(description="Who told: a gateway, `register`, or a lookup provider", examples=["openmarket"])
    as_of: When


class SenderReach(BaseModel):
    """What this sender may do with this number."""

    sender: Sender
    blocked: bool
    sendable: bool = Field(description="The number is sendable, the sender is not blocked, and not all of its "
                                       "known lists refuse")  # fmt: skip
    reason: Reason


class ListConsent(BaseModel):
    """What the person wants of one list of a sender."""

    sender: Sender
    list: str = Field(examples=["spring"])
    consent: Consent
    sendable: bool
    reason: Reason
    at: When


class Decision(BaseModel):
    """The answer to exactly what was asked: the number, with a sender, or with a list of that sender."""

    sendable: bool
    axis: Literal["number", "sender", "consent"] | None = Field(description="What forbids it")
    reason: Reason


class Evidence(BaseModel):
    """What the number's state rests on."""

    gateway: str | None = Field(examples=["openmarket"])
    code_space: str | None = Field(examples=["openmarket"])
    code: str | None = Field(examples=["3041"])
    message_id: str | None = Field(examples=["0d8f1c2e"])
    occurred_at: When


class NumberStatus(BaseModel):
    """May this number be texted, and if not, why not?"""

    number: Number
    state: State
    sendable: bool = Field(description="Of the number alone; `decision` answers what was asked")
    reason: Reason
    waiting_for: Waiting | None
    until: When | None = Field(description="When this state ends by itself")
    carrier: Carrier | None
    sender: SenderReach | None = Field(description="Null unless a sender was asked for")
    lists: list[ListConsent]
    decision: Decision
    evidence: Evidence | None
    changed_at: When | None
    last_receipt_at: When | None

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "number": NUMBER, "state": "deactivated", "sendable": False, "reason": "deactivated", "waiting_for": "lookup",
        "until": None,
        "carrier": {
            "name": "T-Mobile", "name_raw": "T-Mobile USA, Inc.", "mcc": "310", "mnc": "260", "line_type": "mobile",
            "ported": True, "ported_at": None, "source": "openmarket", "as_of": WHEN,
        },
        "sender": {"sender": "12345", "blocked": False, "sendable": False, "reason": "deactivated"},
        "lists": [{
            "sender": "12345", "list": "spring", "consent": "opted_in", "sendable": False, "reason": "deactivated",
            "at": "2026-03-02T09:15:00Z",
        }],
        "decision": {"sendable": False, "axis": "number", "reason": "deactivated"},
        "evidence": {
            "gateway": "openmarket", "code_space": "openmarket", "code": "3041", "message_id": "0d8f1c2e",
            "occurred_at": WHEN,
        },
        "changed_at": WHEN, "last_receipt_at": WHEN,
    }]})  # fmt: skip


class BulkQuestion(BaseModel):
    """Many numbers at once. Duplicates are answered as often as they stand there."""

    model_config = ConfigDict(extra="forbid")

    numbers: Given = Field(max_length=AT_MOST, description="Numbers as text; whatever is none is answered as a bad one",
                               examples=[[NUMBER, "(555) 555-1235"]])  # fmt: skip
    sender: str | None = Field(None, examples=["12345"])
    list: str | None = Field(None, description="A list of this sender", examples=["spring"])


class LineQuestion(BaseModel):
    """One line of NDJSON: a number alone may also stand there as a JSON string."""

    model_config = ConfigDict(extra="forbid")

    number: str | int
    sender: str | None = None
    list: str | None = None


class BadNumber(BaseModel):
    """An entry that cannot be answered, as it came, and why."""

    number: Any = Field(examples=["12"])
    error: str = Field(examples=["not a possible phone number: give it as E.164, for example +15555551234"])


class BulkAnswer(BaseModel):
    """In the order of the question."""

    items: list[NumberStatus | BadNumber]


# What happened -----------------------------------------------------------------------------------------------------


class Change(BaseModel):
    """What truly changed, why, and when."""

    seq: int = Field(description="Its place in the feed: commit order", examples=[4711])
    number: Number
    sender: str | None = Field(None, examples=["12345"])
    list: str | None = Field(None, examples=["spring"])
    kind: Literal[
        "number.state", "number.carrier", "sender.blocked", "sender.unblocked", "list.opted_in", "list.opted_out"
    ]
    from_: str | None = Field(alias="from", examples=["active"])
    to: str | None = Field(examples=["deactivated"])
    reason: str | None = Field(description="Of an opt-in: why the opt-out had been that the breaker takes back",
                               examples=["deactivated"])  # fmt: skip
    cause: dict[str, Any] = Field(description="What it rests on: `kind` is receipt, register, lookup, call, person, "
                                              "lapse or policy; the rest names it", examples=[CAUSE])  # fmt: skip
    occurred_at: When
    committed_at: When


class ChangePage(BaseModel):
    """Changes in commit order. `next` leads to the following page; of an empty page it is the cursor that was given."""

    items: list[Change]
    next: int = Field(examples=[4711])


class RndCheck(BaseModel):
    """A question to the Reassigned Numbers Database: was the number disconnected on this day or later?"""

    consented_on: date = Field(description="The date of consent that was asked about", examples=["2025-03-01"])
    asked_at: When
    via: Literal["api", "file"]
    answer: Literal["yes", "no", "no_data"] | None = Field(description="Null: none, or none yet")
    answered_at: When | None
    detail: str | None = Field(description="Why there is none")


class HistoryPage(BaseModel):
    """A number's changes, newest first, and with the first page what checks have said."""

    items: list[Change]
    next: NextPlace
    checks: list[RndCheck] = []


class Erased(BaseModel):
    """How many rows went, by table."""

    erased: dict[str, int] = Field(
        description="Rows by table; `hints`: rows about others that named it as their new number, and do no more",
        examples=[{"numbers": 1, "receipts": 4, "subscriptions": 1}],
    )


# Lookups ------------------------------------------------------------------------------------------------------------


class LookupFailure(BaseModel):
    """A provider that gave no record, and why."""

    provider: str = Field(examples=["telnyx"])
    error: str = Field(examples=["rate_limited"])


class LookupChange(BaseModel):
    """What the lookup changed, as the feed tells it."""

    number: Number
    sender: str | None = Field(None, examples=["12345"])
    list: str | None = Field(None, examples=["spring"])
    kind: str = Field(examples=["number.carrier"])
    from_: str | None = Field(alias="from", examples=["AT&T"])
    to: str | None = Field(examples=["T-Mobile"])
    reason: str | None
    cause: dict[str, Any]
    occurred_at: When


class LookupAnswer(BaseModel):
    """What one lookup came to: `ok`, or why there is no record. `waiting_for`: `budget` where nobody was paid."""

    number: Number
    outcome: str = Field(examples=["ok"])
    provider: str | None = Field(description="Whose answer counted", examples=["telnyx"])
    carrier: Carrier | None
    errors: list[LookupFailure]
    price: str = Field(description="Of all calls that were made", examples=["0.0015"])
    waiting_for: Waiting | None
    changes: list[LookupChange]


class Resumed(BaseModel):
    """Whether the provider had been stopped, why, and since when."""

    provider: str = Field(examples=["telnyx"])
    resumed: bool
    error: Literal["auth", "quota"] | None
    since: When | None


class StoredAnswer(BaseModel):
    """One provider's answer about a number. `record` as it was understood, with what is kept of the answer in `raw`."""

    number: Number
    provider: str = Field(examples=["telnyx"])
    asked_at: When
    outcome: str = Field(examples=["ok"])
    detail: str
    price: str = Field(examples=["0.0015"])
    kept_until: When | None = Field(description="Until then it may be used again")
    record: dict[str, Any] | None


class LookupPage(BaseModel):
    """Answers of providers, newest first."""

    items: list[StoredAnswer]
    next: When | None = Field(description="Pass it as `before` for the next page; null on the last one")


class StoredReceipt(BaseModel):
    """A delivery receipt as it was understood. `code` is as the gateway wrote it, `reason` what it was taken for."""

    gateway: str = Field(examples=["openmarket"])
    account: str | None
    message_id: str | None = Field(examples=["0d8f1c2e"])
    number: str | None = Field(examples=[NUMBER])
    sender: str | None = Field(examples=["12345"])
    status: Literal["accepted", "sent", "delivered", "undeliverable", "rejected", "expired", "unknown"]
    code_space: str | None = Field(examples=["openmarket"])
    code: str | None = Field(examples=["3041"])
    reason: str | None = Field(examples=["deactivated"])
    carrier: str | None = Field(examples=["T-Mobile USA, Inc."])
    mcc: str | None = Field(examples=["310"])
    mnc: str | None = Field(examples=["260"])
    segment: int | None
    occurred_at: When | None
    received_at: When


class ReceiptPage(BaseModel):
    """Stored receipts, newest first."""

    items: list[StoredReceipt]
    next: Next


class Subscriber(BaseModel):
    """One number on a list: what the person wants, and whether a message may be sent now."""

    number: Number
    consent: Consent
    state: State
    sendable: bool
    reason: Reason
    at: When = Field(description="Of the opt-in, or of the opt-out that stands")


class SubscriberPage(BaseModel):
    """The subscribers of a list in order of number."""

    items: list[Subscriber]
    next: Next


class WrongLine(BaseModel):
    """A line that is no opt-in. It repeats nothing that the line holds."""

    line: int = Field(examples=[17])
    detail: str = Field(examples=["consented_at: give a time with its zone, for example 2026-11-21T18:42:07Z"])


class Imported(BaseModel):
    """What came of a file of opt-ins."""

    lines: int = Field(description="Lines that are opt-ins", examples=[4])
    opted_in: int = Field(description="People who were not on the list and now are", examples=[2])
    already: int = Field(description="People who were on it already", examples=[1])
    refused: int = Field(description="People who have opted out since: the list stands as opted out", examples=[1])
    reasons: dict[str, int] = Field(description="Of the refused: what stands", examples=[{"unsubscribed": 1}])
    wrong: int = Field(description="Lines that are no opt-in", examples=[1])
    errors: list[WrongLine] = Field(description="The first thousand of those")


# Reports -----------------------------------------------------------------------------------------------------------


class ListSize(BaseModel):
    """A list, counted at this instant."""

    sender: Sender
    list: str = Field(examples=["spring"])
    subscribers: int = Field(description="Opted in: the suspended, held and blocked too")
    sendable: int = Field(description="Subscribers who may be texted now: those of the view `published.sendable`")
    suspended: int = Field(description="Subscribers whose number is suspended: they come back by themselves")
    held: int = Field(description="Subscribers whose number is held until a lookup or a person decides")
    opted_out: int = Field(description="Those of the view `published.opt_outs`")


class Lists(BaseModel):
    """Every list, by sender and name."""

    items: list[ListSize]


class ReasonCount(BaseModel):
    """How many left for one reason, and which part of all that is."""

    reason: str | None = Field(examples=["deactivated"])
    count: int
    share: float = Field(description="Of 1")


Reasons = list[ReasonCount]


class ListOptOuts(BaseModel):
    """Who left one list."""

    sender: Sender
    list: str = Field(examples=["spring"])
    total: int
    reasons: Reasons


class OptOutReport(BaseModel):
    """Subscribers who left in a time frame, by reason: of all lists together, and of each."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "from": "2026-10-22T00:00:00Z", "to": "2026-11-21T00:00:00Z", "total": 4,
        "reasons": [{"reason": "deactivated", "count": 3, "share": 0.75},
                    {"reason": "unsubscribed", "count": 1, "share": 0.25}],
        "items": [{"sender": "12345", "list": "spring", "total": 4,
                   "reasons": [{"reason": "deactivated", "count": 3, "share": 0.75},
                               {"reason": "unsubscribed", "count": 1, "share": 0.25}]}],
    }]})  # fmt: skip

    from_: When = Field(alias="from")
    to: When
    total: int
    reasons: list[ReasonCount]
    items: list[ListOptOuts]


# What codes mean ---------------------------------------------------------------------------------------------------


class Rule(BaseModel):
    """What a reason does in the policy in force. Keys at their default are left out; without any it is only counted."""

    model_config = ConfigDict(extra="allow")

    state: State | None = Field(None, description="The state that the number takes")
    lapse: str | None = Field(None, description="For how long at most", examples=["30d"])
    block: bool = Field(default=False, description="Whether the sender is blocked")
    consent: Literal["keep", "sender", "everyone"] = Field("keep", description="Whose lists it ends at once")
    lookup: bool = Field(default=False, description="Whether a carrier lookup decides or refreshes")


class Code(BaseModel):
    """What one vendor's code means, and what we do about it. A code means something only inside its space."""

    space: str = Field(examples=["openmarket"])
    code: str = Field(examples=["3041"])
    meaning: str
    level: Literal["message", "number", "carrier", "network", "account"]
    permanence: Literal["permanent", "temporary", "unknown"]
    reason: str = Field(examples=["deactivated"])
    rule: Rule
    confidence: Literal["verified", "unverified"]
    source: str


class Codes(BaseModel):
    """The catalogue, or one space of it."""

    items: list[Code]


# For people --------------------------------------------------------------------------------------------------------


class Alarm(BaseModel):
    """What a person should look at."""

    kind: str = Field(examples=["unknown_code"])
    key: str = Field(description="What it is about", examples=["openmarket/openmarket/9999"])
    since: When
    last_at: When
    count: int
    cleared: When | None = Field(description="When it ended; null while it stands")


class Alarms(BaseModel):
    """Those that stand first, newest first."""

    items: list[Alarm]


class Unread(BaseModel):
    """A callback, or an element of one, that could not be read."""

    id: int
    gateway: str = Field(examples=["openmarket"])
    account: str | None
    reason: str = Field(description="Why it could not be read")
    method: str = Field(examples=["POST"])
    size: int = Field(description="Bytes of its body")
    first_at: When
    last_at: When
    times: int = Field(description="How often the very same came")


class UnreadPage(BaseModel):
    """Unread callbacks, newest first, without their bodies."""

    items: list[Unread]
    next: NextPlace


class UnreadCallback(Unread):
    """One of them as it came, but for what would prove an origin once more."""

    headers: dict[str, str]
    query: str
    body: str = Field(description="Base64")


class Replayed(BaseModel):
    """What came of reading them again."""

    read: int = Field(description="Callbacks, or elements of them, that are read now")
    receipts: int = Field(description="Receipts in them that had not been taken before")
    left: int = Field(description="Those that still cannot be read")


class Reverified(BaseModel):
    """What came of proving them again."""

    proven: int = Field(description="Requests that are authentic by the secrets of now")
    receipts: int = Field(description="Receipts in them that had not been taken before")
    left: int = Field(description="Those that still prove nothing")


class Dropped(BaseModel):
    """How many were given up."""

    dropped: int


class UnknownWord(BaseModel):
    """A code or a status word that no table knows."""

    gateway: str = Field(examples=["kannel"])
    account: str | None
    kind: Literal["code", "status"]
    space: str | None = Field(
        description="The code's space; null where the settings name none", examples=["openmarket"]
    )
    word: str = Field(description="As it came", examples=["9999"])
    status: str = Field(description="What the last one was taken for", examples=["undeliverable"])
    message_id: str | None = Field(description="Of one message that had it")
    first_at: When
    last_at: When
    count: int


class UnknownWords(BaseModel):
    """The last seen first."""

    items: list[UnknownWord]


class Place(BaseModel):
    """Where something is wrong."""

    pointer: str | None = Field(None, description="Into the body (JSON pointer)", examples=["/numbers"])
    parameter: str | None = Field(None, description="Of the path, the query or a header", examples=["number"])
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457): what is wrong, and how to mend it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    detail: str
    errors: list[Place] | None = None


# What others write --------------------------------------------------------------------------------------------------


class Registered(BaseModel):
    """How many entries were kept, how many receipts had waited for them, and which entries were no sent messages."""

    registered: int
    receipts_applied: int
    errors: list[Place]


class HeldNumber(BaseModel):
    """A number that waits, and for what."""

    number: Number
    reason: str | None = Field(examples=["carrier_unknown"])
    waiting_for: Waiting | None
    until: When | None
    since: When | None
    gateway: str | None
    code_space: str | None = Field(examples=["openmarket"])
    code: str | None = Field(examples=["345"])


class HeldPage(BaseModel):
    """Held numbers in order of number."""

    items: list[HeldNumber]
    next: Next


class Decided(BaseModel):
    """How many numbers a person's decision let go."""

    numbers: int


_DAY = datetime(2026, 11, 20, tzinfo=UTC).date()


class DeactivationOutcome(BaseModel):
    """What has come of a deactivation file, or would. `held`: of its records those about numbers that somebody has
    spoken of; `remembered`: numbers that nobody has, so that an older opt-in does not opt them in; `lists`: whom it
    takes; `already`: the same file had been taken in before; `cut`: it ended before it should have.
    """

    feed: str = Field(examples=["twilio"])
    day: date | None = Field(examples=[_DAY])
    records: int
    broken: int
    errors: Given = Field(description="The first hundred broken lines", examples=[[{"line": 7, "error": "…"}]])
    held: int
    remembered: int
    changes: int
    opted_out: int
    lists: Annotated[
        Given, Field(examples=[[{"sender": "12345", "list": "spring", "subscribers": 900, "affected": 4}]])
    ]
    cut: bool
    already: bool
    dry_run: bool


class Quarantine(BaseModel):
    """A mass event. `seen`: distinct numbers when it was noticed, of `allowed` ones; `waiting`: how many wait now."""

    id: int
    gateway: str = Field(examples=["openmarket"])
    code_space: str = Field(examples=["openmarket"])
    code: str = Field(examples=["561"])
    reason: str = Field(examples=["content_blocked_for_subscriber"])
    sender: str = Field(examples=["12345"])
    carrier: str = Field(examples=["T-Mobile"])
    opened_at: When
    seen: int
    allowed: int
    waiting: int
    decision: Literal["release", "discard"] | None
    decided_at: When | None
    decided_by: str | None


class QuarantinePage(BaseModel):
    """Mass events, newest first."""

    items: list[Quarantine]
    next: int | None = Field(description="Pass it as `after` for the next page; null on the last one")


class Alive(BaseModel):
    alive: Literal[True]


class Ready(BaseModel):
    """Requests may be sent here. `schema`: the version of the database's."""

    ready: Literal[True]
    schema_: str = Field(alias="schema", examples=["0001"])
