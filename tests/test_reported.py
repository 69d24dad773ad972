"""What a record of a deactivation file does, kind by kind, as docs/deactivations.md has it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.catalogue import shipped
from app.models.feed import SPACE, Event, Kind
from app.models.number import Verdict
from app.services.deactivations.events import reason_of
from app.services.decide import reported
from app.services.meaning import Meaning
from app.services.shown import known_carrier
from tests.verdicts import (
    ALONE,
    CARRIERS,
    DAY,
    EVENT,
    EVERYBODY,
    INSTANT,
    LOOKUPS,
    NOBODY,
    NUMBER,
    STORED,
    ended,
    failed,
    live,
    opted_in,
    state,
    subscriber,
)

MEANING = Meaning(shipped(), CARRIERS, LOOKUPS)


def record(kind: Kind, **told: Any) -> Verdict:
    """Of that day, by a file that says no more than it must."""
    said = {"at": EVENT, "guard": EVENT - DAY, "feed": "records"} | told
    alone = said.pop("alone", False)
    return reported(Event(NUMBER, kind, reason_of(kind, MEANING), **said), ALONE if alone else LOOKUPS)


@pytest.mark.parametrize(("kind", "becomes", "asks", "ends_alone", "ends"), [
    ("DEACT", "deactivated", True, EVERYBODY, NOBODY), ("TRANSFER", "deactivated", True, EVERYBODY, NOBODY),
    ("SUSPEND", "suspended", False, NOBODY, NOBODY), ("RESUME", "active", False, NOBODY, NOBODY),
    ("ACTIVATION", "reassigned", False, EVERYBODY, EVERYBODY), ("PORT", "held", True, NOBODY, NOBODY),
])  # fmt: skip
def test_each_kind_does_what_its_row_says(
    kind: Kind, becomes: str, *, asks: bool, ends_alone: frozenset[Any], ends: frozenset[Any]
) -> None:
    held = subscriber(LOOKUPS, record(kind))
    assert (state(held), held.shown.lookup is not None, ended(held)) == (becomes, asks, ends)
    assert ended(subscriber(ALONE, record(kind, alone=True))) == ends_alone


def test_a_resume_ends_the_suspension_of_a_record_before_it() -> None:
    assert state(subscriber(LOOKUPS, record("SUSPEND", at=EVENT - DAY), record("RESUME"))) == "active"


def test_a_port_to_a_carrier_ends_holds_and_is_served_by_it_from_then_on() -> None:
    held = subscriber(LOOKUPS, STORED, failed("carrier_unknown", at=EVENT - DAY), record("PORT", new_carrier="Verizon"))
    carrier = known_carrier(held.number, LOOKUPS)
    assert carrier
    assert (state(held), ended(held)) == ("active", NOBODY)
    assert (carrier.name, carrier.source, carrier.at, carrier.ported, carrier.ported_at) == (
        "Verizon", "records", EVENT, True, EVENT,
    )  # fmt: skip


def test_a_new_carrier_beside_another_kind_is_no_port() -> None:
    for kind in ("DEACT", "TRANSFER"):
        assert state(subscriber(LOOKUPS, record(kind, new_carrier="Verizon"))) == "deactivated"


def test_a_record_tells_the_carrier_only_where_the_file_names_one() -> None:
    silent, named = (live(LOOKUPS, STORED, record("DEACT", **told)) for told in ({}, {"carrier": "Verizon"}))
    assert [one.number.carrier.name for one in (silent, named) if one.number.carrier] == ["AT&T", "Verizon"]


def test_of_a_mere_day_an_opt_in_of_that_day_is_not_ended_and_an_older_one_is() -> None:
    day = {"at": EVENT, "guard": EVENT - timedelta(hours=12), "alone": True}
    agreed = opted_in(EVENT - timedelta(hours=12) + INSTANT)
    held = subscriber(ALONE, agreed, record("DEACT", **day))
    assert ended(held) == EVERYBODY - {("12345", "spring")}
    assert state(held) == "deactivated"


def test_the_cause_names_the_file_its_day_and_the_number_that_the_subscriber_has_now() -> None:
    told = record("TRANSFER", day=EVENT.date(), new_number="+15555550199").cause
    assert (told.kind, told.source, told.code_space, told.code) == ("file", "records", SPACE, "TRANSFER")
    assert told.evidence == f"file of {EVENT.date()}; now +15555550199"
    assert record("DEACT").cause.evidence is None
