"""What happened to numbers: their changes, what checks have said of them, their erasure."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.models.api.fields import NUMBER, WHEN, Long, NextPlace, Number, When, shown
from app.models.number import ChangeKind

CAUSE = {
    "kind": "receipt", "gateway": "native", "code_space": "openmarket", "code": "3041", "message_id": "0d8f1c2e",
}  # fmt: skip


class Change(BaseModel):
    """What truly changed, why, and when. The feed names every number of which a list may be texted after a change and
    not before it, or the other way round. So a deactivation that is heard of late, when a newer opt-in has ended it
    already, is told as two changes: to `deactivated`, and back to `active`. If a port disproves it later,
    `number.state` goes from `active` to `active`; and where it had outdated a consent, the opt-in that renews that one
    is `list.opted_in` from `opted_in`.
    """

    model_config = shown({
        "seq": 4711, "number": NUMBER, "sender": "12345", "list": "spring", "kind": "list.opted_out",
        "from": "opted_in", "to": "opted_out", "reason": "deactivated", "cause": CAUSE,
        "occurred_at": WHEN, "committed_at": WHEN,
    })  # fmt: skip

    seq: Long = Field(description="Its place in the feed: commit order")
    number: Number
    sender: str | None = Field(None, description="Left out where it is about the number alone")
    list: str | None = Field(None, description="Left out where it is about no list")
    kind: ChangeKind
    from_: str | None = Field(alias="from")
    to: str | None
    reason: str | None = Field(description="Where the breaker takes an opt-out back: the reason of that opt-out")
    cause: dict[str, Any] = Field(description="What it rests on: `kind` is receipt, register, lookup, file, call, "
                                              "person, lapse or policy; the rest names it")  # fmt: skip
    occurred_at: When
    committed_at: When


class ChangePage(BaseModel):
    """Changes in commit order. `next` leads to the following page; of an empty page it is the cursor that was given."""

    items: list[Change]
    next: Long = Field(examples=[4711])


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
        description="Rows by table; `hints`: rows about other numbers that named it as their new one, and no longer do",
        examples=[{"numbers": 1, "receipts": 4, "subscriptions": 1}],
    )
