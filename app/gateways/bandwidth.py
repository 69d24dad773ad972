"""Bandwidth's message callbacks: a JSON array, nearly always of one event, for one recipient. Times are in UTC.

A message to a group has one id for all its recipients: the handset is the event's own `to`, never `message.to`.
"""

from __future__ import annotations

from app.gateways import _verify
from app.gateways._fields import Said, Unreadable, apart, batch, count, first, json, moment, need, part
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Status

# Bandwidth's page on messaging webhooks
TYPES = {
    "message-queued": Status.SENT,  # of MMS, as its older pages name message-sending
    "message-sending": Status.SENT,
    "message-sent": Status.SENT,
    "message-delivered": Status.DELIVERED,  # for long codes and MMS often only to the carrier
    "message-read": Status.DELIVERED,
    "message-failed": Status.UNDELIVERABLE,  # or as its code says, below
}
# Its library for Python has named the last one in both ways.
FROM_PEOPLE = frozenset({
    "message-received", "suggestion-response", "requested-location-response", "request-location-response",
})  # fmt: skip
# Its page on messaging errors: 4xxx was refused, by Bandwidth or (47xx) by the carrier, and 5xxx may pass.
CODES = {
    "4360": Status.EXPIRED,
    "9902": Status.UNKNOWN,  # no receipt came in time: the message may well have arrived
}
ABOUT_THE_NUMBER = frozenset({
    *("4303", "4350", "4404", "4406", "4408", "4409", "4420", "4434", "4492"),
    *("4700", "4701", "4702", "4720", "4721", "4730", "4753", "4775"),
})  # fmt: skip
"""Codes of 4xxx by which the message did not reach this number; with the others it was refused for what it is."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    return batch(json(callback.body), event)


def event(said: Said) -> Receipt | Inbound:
    message, kind = part(said, "message"), need(said, "type")
    if kind in FROM_PEOPLE or message.get("direction") == "in":
        return Inbound()
    if not kind.startswith("message-"):
        raise Unreadable("an event that is about no message")
    code = first(said, "errorCode")
    return Receipt(
        message_id=need(message, "id"),
        status=status(kind, code),
        word=None if kind in TYPES else kind,
        number=first(said, "to"),
        sender=first(message, "from") or first(message, "owner"),
        code=code,
        code_space="bandwidth",
        carrier=first(said, "carrierName"),
        segments=count(message.get("segmentCount")),
        occurred_at=moment(said.get("eventTime") or said.get("time")),
        sent_at=moment(message.get("time")),
    )


def status(kind: str, code: str | None) -> Status:
    if kind != "message-failed" or not code:
        return TYPES.get(kind, Status.UNKNOWN)
    if code in CODES:
        return CODES[code]
    return Status.REJECTED if code.startswith("4") and code not in ABOUT_THE_NUMBER else Status.UNDELIVERABLE


gateway = Gateway(
    name="bandwidth",
    docs="https://dev.bandwidth.com/docs/messaging/webhooks/",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_basic,
    challenge=_verify.challenge,  # else it does not come again: docs, "Authentication"
    code_space="bandwidth",
    hint="callback user and password of the messaging application: any user, the secret as password",
    split=apart,
    words=frozenset({"text"}),
)
