"""What `/metrics` shows. Never a phone number, a message id or a key as a label."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from decimal import Decimal

from prometheus_client import Counter, Histogram

from app.models.lookup import Failed, Found
from app.services.store import Arrival

RECEIPTS = Counter("sendable_receipts_total", "Receipts committed", ["gateway", "status", "reason"])
DUPLICATES = Counter("sendable_duplicate_receipts_total", "Receipts that had been taken before")
UNREAD = Counter("sendable_unread_total", "Callbacks, or elements of them, that could not be read", ["gateway"])
INBOUND = Counter(
    "sendable_inbound_total",
    "Messages of people, and events about no SMS of ours, that came with receipts; none is kept",
    ["gateway"],
)
UNKNOWN_CODES = Counter("sendable_unknown_codes_total", "Failures whose code is in no table", ["gateway"])
FORGED = Counter("sendable_forged_total", "Callbacks that did not prove their origin", ["gateway"])
BUSY = Counter("sendable_busy_total", "Requests answered 503: nothing could be read or written", ["what"])
GROUP_SIZE = Histogram("sendable_group_receipts", "Receipts in one commit, and what could not be read",
                       buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000))  # fmt: skip
COMMIT_SECONDS = Histogram("sendable_commit_seconds", "Seconds that one group's transaction took")

LOOKUPS = Counter("sendable_lookups_total", "Answers of lookup providers, by number", ["provider", "outcome"])
LOOKUP_CALLS = Counter("sendable_lookup_calls_total", "Calls made to lookup providers", ["provider"])
LOOKUP_SECONDS = Histogram("sendable_lookup_seconds", "Seconds that a provider took for one call", ["provider"],
                           buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))  # fmt: skip
LOOKUP_SPEND = Counter("sendable_lookup_spend_total", "What lookups have cost, or may have cost", ["provider"])
LOOKUP_HITS = Counter("sendable_lookup_cache_hits_total", "Lookups that an earlier answer has decided")


def begin(gateways: Iterable[str]) -> None:
    """Tell what has not happened yet as none: a `rate` does not see what comes together with its series."""
    for what in ("receipts", "api"):
        BUSY.labels(what)
    for gateway in gateways:
        for counter in (UNREAD, INBOUND, UNKNOWN_CODES, FORGED):
            counter.labels(gateway)


def asked(provider: str, said: Iterable[Found | Failed], seconds: float) -> None:
    LOOKUP_CALLS.labels(provider).inc()
    LOOKUP_SECONDS.labels(provider).observe(seconds)
    for outcome, count in Tally(a.error if isinstance(a, Failed) else "ok" for a in said).items():
        LOOKUPS.labels(provider, outcome).inc(count)


def spent(provider: str, price: Decimal) -> None:
    LOOKUP_SPEND.labels(provider).inc(float(price))


def committed(size: int, seconds: float) -> None:
    GROUP_SIZE.observe(size)
    COMMIT_SECONDS.observe(seconds)


def taken(arrivals: Sequence[Arrival], duplicates: int) -> None:
    """Count a group's receipts, once they are committed."""
    DUPLICATES.inc(duplicates)
    tally = Tally((a.receipt.gateway, a.receipt.status, a.reason or "") for a in arrivals)
    for labels, count in tally.items():
        RECEIPTS.labels(*labels).inc(count)
    for a in arrivals:
        if a.unmapped:
            UNKNOWN_CODES.labels(a.receipt.gateway).inc()
