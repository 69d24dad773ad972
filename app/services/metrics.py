"""What `/metrics` shows. Never a phone number, a message id or a key as a label."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

if TYPE_CHECKING:
    from app.services.store import Arrival

RECEIPTS = Counter("sendable_receipts_total", "Receipts committed", ["gateway", "status", "reason"])
DUPLICATES = Counter("sendable_duplicate_receipts_total", "Receipts that had been taken before")
UNREAD = Counter("sendable_unread_total", "Callbacks, or elements of them, that could not be read", ["gateway"])
UNKNOWN_CODES = Counter("sendable_unknown_codes_total", "Failures whose code is in no table", ["gateway"])
FORGED = Counter("sendable_forged_total", "Callbacks that did not prove their origin", ["gateway"])
BUSY = Counter("sendable_busy_total", "Requests answered 503", ["what"])
GROUP_SIZE = Histogram("sendable_group_receipts", "Receipts in one commit", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500,
                                                                                     1000, 2000))  # fmt: skip
COMMIT_SECONDS = Histogram("sendable_commit_seconds", "Seconds that one group's transaction took")


def committed(size: int, seconds: float) -> None:
    GROUP_SIZE.observe(size)
    COMMIT_SECONDS.observe(seconds)


def taken(arrivals: Sequence[Arrival], duplicates: int) -> None:
    """Count a group's receipts, once they are committed."""
    DUPLICATES.inc(duplicates)
    tally = Tally((a.receipt.gateway, a.receipt.status.value, a.reason or "") for a in arrivals)
    for labels, count in tally.items():
        RECEIPTS.labels(*labels).inc(count)
    for a in arrivals:
        if a.unmapped:
            UNKNOWN_CODES.labels(a.receipt.gateway).inc()
