"""What a provider's answer is worth, what it says beside the carrier that is stored, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.models.lookup import Failed, Failure, Found
from app.models.number import Carrier, Fact
from app.services.heard import Kind, Said, best, carrier_of, foreign, kind_of, named, network, proven, suffices, words
from tests.verdicts import CARRIERS, DAY, EVENT, NUMBER, SIGNED_UP, failed, found


def lost(error: Failure) -> Failed:
    return Failed(NUMBER, error)


NEW_PORT, OLD_PORT = (found(ported=True, ported_at=EVENT + days * DAY) for days in (1, -1))
WORTH: list[list[Found | Failed]] = [
    [NEW_PORT],
    [OLD_PORT, found(ported=True), found(ported=False), found(porting=True), found(active=False),
     found(line_type="landline"), found(ported=False, ported_at=EVENT + DAY)],
    [found(), found(None, mcc="310", mnc="410")],
    [found(None), found(None, mcc="310")],
    [lost("not_found"), lost("invalid_number")],
    [lost("provider_error"), lost("no_coverage")],
]  # fmt: skip
"""What outranks what, of answers that came after the event; what stands on one line is of equal worth."""


@pytest.mark.parametrize("place", range(len(WORTH) - 1))
def test_the_answer_that_says_more_counts_whoever_was_asked_first(place: int) -> None:
    for more in WORTH[place]:
        for less in (answer for line in WORTH[place + 1 :] for answer in line):
            one, other = Said("a", more), Said("b", less)
            assert best([one, other], EVENT) == best([other, one], EVENT) == one


@pytest.mark.parametrize("equals", WORTH)
def test_of_answers_that_say_as_much_the_first_counts(equals: list[Found | Failed]) -> None:
    for one in equals:
        for other in equals:
            assert best([Said("a", one), Said("b", other)], EVENT) == Said("a", one)


def test_where_nothing_was_asked_about_any_dated_port_is_new() -> None:
    old, bare = Said("a", OLD_PORT), Said("b", found(ported=True))
    assert best([bare, old], None) == old


def test_half_an_answer_suffices_nobody() -> None:
    assert suffices(found(ported=False))
    assert not suffices(found(ported=False, partial=True))
    assert suffices(NEW_PORT)


def test_a_network_is_named_by_a_name_or_by_the_whole_code() -> None:
    assert [named(found(None, **told)) for told in ({}, {"mcc": "310"}, {"mnc": "410"}, {"mcc": "310", "mnc": "410"})
            ] == [False, False, False, True]  # fmt: skip
    assert named(found())


# Beside what is stored ----------------------------------------------------------------------------------------------


def stored(name: str | None = None, raw: str | None = None, **told: str) -> Carrier:
    return Carrier(SIGNED_UP, "x", name, raw, **told)


@pytest.mark.parametrize(("carrier", "answer", "kind"), [
    (None, found(), "first"), (stored(), found(), "first"),
    (None, found(ported=True), "moved"), (None, found(ported_at=EVENT), "moved"),
    (stored("AT&T"), found("Cricket"), "same"),  # a brand of the same network
    (stored(raw="Smalltown Wireless"), found("Othertown Wireless"), "moved"),
    (stored(mcc="310", mnc="410"), found("Smalltown Wireless"), "moved"),
    (stored("AT&T"), found(None), "nothing"),
])  # fmt: skip
def test_what_an_answer_is_beside_what_is_stored(carrier: Carrier | None, answer: Found, kind: Kind) -> None:
    assert kind_of(answer, carrier, CARRIERS) == kind


D2 = {"mcc": "262", "mnc": "02"}


@pytest.mark.parametrize(("carrier", "answer", "kind"), [
    (stored(**D2), found("Vodafone GmbH", **D2), "same"),
    (stored(**D2), found("Vodafone GmbH", mcc="262", mnc="002"), "same"),
    (stored(raw="Vodafone"), found(" VODAFONE"), "same"), (stored("Vodafone"), found("vodafone"), "same"),
    (stored(raw="Vodafone", **D2), found("D2", **D2), "same"),
    (stored(raw="Vodafone", **D2), found("Vodafone", mcc="262", mnc="04"), "same"),
    (stored(**D2), found("Telekom", mcc="262", mnc="01"), "moved"), (stored(raw="Vodafone"), found("Telekom"), "moved"),
    (stored(raw="Vodafone", **D2), found("Telekom", mcc="262", mnc="01"), "moved"),
    (stored(**D2), found(None, mcc="262", mnc="01"), "moved"), (stored(**D2), found(None, **D2), "same"),
    (stored(**D2), found("Vodafone GmbH"), "first"), (stored(raw="Vodafone"), found(None, **D2), "first"),
    (stored(**D2), found("Vodafone GmbH", ported=True), "moved"),
    (stored("T-Mobile", "T-Mobile DE", mcc="262", mnc="01"), found("Telekom", mcc="262", mnc="01"), "same"),
])  # fmt: skip
def test_abroad_a_network_is_the_same_by_its_code_or_by_its_name(carrier: Carrier, answer: Found, kind: Kind) -> None:
    assert kind_of(replace(answer, number="+4915123456789"), carrier, CARRIERS) == kind


def test_a_network_without_any_name_is_compared_by_nothing() -> None:
    assert network(stored(), CARRIERS) == ""
    assert network(stored(raw=" Smalltown "), CARRIERS) == "smalltown"


@pytest.mark.parametrize(("raw", "line", "name"), [
    ("AT&T Mobility", "mobile", "AT&T"),
    ("AT&T Mobility", "landline", "AT&T (wireline)"),  # the arm that goes by the same name
    ("Verizon New England", "landline", "Verizon (wireline)"),
    ("US Cellular", "landline", None),  # of whose arm the catalogue knows nothing
    ("Smalltown Telephone", "landline", None),
    ("Bandwidth.com", "landline", "Bandwidth (CPaaS number)"),
])  # fmt: skip
def test_a_fixed_line_is_never_a_mobile_carriers(raw: str, line: str, name: str | None) -> None:
    carrier = carrier_of(found(raw, line_type=line), "telnyx", EVENT, CARRIERS)
    assert (carrier.name, carrier.name_raw, carrier.source, carrier.at) == (name, raw, "telnyx", EVENT)


# What explains a death ----------------------------------------------------------------------------------------------

DEATH = failed("deactivated").conditions[0][1]
ATT = stored("AT&T", "AT&T")


@pytest.mark.parametrize(("answer", "carrier", "explains"), [
    (found(ported_at=EVENT - 14 * DAY), None, True), (found(ported_at=EVENT + 14 * DAY), None, True),
    (found(ported_at=EVENT - 14 * DAY - timedelta(seconds=1)), ATT, False),
    (found(ported=True), None, True), (found(ported=False), ATT, False),
    (found(), ATT, True), (found(), stored(mcc="310", mnc="410"), True),
    (found(), None, False), (found(), stored(raw="Smalltown Wireless"), False),
    (found("Othertown Wireless"), ATT, False),
])  # fmt: skip
def test_which_other_network_explains_a_death(answer: Found, carrier: Carrier | None, *, explains: bool) -> None:
    assert isinstance(DEATH, Fact)
    assert proven(answer, DEATH, carrier, CARRIERS) is explains


@pytest.mark.parametrize(("number", "mcc", "home", "abroad"), [
    ("+12125550142", None, "US", False), ("+12125550142", "310", "US", False), ("+12125550142", "302", "US", True),
    ("+14165550123", None, "US", True), ("+14165550123", "302", "CA", False), ("+14165550123", "310", "CA", True),
    ("+447400123456", "234", "GB", False), ("+447400123456", "310", "GB", False), ("+447400123456", None, "US", True),
    ("+17872345678", None, "US", False), ("+17872345678", "330", "US", False), ("+17872345678", None, "CA", True),
    ("+16712345678", "310", "US", False), ("+12125550142", None, "PR", False), ("+18092345678", None, "US", True),
    ("+358181234567", None, "FI", False), ("+4779123456", None, "NO", False), ("+13402345678", None, "US", False),
    ("+16702345678", None, "US", False), ("+16842345678", None, "US", False), ("+61891621234", None, "AU", False),
    ("+61891641234", None, "AU", False),
    *(("+12125550142", str(mcc), "US", False) for mcc in (*range(311, 317), 332, 534, 535, 544)),
    ("nothing", None, "US", False), ("nothing", "302", "US", True),
])  # fmt: skip
def test_whose_country_a_number_is_of(number: str, mcc: str | None, home: str, *, abroad: bool) -> None:
    assert foreign(number, found(mcc=mcc), home) is abroad


# How it is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "told"), [
    (lost("no_coverage"), "no_coverage"),
    (found("AT&T", line_type=None), "AT&T"),
    (found(None, mcc="310", mnc="410", line_type="mobile"), "310-410 mobile"),
    (found(None, mcc="310", line_type=None), "nothing"), (found(None, mnc="410", line_type=None), "nothing"),
    (found("AT&T", ported=True, ported_at=EVENT), "AT&T mobile ported on 2026-03-01"),
    (found("AT&T", ported=True), "AT&T mobile ported"),
    (found("AT&T", ported=False, ported_at=EVENT), "AT&T mobile not ported"),
    (found("AT&T", active=False), "AT&T mobile disconnected"), (found("AT&T", active=True), "AT&T mobile"),
])  # fmt: skip
def test_an_answer_is_told_in_a_few_words(answer: Found | Failed, told: str) -> None:
    assert words(answer) == told
