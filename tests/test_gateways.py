"""Every gateway against its recorded cases, against forgers, and against bytes that nobody meant to send.

The cases are data: `tests/gateways/<name>.toml` (docs/adding-a-gateway.md says how to write them). This is the one
driver for all of them; no vendor has test code of its own.
"""

from __future__ import annotations

import base64
import csv
import importlib.util
import json
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import gateways
from app.gateways import GATEWAYS, certificate_at, confirmation_at, custom, cut, once, prove, read, signed_by
from app.gateways._smpp import CAUSES, COMMAND_SPACE, STAT_SPACE, command_status
from app.gateways.jasmin import ESME
from app.gateways.openmarket import status as openmarket_status
from app.models.described import Description
from app.models.receipt import NEVER, Broken, Callback, Gateway, Inbound, Link, Receipt, Status
from app.services.unread import as_kept
from tests.bent import bent
from tests.recorded import filled, one_by_one

REPOSITORY = Path(__file__).parent.parent
RECORDED = Path(__file__).parent / "gateways"
FOLDER = Path(gateways.__file__).parent
CODES = REPOSITORY / "app" / "catalogue" / "codes"


# -- the recorded cases ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One recorded callback and what it means."""

    gateway: Gateway
    name: str
    callback: Callback
    link: Link
    receipts: list[Receipt]
    broken: list[dict[str, str]]
    inbound: int
    reply: dict[str, Any] | None
    secret: str = ""
    covers: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    valid: timedelta = timedelta()
    nonce: str | None = None


def cases_of(gateway: Gateway, path: Path, kind: str = "case") -> Iterator[Case]:
    recorded = tomllib.loads(path.read_text())
    for said in one_by_one(recorded.get(kind, [])):
        yield as_case(described(said.pop("as"), path) if "as" in said else gateway, said)


@cache
def described(name: str, path: Path) -> Gateway:
    """A gateway that a file of cases describes, as a settings file would."""
    table = tomllib.loads(path.read_text())["described"][name]
    return custom.described(name, Description.model_validate(table))


def as_case(gateway: Gateway, said: dict[str, Any]) -> Case:
    wanted = said.get("receipt", [])
    if many := said.get("many"):
        ns = [f"{n:04}" for n in range(many["times"])]
        said["body"] = (
            many["before"] + many["between"].join(filled(many["element"], {"n": n}) for n in ns) + many["after"]
        )
        wanted = [filled(one, {"n": n}) for n in ns for one in wanted]
    link = as_link(gateway, said.get("link", {}))
    return Case(
        gateway=gateway,
        name=f"{gateway.name}: {said['name']}",
        callback=as_callback(gateway, said),
        link=link,
        receipts=[as_receipt(one, link) for one in wanted],
        broken=said.get("broken", []),
        inbound=said.get("inbound", 0),
        reply=said.get("reply"),
        secret=said.get("secret", ""),
        covers=tuple(said.get("covers", ())),
        inside=("token", *said.get("inside", ())),
        valid=timedelta(seconds=said["valid"]) if "valid" in said else link.window,
        nonce=said.get("nonce"),
    )


def as_callback(gateway: Gateway, said: dict[str, Any]) -> Callback:
    body = base64.b64decode(said["body_base64"]) if "body_base64" in said else said.get("body", "").encode()
    url = said.get("url", f"https://dlr.example.com/v1/receipts/{gateway.name}")
    return Callback(
        method=said.get("method", "POST"),
        url=url + (f"?{said['query']}" if said.get("query") else ""),
        headers=said.get("headers", {}),
        query=said.get("query") or url.partition("?")[2],
        body=body,
        at=said.get("at", NEVER),
        certificate=said.get("certificate", "").encode(),
    )


def as_link(gateway: Gateway, said: dict[str, Any]) -> Link:
    zone = {"timezone": ZoneInfo(said["timezone"])} if "timezone" in said else {}
    return Link(gateway.name, account="eu", **{**said, **zone})


def as_receipt(said: dict[str, Any], link: Link) -> Receipt:
    """What the case names, and nothing else told. The vendor's word is told of an unknown status alone."""
    names = {"message_id": None} | said | {"status": Status(said["status"])}
    if names["status"] is not Status.UNKNOWN or names.get("word", "").lower() == Status.UNKNOWN:
        names.pop("word", None)
    return Receipt(**names, gateway=link.gateway, account=link.account)


