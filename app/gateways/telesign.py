"""Telesign's transaction callbacks: one a request, mostly without a number: the register knows it by the reference.

`status.code` is both status and cause. All of Telesign's services may post to one address: what people write, calls and
verifications are passed over, and codes of other products (3xx Phone ID) are unknown.
"""

from __future__ import annotations

import base64
import hmac

from msgspec.structs import replace

from app.gateways import _verify
from app.gateways._fields import Said, Unreadable, apart, batch, count, first, json, moment, need, origin, part, plus
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

# developer.telesign.com, "all status and error codes", and the reference of its callbacks
STATUS = {
    200: Status.DELIVERED,
    203: Status.SENT,
    **dict.fromkeys((207, 210, 211, 220, 222), Status.UNDELIVERABLE),
    221: Status.EXPIRED,
    **dict.fromkeys((229, 230, 231, 233, 234, 237, 238, 286), Status.REJECTED),
    **dict.fromkeys((290, 291, 292, 293, 295), Status.ACCEPTED),
    **dict.fromkeys(range(500, 599), Status.REJECTED),
    **dict.fromkeys((507, 510, 511, 512, 513, 514, 516), Status.UNDELIVERABLE),
    **dict.fromkeys((10000, 10030, 10031, 10032), Status.REJECTED),
    11000: Status.UNDELIVERABLE,
    # These tell no outcome: done but suspicious, no receipt in 12 hours (two), not available.
    **dict.fromkeys((201, 250, 251, 599), Status.UNKNOWN),
}
NO_SMS = ("mo_", "call", "voice")
"""How the services begin that tell of what people wrote, and of calls."""
OTHERS = frozenset({"inner_methods", "name"})
"""What only a verification has, which says whether somebody typed the code, and only a template of messages."""


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    return batch(json(callback.body), transaction)


def transaction(said: Said) -> Receipt | Inbound:
    service = first(said, "sub_resource") or ""
    if service.startswith(NO_SMS) or OTHERS & said.keys():
        return Inbound()
    status, more = part(said, "status"), part(said, "additional_info")
    code = need(status, "code")
    if not (code.isascii() and code.isdigit()):
        raise Unreadable("a status code that is no number")
    return Receipt(
        message_id=message_id(said, service),
        status=STATUS.get(int(code[:9]), Status.UNKNOWN),
        word=None if int(code[:9]) in STATUS else code,
        number=plus(first(said, "phone_number") or first(more, "cleansed_phone_number")),
        sender=origin(first(more, "sender_id", "sender_id ")),  # its page on verifying by SMS has the blank
        code=code,
        code_space="telesign",
        mcc=first(more, "mcc"),
        mnc=first(more, "mnc"),
        segments=count(more.get("message_parts_count")),
        occurred_at=moment(status.get("updated_on")),
        sent_at=moment(said.get("submit_timestamp")),
    )


def message_id(said: Said, service: str) -> str:
    """Of a bulk request everybody's reference is the same: only with our own id of a recipient it names one message."""
    reference, ours = need(said, "reference_id"), first(said, "session_id")
    return f"{reference}/{ours}" if service == "bulk_sms" and ours else reference


def verify(callback: Callback, secret: str, _: Link) -> bool:
    """`Authorization: TSA customer:signature`: an HMAC-SHA256 of the body, keyed by the API key as base64 *decodes* it.

    A secret written `customer:key` fixes the customer too.
    """
    customer, _colon, key = secret.rpartition(":")
    scheme, _blank, given = callback.header("authorization").partition(" ")
    who, _colon, signed = given.rpartition(":")
    good = bool(key) and hmac.compare_digest(_signature(callback, key), signed.encode("latin-1", "replace"))
    return good and scheme == "TSA" and (not customer or _verify.same(who.encode("latin-1", "replace"), customer))


def _signature(callback: Callback, key: str) -> bytes:
    return base64.b64encode(hmac.digest(base64.b64decode(key, validate=True), callback.body, "sha256"))


def sign(callback: Callback, secret: str, _: Link) -> Callback:
    customer, _colon, key = secret.rpartition(":")
    given = f"TSA {customer or 'sendable'}:{_signature(callback, key).decode()}"
    return replace(callback, headers={**callback.headers, "authorization": given})


gateway = Gateway(
    name="telesign",
    docs="https://developer.telesign.com/enterprise/docs/transaction-callback-service",
    parse=parse,
    verify=verify,
    sign=sign,
    code_space="telesign",
    hint="the secret is the API key, in base64; callbacks carry no number: post what you send to /v1/messages",
    split=apart,
    words=frozenset({"mo_message", "text", "text_1", "text_2", "text_3", "subject", "body"}),
)
