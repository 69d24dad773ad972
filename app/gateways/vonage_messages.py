"""Vonage's Messages API: one status a JSON post, for the whole message, signed by a token over the body.

Its other channels (WhatsApp, Viber, Messenger) post here too. What a chat says of a person says nothing of the number
for SMS: it is answered, and not taken.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from msgspec.structs import replace

from app.gateways import _jwt, _verify
from app.gateways._fields import Said, an_object, count, first, json, moment, need, origin, part, plus, text
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

SPACE = "vonage_messages"

# developer.vonage.com/en/messages/concepts/messages-status-callbacks
STATUS = {
    "submitted": Status.SENT,
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "rejected": Status.REJECTED,
    "undeliverable": Status.UNDELIVERABLE,  # Vonage did not reach its own supplier: nothing about the handset
}
EXPIRED = "1360"
"""`rejected` with this error is a message whose time ran out."""
UNREPORTED = "1490"
"""Not all parts were reported in time: whether it arrived is not known, whatever the status beside it."""

SMS, PHONES = "sms", frozenset({"sms", "mms", "rcs"})


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said = an_object(json(callback.body))
    channel = _channel(said)
    inbound = "status" not in said and bool(said.keys() & {"message_type", "message"})
    if channel not in PHONES or inbound:
        return [Inbound()]
    word, code = need(said, "status"), cause(part(said, "error"))
    network = first(part(said, "destination"), "network_code") or ""
    return [
        Receipt(
            message_id=need(said, "message_uuid"),
            status=status(word, code),
            word=None if code == UNREPORTED else word,
            number=plus(_address(said, "to")),
            sender=origin(_address(said, "from")),
            code=code,
            code_space=SPACE if channel == SMS else None,  # that a handset takes no MMS says nothing about SMS
            mcc=network[:3],
            mnc=network[3:],
            segments=count(part(said, channel).get("count_total")),
            occurred_at=moment(said.get("timestamp")),
        )
    ]


def _channel(said: Said) -> str:
    """`sms` where none is named. The first version of the API has it in `to`, beside the number."""
    return (first(said, "channel") or first(part(said, "to"), "type") or SMS).lower()


def _address(said: Said, name: str) -> str | None:
    return first(part(said, name), "number", "id") if isinstance(said.get(name), dict) else first(said, name)


def status(word: str, code: str | None) -> Status:
    read = Status.UNKNOWN if code == UNREPORTED else STATUS.get(word.lower(), Status.UNKNOWN)
    return Status.EXPIRED if read is Status.REJECTED and code == EXPIRED else read


def cause(error: Said) -> str | None:
    """The number of the error: its title, a number or a text; else what stands behind the `#` of its type."""
    title = error.get("title")
    for said in (title, (first(error, "type") or "").rpartition("#")[2], error.get("code")):
        if (code := text(said)) and code.isascii() and code.isdigit():
            return code
    return text(title)


def verify(callback: Callback, secret: str, link: Link) -> bool:
    """`Authorization: Bearer`, a token signed by the account's signature secret (not by the application's key)."""
    claimed = _jwt.claims(_token(callback), secret, {"HS256": "sha256"})
    given = need(claimed, "payload_hash").lower().encode()
    same = hmac.compare_digest(sha256(callback.body).hexdigest().encode(), given)
    return same and _verify.timely(claimed.get("iat"), callback, link)


def _token(callback: Callback) -> str:
    scheme, _, token = callback.header("authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def sign(callback: Callback, secret: str, _: Link) -> Callback:
    claimed = {
        "iss": "Vonage", "iat": int(callback.at.timestamp()), "jti": _verify.unique(),
        "payload_hash": sha256(callback.body).hexdigest(),
    }  # fmt: skip
    token = _jwt.signed(claimed, secret)
    return replace(callback, headers={**callback.headers, "authorization": f"Bearer {token}"})


gateway = Gateway(
    name="vonage-messages",
    docs="https://developer.vonage.com/en/messages/concepts/messages-status-callbacks",
    parse=parse,
    verify=verify,
    sign=sign,
    hint="the secret is the signature secret of the account, not the private key of the application",
    nonce=lambda callback: first(_jwt.unproven(_token(callback)), "jti"),
    words=frozenset({"text", "caption"}),
)
