"""Opt-outs that a lookup or a deactivation file brings, as they are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from app.models.number import Change
from app.services.apply import Applied
from app.services.breaker import left
from app.services.shown import network_of
from app.services.store import CountKey


def opted_out(applied: Applied, changes: Iterable[Change]) -> Counter[CountKey]:
    """By sender, carrier and hour of the event, as those of receipts are; the carrier is the one that serves the
    number now.
    """
    told: dict[str, list[Change]] = {}
    for change in changes:
        told.setdefault(change.number, []).append(change)
    counts: Counter[CountKey] = Counter()
    for number, own in told.items():
        counts.update(left(own, network_of(applied.held[number].shown.carrier) or ""))
    return counts