def recorded(kind: str = "case") -> list[Case]:
    there = [(gateway, RECORDED / f"{name.replace('-', '_')}.toml") for name, gateway in GATEWAYS.items()]
    return [case for gateway, path in there if path.exists() for case in cases_of(gateway, path, kind)]


CASES, PROOFS = recorded(), recorded("proof")
A_MOMENT = timedelta(seconds=2)
"""Some vendors give a second for clocks that differ."""

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_text = pytest.mark.parametrize(
    "case", [case for case in CASES if case.callback.body.lstrip()[:1] in (b"{", b"[", b"<")], ids=lambda one: one.name
)
each_proof = pytest.mark.parametrize("case", PROOFS, ids=lambda case: case.name)
each_signed_time = pytest.mark.parametrize(
    "case", [case for case in PROOFS if case.callback.at != NEVER], ids=lambda case: case.name
)
each_forgery = pytest.mark.parametrize("case", recorded("forgery"), ids=lambda case: case.name)
READERS = [gateway for gateway in GATEWAYS.values() if gateway is not custom.gateway]
READERS += {case.gateway.name: case.gateway for case in CASES if case.gateway not in GATEWAYS.values()}.values()
each_gateway = pytest.mark.parametrize("gateway", READERS, ids=lambda gateway: gateway.name)


def check(case: Case) -> None:
    found = read(case.gateway, case.callback, case.link)
    assert [one for one in found if isinstance(one, Receipt)] == case.receipts
    assert found.count(Inbound()) == case.inbound
    broken = [one for one in found if isinstance(one, Broken)]
    assert [one.reason for one in broken] == [wanted["reason"] for wanted in case.broken]
    for one, wanted in zip(broken, case.broken, strict=True):
        assert one.raw == wanted["raw"].encode() if "raw" in wanted else one.raw == case.callback.body


@each_case
def test_a_recorded_callback_means_what_its_case_says(case: Case) -> None:
    check(case)


@each_text
def test_a_byte_order_mark_in_front_of_json_or_xml_changes_nothing(case: Case) -> None:
    marked = replace(case.callback, body=b"\xef\xbb\xbf" + case.callback.body)
    found, wanted = (read(case.gateway, callback, case.link) for callback in (marked, case.callback))
    assert [one.reason if isinstance(one, Broken) else one for one in found] == [
        one.reason if isinstance(one, Broken) else one for one in wanted
    ]


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_status_that_nobody_knows_arrives_with_the_word_of_the_vendor(name: str) -> None:
    """So that `GET /v1/codes/unknown` lists it: each gateway has such a case, and `check` compares its word."""
    cases = [case for case in CASES if case.gateway.name.partition("/")[0] == name]
    words = {one.word: case for case in cases for one in case.receipts if one.word}
    assert words
    for word, case in words.items():
        said = f"{case.callback.query} {case.callback.body.decode()}"
        assert all(part.removeprefix("st=") in said for part in word.split("/")), word


@each_case
def test_the_vendor_hears_what_it_counts_as_success(case: Case) -> None:
    answer = case.gateway.reply(case.callback)
    wanted = case.reply or {"status": 200, "body": answer.body.decode()}
    assert (answer.status, answer.body.decode()) == (wanted["status"], wanted["body"])


@each_case
def test_what_was_kept_as_broken_is_broken_when_it_is_read_again(case: Case) -> None:
    for one in read(case.gateway, case.callback, case.link):
        if isinstance(one, Broken):
            again = read(case.gateway, Callback("POST", "", {}, "", one.raw), case.link)
            assert again
            assert all(isinstance(other, Broken) for other in again)


@each_case
def test_words_of_a_message_are_never_kept(case: Case) -> None:
    """Nor with what is kept as unread: not of a part that is broken, nor when nothing of it can be read any more."""
    found = read(case.gateway, case.callback, case.link)
    for one in [*found, Broken(case.callback.body, "not read"), Broken(case.callback.body[:-9], "cut off")]:
        kept = as_kept(case.callback, case.link, one, case.gateway) if isinstance(one, Broken) else one
        assert not re.search(r"bar(\+| |%20)560", repr(kept), re.IGNORECASE)


