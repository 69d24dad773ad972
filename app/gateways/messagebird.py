"""MessageBird's classic SMS API: one status report a GET, only for messages that were sent with a `reference`."""

from __future__ import annotations

import hmac
from datetime import timedelta
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode

from msgspec.structs import replace

from app.gateways import _jwt, _verify
from app.gateways._fields import (
    CANNOT_READ,
    Said,
    an_object,
    asked_moment,
    bare,
    count,
    first,
    form,
    json,
    moment,
    need,
    plus,
)
from app.gateways._smpp import error
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

SPACE = "bird_messagebird"

# github.com/messagebird/go-rest-api, sms; docs.bird.com, receiving delivery reports
STATUS = {
    "scheduled": Status.ACCEPTED,
    "sent": Status.SENT,
    "buffered": Status.SENT,
    "delivered": Status.DELIVERED,
    "expired": Status.EXPIRED,
    "delivery_failed": Status.UNDELIVERABLE,
}
PORTED = {"0": False, "1": True}
ISSUER = "MessageBird"
LEEWAY = timedelta(seconds=1)
"""For clocks that differ, as MessageBird's own library has it."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said: Said = an_object(json(callback.body)) if bare(callback)[:1] == b"{" else form(callback)
    if "status" not in said and "originator" in said:
        return [Inbound()]
    network = first(said, "mccmnc") or ""
    return [
        Receipt(
            message_id=need(said, "id"),
            status=STATUS.get(need(said, "status").lower(), Status.UNKNOWN),
            word=first(said, "status"),
            number=plus(first(said, "recipient")),
            code=error(first(said, "statusErrorCode")),
            code_space=SPACE,
            mcc=network[:3],
            mnc=network[3:],
            ported=PORTED.get(first(said, "ported") or ""),
            segments=count(said.get("messagePartCount")),
            occurred_at=asked_moment(first(said, "statusDatetime")),
        )
    ]


def verify(callback: Callback, secret: str, link: Link) -> bool:
    """A token over URL and body, the HMAC that went before it, or our token in the URL."""
    return True in [way(callback, secret, link) for way in (_verify.token, _by_token, _by_hmac)]


def _by_token(callback: Callback, secret: str, link: Link) -> bool:
    """`MessageBird-Signature-JWT`, by the signing key (not the API key)."""
    try:
        claimed = _jwt.claims(callback.header("messagebird-signature-jwt"), secret)
    except CANNOT_READ:
        return False
    about_us = _hashed(claimed, "url_hash", callback.url.encode("latin-1", "replace"))
    # A token that names no hash of a body is for a request without one.
    about_it = _hashed(claimed, "payload_hash", callback.body) if callback.body else not claimed.get("payload_hash")
    return claimed.get("iss") == ISSUER and about_us and about_it and _is_now(claimed, callback, link)


def _hashed(claimed: Said, name: str, text: bytes) -> bool:
    given = claimed.get(name)
    return isinstance(given, str) and hmac.compare_digest(sha256(text).hexdigest().encode(), given.lower().encode())


def _is_now(claimed: Said, callback: Callback, link: Link) -> bool:
    begins, ends = moment(claimed.get("nbf")), moment(claimed.get("exp"))
    if begins is None or ends is None or not _verify.timely(claimed.get("nbf"), callback, link):
        return False
    return begins - LEEWAY <= callback.at < ends + LEEWAY


def _by_hmac(callback: Callback, secret: str, link: Link) -> bool:
    """`MessageBird-Signature`, deprecated: time, query by name and the hash of the body, each in a line."""
    at = callback.header("messagebird-request-timestamp")
    query = urlencode(sorted(parse_qsl(callback.query, keep_blank_values=True, errors="surrogateescape"),
                             key=lambda pair: pair[0]), errors="surrogateescape")  # fmt: skip
    signed = b"\n".join((at.encode("latin-1", "replace"), query.encode(), sha256(callback.body).digest()))
    made = hmac.digest(secret.encode(), signed, "sha256")
    return _verify.as_base64(callback.header("messagebird-signature"), made) and _verify.timely(at, callback, link)


def sign(callback: Callback, secret: str, _: Link) -> Callback:
    """By a token, which lives for a minute as theirs do."""
    begins = int(callback.at.timestamp())
    claimed = {
        "iss": ISSUER, "nbf": begins, "exp": begins + 60, "jti": _verify.unique(),
        "url_hash": sha256(callback.url.encode("latin-1", "replace")).hexdigest(),
    }  # fmt: skip
    if callback.body:
        claimed["payload_hash"] = sha256(callback.body).hexdigest()
    token = _jwt.signed(claimed, secret)
    return replace(callback, headers={**callback.headers, "messagebird-signature-jwt": token})


gateway = Gateway(
    name="messagebird",
    docs="https://docs.bird.com/connectivity-platform/getting-started/receiving-delivery-reports-dlrs",
    parse=parse,
    verify=verify,
    sign=sign,
    code_space=SPACE,
    hint="the secret is the signing key, not the API key; set `public_url` to the address that MessageBird calls",
    nonce=lambda callback: first(_jwt.unproven(callback.header("messagebird-signature-jwt")), "jti"),
    words=frozenset({"body", "message"}),
)
