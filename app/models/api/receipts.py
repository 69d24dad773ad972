"""Receipts, what was sent, and what could not be read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.models.api.fields import NUMBER, WHEN, Long, Next, NextPlace, When, shown
from app.models.api.problems import Place


class StoredReceipt(BaseModel):
    """A delivery receipt as it was understood. `code` is as the gateway wrote it, `reason` what it was taken for."""

    model_config = shown({
        "gateway": "native", "account": None, "message_id": "0d8f1c2e", "number": NUMBER, "sender": "12345",
        "status": "undeliverable", "code_space": "openmarket", "code": "3041", "reason": "deactivated",
        "carrier": "T-Mobile USA, Inc.", "mcc": "310", "mnc": "260", "segment": None,
        "occurred_at": WHEN, "received_at": WHEN,
    })  # fmt: skip

    gateway: str
    account: str | None
    message_id: str | None
    number: str | None
    sender: str | None
    status: Literal["accepted", "sent", "delivered", "undeliverable", "rejected", "expired", "unknown"]
    code_space: str | None
    code: str | None
    reason: str | None
    carrier: str | None
    mcc: str | None
    mnc: str | None
    segment: int | None
    occurred_at: When | None
    received_at: When


class ReceiptPage(BaseModel):
    """Stored receipts, newest first."""

    items: list[StoredReceipt]
    next: Next


class Registered(BaseModel):
    """How many entries were kept, how many receipts had waited for them, and which entries were no sent messages."""

    model_config = shown({"registered": 1, "receipts_applied": 0, "errors": []})

    registered: int
    receipts_applied: int
    errors: list[Place]


_UNREAD = {
    "id": 1, "gateway": "native", "account": None, "reason": "not JSON", "method": "POST", "size": 8,
    "first_at": WHEN, "last_at": WHEN, "times": 1,
}  # fmt: skip


class Unread(BaseModel):
    """A callback, or an element of one, that could not be read."""

    model_config = shown(_UNREAD)

    id: Long
    gateway: str
    account: str | None
    reason: str = Field(description="Why it could not be read")
    method: str
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

    model_config = shown(
        {**_UNREAD, "headers": {"content-type": "application/json"}, "query": "", "body": "bm9uc2Vuc2U="}
    )

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

    proven: int = Field(description="Requests that are authentic by the present secrets")
    receipts: int = Field(description="Receipts in them that had not been taken before")
    left: int = Field(description="Those that still prove nothing")


class Dropped(BaseModel):
    """How many were given up."""

    dropped: int