# -- who it comes from -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("names", "raw", "kept"), [
    ("text", '{"id":"1","text":"a \\"b\\" \\\\","to":"2"}', '{"id":"1","text":"","to":"2"}'),
    ("text", '{"Text" :\n "a","text":["b"],"text":{"text":"c"}', '{"Text" :\n "","text":["b"],"text":{"text":""}'),
    ("text", '{"context":"a","text":null,"text":7}', '{"context":"a","text":null,"text":7}'),
    ("text", '{"id":"1","text":"never ends', '{"id":"1","text":"'),
    ("text", "id=1&text=a+b%26c&to=2&context=d", "id=1&text=&to=2&context=d"),
    ("Text", "Text=a&id=1", "Text=&id=1"),
    ("text", "<x:text n='1'>b</x:text><text><![CDATA[<b>]]></text>", "<x:text n='1'></x:text><text></text>"),
    ("text:", "id=1&a=stat%3AUNDELIV+err%3A027+text%3Aa+b&to=2", "id=1&a=stat%3AUNDELIV+err%3A027+text%3A&to=2"),
    ("text:", "a=stat:UNDELIV%20Text:a%20b", "a=stat:UNDELIV%20Text:"),
    ("text:", '[{"text":"id:1 stat:UNDELIV err:1 text:a \\" b"},7]', '[{"text":"id:1 stat:UNDELIV err:1 text:"},7]'),
    ("text:", "id:1 stat:UNDELIV text:a b & c", "id:1 stat:UNDELIV text:& c"),
    ("stat:", '{"short_message":"a \\" b","body":"id:1 STAT:X"}', '{"short_message":"","body":"id:1 STAT:X"}'),
    ("stat:", '[{"text":"a"},{"stat":"stat:X"}]', '[{"text":""},{"stat":"stat:X"}]'),
])  # fmt: skip
def test_words_are_cut_and_all_the_rest_stays_as_it_came(names: str, raw: str, kept: str) -> None:
    assert cut(raw.encode(), frozenset({names.lower()})) == kept.encode()


