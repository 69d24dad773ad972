"""Azure Communication Services through Event Grid: an array of events (or CloudEvents), up to 5,000 a request.

Nothing is signed: our token stands in the URL of the endpoint. Before the first event the endpoint must repeat a code,
with a 200 and nothing else (learn.microsoft.com, end-point-validation); of CloudEvents it asks by OPTIONS. Whatever
the events' schema, names are read without regard to case: samples of 2020 write `MessageId`, those of today `messageId`
and `Tag`.
"""

from __future__ import annotations

import re
from datetime import datetime

import orjson

from app.gateways import _fields, _verify
from app.gateways._fields import (
    CANNOT_READ,
    Said,
    Unreadable,
    an_object,
    count,
    each,
    first,
    moment,
    need,
    origin,
    plus,
)
from app.models.receipt import Broken, Callback, Gateway, Inbound, Receipt, Reply, Status

REPORT = "microsoft.communication.smsdeliveryreportreceived"
VALIDATION = b"SubscriptionValidationEvent"
STATUS = {"delivered": Status.DELIVERED, "failed": Status.UNDELIVERABLE}
"""There are no others: their page of SMS events."""

UNREPORTED = "5002"
"""`Failed` by name: the carrier gives no reports, and in most cases the message arrived (Microsoft's answers, 2026)."""

_CODE = re.compile(r"\s*(?:\w+\s*[:=]\s*)?(\d{4})(?!\d)", re.ASCII)
"""`deliveryStatusDetails` is a code, or a sentence that may begin with one. Of the rest nothing is kept."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    return each(_events(callback), lambda event: receipt(_folded(an_object(event))))


def receipt(event: Said) -> Receipt | Inbound:
    if _kind(event) not in {"", REPORT}:  # a message of a person, or of another channel
        return Inbound()
    data = _folded(an_object(event.get("data")))
    word, found = need(data, "deliverystatus"), _CODE.match(first(data, "deliverystatusdetails") or "")
    code = found and found[1]
    return Receipt(
        message_id=need(data, "messageid"),
        status=Status.UNKNOWN if code == UNREPORTED else STATUS.get(word.lower(), Status.UNKNOWN),
        word=None if code == UNREPORTED else word,
        number=plus(first(data, "to")),
        sender=origin(first(data, "from")),
        code=code,
        code_space="azure_acs_sms",
        segments=_segments(data.get("deliveryattempts")),
        occurred_at=_at(data.get("receivedtimestamp")) or _at(event.get("eventtime") or event.get("time")),
    )


def _folded(said: Said) -> Said:
    return {name.lower(): value for name, value in said.items()}


def _segments(attempts: object) -> int | None:
    """The parts of the last attempt, those that arrived and those that did not."""
    last = attempts[-1] if isinstance(attempts, list) and attempts else None
    said = _folded(last) if isinstance(last, dict) else {}
    return (count(said.get("segmentssucceeded")) or 0) + (count(said.get("segmentsfailed")) or 0) or None


def _at(value: object) -> datetime | None:
    """A time; `0001-01-01` is how .NET writes that there is none."""
    at = moment(value)
    return at if at and at.year > 1 else None


def _events(callback: Callback) -> list[object]:
    """All but the handshake, to which `reply` has the answer."""
    said = _fields.json(callback.body)
    return [event for event in (said if isinstance(said, list) else [said]) if not _is_handshake(event)]


def _is_handshake(event: object) -> bool:
    return isinstance(event, dict) and _kind(_folded(event)).encode().endswith(VALIDATION.lower())


def _kind(event: Said) -> str:
    """What an event says that it is; of the two schemas each has its own name for it."""
    return (first(event, "eventtype", "type") or "").lower()


def split(callback: Callback) -> list[bytes]:
    return [orjson.dumps(event) for event in _events(callback)]


def reply(callback: Callback) -> Reply:
    """To the handshake its code, as JSON; to anything else an empty 200."""
    if VALIDATION not in callback.body[:65_536]:
        return Reply()
    try:
        return Reply(body=orjson.dumps({"validationResponse": _validation(callback)}), content_type="application/json")
    except CANNOT_READ:
        return Reply()


def _validation(callback: Callback) -> str:
    said = _fields.json(callback.body)
    event = _folded(an_object(said[0] if isinstance(said, list) else said))
    if not _is_handshake(event):
        raise Unreadable("no handshake")
    return need(_folded(an_object(event.get("data"))), "validationcode")


def consent(callback: Callback) -> dict[str, str]:
    """To whoever asks for CloudEvents: the origin that it names may post, as often as it likes.

    Both headers must be there, and the same origin (CloudEvents, web hooks for event delivery, 4.2).
    """
    origin = callback.header("webhook-request-origin")
    asked = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"} if origin else {}
    return {"Allow": "GET, POST, OPTIONS", **asked}


gateway = Gateway(
    name="azure-acs",
    docs="https://learn.microsoft.com/azure/event-grid/communication-services-telephony-sms-events",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    reply=reply,
    code_space="azure_acs_sms",
    hint="put the token into the URL of the event subscription's webhook: ?token=SECRET",
    split=split,
    consent=consent,
    words=frozenset({"message"}),
)
