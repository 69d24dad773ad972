"""How numbers, senders, moments and places are written, and what is none of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.models.opt_in import InQuery, Moment, OptInCall
from app.models.path import lies_at
from app.models.phone import e164, sender_id

# Numbers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "region", "number"), [
    ("+15555551234", "US", "+15555551234"),
    (" 15555551234", "US", "+15555551234"),  # a query string made a blank of the +
    (" 447400123456", "US", "+447400123456"),
    ("(555) 555-1234", "US", "+15555551234"),
    ("15555551234", "US", "+15555551234"),
    ("07400 123456", "GB", "+447400123456"),
    ("0044 7400 123456", "GB", "+447400123456"),
    ("4915132846098", "DE", "+4915132846098"),  # a mobile without its +, no fixed line of Leer without its 0
    ("04915 132846098", "DE", "+494915132846098"), ("491", "DE", "+49491"), ("0151 32846098", "DE", "+4915132846098"),
    ("4941123456", "DE", "+494941123456"), ("5511987654321", "BR", "+5511987654321"),
    ("+5215512345678", "US", "+525512345678"), ("5215512345678", "MX", "+525512345678"),  # the 1 went in 2019
    ("+521551234567", "US", "+521551234567"),  # which is none of those
    ("p:+15555551234", "US", "+15555551234"), ("1-800-FLOWERS", "US", "+18003569377"),  # as Facebook writes, and people
    ("+44 00 373765555", "US", "+44373765555"),  # nothing that is answered reads as another number
    ("\u202a+1 555 555\u20111234\u202c", "US", "+15555551234"), ("+٤٤٧٤٠٠١٢٣٤٥٦", "US", "+447400123456"),
])  # fmt: skip
def test_a_number_is_written_in_one_form(text: str, region: str, number: str) -> None:
    assert e164(text, region) == number


@pytest.mark.parametrize("text", ["", "12345", "+121255501", "+121255501999", "Bank", "+15555551234 ext. 5",
                                  "+5215512345678 x5", "+4915132846O9", "+4915132846O9O", "+49 151 3284609\u041e",
                                  "+" + "9" * 17, "+٢٥٥٥٥٥٥١٢٣٤٥٦٧٨٩"])  # fmt: skip
def test_what_can_be_no_number_is_refused_in_words_that_do_not_repeat_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"give it as E\.164") as refused:
        e164(text)
    assert not text or text not in str(refused.value)


# Senders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "sender"), [
    ("123", "123"), ("12345", "12345"), (" 12345 ", "12345"), ("00012345", "00012345"),  # a short code, as it is
    ("15555551234", "+15555551234"), ("+1 (555) 555-1234", "+15555551234"), ("5555551234", "+15555551234"),
    ("+123", "123"),
    ("123456789", "123456789"), ("+123456789", "123456789"),  # nine digits: no short code, and no number either
    ("Acme BANK", "acme bank"), ("STRASSE", "straße".casefold()), ("12", "12"), ("١٢٣٤٥", "١٢٣٤٥"),
    ("x" * 64, "x" * 64), ("+12345", "12345"), ("%", "%"), ("B\u00e4r", "b\u00e4r"), ("Ba\u0308r", "b\u00e4r"),
    ("+447491163443", "+447491163443"), ("447491163443", "+447491163443"), ("00447491163443", "+447491163443"),
    ("011 44 7491 163443", "+447491163443"), ("+50012345", "50012345"), ("50012345", "50012345"),
    ("123 456 78", "123 456 78"), ("(12) 345-67", "(12) 345-67"),  # no numbers that lack their area code
])  # fmt: skip
def test_a_sender_is_written_in_one_form(text: str, sender: str) -> None:
    assert sender_id(text) == sender


@pytest.mark.parametrize("text", ["", "  ", "x" * 65, "ß" * 33, "Ac\0me", "Ac\nme"])
def test_what_can_be_no_sender_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a sender"):
        sender_id(text)


# Moments ------------------------------------------------------------------------------------------------------------

_moment = TypeAdapter(Moment)


@pytest.mark.parametrize(("text", "at"), [
    ("2026-11-21T18:42:07Z", datetime(2026, 11, 21, 18, 42, 7, tzinfo=UTC)),
    ("2026-11-21T18:42:07-05:00", datetime(2026, 11, 21, 23, 42, 7, tzinfo=UTC)),
    ("1900-01-01T00:00:00Z", datetime(1900, 1, 1, tzinfo=UTC)),
    ("9998-12-31T23:59:59Z", datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)),
])  # fmt: skip
def test_a_moment_is_told_in_utc(text: str, at: datetime) -> None:
    read = _moment.validate_python(text)
    assert (read, read.utcoffset()) == (at, at.utcoffset())


@pytest.mark.parametrize(("value", "says"), [
    ("2026-11-21T18:42:07", "with its zone"), (1795286527, "with its zone"), ("1795286527", "with its zone"),
    ("-0.125", "with its zone"), ("1e-5", "with its zone"),
    ("soon", "with its zone"), ("2026-13-01T00:00:00Z", "with its zone"), (None, "with its zone"),
    ("1899-12-31T23:59:59Z", "before 1900"), ("9999-01-01T00:00:00Z", "after 9998"),
    ("1900-01-01T00:00:00+01:00", "before 1900"),
])  # fmt: skip
def test_what_is_no_moment_is_refused_with_what_to_write(value: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        _moment.validate_python(value)


def test_in_a_query_a_blank_stands_for_the_plus_of_a_zone() -> None:
    read = TypeAdapter(Annotated[Moment | None, InQuery]).validate_python
    assert read("2026-11-21T18:42:07 05:00") == datetime(2026, 11, 21, 13, 42, 7, tzinfo=UTC)
    assert read("2026-11-21T18:42:07.5 0500") == datetime(2026, 11, 21, 13, 42, 7, 500_000, tzinfo=UTC)
    assert read(None) is None


@pytest.mark.parametrize("source", ["", " ", "\t", "form\0", "x" * 1025])
def test_a_source_says_something(source: str) -> None:
    with pytest.raises(ValidationError):
        OptInCall(consented_at="2026-11-21T18:42:07Z", source=source)  # type: ignore[arg-type]


# Places -------------------------------------------------------------------------------------------------------------

SAID = {"data": {"lines": [{"name": "one"}, {"name": "two"}], "a.b": 0}, "1": "first"}


@pytest.mark.parametrize(("path", "value"), [
    ("data.lines.0.name", "one"), ("data.lines.1.name", "two"), (["data", "a.b"], 0), ("1", "first"),
    ("data.lines.2.name", None), ("data.lines.2", None), ("data.lines.-1", None), ("data.lines.name", None),
    ("data.none.name", None), ("1.0", None), ("data.a.b", None),
])  # fmt: skip
def test_a_place_is_found_or_there_is_nothing(path: str | list[str], value: object) -> None:
    assert lies_at(SAID, path) == value
