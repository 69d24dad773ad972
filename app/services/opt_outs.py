"""Opt-outs as they are counted: by sender, carrier and hour of the event, whatever brought them or took them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from app.models.number import Change
from app.services.apply import Applied
from app.services.settle import Held
from app.services.shown import network_of
from app.services.store import OPTED_OUT, CountKey, hour_of


def left(changes: Iterable[Change], carrier: str) -> Counter[CountKey]:
    """Opt-outs of one number: one for each sender, from however many of its lists."""
    gone = {change.sender: change for change in changes if change.kind == "list.opted_out"}
    return _hourly(gone.values(), carrier)


def taken_back(changes: Iterable[Change], carrier: str) -> Counter[CountKey]:
    """Opt-outs of one number that did not happen after all, counted below zero."""
    back = {change.sender: change for change in changes if change.kind == "list.opted_in" and change.reason}
    return Counter({key: -many for key, many in _hourly(back.values(), carrier).items()})


def _hourly(changes: Iterable[Change], carrier: str) -> Counter[CountKey]:
    return Counter((hour_of(change.occurred_at), change.sender or "", carrier, OPTED_OUT) for change in changes)


def opted_out(applied: Applied, changes: Iterable[Change]) -> Counter[CountKey]:
    """Those that a lookup or a deactivation file brings: the carrier is the one that serves the number now."""
    told: dict[str, list[Change]] = {}
    for change in changes:
        told.setdefault(change.number, []).append(change)
    counts: Counter[CountKey] = Counter()
    for number, own in told.items():
        counts.update(left(own, network_of(applied.held[number].shown.carrier) or ""))
    return counts


class Source(Protocol):
    """Whose carrier and sender a count stands under."""

    @property
    def sender(self) -> str: ...
    @property
    def carrier(self) -> str: ...


def served_by(key: Source, held: Held) -> str:
    """The carrier under which an opt-out of a key of the breaker is counted, as the intake does it."""
    return key.carrier or (network_of(held.shown.carrier) if key.sender else None) or ""
