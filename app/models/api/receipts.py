"""Receipts, what was sent, and what could not be read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.models.api.fields import NUMBER, Long, Next, NextPlace, When
from app.models.api.problems import Place


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


class Registered(BaseModel):
    """How many entries were kept, how many receipts had waited for them, and which entries were no sent messages."""

    registered: int
    receipts_applied: int
    errors: list[Place]


class Unread(BaseModel):
    """A callback, or an element of one, that could not be read."""

    id: Long
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

    proven: int = Field(description="Requests that are authentic by the present secrets")
    receipts: int = Field(description="Receipts in them that had not been taken before")
    left: int = Field(description="Those that still prove nothing")


class Dropped(BaseModel):
    """How many were given up."""

    dropped: int
