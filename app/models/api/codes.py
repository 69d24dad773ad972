"""What codes mean, and which words no table knows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.models.api.fields import WHEN, When, shown
from app.models.number import State


class Rule(BaseModel):
    """What a reason does in the policy in force. Keys at their default are left out; without any it is only counted.
    Instead of `lapse` and `consent` hold `alone_lapse` and `alone_consent` without a lookup provider, `strict_consent`
    in strict mode, `unrouted_consent` where the register names no carrier. `ladder`: what counts when it comes again.
    """

    model_config = ConfigDict(extra="allow")

    state: State | None = Field(None, description="The state that the number takes")
    lapse: str | None = Field(None, description="For how long at most", examples=["30d"])
    block: bool = Field(default=False, description="Whether the sender is blocked")
    consent: Literal["keep", "sender", "everyone"] = Field("keep", description="Whose lists it ends at once")
    lookup: bool = Field(default=False, description="Whether a carrier lookup decides or refreshes")


class Code(BaseModel):
    """What one vendor's code means, and what we do about it. A code means something only inside its space."""

    model_config = shown({
        "space": "twilio", "code": "21610", "meaning": "Recipient has sent STOP to this sender or messaging service",
        "level": "number", "permanence": "permanent", "reason": "opted_out",
        "rule": {"block": True, "consent": "sender", "revocation": True}, "confidence": "verified",
        "source": "twilio.com docs/api/errors dictionary (GitHub men232/twilio-error-codes, 2023-05 snapshot)",
    })  # fmt: skip

    space: str
    code: str
    meaning: str
    level: Literal["message", "number", "carrier", "network", "account"]
    permanence: Literal["permanent", "temporary", "unknown"]
    reason: str
    rule: Rule
    confidence: Literal["verified", "unverified"]
    source: str


class Codes(BaseModel):
    """The catalogue, or one space of it."""

    items: list[Code]


class UnknownWord(BaseModel):
    """A code or a status word that no table knows."""

    model_config = shown({
        "gateway": "native", "account": None, "kind": "code", "space": "openmarket", "word": "9999",
        "status": "undeliverable", "message_id": "0d8f1c2e", "first_at": WHEN, "last_at": WHEN, "count": 1,
    })  # fmt: skip

    gateway: str
    account: str | None
    kind: Literal["code", "status"]
    space: str | None = Field(description="The code's space; null where the settings name none")
    word: str = Field(description="As it came")
    status: str = Field(description="What the last one was taken for")
    message_id: str | None = Field(description="The id of one message that had it")
    first_at: When
    last_at: When
    count: int


class UnknownWords(BaseModel):
    """The last seen first."""

    items: list[UnknownWord]
