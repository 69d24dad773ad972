"""What your own SMPP client received: a deliver_sm as JSON, its receipt text (Appendix B) and its TLVs as they came.

TLVs come before the text, since centres cut the text and abbreviate in it (SMPP 3.4, 5.3.2). In a receipt the addresses
are turned around: `source_addr` is the handset, `destination_addr` is us.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

from app.gateways import _verify
from app.gateways._fields import (
    MOST,
    Said,
    Unreadable,
    an_object,
    count,
    each,
    first,
    loads,
    moment,
    origin,
    part,
    plus,
    text,
)
from app.gateways._smpp import STAT, Report, cause, error, report
from app.gateways._words import NO_RECEIPT, RECEIPT_TEXT
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Status

# SMPP 3.4, 5.2.28; 0 and 9 are of version 5.0.
STATES = {
    0: "SCHEDULED",
    1: "ENROUTE",
    2: "DELIVRD",
    3: "EXPIRED",
    4: "DELETED",
    5: "UNDELIV",
    6: "ACCEPTD",
    7: "UNKNOWN",
    8: "REJECTD",
    9: "SKIPPED",
}
LONG = {"DELIVERED": "DELIVRD", "UNDELIVERABLE": "UNDELIV", "ACCEPTED": "ACCEPTD", "REJECTED": "REJECTD"}
"""The names of the states as the specification, and so most libraries, write them out."""

TAGS = {
    0x001E: "receipted_message_id",
    0x0427: "message_state",
    0x0423: "network_error_code",
    0x0424: "message_payload",
}
WORDS = ("short_message", "text", "message_payload")
"""Where the text of a receipt stands; a long one comes as a TLV."""

INTERNATIONAL = frozenset({"1", "international"})
KIND, INTERMEDIATE, NETWORK_ERROR = 0x3C, 0x20, 3
"""Bits of esm_class that say what a deliver_sm is, and bytes of a network_error_code: one of network, two of code."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    return each(_elements(callback), lambda element: receipt(an_object(element)))


def receipt(said: Said) -> Receipt | Inbound:
    if _is_inbound(said):
        return Inbound()
    tlvs = _tlvs(said)
    told = report(first(said, *WORDS) or first(tlvs, *WORDS) or "")
    word = _word(tlvs, told)
    became = _status(word, said)
    code, space = cause(became, word, _network_error(tlvs.get("network_error_code")) or told.err)
    return Receipt(
        message_id=first(said, "message_id") or first(tlvs, "receipted_message_id") or told.id,
        status=became,
        word=None if word in STATES.values() else word,
        number=_address(said, "source_addr", plus),
        sender=_address(said, "destination_addr", origin),
        code=code,
        code_space=space,
        carrier=first(said, "carrier"),
        mcc=first(said, "mcc"),
        mnc=first(said, "mnc"),
        occurred_at=moment(said.get("occurred_at")) or told.ended(became),
        sent_at=moment(said.get("sent_at")) or told.submitted,
    )


def _tlvs(said: Said) -> Said:
    """By name, wherever the client put them: beside the rest, or in an object of their own, also by tag (`0x0427`)."""
    own = {**part(said, "optional_parameters"), **part(said, "tlvs")}
    return {name: said.get(name) for name in TAGS.values()} | {_name(tag): value for tag, value in own.items()}


def _name(tag: str) -> str:
    found = re.fullmatch(r"(?:0[xX])?([0-9a-fA-F]{4})", tag)
    return TAGS.get(int(found[1], 16), tag) if found else tag.lower()


def _word(tlvs: Said, told: Report) -> str:
    """The state as the seven letters of the text. A number in the text (`stat:0`) is the centre's own, and nobody's."""
    state = first(tlvs, "message_state")
    if state is None:
        if told.stat is None:
            raise Unreadable("no message_state, and no stat in the text")
        return told.stat
    number = count(state)
    return LONG.get(state.upper(), state.upper()) if number is None else STATES.get(number, state)


def _status(word: str, said: Said) -> Status:
    """An intermediate notification tells of an attempt: whatever failed in it, the centre goes on trying."""
    became = Status.ACCEPTED if word == "SCHEDULED" else STAT.get(word, Status.UNKNOWN)
    if became is not Status.DELIVERED and _kind(said) == INTERMEDIATE:
        return Status.SENT
    return became


def _kind(said: Said) -> int | None:
    bits = count(said.get("esm_class"))
    return None if bits is None else bits & KIND


def _is_inbound(said: Said) -> bool:
    """Whether it is plainly a message from a handset: esm_class calls it no receipt, and no state is in it.

    Some centres leave esm_class 0 in receipts.
    """
    if _kind(said) != 0 or _tlvs(said).get("message_state") is not None:
        return False
    words = [said.get(name) for name in WORDS]
    return not any(report(one).stat for one in words if isinstance(one, str))


_HEX = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2}\s*){3})")


def _network_error(value: object) -> str | None:
    """`030BE1`, [3, 11, 225] or {"network_type": 3, "code": 3041}: 3041. 0 is none.

    A bare number could be the code or all three bytes, so it is not taken for either.
    """
    if isinstance(value, dict):
        return error(text(value.get("code")))
    if value in (None, "", []):
        return None
    found = _HEX.fullmatch(value) if isinstance(value, str) else None
    raw = bytes.fromhex(found[1]) if found else bytes(map(int, value)) if isinstance(value, list) else b""
    if len(raw) != NETWORK_ERROR:
        raise Unreadable('network_error_code is not three bytes: write six hex digits, such as "030BE1"')
    return str(int.from_bytes(raw[1:])) if any(raw[1:]) else None


def _address(said: Said, name: str, international: Callable[[str | None], str | None]) -> str | None:
    number, ton = first(said, name), text(said.get(f"{name}_ton")) or ""
    return international(number) if ton.lower() in INTERNATIONAL else number


def _elements(callback: Callback) -> list[object]:
    """One object, an array of them, or one a line."""
    try:
        said = loads(callback.body)
    except orjson.JSONDecodeError:
        said = [*map(_line, _lines(callback.body))]
    return said if isinstance(said, list) else [said]


def _lines(body: bytes) -> list[bytes]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not 1 < len(lines) <= MOST:  # one line that is no JSON is none of many
        raise Unreadable("not JSON")
    return lines


def _line(line: bytes) -> object:
    try:
        return loads(line)
    except orjson.JSONDecodeError:
        return line


def split(callback: Callback) -> list[bytes]:
    return [one if isinstance(one, bytes) else orjson.dumps(one) for one in _elements(callback)]


gateway = Gateway(
    name="smpp",
    docs="docs/gateways/smpp.md",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    hint="set `code_space` to the space of your carrier's `err` codes: without it they are kept, and act on nobody",
    split=split,
    words=frozenset({RECEIPT_TEXT, NO_RECEIPT}),
)
