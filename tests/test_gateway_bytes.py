"""Every gateway against bytes that nobody meant to send: it reads them or keeps them, in time, and never trips."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from app.gateways import prove, read
from app.models.receipt import Broken, Callback, Gateway, Link, Receipt
from app.services.unread import as_kept
from tests.bent import bent
from tests.gateway_cases import CASES, Case, each_gateway

LINKS = st.sampled_from([
    Link("any"),
    Link("any", timezone=ZoneInfo("America/New_York"), codes={"304": "3041"}, sender="12345", code_space="openmarket"),
    Link("any", region="GB", timezone=UTC),
])  # fmt: skip


@st.composite
def nearly_right(draw: st.DrawFn, gateway: Gateway) -> Callback:
    """A recorded callback of the vendor, bent in one to three places."""
    recordings = [case.callback for case in CASES if case.gateway is gateway and len(case.callback.body) < 4096]
    callback = draw(st.sampled_from(recordings))
    for _ in range(draw(st.integers(1, 3))):
        callback = draw(st.sampled_from([bent_body, bent_body, bent_pairs]))(draw, callback)
    return callback


def bent_body(draw: st.DrawFn, callback: Callback) -> Callback:
    return structs.replace(callback, body=bent(draw, callback.body))


def bent_pairs(draw: st.DrawFn, callback: Callback) -> Callback:
    text = callback.body.decode("latin-1") or callback.query
    pairs = parse_qsl(text, keep_blank_values=True, encoding="latin-1") or [("st", "1")]
    place = draw(st.integers(0, len(pairs) - 1))
    pairs[place] = (pairs[place][0], draw(st.text(max_size=40) | st.sampled_from(["9" * 5000, "%", "\0", "-", "1.5"])))
    made = urlencode(pairs[: draw(st.integers(1, len(pairs)))] + pairs[:1], errors="surrogatepass", encoding="utf-8")
    return structs.replace(callback, body=made.encode()) if callback.body else structs.replace(callback, query=made)


# A recorded callback is read in well under a millisecond, and none of these is over 16 KiB. A second is a thousand
# times that, room for a busy machine; what grows out of proportion (a regular expression, an entity) needs far longer.
SOON = timedelta(seconds=1)


@each_gateway
@settings(max_examples=250, deadline=SOON)
@given(data=st.data(), link=LINKS)
def test_a_callback_that_is_nearly_right_is_read_or_kept(gateway: Gateway, data: st.DataObject, link: Link) -> None:
    check_sound(gateway, data.draw(nearly_right(gateway)), link)


# Not by chance: every place of every recorded shape, with each of these in it.

WRONG: list[Any] = [None, True, 0, -1, 1.5, "", " ", "\0", "x", "9" * 30, [], {}, [None], {"x": {"x": []}}]


def shapes(gateway: Gateway) -> Iterator[Callback]:
    """One recorded callback for each set of names that the vendor was seen to use."""
    seen = set()
    for case in CASES:
        callback = case.callback
        if case.gateway is gateway and len(callback.body) < 4096:
            shape = (callback.method, *sorted(map(str, {*places(said_in(callback))})), *sorted(callback.params()))
            if shape not in seen:
                seen.add(shape)
                yield callback


def said_in(callback: Callback) -> Any:
    """The body as a tree: JSON as it is; a form, or the query where there is no body, as an object; None: neither."""
    try:
        return json.loads(callback.body)
    except ValueError:
        if re.search(rb"[<{\[]", callback.body):
            return None
        return callback.form() if callback.body else callback.params()


def places(said: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    inner = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    for name, value in inner:
        yield from places(value, (*at, name))


GONE = object()


def with_it(said: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """The same with another value at this place, or without the place."""
    if not at:
        return change(said)
    copy = said.copy()
    changed = with_it(copy[at[0]], at[1:], change)
    if changed is GONE:
        del copy[at[0]]
    else:
        copy[at[0]] = changed
    return copy


def saying(callback: Callback, said: Any) -> Callback:
    """The callback with this in the place of what it said; in a form all is text."""
    if is_json(callback):
        return structs.replace(callback, body=json.dumps(said).encode())
    pairs = urlencode({name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()})
    return structs.replace(callback, body=pairs.encode()) if callback.body else structs.replace(callback, query=pairs)


@each_gateway
def test_every_place_of_every_shape_may_be_missing_or_hold_anything(gateway: Gateway) -> None:
    link = Link("any", timezone=ZoneInfo("America/New_York"), codes={"304": "3041"}, sender="12345")
    tried = 0
    for callback in shapes(gateway):
        for changed in misshapen(callback):
            check_sound(gateway, changed, link)
            tried += 1
    assert tried > 50


def misshapen(callback: Callback) -> Iterator[Callback]:
    said = said_in(callback)
    changes: list[Callable[[Any], Any]] = [lambda it: [it], lambda it: {"x": it}, lambda _: GONE]
    changes += [lambda _, wrong=wrong: wrong for wrong in WRONG]
    if said is None:  # XML, or one a line
        yield from (structs.replace(callback, body=body) for body in torn(callback.body))
        lines = callback.body.split(b"\n")
        for line in lines if len(lines) > 1 else ():
            yield from misshapen(structs.replace(callback, body=line))
        return
    for at in places(said):
        for change in changes if at else changes[:2]:
            changed = with_it(said, at, change)
            if isinstance(changed, dict) or is_json(callback):
                yield saying(callback, changed)


def is_json(callback: Callback) -> bool:
    return callback.body.lstrip()[:1] in (b"{", b"[")


def torn(body: bytes) -> Iterator[bytes]:
    """XML with each attribute and each text emptied, spoilt or gone, and each element without what stands in it."""
    for found in re.finditer(rb'\s[\w:]+="([^"]*)"|>([^<]+)<|<(\w+)[^<>]*>(?=.*</\3>)', body, re.DOTALL):
        for wrong in (b"", b"x", b"-1", b"9" * 30, b"<a/>", b"&#1;"):
            group = 1 if found[1] is not None else 2 if found[2] is not None else 0
            yield body[: found.start(group)] + wrong + body[found.end(group) :]


@each_gateway
def test_a_number_written_as_text_and_digits_written_as_a_number_say_the_same(gateway: Gateway) -> None:
    for case in CASES:
        if case.gateway is not gateway or len(case.callback.body) > 4096 or not is_json(case.callback):
            continue
        said = said_in(case.callback)
        for at in places(said) if said is not None else ():
            changed = saying(case.callback, with_it(said, at, other_kind))
            assert read_as_told(case, changed) == read_as_told(case, case.callback), (case.name, at)


def other_kind(value: Any) -> Any:
    if isinstance(value, str) and value.isascii() and value.isdigit() and str(int(value)) == value:
        return int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def read_as_told(case: Case, callback: Callback) -> list[Any]:
    return [one.reason if isinstance(one, Broken) else one for one in read(case.gateway, callback, case.link)]


@each_gateway
@settings(max_examples=150, deadline=SOON)
@given(body=st.binary(max_size=4096), query=st.text(max_size=200), method=st.sampled_from(["GET", "POST"]), link=LINKS)
def test_any_bytes_and_any_query_are_read_or_kept(
    gateway: Gateway, body: bytes, query: str, method: str, link: Link
) -> None:
    check_sound(gateway, Callback(method, "https://dlr.example.com/", {"content-type": query}, query, body), link)


@each_gateway
@pytest.mark.parametrize("error", [KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError])
def test_a_parser_that_trips_never_puts_what_it_read_into_the_reason(gateway: Gateway, error: type[Exception]) -> None:
    def parse(_: Callback) -> list[Receipt | Broken]:
        raise error("+15555551234")

    (broken,) = read(replace(gateway, parse=parse), Callback("POST", "", {}, "", b"+15555551234"), Link(gateway.name))
    assert broken == Broken(b"+15555551234", f"unexpected shape ({error.__name__})")


def check_sound(gateway: Gateway, callback: Callback, link: Link) -> None:
    """Whatever came: every receipt can be stored and every broken one told, and the same bytes say the same again."""
    found = read(gateway, callback, link)
    assert found == read(gateway, callback, link)
    assert 200 <= gateway.reply(callback).status < 300
    for one in found:
        if isinstance(one, Broken):
            check_broken(one)
            kept = as_kept(callback, link, one, gateway)
            assert (
                as_kept(structs.replace(callback, query=kept.query), link, replace(one, raw=kept.body), gateway).body
                == kept.body
            )
        elif isinstance(one, Receipt):
            check_storable(one)


def check_broken(broken: Broken) -> None:
    assert not re.search(r"\d{7}", broken.reason)
    assert isinstance(broken.raw, bytes)


def check_storable(receipt: Receipt) -> None:
    limits = {
        "message_id": 256,
        "code": 64,
        "code_space": 64,
        "carrier": 128,
        "sender": 64,
        "word": 64,
        "mcc": 3,
        "mnc": 3,
    }
    for name in receipt.__struct_fields__:
        value = getattr(receipt, name)
        if isinstance(value, str):
            assert "\0" not in value.encode().decode()
            assert len(value) <= limits.get(name, 20)
            assert value or name in {"gateway", "account"}
        if isinstance(value, datetime):
            assert value.tzinfo is UTC
    assert receipt.message_id or receipt.number
    assert receipt.number is None or re.fullmatch(r"\+[1-9]\d{3,16}", receipt.number)
    assert all(part is None or 1 <= part <= 1000 for part in (receipt.segment, receipt.segments))


HOSTILE = {
    "an endless line": b"x" * 8_000_000,
    "an endless number": b'{"status":"sent","message_id":' + b"9" * 8_000_000 + b"}",
    "an endless text": b'{"status":"sent","message_id":"' + b"9" * 8_000_000 + b'"}',
    "an array of millions": b"[" + b"0," * 4_000_000 + b"0]",
    "lines by the million": b"0\n" * 4_000_000,
    "an array in an array in an array": b"[" * 8_000_000,
    "an element in an element in an element": b"<a>" * 2_000_000,
    "an attribute without end": b'<deliveryReceipt ticketId="'
    + b"9" * 8_000_000
    + b'"><response code="4"/></deliveryReceipt>',
    "attributes by the ten thousand": b"<a " + b" ".join(b'a%d=""' % place for place in range(50_000)) + b"/>",
    "an event of many lists": b"<event>" + b"<fld-val-list/>" * 5_000 + b"</event>",
    "results in results, messages in messages": b"<result>" * 99
    + b"<MSG>" * 99
    + b"<a/>" * 200_000
    + b"</MSG>" * 99
    + b"</result>" * 99,
    "pairs by the million": b"a=1&" * 2_000_000,
    "a text that is all escapes": b"id=1&st=2&a=" + b"%E9" * 2_000_000,
    "a text that is all fields": b"id=1&st=2&a=" + b"stat:+" * 1_000_000,
}


@each_gateway
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_eight_megabytes_of_malice_are_refused_in_the_time_of_eight_megabytes(gateway: Gateway, body: bytes) -> None:
    """Measured: at most 0.5 s of processor time, for proof and reading. What is quadratic would take hours."""
    callback = Callback(
        "POST", "https://dlr.example.com/", {"content-type": "application/x-www-form-urlencoded"}, "", body
    )
    began = time.process_time()
    assert not prove(gateway, callback, Link(gateway.name, secrets=("s",)))
    found = read(gateway, callback, Link(gateway.name))
    assert time.process_time() - began < 5
    assert len(found) < 2 * 200_000
