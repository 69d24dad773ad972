"""8x8's (formerly Wavecell's) delivery receipts: one a request, JSON or XML, the status in `payload.status`.

`outboundContent`, on the first receipt of a message, holds its words: it is not read.
"""

from __future__ import annotations

from app.gateways import _fields, _verify
from app.gateways._fields import Said, Unreadable, apart, bare, batch, count, first, moment, need, origin, part, plus
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Status

# developer.8x8.com, message status references
STATES = {
    "queued": Status.ACCEPTED,
    "sent": Status.SENT,
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "undelivered": Status.UNDELIVERABLE,
    "rejected": Status.REJECTED,
    "failed": Status.REJECTED,
}
OVERDUE = "36"  # the code of a message that expired: no state says so
FAILED = frozenset({"undelivered", "rejected", "failed"})
CLICKED = "short_url_clicked"
CHATS = "ChatApps"
"""The namespace of WhatsApp and its like: their receipts look the same, and say nothing of the number for SMS."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    body = bare(callback)
    return batch(_fields.said_by(_fields.xml(body)) if body[:1] == b"<" else _fields.json(body), receipt)


def receipt(said: Said) -> Receipt | Inbound:
    kind = first(said, "eventType") or ""
    if kind.startswith("inbound") or kind == CLICKED or first(said, "namespace") == CHATS:
        return Inbound()
    if kind not in {"", "outbound_message_status_changed"}:
        raise Unreadable("an event that is about no message of ours")
    payload = part(said, "payload") or said
    told = part(payload, "status")
    code = first(told, "errorCode") or "0"
    return Receipt(
        message_id=need(payload, "umid"),
        status=status(need(told, "state").lower(), (first(told, "detail") or "").lower(), code),
        word=first(told, "state"),
        number=plus(first(payload, "destination")),
        sender=origin(first(payload, "source")),
        code=code if code.strip("0") else None,
        code_space="8x8",
        segments=count(payload.get("smsCount")),
        occurred_at=moment(told.get("timestamp")),
    )


def status(state: str, detail: str, code: str) -> Status:
    if state == "delivered" and detail == "delivered_to_operator":
        return Status.SENT
    return Status.EXPIRED if state in FAILED and code == OVERDUE else STATES.get(state, Status.UNKNOWN)


gateway = Gateway(
    name="8x8",
    docs="https://developer.8x8.com/connect/docs/delivery-receipts-for-outbound-sms",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    code_space="8x8",
    hint="nothing is signed: add ?token=… to the callback URL; 8x8 gives up after some two minutes",
    split=apart,
    words=frozenset({"outboundcontent", "body", "text"}),
)
