"""Syniverse SCG's events (Event Manager): near real time one by one, or many in a file; JSON or XML. Times are in UTC.

Its guide to messaging events (v1.2) has the fields inside of an envelope, and some customers get them alone. So one
tolerant reader takes the fields from wherever they stand.
"""

from __future__ import annotations

from lxml import etree

from app.gateways import _fields, _verify
from app.gateways._fields import (
    Said,
    Unreadable,
    apart,
    batch,
    count,
    each,
    first,
    is_xml,
    moment,
    need,
    origin,
    part,
    plus,
)
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Status

STATES = {
    "CREATED": Status.ACCEPTED,
    "QUEUED": Status.ACCEPTED,
    "SENT": Status.SENT,
    "DELIVERED": Status.DELIVERED,
    "READ": Status.DELIVERED,
    "CONVERTED": Status.DELIVERED,  # the person did what the message asked for
    "FAILED": Status.UNDELIVERABLE,  # or as the code says, below
    "EXPIRED": Status.EXPIRED,
}
SUCCESS = "200"
"""The reason of what has not failed."""
# Syniverse's article on SCG error codes; a carrier's own status has up to three digits
CODES = {
    **dict.fromkeys(("1001", "1003", "1004", "1005", "1006", "1012", "1015", "1019", "1039", "1067"), Status.REJECTED),
    "1007": Status.EXPIRED,
    "smpp:23": Status.REJECTED,
}


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    if is_xml(callback):
        return each(map(_fields.said_by, _events(callback)), event)
    return batch(_fields.json(callback.body), event)


def event(said: Said) -> Receipt | Inbound:
    inner = part(said, "event") or said
    fields, kind = part(inner, "fld-val-list") or inner, first(inner, "evt-tp", "event_type") or ""
    if kind == "mo_message_received" or "message_body" in fields or "mo_price" in fields:
        return Inbound()
    if kind not in {"", "message_state_change"}:  # ports and deactivations of watched numbers come as NIS-Events
        raise Unreadable("an event that is about no message")
    word = need(fields, "new_state", "state")
    code = _code(fields) if word.upper() in {"FAILED", "EXPIRED"} else None
    became = STATES.get(word.upper(), Status.UNKNOWN)
    return Receipt(
        message_id=need(fields, "message_id", "message-id"),
        status=CODES.get(code or "", became),
        word=word,
        number=plus(first(fields, "to_address")),
        sender=origin(first(fields, "from_address")),
        code=code,
        code_space="syniverse_scg",
        carrier=first(fields, "carrier_name"),
        segments=count(fields.get("fragments_count")),
        occurred_at=moment(inner.get("timestamp")),
    )


def _code(fields: Said) -> str | None:
    code = first(fields, "reason_code", "failure_code", "error_code")
    if code == SUCCESS:
        return None
    return f"smpp:{code}" if code and code.isdecimal() and int(code[:4]) < 1000 else code  # noqa: PLR2004


def _events(callback: Callback) -> list[etree._Element]:
    root = _fields.xml(callback.body)
    lists = [one.getparent() for one in _fields.outermost(root, "fld-val-list")]
    return [one for one in dict.fromkeys(lists) if one is not None] or [root]


def split(callback: Callback) -> list[bytes]:
    if is_xml(callback):
        return [etree.tostring(one, with_tail=False) for one in _events(callback)]
    return apart(callback)


gateway = Gateway(
    name="syniverse",
    docs="https://sdcdocumentation.syniverse.com/index.php/reporting/event-manager/overview",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_basic,
    code_space="syniverse_scg",
    hint="authentication BASIC in the delivery configuration: any user, the secret as password",
    split=split,
    words=frozenset({"message_body"}),
)
