"""CM.com's status reports: JSON or XML of a template, or a GET by a template of ours. All values are texts.

The only id is the `reference` that was given when it was sent. The clock names no zone.
"""

from __future__ import annotations

import orjson

from app.gateways import _fields, _verify
from app.gateways._fields import Said, Unreadable, an_object, bare, each, first, form, moment, need, origin, part, plus
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Status

# From memory of the vendor's list: unverified
STATUS = {
    "0": Status.SENT,  # accepted by the operator
    "1": Status.REJECTED,
    "2": Status.DELIVERED,
    "3": Status.UNDELIVERABLE,
    "4": Status.DELIVERED,  # read
}
FAILED = frozenset({"1", "3"})


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    return each(_messages(callback), lambda said: report(an_object(said)))


def _messages(callback: Callback) -> list[object]:
    """One a request, says the page; several are read too."""
    body = bare(callback)
    if body[:1] == b"<":
        found = _fields.outermost(_fields.xml(body), "msg", "MSG")
        return [lowered(_fields.said_by(one)) for one in found] or _none()
    if body[:1] in (b"{", b"["):
        said = _fields.json(body)
        msg = part(an_object(said), "messages").get("msg") if isinstance(said, dict) else said
        return (msg or _none()) if isinstance(msg, list) else [said if msg is None else msg]
    return [lowered(form(callback))]


def _none() -> list[object]:
    raise Unreadable("no msg")


def lowered(said: Said) -> dict[str, object]:
    """XML has the names of the JSON in capitals, and so have older templates."""
    return {name.lower(): lowered(value) if isinstance(value, dict) else value for name, value in said.items()}


def report(said: Said) -> Receipt | Inbound:
    if "status" not in said and "groupings" in said:  # a person's, to which three of them belong
        return Inbound()
    told = part(said, "status") or said  # by GET all is flat
    word = need(told, "code", "status")
    code, network = first(told, "errorCode", "errorcode", "statusdescription") or "0", first(said, "operator") or ""
    return Receipt(
        message_id=need(said, "reference"),
        status=STATUS.get(word, Status.UNKNOWN),
        word=word,
        number=plus(first(said, "to", "gsm")),
        sender=origin(first(said, "from", "sender")),
        code=code if word in FAILED and code.strip("0") else None,
        mcc=network[:3],
        mnc=network[3:],
        occurred_at=moment(said.get("received")),
    )


def split(callback: Callback) -> list[bytes]:
    """Nothing for a form or a GET: it is one report, and is kept whole, without our token."""
    whole = bare(callback)[:1] not in (b"<", b"{", b"[")
    return [] if whole else [orjson.dumps({"messages": {"msg": one}}) for one in _messages(callback)]


gateway = Gateway(
    name="cm",
    docs="https://developers.cm.com/messaging/docs/incoming-status-report",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    hint="nothing is signed: add ?token=… to the URL; give every message a reference when you send it",
    split=split,
    words=frozenset({"text", "body"}),
)