@pytest.mark.parametrize("part", [
    b"<text ", b"<text>", b"<text><![CDATA[", b'"text"', b'"text":"', b'"text"   ', b"text=", b"&text=a", b"text%3A",
    b"text:", b'"text":"stat ', b"\\", b'"',
])  # fmt: skip
def test_words_are_cut_in_the_time_of_the_bytes(part: bytes) -> None:
    raw, began = part * (1_000_000 // len(part)), time.process_time()
    for first in (b"", b"{"):
        cut(first + raw, frozenset({"text", "body", "text:", "stat:"}))
    assert time.process_time() - began < 5


def proven(case: Case, *secrets: str, callback: Callback | None = None) -> bool:
    return prove(case.gateway, callback or case.callback, replace(case.link, secrets=secrets))


@each_proof
def test_the_right_secret_proves_the_origin(case: Case) -> None:
    assert proven(case, case.secret)


@each_proof
def test_both_secrets_are_good_while_rotating_and_the_old_one_is_refused_after(case: Case) -> None:
    assert proven(case, "the-next-secret", case.secret)
    assert proven(case, case.secret, "the-next-secret")
    assert not proven(case, "the-next-secret")


@each_proof
def test_without_a_live_secret_nothing_is_proven(case: Case) -> None:
    for secrets in ((), ("",), (" ",), ("", "\t")):
        assert not proven(case, *secrets)
        assert not proven(case, *secrets, callback=unproven(case))


@each_proof
def test_a_callback_without_its_proof_is_refused(case: Case) -> None:
    assert not proven(case, case.secret, callback=unproven(case))


@each_proof
def test_a_proof_of_which_one_character_differs_is_refused(case: Case) -> None:
    for name, value in case.callback.headers.items():
        if name != "content-type":
            forged = replace(case.callback, headers={**case.callback.headers, name: altered(value)})
            assert not proven(case, case.secret, callback=forged), name
    for name in case.inside:
        forged = rewritten(case.callback, name, altered)
        assert forged == case.callback or not proven(case, case.secret, callback=forged), name


@each_proof
def test_what_a_signature_covers_cannot_be_altered(case: Case) -> None:
    if "body" in case.covers:
        assert not proven(case, case.secret, callback=replace(case.callback, body=case.callback.body + b"&a=1"))
        assert not proven(case, case.secret, callback=replace(case.callback, body=case.callback.body[:-1] + b"!"))
    if "query" in case.covers:
        for query in (case.callback.query + "&a=1", altered(case.callback.query)):
            assert not proven(case, case.secret, callback=replace(case.callback, query=query))
    if "url" in case.covers:
        assert not proven(case, case.secret, callback=replace(case.callback, url=case.callback.url + "&a=1"))
    if {"url", "path"} & set(case.covers):
        for url in (case.callback.url.replace("dlr.", "evil."), case.callback.url.replace("://dlr.", "://dlr./a")):
            assert not proven(case, case.secret, callback=replace(case.callback, url=url))


@each_signed_time
def test_a_proof_that_has_expired_is_refused(case: Case) -> None:
    assert proven(case, case.secret, callback=replace(case.callback, at=case.callback.at + case.valid - A_MOMENT))
    for at in (case.valid + A_MOMENT, timedelta(days=1), timedelta(days=400)):
        assert not proven(case, case.secret, callback=replace(case.callback, at=case.callback.at + at))


@each_signed_time
def test_a_proof_that_is_ahead_of_its_time_is_refused(case: Case) -> None:
    for early in (case.link.window + A_MOMENT, timedelta(days=1)):
        assert not proven(case, case.secret, callback=replace(case.callback, at=case.callback.at - early))


@each_signed_time
def test_a_callback_that_nobody_has_dated_does_not_pass_for_a_fresh_one(case: Case) -> None:
    assert not proven(case, case.secret, callback=replace(case.callback, at=NEVER))


@each_proof
def test_what_a_vendor_signs_but_once_is_told(case: Case) -> None:
    assert (once(case.gateway, case.callback, case.link) is None) == (case.nonce is None)
    if case.nonce and case.gateway.nonce:
        assert case.gateway.nonce(case.callback) == case.nonce


@each_proof
def test_a_body_that_is_signed_as_it_stands_is_refused_with_any_bit_changed(case: Case) -> None:
    if "bits" in case.covers:
        whole = int.from_bytes(case.callback.body, "big")
        for place in range(8 * len(case.callback.body)):
            body = (whole ^ 1 << place).to_bytes(len(case.callback.body), "big")
            assert not proven(case, case.secret, callback=replace(case.callback, body=body)), place


@each_forgery
def test_a_forgery_is_refused(case: Case) -> None:
    assert not proven(case, case.secret)


@each_gateway
@settings(max_examples=30)
@given(
    headers=st.dictionaries(st.sampled_from(["authorization", "x-sendable-token"]), st.text(max_size=80)),
    data=st.data(),
)
def test_nothing_that_a_stranger_sends_proves_or_breaks_anything(
    gateway: Gateway, headers: dict[str, str], data: st.DataObject
) -> None:
    names = {name for case in PROOFS if case.gateway is gateway for name in case.callback.headers} | {"content-type"}
    headers = headers | data.draw(st.dictionaries(st.sampled_from(sorted(names)), st.text(max_size=80)))
    callback = Callback(
        "POST", "https://[dlr:x/?" + data.draw(st.text()), headers, data.draw(st.text()), data.draw(st.binary())
    )
    link = Link(gateway.name, secrets=("a secret that is nowhere",))
    assert not prove(gateway, callback, link)
    assert certificate_at(gateway, callback, link) is None
    assert confirmation_at(gateway, callback) is None
    assert isinstance(once(gateway, callback, link), UUID | None)


def takes_our_token(gateway: Gateway) -> bool:
    return prove(gateway, tokened(gateway, b""), Link(gateway.name, secrets=("token-of-ours",)))


def tokened(gateway: Gateway, body: bytes) -> Callback:
    query = "token=token-of-ours"
    return Callback("POST", f"https://dlr.example.com/v1/receipts/{gateway.name}?{query}", {}, query, body)


@pytest.mark.parametrize("gateway", [*filter(takes_our_token, READERS)], ids=lambda gateway: gateway.name)
@settings(max_examples=50)
@given(body=st.one_of(st.binary(), st.sampled_from([b"{", b"[", b"<a", b"a=" + b"1" * 70_000, b'{"sig":1}', b"\xff"])))
def test_our_token_proves_the_origin_of_what_cannot_be_read_too(gateway: Gateway, body: bytes) -> None:
    """It is kept as unread and answered as success: a 403 would make the vendor repeat or drop it."""
    assert prove(gateway, tokened(gateway, body), Link(gateway.name, secrets=("token-of-ours",)))


def unproven(case: Case) -> Callback:
    """The same without a signature, token or password."""
    kept = {name: value for name, value in case.callback.headers.items() if name == "content-type"}
    callback = replace(case.callback, headers=kept)
    for name in case.inside:
        callback = rewritten(callback, name, lambda _: "")
    return callback


def rewritten(callback: Callback, name: str, change: Callable[[str], str]) -> Callback:
    """The same with another value under this name in the query, the form or the JSON."""
    pair = re.compile(rf'((?:^|&){name}=|"{name}":\s*")([^&"]+)')
    query, body = (
        pair.sub(lambda found: found[1] + change(found[2]), text)
        for text in (callback.query, callback.body.decode("latin-1"))
    )
    return replace(callback, query=query, body=body.encode("latin-1"))


def altered(text: str) -> str:
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]


