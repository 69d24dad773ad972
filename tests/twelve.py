"""What a receipt of each of the twelve codes does, row by row, whichever gateway brings it."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

OURS = ["spring", "summer", "winter"]
KEPT, OUT = "opted_in", "opted_out"


class Expected(NamedTuple):
    """One row: what the receipt does to the number, to this sender, to its lists, and to another's."""

    state: str
    waiting_for: str | None = None
    until: timedelta | None = None
    blocked: bool = False
    ours: str = KEPT
    other: str = KEPT
    lookup: bool = False


def lookup_first(*, provider: bool) -> dict[str, Expected]:
    waiting = "lookup" if provider else "no_lookup_provider"
    held = Expected("held", waiting, lookup=provider)
    stale = held if provider else Expected("held", until=timedelta(hours=24))
    blocked = Expected("active", blocked=True, ours=OUT)
    incapable = Expected("not_sms_capable", ours=OUT)
    gone = Expected("deactivated", waiting, lookup=True) if provider else Expected("deactivated", ours=OUT, other=OUT)
    return {
        "341": stale, "345": held, "349": held, "560": blocked, "561": blocked, "565": blocked, "568": incapable,
        "573": blocked, "592": Expected("active", blocked=True, lookup=provider), "603": blocked, "629": incapable,
        "3041": gone,
    }  # fmt: skip


def strict(*, provider: bool) -> dict[str, Expected]:
    """Listrak's rule changes only the consent column: all lists of the short code end on the first receipt."""
    rows = {code: row._replace(ours=OUT) for code, row in lookup_first(provider=provider).items()}
    waiting = "lookup" if provider else "no_lookup_provider"
    return rows | {"3041": Expected("deactivated", waiting, ours=OUT, lookup=provider)}


def number(place: int) -> str:
    return f"+1415555{place:04}"
