"""A receipt that is heard again once the register tells when its message was sent: what was supposed until then goes,
and the number ends as if the date had been known from the start.
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from app.models.number import Number, Verdict
from app.models.receipt import Receipt, Status
from app.services import aside
from app.services.aside import UNDATED
from app.services.decide import Registered, decide
from app.services.merge import merge
from tests.verdicts import (
    DAY,
    EVENT,
    HERE,
    HOUR,
    LOOKUPS,
    NUMBER,
    SENT,
    THERE,
    condition,
    delivered,
    failed,
    live,
    opted_in,
)

REGISTERED = Registered(NUMBER, HERE, SENT, carrier=None)


def told(status: Status, reason: str | None = None, known: Registered | None = None, message: str = "m1") -> Verdict:
    """A receipt that names no send date."""
    said = Receipt(message, status, NUMBER, HERE, gateway="native", occurred_at=EVENT)
    return decide(said, reason, EVENT, LOOKUPS, known)


def life(*events: Verdict) -> Number:
    number = Number(NUMBER)
    for event in events:
        number = merge(number, event)
    return number


def test_where_nothing_is_known_of_the_first_hearing_the_second_counts_as_the_only_one() -> None:
    """The number was erased in between."""
    dated = told(Status.DELIVERED, known=REGISTERED)
    assert life(replace(dated, dated=True)) == life(dated)


BEFORE = {
    "nothing": [],
    "another delivery before it": [delivered(SENT - DAY)],
    "another delivery after it": [delivered(SENT + DAY)],
    "a delivery to another sender": [delivered(SENT - DAY, sender=THERE)],
    "an opt-in": [opted_in()],
    "a death": [condition("deactivated", SENT + (EVENT - SENT) / 2)],
    "a failure of the day before": [failed("unknown_subscriber", at=EVENT - DAY, message="m0")],
    "a failure of the hour before": [failed("unknown_subscriber", at=EVENT - HOUR, message="m0")],
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_a_delivery_with_its_date_is_as_if_the_date_had_been_known(before: list[Verdict]) -> None:
    supposed, dated = told(Status.DELIVERED), told(Status.DELIVERED, known=REGISTERED)
    assert supposed != dated
    assert life(*before, supposed, replace(dated, dated=True)) == life(*before, dated)


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_a_strike_with_its_date_is_one_strike_and_ends_no_consent_by_itself(before: list[Verdict]) -> None:
    supposed, dated = (told(Status.UNDELIVERABLE, "unknown_subscriber", known) for known in (None, REGISTERED))
    heard, known = life(*before, supposed, replace(dated, dated=True)), life(*before, dated)
    assert heard.unknown == known.unknown
    assert heard.senders == known.senders
    assert heard.conditions == known.conditions


@pytest.mark.parametrize("reason", ["deactivated", "carrier_unknown", "unknown_subscriber", "suspended"])
def test_a_condition_takes_the_send_date_that_a_lookup_is_to_hold_opt_ins_against(reason: str) -> None:
    supposed, dated = (told(Status.UNDELIVERABLE, reason, known) for known in (None, REGISTERED))
    heard = life(supposed, replace(dated, dated=True))
    assert {one.guard for one in heard.conditions.values()} == {SENT}
    assert heard.conditions == life(dated).conditions


def test_a_block_that_asks_a_lookup_takes_the_send_date_too() -> None:
    supposed, dated = (told(Status.UNDELIVERABLE, "network_not_covered", known) for known in (None, REGISTERED))
    assert dated.block is not None
    assert dated.block.lookup
    assert life(supposed, replace(dated, dated=True)) == life(dated)


def test_an_end_of_consent_that_was_kept_aside_is_replaced_and_no_other() -> None:
    other = replace(told(Status.UNDELIVERABLE, "opted_out", message="m2"), apart=UNDATED)
    supposed = replace(told(Status.UNDELIVERABLE, "opted_out"), apart=UNDATED)
    dated = replace(told(Status.UNDELIVERABLE, "opted_out", REGISTERED), apart=UNDATED)
    number = life(other, supposed, replace(dated, dated=True))
    assert number == life(other, dated)
    guards = {act.cause.message_id: act.out.guard for act in number.aside[UNDATED].acts if act.out}
    assert guards == {"m1": SENT, "m2": EVENT}


UNNAMED = failed("opted_out", sender=None)


@pytest.mark.parametrize(
    ("supposed", "known"),
    [
        (told(Status.UNDELIVERABLE, "opted_out"), {"dated": True}),
        (UNNAMED, {"named": UNNAMED.conditions[-1][0]}),
    ],
    ids=["when it was sent", "for whom it was sent"],
)
def test_what_acts_is_what_is_aside_also_once_more_is_known_of_an_event(
    supposed: Verdict, known: dict[str, Any]
) -> None:
    heard = replace(told(Status.UNDELIVERABLE, "opted_out", REGISTERED), apart=UNDATED, **known)
    held = live(LOOKUPS, replace(supposed, apart=UNDATED), heard)
    assert held.acting == aside.acting(held.number, merge)