# -- bytes that nobody meant to send -----------------------------------------------------------------------------------

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
    return replace(callback, body=bent(draw, callback.body))


def bent_pairs(draw: st.DrawFn, callback: Callback) -> Callback:
    text = callback.body.decode("latin-1") or callback.query
    pairs = parse_qsl(text, keep_blank_values=True, encoding="latin-1") or [("st", "1")]
    place = draw(st.integers(0, len(pairs) - 1))
    pairs[place] = (pairs[place][0], draw(st.text(max_size=40) | st.sampled_from(["9" * 5000, "%", "\0", "-", "1.5"])))
    made = urlencode(pairs[: draw(st.integers(1, len(pairs)))] + pairs[:1], errors="surrogatepass", encoding="utf-8")
    return replace(callback, body=made.encode()) if callback.body else replace(callback, query=made)


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
        return replace(callback, body=json.dumps(said).encode())
    pairs = urlencode({name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()})
    return replace(callback, body=pairs.encode()) if callback.body else replace(callback, query=pairs)


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
        yield from (replace(callback, body=body) for body in torn(callback.body))
        lines = callback.body.split(b"\n")
        for line in lines if len(lines) > 1 else ():
            yield from misshapen(replace(callback, body=line))
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


def test_what_was_cut_once_is_not_cut_again():
    raw = b'{"text": "id:77 done date:261stat:ENROUTE err:00A Text:stat:DELIVRD err:603"}'
    names = GATEWAYS["smpp"].words
    assert cut(cut(raw, names), names) == cut(raw, names)
    assert b"603" not in cut(raw, names)


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
                as_kept(replace(callback, query=kept.query), link, replace(one, raw=kept.body), gateway).body
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


# -- tables that must agree --------------------------------------------------------------------------------------------

REJECTED_REASONS = {
    *("request_error", "invalid_message"),
    *("account_error", "billing"),
    *("invalid_sender", "sender_blocked", "sender_not_registered"),
    *("content_blocked", "stale_carrier"),
}
NOT_FAILED = {
    "accepted": {Status.ACCEPTED, Status.SENT},
    "in_progress": {Status.ACCEPTED, Status.SENT},
    "delivered": {Status.DELIVERED},
    "expired": {Status.EXPIRED},
}


def codes_of(space: str) -> dict[str, str]:
    with (CODES / f"{space}.csv").open(newline="") as table:
        return {row["code"]: row["reason"] for row in csv.DictReader(table)}


def test_every_openmarket_code_has_the_status_that_its_reason_asks_for() -> None:
    wrong = {
        code: (reason, openmarket_status(code))
        for code, reason in codes_of("openmarket").items()
        if openmarket_status(code)
        not in NOT_FAILED.get(reason, {Status.REJECTED if reason in REJECTED_REASONS else Status.UNDELIVERABLE})
    }
    assert not wrong


def test_every_code_space_that_a_gateway_names_is_in_the_catalogue() -> None:
    named = {case.code_space for one in CASES for case in one.receipts if case.code_space}
    spaces = named | {gateway.code_space for gateway in GATEWAYS.values() if gateway.code_space}
    assert {space for space in spaces if not (CODES / f"{space}.csv").exists()} == set()


def test_the_names_of_smpp_answers_are_codes_of_the_catalogue() -> None:
    known = codes_of(COMMAND_SPACE)
    assert {command_status(number) for number in ESME.values()} == set(known) - {command_status(0)}
    assert codes_of(STAT_SPACE).keys() >= CAUSES


# -- nothing missing ---------------------------------------------------------------------------------------------------


