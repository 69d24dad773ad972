"""May I text this number? One at a time, and many at once."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.models.api.fields import NUMBER, WHEN, Given, Number, Reason, Sender, When
from app.models.number import Consent, State, Waiting

AT_MOST = 10_000


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
    source: str = Field(description="Who told: a gateway, `register`, or a lookup provider", examples=["telnyx"])
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
            "ported": True, "ported_at": None, "source": "telnyx", "as_of": WHEN,
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
    """An entry that cannot be answered, as it came (of an array or object null), and why."""

    number: Any = Field(examples=["12"])
    error: str = Field(examples=["not a possible phone number: give it as E.164, for example +15555551234"])


class BulkAnswer(BaseModel):
    """In the order of the question."""

    items: list[NumberStatus | BadNumber]
