"""What `gateways.read` makes of what a parser said, whoever the vendor is: the rules that no parser repeats."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from app.gateways import answered, prove, read
from app.models.http import Call, HttpAnswer
from app.models.receipt import Broken, Callback, Gateway, Inquiry, Link, Missed, Receipt, Reply, Status

HERE = Link("acme", "shop")
EMPTY = Callback("POST", "/", {}, "", b"")


def gateway(*said: Receipt | Broken, **more: Any) -> Gateway:
    return Gateway("acme", "", lambda _: said, lambda _, secret, __: secret == "right", lambda _: Reply(), **more)  # noqa: S105


def told(link: Link = HERE, *, of: dict[str, Any] | None = None, **said: Any) -> Receipt:
    (one,) = read(gateway(Receipt(**{"message_id": "m1", "status": Status.SENT} | said), **of or {}), EMPTY, link)
    assert isinstance(one, Receipt), one
    return one


def broken(link: Link = HERE, **said: Any) -> str:
    (one,) = read(gateway(Receipt(**{"message_id": "m1", "status": Status.SENT} | said)), EMPTY, link)
    assert isinstance(one, Broken), one
    return one.reason


def test_a_receipt_names_its_link() -> None:
    assert (told().gateway, told().account) == ("acme", "shop")


@pytest.mark.parametrize(("field", "most"), [("message_id", 256), ("code", 64), ("code_space", 64)])
def test_what_would_be_another_one_if_it_were_cut_is_broken(field: str, most: int) -> None:
    said = {"code": "1", field: "x" * most}
    assert getattr(told(**said), field) == "x" * most
    assert broken(**said | {field: "x" * (most + 1)}).endswith(f"of more than {most} characters")


def test_the_name_of_a_carrier_is_cut() -> None:
    assert told(carrier="x" * 129).carrier == "x" * 128
    assert told(carrier="").carrier is None


def test_texts_are_such_as_postgres_takes() -> None:
    assert told(message_id="m\0\ud8001").message_id == "m1"
    assert told(message_id="\0", number="+15555551234").message_id is None


def test_a_receipt_about_nothing_is_broken() -> None:
    nothing = {broken(message_id=said, number=" ") for said in (None, "", "  ", "\0 \t")}
    assert nothing == {broken(message_id=None)} == {"neither a message id nor a number"}
    assert told(message_id=None, number="+15555551234").number == "+15555551234"


@pytest.mark.parametrize(("written", "region", "number", "malformed"), [
    ("+15555551234", "US", "+15555551234", False), ("15555551234", "US", "+15555551234", False),
    ("5555551234", "US", "+15555551234", True), ("07400 123456", "GB", "+447400123456", True),
    (" ", "US", None, False), (None, "US", None, False),
])  # fmt: skip
def test_a_number_is_read_where_the_link_is_at_home_and_added_digits_are_told(
    written: str | None, region: str, number: str | None, *, malformed: bool
) -> None:
    one = told(Link("acme", region=region), number=written)
    assert (one.number, one.malformed) == (number, malformed)


def test_what_is_no_number_or_no_sender_is_broken_in_words_that_do_not_repeat_it() -> None:
    assert broken(number="123") == "not a possible phone number"
    assert broken(sender="x" * 65) == "not a sender"


def test_the_settings_name_a_sender_only_where_the_receipt_names_none() -> None:
    link = Link("acme", sender="12345")
    assert [told(link, sender=said).sender for said in (None, "", " ", "67890", "Bank")] == [
        "12345", "12345", "12345", "67890", "bank",
    ]  # fmt: skip
    assert told(sender=None).sender is None


def test_the_space_of_a_code_is_the_receipts_then_the_links_then_the_vendors() -> None:
    ours = {"code_space": "vendor"}
    assert told(of=ours, code="1").code_space == "vendor"
    assert told(Link("acme", code_space="link"), of=ours, code="1").code_space == "link"
    assert told(Link("acme", code_space="link"), of=ours, code="1", code_space="own").code_space == "own"
    assert told(of=ours).code_space is None  # without a code there is nothing that it would be of


def test_codes_that_a_link_changes_are_changed_back_and_no_others() -> None:
    link = Link("acme", codes={"304": "3041"})
    assert [told(link, code=code).code for code in ("304", "3041", "30", None)] == ["3041", "3041", "30", None]


def test_a_code_tells_the_status_where_the_settings_say_whose_code_it_is() -> None:
    of = {"statuses": {"theirs": {"4": Status.DELIVERED, "": Status.REJECTED}}}
    link = Link("acme", code_space="theirs")
    assert told(link, of=of, status=Status.UNKNOWN, code="004").status is Status.DELIVERED
    assert told(link, of=of, status=Status.UNKNOWN, code="5").status is Status.UNKNOWN
    assert told(of=of, status=Status.UNKNOWN, code="4").status is Status.UNKNOWN
    assert told(link, of=of, status=Status.UNKNOWN, code="4", code_space="theirs").status is Status.UNKNOWN
    assert told(link, of=of, status=Status.SENT, code="4").status is Status.SENT


@pytest.mark.parametrize(("written", "word"), [
    ("on-the-moon", "on-the-moon"), (" Unknown ", None), ("", None), ("x" * 65, "x" * 64), ("a\tb", "ab"),
    ("sent to 5555551", "(a long number)"), ("sent to 555555", "sent to 555555"),
])  # fmt: skip
def test_the_word_of_an_unknown_status_is_kept_unless_it_may_hold_a_number(written: str, word: str | None) -> None:
    assert told(status=Status.UNKNOWN, word=written).word == word
    assert told(status=Status.SENT, word=written).word is None


@pytest.mark.parametrize(("part", "kept"), [(None, None), (0, None), (1, 1), (255, 255), (1000, 1000), (1001, None)])
def test_the_number_of_a_part_can_be_one_or_is_none(part: int | None, kept: int | None) -> None:
    one = told(segment=part, segments=part)
    assert (one.segment, one.segments) == (kept, kept)


@pytest.mark.parametrize(("mcc", "mnc", "kept"), [
    ("310", "26", ("310", "26")), ("310", "260", ("310", "260")), ("31", "2", (None, None)),
    ("3100", "2600", (None, None)), ("31O", "2 ", (None, None)), ("٣١٠", "٢٦", (None, None)),
])  # fmt: skip
def test_a_network_is_named_by_three_and_by_two_or_three_digits(mcc: str, mnc: str, kept: tuple[str, str]) -> None:
    one = told(mcc=mcc, mnc=mnc)
    assert (one.mcc, one.mnc) == kept


NOON = datetime(2026, 7, 1, 12, 0)  # noqa: DTZ001 - as a parser gives it


@pytest.mark.parametrize(("at", "zone", "kept"), [
    (NOON, None, None),
    (NOON, ZoneInfo("Europe/London"), datetime(2026, 7, 1, 11, 0, tzinfo=UTC)),
    (NOON.replace(tzinfo=UTC), ZoneInfo("Europe/London"), datetime(2026, 7, 1, 12, 0, tzinfo=UTC)),
    (NOON.replace(tzinfo=timezone(timedelta(hours=-5))), None, datetime(2026, 7, 1, 17, 0, tzinfo=UTC)),
    (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), None, None),
    (None, ZoneInfo("Europe/London"), None),
])  # fmt: skip
def test_a_time_without_a_zone_is_the_links_or_none(at: datetime | None, zone: Any, kept: datetime | None) -> None:
    one = told(Link("acme", timezone=zone), occurred_at=at, sent_at=at)
    assert (one.occurred_at, one.sent_at) == (kept, kept)


@pytest.mark.parametrize(("shown", "zone", "kept"), [
    ("2026-11-01 00:59:59", "America/New_York", datetime(2026, 11, 1, 4, 59, 59, tzinfo=UTC)),
    ("2026-11-01 01:00", "America/New_York", None),
    ("2026-11-01 01:59:59", "America/New_York", None),
    ("2026-11-01 02:00", "America/New_York", datetime(2026, 11, 1, 7, tzinfo=UTC)),
    ("2026-03-08 02:30", "America/New_York", None),
    ("2026-03-08 03:00", "America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("2026-04-05 01:45", "Australia/Lord_Howe", None),
    ("2026-04-05 01:29", "Australia/Lord_Howe", datetime(2026, 4, 4, 14, 29, tzinfo=UTC)),
    ("2028-02-29 00:00", "Asia/Kathmandu", datetime(2028, 2, 28, 18, 15, tzinfo=UTC)),
])  # fmt: skip
def test_a_time_that_the_links_clocks_show_twice_or_never_names_no_moment(
    shown: str, zone: str, kept: datetime | None
) -> None:
    at = datetime.fromisoformat(shown)
    one = told(Link("acme", timezone=ZoneInfo(zone)), occurred_at=at, sent_at=at)
    assert (one.occurred_at, one.sent_at) == (kept, kept)


# What is kept of what is broken -------------------------------------------------------------------------------------

GOOD, BAD, LOST = Receipt("m1", Status.SENT), Receipt(None, Status.SENT), Broken(b"", "no status")


def test_each_broken_element_is_kept_with_its_own_bytes_where_the_vendor_can_tell_them_apart() -> None:
    callback = replace(EMPTY, body=b"[a,b,c]")
    apart = gateway(GOOD, BAD, Broken(b"own", "said"), split=lambda _: [b"a", b"b", b"c"])
    assert [one.raw for one in read(apart, callback, HERE) if isinstance(one, Broken)] == [b"b", b"own"]
    for split in (None, lambda _: [b"a", b"b"]):
        whole = read(gateway(GOOD, BAD, Broken(b"own", "said"), split=split), callback, HERE)
        assert [one.raw for one in whole if isinstance(one, Broken)] == [b"[a,b,c]", b"own"]


def test_of_a_get_the_query_is_kept_without_our_token() -> None:
    callback = replace(EMPTY, method="GET", query="id=7&token=secret&tokens=2")
    (one,) = read(gateway(BAD), callback, HERE)
    assert one == Broken(b"id=7&tokens=2", "neither a message id nor a number")


# Proof, and what was asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("secrets", "proven"), [
    ((), False), (("right",), True), (("wrong",), False), (("wrong", "right"), True), (("right", "wrong"), True),
])  # fmt: skip
def test_any_live_secret_proves_the_origin(secrets: tuple[str, ...], *, proven: bool) -> None:
    assert prove(gateway(), EMPTY, Link("acme", secrets=secrets)) is proven


def test_a_blank_secret_proves_nothing_and_a_proof_that_trips_is_none() -> None:
    def verify(_: Callback, secret: str, __: Link) -> bool:
        return {"": True, " ": True, "good": True}[secret]

    one = Gateway("acme", "", lambda _: (), verify, lambda _: Reply())
    said = [prove(one, EMPTY, Link("acme", secrets=s)) for s in ((" ",), ("",), ("odd",), ("odd", "good"))]
    assert said == [False, False, False, True]


def test_an_answer_counts_for_the_messages_that_were_asked_about() -> None:
    def answer(said: HttpAnswer, _: object) -> list[Receipt | Broken]:
        return [Receipt(message_id, Status.DELIVERED) for message_id in said.body.decode().split(",")] + [LOST]

    inquiry = Inquiry("", "", (), lambda _, __: Call("GET", ""), answer)
    asked = [Missed("m1", "+15555551234", None, None)]
    one = gateway(inquiry=inquiry)
    said = answered(one, HttpAnswer(200, {}, b"m1,m2"), asked, HERE)
    assert [r.message_id for r in said if isinstance(r, Receipt)] == ["m1"]
    assert LOST in said
    assert [type(r) for r in answered(one, HttpAnswer(200, {}, b"\xff"), asked, HERE)] == [Broken]
    assert answered(gateway(), HttpAnswer(200, {}, b"m1"), asked, HERE) == []
