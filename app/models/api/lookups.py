"""What providers were asked, and what they said."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.models.api.fields import Number, When
from app.models.api.status import Carrier
from app.models.number import ChangeKind, Waiting


class LookupFailure(BaseModel):
    """A provider that gave no record, and why."""

    provider: str = Field(examples=["telnyx"])
    error: str = Field(examples=["rate_limited"])


class LookupChange(BaseModel):
    """What the lookup changed, as the feed tells it."""

    number: Number
    sender: str | None = Field(None, examples=["12345"])
    list: str | None = Field(None, examples=["spring"])
    kind: ChangeKind = Field(examples=["number.carrier"])
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
    """One provider's answer about a number. `record` is what was understood of it, and its `raw` what is kept of it."""

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
