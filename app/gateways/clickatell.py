"""Clickatell's status callbacks: the One API, and the older Communicator / Connect by `code_space` in the settings.

Both number their statuses from 1, and 5 is "the device has it" in one and "error in the message" in the other. So a
word is believed before its number, and a number alone means what the settings say, or nothing.
"""

from __future__ import annotations

import orjson

from app.gateways import _fields, _verify
from app.gateways._fields import (
    Said,
    Unreadable,
    an_object,
    apart,
    bare,
    batch,
    first,
    form,
    moment,
    need,
    origin,
    part,
    plus,
)
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Status

ONE_API, CLASSIC = "clickatell_one_api", "clickatell_status"

# docs.clickatell.com, One API message status table: word and number
WORDS = {
    "UNKNOWN": ("1", Status.UNKNOWN),
    "QUEUED": ("2", Status.ACCEPTED),
    "SCHEDULED": ("3", Status.ACCEPTED),
    "SENT_TO_SUPPLIER": ("4", Status.SENT),
    "DEVICE_ACK": ("5", Status.DELIVERED),
    "READ": ("6", Status.DELIVERED),
    "EXPIRED": ("20", Status.EXPIRED),
    "STOPPED_BY_USER": ("21", Status.REJECTED),
    "STOPPED_BY_ADMIN": ("22", Status.REJECTED),
    "DELIVERY_FAILURE": ("23", Status.UNDELIVERABLE),
    "EMULATED": ("24", Status.SENT),  # by the sandbox: it went nowhere
    "INSUFFICIENT_ACCOUNT_BALANCE": ("25", Status.REJECTED),
    "VOLUME_LIMIT": ("26", Status.REJECTED),
    "DAILY_VOLUME_LIMIT": ("27", Status.REJECTED),
    "MONTHLY_VOLUME_LIMIT": ("28", Status.REJECTED),
    "RECIPIENT_DOES_NOT_EXIST": ("29", Status.UNDELIVERABLE),
    "ROUTING_ERROR": ("100", Status.UNDELIVERABLE),
}
SMS, UPDATES = "sms", "messageStatusUpdate"
"""The One API's callbacks hold an event with an array of these, or of what people wrote, on any channel."""
REFUSED = {str(number): Status.REJECTED for number in (60, 61, *range(80, 86))}  # encryption, media
# archive.clickatell.com, "push status and cost notification"
OLD = {
    "1": Status.UNKNOWN,
    "2": Status.ACCEPTED,
    "3": Status.SENT,
    "4": Status.DELIVERED,
    "5": Status.REJECTED,
    "6": Status.REJECTED,
    "7": Status.UNDELIVERABLE,
    "8": Status.ACCEPTED,
    "9": Status.REJECTED,
    "10": Status.EXPIRED,
    "11": Status.ACCEPTED,
    "12": Status.REJECTED,
    "14": Status.REJECTED,
}


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    body = bare(callback)
    if not body and not callback.params().keys() - {"token"}:  # how the older product tries an address out
        return []
    if body[:1] in (b"{", b"["):
        said = _fields.json(body)
        event = part(said, "event") if isinstance(said, dict) else {}
        if event and UPDATES not in event:
            return [Inbound()]
        return batch(event[UPDATES] or _none() if event else said, receipt)
    if body[:1] != b"<":
        told = form(callback)
        if "data" not in told:
            return [receipt(told)]
        body = told["data"].encode()  # the older product's XML, in a form or by GET
    return [receipt(_fields.said_by(_fields.xml(body)))]


def _none() -> object:
    raise Unreadable(f"no {UPDATES}")


def receipt(said: Said) -> Receipt | Inbound:
    said = part(said, "data") or said  # the older product's JSON
    if (first(said, "channel") or SMS).lower() != SMS:
        return Inbound()
    number, word = first(said, "statusCode", "messageStatus"), first(said, "status") or ""
    if word.isdecimal():  # the older product writes the number there
        number, word = number or word, ""
    if not (number or word):
        return inbound(said)
    known = WORDS.get(word.strip().upper().replace(" ", "_"))
    return Receipt(
        message_id=need(said, "messageId", "apiMsgId", "apiMessageId"),
        status=known[1] if known else Status.UNKNOWN,
        word=None if known else word or number,
        number=plus(first(said, "to")),
        sender=origin(first(said, "from")),
        code=known[0] if known else number,
        code_space=ONE_API if known else None,
        occurred_at=moment(said.get("timestamp")),
    )


def inbound(said: Said) -> Inbound:
    """A person's message has `fromNumber`, `toNumber` and `text`, and no status (nyaruka/courier)."""
    if "toNumber" in said or "text" in said:
        return Inbound()
    raise Unreadable("no status")


def split(callback: Callback) -> list[bytes]:
    body = bare(callback)
    updates = part(an_object(_fields.json(body)), "event").get(UPDATES) if body[:1] == b"{" else None
    if not isinstance(updates, list):
        return apart(callback)
    return [orjson.dumps({"event": {UPDATES: [one]}}) for one in updates]


gateway = Gateway(
    name="clickatell",
    docs="https://docs.clickatell.com/channels/sms-channels/sms-api-reference/",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    hint='set code_space: "clickatell_one_api", or for Communicator and Connect "clickatell_status"',
    split=split,
    statuses={ONE_API: dict(WORDS.values()) | REFUSED, CLASSIC: OLD},
    words=frozenset({"text", "content", "data"}),
)
