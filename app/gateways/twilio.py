"""Twilio's StatusCallback: one status a form post (or a GET), in any order, signed over our public URL and the form."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

from msgspec.structs import replace

from app.gateways._fields import LONGEST_FORM, Said, Unreadable, an_object, first, form, json, mail_date, need
from app.gateways._smpp import local_time
from app.models.http import Call, HttpAnswer, Options, address
from app.models.receipt import Broken, Callback, Gateway, Inbound, Inquiry, Link, Missed, Receipt, Status

SPACE = "twilio"
BASE = "https://api.twilio.com"

STATUS = {
    "accepted": Status.ACCEPTED,
    "scheduled": Status.ACCEPTED,
    "queued": Status.ACCEPTED,
    "sending": Status.ACCEPTED,
    "sent": Status.SENT,  # the last word for carriers without receipts
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "undelivered": Status.UNDELIVERABLE,
    "failed": Status.REJECTED,  # by Twilio, or when it was handed over
    "canceled": Status.REJECTED,
}
INBOUND = frozenset({"receiving", "received"})
PHONES = frozenset({"", "sms", "mms", "rcs"})
"""What may stand before an address, with a colon. A chat's receipts (`whatsapp:`) say nothing of the number for SMS."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said = form(callback)
    word = need(said, "MessageStatus", "SmsStatus").lower()
    if word in INBOUND or _channel(said) not in PHONES:  # inbound, `To` is us: it would speak of our own number
        return [Inbound()]
    code, became = first(said, "ErrorCode"), STATUS.get(word, Status.UNKNOWN)
    return [
        Receipt(
            message_id=need(said, "MessageSid", "SmsSid"),
            status=became,
            word=word,
            number=(first(said, "To") or "").rpartition(":")[2],  # other channels write `rcs:+1…`
            sender=first(said, "From"),
            code=code if code != "0" else None,
            code_space=SPACE,
            occurred_at=local_time(said.get("RawDlrDoneDate"), became),  # the carrier's clock, which names no zone
        )
    ]


def _channel(said: Said) -> str:
    """Of the recipient; of the sender where none is named."""
    return (first(said, "To", "From") or "").rpartition(":")[0].lower()


def verify(callback: Callback, secret: str, _: Link) -> bool:
    """`X-Twilio-Signature`: by the auth token (HMAC-SHA1), or by a shared key, written `keyid:secret` (HMAC-SHA256).

    As Twilio's own library does it (9.13): the URL with or without its port, parameters by name, repeated values once.
    One thing is stricter: a body that is no form must be named by `bodySHA256` in the signed URL.
    """
    settings, signed = _settings(callback), _signed(callback)
    if settings:
        key, _colon, secret = secret.partition(":")
        if settings.get("key") != key or settings.get("algorithm") != "HMAC_SHA256":
            return False
    if signed is None or not secret:
        return False
    given = callback.header("x-twilio-signature").encode("latin-1", "replace")
    made = [_signature(url + signed, secret, "sha256" if settings else "sha1") for url in _urls(callback.url)]
    return True in [hmac.compare_digest(one, given) for one in made]


def ask(messages: Sequence[Missed], options: Options) -> Call:
    (message,) = messages
    account, message_id = quote(str(options["account_sid"]), safe=""), quote(message.message_id, safe="")
    return Call(
        "GET",
        address(options, BASE, f"/2010-04-01/Accounts/{account}/Messages/{message_id}.json"),
        headers={"accept": "application/json"},
        basic=(str(options["account_sid"]), str(options["auth_token"])),
    )


def answer(answered: HttpAnswer, messages: Sequence[Missed]) -> list[Receipt | Broken]:
    """The Message resource. Its words (`body`) are not read. `date_updated` is the nearest that it has to an event."""
    (message,), said = messages, an_object(json(answered.body))
    if need(said, "sid") != message.message_id:
        raise Unreadable("the answer is about another message")
    word, code = need(said, "status").lower(), first(said, "error_code")
    if word in INBOUND:
        raise Unreadable("an inbound message, not a receipt")
    return [
        Receipt(
            message_id=message.message_id,
            status=STATUS.get(word, Status.UNKNOWN),
            word=word,
            number=(first(said, "to") or "").rpartition(":")[2],
            sender=first(said, "from"),
            code=code if code != "0" else None,
            code_space=SPACE,
            occurred_at=mail_date(said.get("date_updated")),
            sent_at=mail_date(said.get("date_sent")),
        )
    ]


def sign(callback: Callback, secret: str, _: Link) -> Callback:
    """As Twilio signs: a secret `keyid:secret` is a shared key, any other the account's auth token."""
    key, colon, shared = secret.partition(":")
    text = callback.url.encode("latin-1", "replace") + (_signed(callback) or b"")
    made = _signature(text, shared if colon else secret, "sha256" if colon else "sha1")
    named = {"x-twilio-webhooks-signature-settings": f"key={key},algorithm=HMAC_SHA256"} if colon else {}
    return replace(callback, headers={**callback.headers, **named, "x-twilio-signature": made.decode()})


def _settings(callback: Callback) -> dict[str, str]:
    """`key=…,algorithm=HMAC_SHA256`: which shared key signed. Without the header it was the account's auth token."""
    pairs = (pair.partition("=") for pair in callback.header("x-twilio-webhooks-signature-settings").split(","))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _signature(text: bytes, secret: str, algorithm: str) -> bytes:
    return base64.b64encode(hmac.digest(secret.encode(), text, algorithm))


def _signed(callback: Callback) -> bytes | None:
    """What is signed behind the URL: names and values of the form, or nothing where the URL names the body's hash."""
    if not callback.body:
        return b""
    if len(callback.body) > LONGEST_FORM:
        return None
    if "x-www-form-urlencoded" in callback.header("content-type").lower():
        body = callback.body.decode("utf-8", "surrogateescape")
        pairs = sorted(set(parse_qsl(body, keep_blank_values=True, errors="surrogateescape")))
        return "".join(name + value for name, value in pairs).encode("utf-8", "surrogateescape")
    named = parse_qs(urlsplit(callback.url).query).get("bodySHA256", [""])[0]
    return b"" if hmac.compare_digest(named.encode(), sha256(callback.body).hexdigest().encode()) else None


def _urls(url: str) -> list[bytes]:
    """The URL without a port and with one: which of them Twilio signs is not consistent."""
    scheme, slashes, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(host) :]
    bare = re.sub(r":\d+$", "", host)
    ported = host if host != bare else f"{bare}:{443 if scheme == 'https' else 80}"
    return [f"{scheme}{slashes}{one}{path}".encode("latin-1", "replace") for one in (bare, ported)]


gateway = Gateway(
    name="twilio",
    docs="https://www.twilio.com/docs/messaging/guides/track-outbound-message-status",
    parse=parse,
    verify=verify,
    sign=sign,
    inquiry=Inquiry(
        docs="https://www.twilio.com/docs/messaging/api/message-resource",
        base_url=BASE,
        needs=("account_sid", "auth_token"),
        ask=ask,
        answer=answer,
    ),
    code_space=SPACE,
    hint="set `public_url` to the address that Twilio calls: its signature covers it",
    words=frozenset({"body"}),
)
