"""Bird, which was MessageBird: the events of its SMS API, and those of the Channels API before it. One event a JSON
post, for the whole message.

An event of another channel, and an interaction, says nothing of a number for SMS: it is answered, and not taken.
"""

from __future__ import annotations

import base64
import hmac
from datetime import timedelta
from hashlib import sha256

from msgspec.structs import replace

from app.gateways import _verify
from app.gateways._fields import Said, Unreadable, an_object, count, first, json, moment, need, origin, part, plus
from app.gateways._smpp import error
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

SPACE = "bird_messagebird"
"""Of the Channels API."""
SMS_SPACE = "bird_sms"

# docs.bird.com/api/channels-api/message-status-and-interactions; events of messagebird-sdk 0.106.0
STATUS = {
    "accepted": Status.ACCEPTED,
    "processing": Status.ACCEPTED,
    "sent": Status.SENT,
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "delivery_failed": Status.UNDELIVERABLE,
    "undelivered": Status.UNDELIVERABLE,
    "failed": Status.UNDELIVERABLE,
    "sending_failed": Status.REJECTED,  # never handed over
    "rejected": Status.REJECTED,
    "skipped": Status.REJECTED,
    "expired": Status.EXPIRED,
}
SMS, RECEIVED = "sms.", "sms.received"
OUTBOUND = "sms.outbound"
PLATFORM = "sms-messagebird"
"""The source whose codes are those of the SMS platform. Others (accounting, contact, …) have codes of their own."""

RETRIES = timedelta(hours=8)
"""For so long Bird sends an event again, with its first time (seen 3 to 4 hours late by a public consumer)."""
WEBHOOK = "whsec_"
"""Before a secret of the SMS API, which signs each try anew."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said = an_object(json(callback.body))
    message = part(said, "payload") or said
    if "status" not in message and (kind := first(said, "type")):
        return [event(kind, said)]
    if first(said, "event") not in (OUTBOUND, None) or first(message, "direction") == "incoming":
        return [Inbound()]
    contacts = part(message, "receiver").get("contacts")
    return [report(message, one) for one in (contacts if isinstance(contacts, list) and contacts else [{}])]


def event(kind: str, said: Said) -> Receipt | Inbound:
    """Of the SMS API: `sms.delivered` and its like. Its `carrier_error_code` stands in no table: its word counts."""
    if not kind.startswith(SMS) or kind == RECEIVED:
        return Inbound()
    data, word = part(said, "data"), kind.removeprefix(SMS)
    network = first(data, "mcc_mnc") or ""
    return Receipt(
        message_id=need(data, "sms_id"),
        status=STATUS.get(word, Status.UNKNOWN),
        word=word,
        number=plus(first(data, "to")),
        sender=origin(first(data, "from")),
        code=first(part(data, "error"), "code"),
        code_space=SMS_SPACE,
        carrier=first(data, "carrier"),
        mcc=network[:3],
        mnc=network[3:],
        segments=count(part(data, "segments").get("count")),
        occurred_at=moment(said.get("timestamp")),
    )


def report(message: Said, contact: object) -> Receipt:
    """The receipt of one recipient. An SMS has no more than one."""
    word, (code, space) = need(message, "status"), cause(part(message, "failure"))
    parts = message.get("parts")
    return Receipt(
        message_id=need(message, "id"),
        status=STATUS.get(word.lower(), Status.UNKNOWN),
        word=word,
        number=_number(an_object(contact)),
        sender=origin(first(part(part(message, "sender"), "connector"), "identifierValue")),
        code=code,
        code_space=space,
        segments=len(parts) if isinstance(parts, list) else None,
        occurred_at=moment(message.get("lastStatusAt")),
    )


def _number(contact: Said) -> str | None:
    """A contact may be known by something else than its number: then the register says it."""
    key = first(contact, "identifierKey") or "phonenumber"
    return plus(first(contact, "identifierValue")) if key == "phonenumber" else first(contact, "platformAddress")


def cause(failure: Said) -> tuple[str | None, str | None]:
    """The SMS platform's code; else Bird's own number for the kind of failure, of which no table is known here."""
    source = part(failure, "source")
    if first(source, "name") == PLATFORM and (code := error(first(source, "code"))):
        return code, SPACE
    return error(first(failure, "code")), None


def verify(callback: Callback, secret: str, link: Link) -> bool:
    """By the secret of the webhook, or our token in the URL where a subscription was given no signing key."""
    signed = _signed_as_standard if secret.startswith(WEBHOOK) else _signed
    return True in [_verify.token(callback, secret, link), signed(callback, secret, link)]


def _signed_as_standard(callback: Callback, secret: str, link: Link) -> bool:
    """As Standard Webhooks has it: several signatures stand in the header while a secret is changed."""
    given = [one.removeprefix("v1,") for one in callback.header("webhook-signature").split(" ") if one[:3] == "v1,"]
    made = _standard(callback, secret)
    same = True in [_verify.as_base64(one, made) for one in given]
    return same and _verify.timely(callback.header("webhook-timestamp"), callback, link)


def _standard(callback: Callback, secret: str) -> bytes:
    """HMAC-SHA256 of id, time and body, keyed by the secret as base64 decodes it."""
    head = f"{callback.header('webhook-id')}.{callback.header('webhook-timestamp')}.".encode("latin-1", "replace")
    key = base64.b64decode(secret.removeprefix(WEBHOOK), validate=True)
    if not key:
        raise Unreadable("a secret without a key: whoever has none could sign")
    return hmac.digest(key, head + callback.body, "sha256")


def _signed(callback: Callback, secret: str, link: Link) -> bool:
    at = callback.header("messagebird-request-timestamp")
    same = _verify.as_base64(callback.header("messagebird-signature"), _signature(callback, secret, at))
    return same and _verify.timely(at, callback, link, late=RETRIES)


def _signature(callback: Callback, secret: str, at: str) -> bytes:
    """HMAC-SHA256 of time, URL and the hash of the body, each in a line."""
    head = f"{at}\n{callback.url}\n".encode("latin-1", "replace")
    return hmac.digest(secret.encode(), head + sha256(callback.body).digest(), "sha256")


def sign(callback: Callback, secret: str, _: Link) -> Callback:
    at = _verify.stamp(callback)
    if secret.startswith(WEBHOOK):
        named = {"webhook-id": f"msg_{_verify.unique()}", "webhook-timestamp": at}
        plain = replace(callback, headers={**callback.headers, **named})
        given = f"v1,{base64.b64encode(_standard(plain, secret)).decode()}"
        return replace(plain, headers={**plain.headers, "webhook-signature": given})
    made = base64.b64encode(_signature(callback, secret, at)).decode()
    signed = {"messagebird-request-timestamp": at, "messagebird-signature": made}
    return replace(callback, headers={**callback.headers, **signed})


gateway = Gateway(
    name="bird",
    docs="https://docs.bird.com/api/channels-api/message-status-and-interactions",
    parse=parse,
    verify=verify,
    sign=sign,
    hint="the secret is the webhook's, `whsec_` and all, or the signing key of a subscription of the Channels API; "
    "set `public_url` to the address that Bird calls",
    words=frozenset({"text"}),
)
