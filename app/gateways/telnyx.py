"""Telnyx's message webhooks: one message, each recipient with a status of its own, signed with Ed25519.

The words of the message come back in `payload.text`: they are not read, nor kept with what is broken in a group.
"""

from __future__ import annotations

import base64
import re

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.gateways import _verify
from app.gateways._fields import Said, Unreadable, an_object, count, each, first, json, moment, need, part
from app.models.lookup import LineType
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

# telnyx-python, types/outbound_message_payload.py
STATUS = {
    "scheduled": Status.ACCEPTED,
    "queued": Status.ACCEPTED,
    "sending": Status.ACCEPTED,
    "sent": Status.SENT,
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "delivery_unconfirmed": Status.UNKNOWN,  # the carrier gave no receipt
    "sending_failed": Status.REJECTED,
    "delivery_failed": Status.UNDELIVERABLE,
    "expired": Status.EXPIRED,
    "cancelled": Status.REJECTED,  # by us, before its time came
}
FAILED = frozenset({"sending_failed", "delivery_failed"})
EXPIRED = frozenset({"40005", "40014"})
WORDS = frozenset({"text", "body", "subject", "media", "to", "cc", "errors"})
"""What is not kept with a broken recipient: the words, and what is about others."""
LINES: dict[str, LineType] = {
    "Wireline": "landline",
    "Wireless": "mobile",
    "VoWiFi": "mobile",  # calls over Wi-Fi, of a mobile subscription
    "VoIP": "voip",
    "Pre-Paid Wireless": "mobile",
}


def parse(callback: Callback) -> list[Receipt | Broken | Inbound]:
    event = _event(callback)
    payload = part(event, "payload")
    if first(event, "event_type") == "message.received" or payload.get("direction") == "inbound":
        return [Inbound()]
    if first(event, "record_type") == "link_clicked":  # by somebody; it has no event type
        return [Inbound()]
    if not need(event, "event_type").startswith("message."):
        raise Unreadable("an event that is about no message")
    return [*each(_recipients(payload), lambda one: receipt(event, payload, one))]


def _event(callback: Callback) -> Said:
    """What stands under `data`; its page of callbacks shows the event without it."""
    said = an_object(json(callback.body))
    return part(said, "data") or said


def _recipients(payload: Said) -> list[tuple[str, object]]:
    """Those of `to`, and of a group's `cc`, each with its place as an error's `source.pointer` writes it."""
    found = [(f"/{name}/{place}", one) for name in ("to", "cc") for place, one in enumerate(_list(payload, name))]
    if not found:
        raise Unreadable("no recipient")
    return found


def _list(said: Said, name: str) -> list[object]:
    found = said.get(name)
    return found if isinstance(found, list) else []


def receipt(event: Said, payload: Said, one: tuple[str, object]) -> Receipt:
    place, to = one[0], an_object(one[1])
    word = need(to, "status")
    code = _code(payload, place) if word in FAILED or word == "expired" else None
    return Receipt(
        message_id=need(payload, "id"),
        status=Status.EXPIRED if _is_expired(payload, word, code) else STATUS.get(word, Status.UNKNOWN),
        word=None if word in STATUS else word,
        number=first(to, "phone_number"),
        sender=first(part(payload, "from"), "phone_number", "agent_id"),
        code=code,
        code_space="telnyx",
        carrier=first(to, "carrier"),
        line_type=LINES.get(first(to, "line_type") or ""),
        segments=count(payload.get("parts")),
        occurred_at=moment(payload.get("completed_at")) or moment(event.get("occurred_at")),
        sent_at=moment(payload.get("sent_at")),
    )


def _is_expired(payload: Said, word: str, code: str | None) -> bool:
    """By the code; or because it was never sent and, without any other reason, its time was over."""
    if word != "sending_failed" or code is not None:
        return word in FAILED and code in EXPIRED
    ended, valid = moment(payload.get("completed_at")), moment(payload.get("valid_until"))
    return bool(ended and valid and ended.tzinfo and valid.tzinfo and valid <= ended)


def _code(payload: Said, place: str) -> str | None:
    return next((first(error, "code") for error in _errors(payload, place)), None)


def _errors(payload: Said, place: str) -> list[Said]:
    """Those that point at this recipient, then those that point at nobody."""
    errors: list[Said] = [one for one in _list(payload, "errors") if isinstance(one, dict)]
    pointed = [(one, str(part(one, "source").get("pointer"))) for one in errors]
    its = [one for one, pointer in pointed if f"{place}/" in f"{pointer}/"]
    return its + [one for one, pointer in pointed if not _POINTS.search(pointer)]


_POINTS = re.compile(r"/(to|cc)/\d")


def split(callback: Callback) -> list[bytes]:
    """The event once for each recipient: with that one and its errors alone, and without the words."""
    event = _event(callback)
    payload = part(event, "payload")
    return [_alone(event, payload, *one) for one in _recipients(payload)]


def _alone(event: Said, payload: Said, place: str, to: object) -> bytes:
    kept = {name: value for name, value in payload.items() if name not in WORDS}
    errors = [{name: value for name, value in one.items() if name != "source"} for one in _errors(payload, place)]
    return orjson.dumps({"data": {**event, "payload": kept | {"to": [to]} | ({"errors": errors} if errors else {})}})


def verify(callback: Callback, secret: str, link: Link) -> bool:
    """Ed25519 over `timestamp|body`; the secret is the account's public key, in base64."""
    stamp = callback.header("telnyx-timestamp")
    signed = _verify.decoded(callback.header("telnyx-signature-ed25519"))
    try:
        _key(secret).verify(signed, f"{stamp}|".encode("latin-1", "replace") + callback.body)
    except InvalidSignature:
        return False
    return _verify.timely(stamp, callback, link)


def _key(secret: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(secret, validate=True))


def sign(_: Callback, secret: str, __: Link) -> None:
    """Telnyx alone can: it keeps the private key. Raises ValueError for what is no public key, such as an API key."""
    _key(secret)


gateway = Gateway(
    name="telnyx",
    docs="https://developers.telnyx.com/docs/messaging/messages/receiving-webhooks",
    parse=parse,
    verify=verify,
    sign=sign,
    code_space="telnyx",
    hint="the secret is the public key of Mission Control, Keys & Credentials",
    split=split,
    words=frozenset({"text", "subject", "body"}),
)
