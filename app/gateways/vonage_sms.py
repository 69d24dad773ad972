"""Vonage's SMS API (once Nexmo): one receipt for each part of a message, by GET, as a form or as JSON.

The account says how, so all three are taken on one path. `msisdn` is the handset and `to` is us.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

from msgspec.structs import replace

from app.gateways import _verify, _vonage_reports
from app.gateways._fields import (
    CANNOT_READ,
    LONGEST_FORM,
    Said,
    Unreadable,
    an_object,
    bare,
    first,
    json,
    moment,
    need,
    origin,
    plus,
    text,
)
from app.gateways._smpp import error, local_time
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

SPACE = "vonage_dlr"

# developer.vonage.com/en/messaging/sms/guides/delivery-receipts
STATUS = {
    "accepted": Status.SENT,  # by the carrier
    "buffered": Status.SENT,
    "delivered": Status.DELIVERED,
    "expired": Status.EXPIRED,
    "failed": Status.UNDELIVERABLE,
    "rejected": Status.REJECTED,
    "unknown": Status.UNKNOWN,
}
MD5_HASH = "md5hash"
METHODS = {MD5_HASH: "", "md5": "md5", "sha1": "sha1", "sha256": "sha256", "sha512": "sha512"}
"""How an account may sign, and the hash of the HMAC. The first, its default, is no HMAC: MD5 with the secret behind."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said = _said(callback)
    if not callback.body and not said.keys() - {"token"}:  # how Vonage tries an address out
        return []
    if "status" not in said and {"text", "data", "udh"} & said.keys():
        return [Inbound()]
    message_id, word = need(said, "messageId", "message-id"), need(said, "status")
    became, network = STATUS.get(word.lower(), Status.UNKNOWN), first(said, "network-code") or ""
    return [
        Receipt(
            message_id=message_id,
            status=became,
            word=word,
            number=plus(first(said, "msisdn")),
            sender=origin(first(said, "to")),
            code=error(first(said, "err-code")),  # 0 comes with `expired` too
            code_space=SPACE,
            mcc=network[:3],
            mnc=network[3:],
            occurred_at=_occurred(said, became),
        )
    ]


def _said(callback: Callback) -> Said:
    """The body where there is one, else the query: never both, since the signature covers one."""
    if not callback.body:
        return callback.params()
    if bare(callback)[:1] == b"{":
        return an_object(json(callback.body))
    if len(callback.body) > LONGEST_FORM:
        raise Unreadable(f"a form of more than {LONGEST_FORM} bytes")
    return callback.form()


def _occurred(said: Said, became: Status) -> datetime | None:
    """When Vonage sent it on, in UTC. `scts` is the carrier's own clock: an hour off in the vendor's sample."""
    at = moment(first(said, "message-timestamp"))
    if at is None:
        return local_time(first(said, "scts"), became)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def verify(callback: Callback, secret: str, link: Link) -> bool:
    """`sig`, by the method of the account, which no request names: the secret is written `sha256:SECRET`.

    Without a method it is the account's default, or our token where Vonage does not sign. An address that is tried out
    says nothing, and so has nothing to prove.
    """
    tried_out = callback.method == "GET" and not callback.body and not callback.params()
    return True in [tried_out, _verify.token(callback, secret, link), _is_signed(callback, *method(secret), link)]


def method(secret: str) -> tuple[str, str]:
    name, colon, rest = secret.partition(":")
    return (name, rest) if colon and name in METHODS else (MD5_HASH, secret)


def _is_signed(callback: Callback, name: str, secret: str, link: Link) -> bool:
    try:
        return _signed(_values(callback), callback, name, secret, link)
    except CANNOT_READ:  # proven by our token perhaps, and then kept
        return False


def _values(callback: Callback) -> Said:
    """As they are signed: to the byte, and with the NULs that nothing else is read with."""
    if bare(callback)[:1] == b"{":
        return an_object(json(callback.body))
    text = callback.body.decode("latin-1") if callback.body else callback.query
    if len(text) > LONGEST_FORM:
        raise Unreadable(f"a form of more than {LONGEST_FORM} bytes")
    return dict(parse_qsl(text, keep_blank_values=True, errors="surrogateescape"))


def _signed(said: Said, callback: Callback, name: str, secret: str, link: Link) -> bool:
    if not secret.strip() or not _verify.timely(first(said, "timestamp"), callback, link):
        return False
    given = need(said, "sig").lower().encode("utf-8", "replace")
    # Vonage's library for Java leaves empty values out of what is signed, the one for Python does not.
    made = [signature(said, name, secret, empty=empty) for empty in (True, False)]
    return True in [hmac.compare_digest(one.encode(), given) for one in made]


def signature(said: Said, name: str, secret: str, *, empty: bool) -> str:
    """Names and values by name, `&` and `=` in a value made harmless; in hex."""
    pairs = [(key, _as_signed(said[key])) for key in sorted(said) if key != "sig"]
    signed = "".join(
        f"&{key}={value.replace('&', '_').replace('=', '_')}" for key, value in pairs if value or empty
    ).encode("utf-8", "surrogateescape")
    if hashed := METHODS[name]:
        return hmac.new(secret.encode(), signed, hashed).hexdigest()
    return hashlib.md5(signed + secret.encode(), usedforsecurity=False).hexdigest()  # the vendor's choice, not ours


def _as_signed(value: object) -> str:
    """A text to the letter, blanks too."""
    return value if isinstance(value, str) else text(value) or ""


def sign(callback: Callback, secret: str, _: Link) -> Callback:
    """In the form, or in the query where there is none, by the method that the secret is written with."""
    name, key = method(secret)
    more = urlencode({"timestamp": _verify.stamp(callback), "nonce": _verify.unique()})
    plain = callback.body.decode("latin-1") or callback.query
    pairs = f"{plain}&{more}" if plain else more
    said = dict(parse_qsl(pairs, keep_blank_values=True, errors="surrogateescape"))
    pairs = f"{pairs}&sig={signature(said, name, key, empty=True)}"
    if callback.body:
        return replace(callback, body=pairs.encode("latin-1"))
    return replace(callback, query=pairs, url=f"{callback.url.partition('?')[0]}?{pairs}")


gateway = Gateway(
    name="vonage-sms",
    docs="https://developer.vonage.com/en/messaging/sms/guides/delivery-receipts",
    parse=parse,
    verify=verify,
    sign=sign,
    inquiry=_vonage_reports.inquiry,
    code_space=SPACE,
    hint="where Vonage signs, write the account's method before the secret: `sha256:SECRET`",
    nonce=lambda callback: first(_said(callback), "nonce"),
    words=frozenset({"text", "data"}),
)
