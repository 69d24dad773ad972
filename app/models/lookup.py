"""What a lookup provider is, and what it tells of a number: one neutral record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from app.models.http import Call, HttpAnswer, Options

LineType = Literal[
    "mobile", "landline", "voip", "toll_free", "premium", "shared_cost", "personal", "pager", "uan", "voicemail",
    "satellite", "other", "unknown",
]  # fmt: skip
Failure = Literal[
    "invalid_number", "not_found", "no_coverage", "forbidden", "auth", "quota", "rate_limited", "bad_request",
    "provider_error", "pending", "partial", "malformed",
]  # fmt: skip

ANSWERS: frozenset[Failure] = frozenset({"invalid_number", "not_found", "no_coverage", "forbidden"})
"""Failures that are answers about the number, and are remembered."""
RETRIED: frozenset[Failure] = frozenset({"rate_limited", "provider_error", "malformed"})
STOPPING: frozenset[Failure] = frozenset({"auth", "quota"})
"""Failures that stop the whole provider until a person or a restart."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a provider tells of a number, in one form for all. None: the provider does not tell, never "no".

    `carrier` is the messaging carrier where the provider tells one, else the voice network, as text exactly as sent.
    `price` only where it is in the currency of the providers' list prices, US dollars: the budget counts with it.
    `active` False only where the provider says so explicitly. `raw` is the answer without IMSI, MSC and caller names.
    """

    number: str
    carrier: str | None = None
    voice_carrier: str | None = None
    original_carrier: str | None = None
    ported: bool | None = None
    ported_at: datetime | None = None
    porting: bool = False
    line_type: LineType | None = None
    mcc: str | None = None
    mnc: str | None = None
    lrn: str | None = None
    spid: str | None = None
    ocn: str | None = None
    active: bool | None = None
    deactivated_at: datetime | None = None
    request_id: str | None = None
    price: Decimal | None = None
    partial: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """No record for this number, and why. `retry_after` in seconds, where the provider names it. `detail` holds no
    number and no secret.
    """

    number: str
    error: Failure
    detail: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One lookup provider: how a question is put, how its answer reads. Pure: no HTTP client, no clock.

    `needs` names the settings without which it cannot be asked, `may` those that it takes beside them. `build` takes at
    most `batch` numbers in E.164. `read` has an answer for every number that was asked; it may raise LookupError,
    ValueError, TypeError or AttributeError for what it cannot read, which `lookups.read` turns into `malformed`.
    """

    name: str
    docs: str
    base_url: str
    needs: tuple[str, ...]
    price: Decimal
    build: Callable[[Sequence[str], Options], Call]
    read: Callable[[HttpAnswer, Sequence[str], Options], Mapping[str, Found | Failed]]
    batch: int = 1
    per_second: float = 10.0
    tells_ports: bool = False
    may: tuple[str, ...] = ()