def missing(name: str, gateway: Gateway) -> list[str]:
    """What a gateway still lacks of: one code file, one file of cases, one row, one page."""
    module = name.replace("-", "_")
    cases, page = RECORDED / f"{module}.toml", REPOSITORY / "docs" / "gateways" / f"{name}.md"
    recordings = tomllib.loads(cases.read_text()) if cases.exists() else {}
    wanted = {
        f"app/gateways/{file_of(name)}.py: a gateway whose name is {name!r}": gateway.name == name,
        f"tests/gateways/{module}.toml: [[case]] with its source": recordings.get("case")
        and all(case.get("source") for case in recordings["case"]),
        f"tests/gateways/{module}.toml: a [[case.receipt]] with the `word` of an unknown status": any(
            "word" in one for case in recordings.get("case", []) for one in case.get("receipt", [])
        ),
        f"tests/gateways/{module}.toml: [[proof]]": recordings.get("proof"),
        f"docs/gateways.md: a row | [{name}](gateways/{name}.md) | …": name in rows(),
        f"docs/gateways/{name}.md: with the address /v1/receipts/{name}": page.exists()
        and f"/v1/receipts/{name}" in page.read_text(),
        f"docs/gateways/{name}.md: its settings, [gateways.{name}]": page.exists()
        and re.search(rf"^\[gateways\.{name}[\].]", page.read_text(), re.MULTILINE),
        f"docs/gateways/{name}.md: what was checked": page.exists() and re.search(r"\bChecked: ", page.read_text()),
    }
    return [what for what, there in wanted.items() if not there]


def file_of(name: str) -> str:
    return ("_" if name[0].isdigit() else "") + name.replace("-", "_")


def rows() -> dict[str, list[str]]:
    """The table of docs/gateways.md, by gateway."""
    lines = (REPOSITORY / "docs" / "gateways.md").read_text().splitlines()
    found = [re.match(r"\| \[([a-z0-9-]+)\]\(gateways/\1\.md\) \|", line) for line in lines]
    return {row[1]: row.string.strip("| ").split(" | ") for row in found if row}


def test_every_gateway_has_its_code_its_cases_its_row_and_its_page() -> None:
    assert [what for name, gateway in GATEWAYS.items() for what in missing(name, gateway)] == []


def test_no_case_row_or_page_speaks_of_a_gateway_that_is_not_there() -> None:
    named = {path.stem.replace("_", "-") for path in RECORDED.glob("*.toml")}
    named |= {path.stem for path in (REPOSITORY / "docs" / "gateways").glob("*.md")} | rows().keys()
    assert named - GATEWAYS.keys() == set()


def test_the_folder_is_the_registry() -> None:
    shared = {"__init__", "_fields", "_jwt", "_smpp", "_verify", "_vonage_reports", "_words"}
    assert {file_of(name) for name in GATEWAYS} == {path.stem for path in FOLDER.glob("*.py")} - shared


# -- the way to a new gateway, walked ----------------------------------------------------------------------------------


def test_the_written_way_to_a_new_gateway_leads_there(tmp_path: Path) -> None:
    """Takes the files out of docs/adding-a-gateway.md as a stranger would, and drives what they make."""
    files = dict(re.findall(r"^`([\w/.]+)`[^\n]*\n\n```\w+\n(.*?)```", adding(), re.DOTALL | re.MULTILINE))
    (code, cases, row) = (
        files[name] for name in ("app/gateways/acme.py", "tests/gateways/acme.toml", "docs/gateways.md")
    )
    (tmp_path / "acme.py").write_text(code)
    (tmp_path / "acme.toml").write_text(cases)
    acme = imported(tmp_path / "acme.py")
    for case in cases_of(acme, tmp_path / "acme.toml"):
        check(case)
    (proof,) = cases_of(acme, tmp_path / "acme.toml", "proof")
    assert proven(proof, proof.secret)
    assert not proven(proof, "another")
    signed = signed_by(acme, replace(proof.callback, headers={}), "another", proof.link)
    assert proven(proof, "another", callback=signed)
    assert len(row.strip("| \n").split(" | ")) == len(rows()["native"])


def adding() -> str:
    return (REPOSITORY / "docs" / "adding-a-gateway.md").read_text()


def imported(path: Path) -> Gateway:
    spec = importlib.util.spec_from_file_location("acme", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gateway: Gateway = module.gateway
    return gateway
