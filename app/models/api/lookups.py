"""What providers were asked, and what they said."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.models.api.fields import NUMBER, WHEN, Number, When, shown
from app.models.api.status import Carrier
from app.models.number import ChangeKind, Waiting


class LookupFailure(BaseModel):
    """A provider that gave no record, and why."""

    provider: str = Field(examples=["telnyx"])
    error: str = Field(examples=["rate_limited"])
    until: When | None = Field(None, description="Until then it is left alone. Left out where it is not")


class LookupChange(BaseModel):
    """What the lookup changed, as the feed tells it."""

    number: Number
    sender: str | None = Field(None, description="Left out where it is about the number alone")
    list: str | None = Field(None, description="Left out where it is about no list")
    kind: ChangeKind
    from_: str | None = Field(alias="from")
    to: str | None
    reason: str | None
    cause: dict[str, Any]
    occurred_at: When


class LookupAnswer(BaseModel):
    """What one lookup came to: `ok`, or why there is no record. `waiting_for`: `budget` where nobody was paid."""

    model_config = shown({
        "number": NUMBER, "outcome": "ok", "provider": "demo",
        "carrier": {"name": "US Cellular", "name_raw": "US Cellular", "mcc": "311", "mnc": "580",
                    "line_type": "mobile", "ported": False, "ported_at": None, "source": "demo", "as_of": WHEN},
        "errors": [], "price": "0", "waiting_for": None,
        "changes": [{"number": NUMBER, "kind": "number.carrier", "from": None, "to": "US Cellular", "reason": None,
                     "cause": {"kind": "lookup", "source": "demo", "evidence": "demo: US Cellular mobile not ported"},
                     "occurred_at": WHEN}],
    })  # fmt: skip

    number: Number
    outcome: str
    provider: str | None = Field(description="Whose answer counted")
    carrier: Carrier | None
    errors: list[LookupFailure]
    price: str = Field(description="Of all calls that were made")
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

    model_config = shown({
        "number": NUMBER, "provider": "demo", "asked_at": WHEN, "outcome": "ok", "detail": "", "price": "0",
        "kept_until": WHEN,
        "record": {"carrier": "US Cellular", "mcc": "311", "mnc": "580", "line_type": "mobile", "ported": False,
                   "active": True, "original_carrier": "US Cellular", "raw": {"digit": "4"}},
    })  # fmt: skip

    number: Number
    provider: str
    asked_at: When
    outcome: str
    detail: str
    price: str
    kept_until: When | None = Field(description="Until then it may be used again")
    record: dict[str, Any] | None


class LookupPage(BaseModel):
    """Answers of providers, newest first."""

    items: list[StoredAnswer]
    next: When | None = Field(
        description="Pass it as `before` for the next page; null on the last one", examples=[None]
    )
