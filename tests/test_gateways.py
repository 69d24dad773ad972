"""Every gateway against its recorded cases and against forgers.

This is the one driver for all of them; no vendor has test code of its own. The cases are data (`gateway_cases.py`).
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.gateways import GATEWAYS, certificate_at, confirmation_at, cut, once, prove, read
from app.models.receipt import NEVER, Broken, Callback, Gateway, Inbound, Link, Receipt
from app.services.unread import as_kept
from tests.gateway_cases import CASES, PROOFS, READERS, Case, check, each_gateway, proven, recorded

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


ANYWHERE = GATEWAYS.keys() - {"custom", "kannel", "native", "smpp"}
"""Who always writes international numbers. With the others it is for the customer to say, or they may be national."""
DANISH = "4512345678"
"""Of ten digits, as an American one."""
PLUSSED = {"aws-eum", "telnyx", "twilio"}
"""Who write the plus of a sender themselves, where it is a number."""


# -- what it says ------------------------------------------------------------------------------------------------------


@each_case
def test_a_recorded_callback_means_what_its_case_says(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", [case for case in CASES if case.gateway.name in ANYWHERE], ids=lambda case: case.name)
def test_international_numbers_are_the_same_whatever_our_own_country(case: Case) -> None:
    check(dataclasses.replace(case, link=dataclasses.replace(case.link, region="DE")))


@pytest.mark.parametrize("region", ["US", "DE"])
@pytest.mark.parametrize("name", sorted(ANYWHERE - {"jasmin", "messagebird"}))  # which name no sender
def test_a_sender_of_another_country_is_none_of_ours_though_its_plus_is_left_out(name: str, region: str) -> None:
    told = [case for case in CASES if case.gateway.name == name and case.link.sender is None]
    cases = [(case, one.sender.removeprefix("+")) for case in told for one in case.receipts if one.sender]
    for case, sender in cases[: 1 if name in PLUSSED else None]:
        written = re.compile(re.escape(sender), re.IGNORECASE)
        called = replace(
            case.callback,
            query=written.sub(DANISH, case.callback.query),
            body=written.sub(DANISH, case.callback.body.decode()).encode(),
        )
        found = read(case.gateway, called, dataclasses.replace(case.link, region=region))
        assert f"+{DANISH}" in {one.sender for one in found if isinstance(one, Receipt)}, case.name


@each_text
def test_a_byte_order_mark_in_front_of_json_or_xml_changes_nothing(case: Case) -> None:
    marked = replace(case.callback, body=b"\xef\xbb\xbf" + case.callback.body)
    found, wanted = (read(case.gateway, callback, case.link) for callback in (marked, case.callback))
    assert [one.reason if isinstance(one, Broken) else one for one in found] == [
        one.reason if isinstance(one, Broken) else one for one in wanted
    ]


SHAPES = {(case.gateway.name, case.callback.body.lstrip()[:1]): case for case in CASES if any(
    one.message_id for one in case.receipts)}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES.values(), ids=lambda case: case.name)
def test_a_message_id_of_blanks_is_none(case: Case) -> None:
    """The next one that is read counts, where there is one; else the receipt is as one without an id."""
    form = re.match(rb"[\w-]+=|$", case.callback.body)

    def with_ids(said: str) -> list[Receipt | Inbound | str]:
        callback = case.callback
        for one in {one.message_id for one in case.receipts if one.message_id}:
            body, query = callback.body.replace(one.encode(), said.encode()), callback.query.replace(one, said)
            callback = replace(callback, body=body, query=query)
        return [one.reason if isinstance(one, Broken) else one for one in read(case.gateway, callback, case.link)]

    assert with_ids("%20+" if form else "  ") == with_ids("")


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
    wanted = case.reply or {"status": 200, "body": ""}
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


# -- the words of a message --------------------------------------------------------------------------------------------


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


def test_what_was_cut_once_is_not_cut_again():
    raw = b'{"text": "id:77 done date:261stat:ENROUTE err:00A Text:stat:DELIVRD err:603"}'
    names = GATEWAYS["smpp"].words
    assert cut(cut(raw, names), names) == cut(raw, names)
    assert b"603" not in cut(raw, names)


# -- who it comes from -------------------------------------------------------------------------------------------------


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
def test_other_words_that_no_signature_covers_make_no_other_callback_of_a_copy(case: Case) -> None:
    """Else whoever saw one request with its signature could say with it what he likes."""
    seen, more = case.callback, "&Status=failed"
    said = read(case.gateway, seen, case.link)
    for other in (
        replace(seen, body=seen.body + more.encode()),
        replace(seen, query=seen.query + more, url=f"{seen.url}{'&' if seen.query else '?'}{more}"),
    ):
        if case.nonce and proven(case, case.secret, callback=other) and read(case.gateway, other, case.link) != said:
            assert once(case.gateway, other, case.link) == once(case.gateway, seen, case.link)


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
