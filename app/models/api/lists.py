"""Lists: who is on them, who came, who left."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.models.api.fields import NUMBER, WHEN, Next, Number, Reason, Sender, When, shown
from app.models.number import Consent, State

_JOINED = {
    "number": NUMBER, "sender": "12345", "list": "spring", "consent": "opted_in", "at": WHEN, "reason": None,
    "was_blocked": False,
}  # fmt: skip
LEFT = _JOINED | {"consent": "opted_out", "reason": "unsubscribed"}


class Subscribed(BaseModel):
    """Consent on one list as it now stands."""

    model_config = shown(_JOINED)

    number: Number
    sender: Sender
    list: str
    consent: Consent
    at: When = Field(description="Of the opt-out that stands, else of the opt-in")
    reason: str | None = Field(description="Of the opt-out that stands")
    was_blocked: bool = Field(description="Whether this opt-in has lifted the sender's block")


class Subscriber(BaseModel):
    """One number on a list: what the person wants, and whether a message may be sent now."""

    model_config = shown({
        "number": NUMBER, "consent": "opted_in", "state": "held", "sendable": False, "reason": "carrier_unknown",
        "at": WHEN,
    })  # fmt: skip

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


class ListSize(BaseModel):
    """A list, counted at this instant."""

    model_config = shown({
        "sender": "12345", "list": "spring", "subscribers": 1, "sendable": 0, "suspended": 0, "held": 1,
        "opted_out": 0,
    })  # fmt: skip

    sender: Sender
    list: str
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
