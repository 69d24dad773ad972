"""Plivo: one report for each part of a message, as a form or by GET.

Messaging is signed the second way (V2), which covers neither query nor body. The third (V3) covers all, and comes along
on some accounts.
"""

from __future__ import annotations

import base64
import hmac
import re
from urllib.parse import parse_qsl

from msgspec.structs import replace

from app.gateways import _verify
from app.gateways._fields import LONGEST_FORM, Said, asked_moment, count, first, form, need, origin, plus
from app.gateways._smpp import error
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

SPACE = "plivo"

# plivo.com/docs/messaging, callbacks for outbound messages
STATUS = {
    "queued": Status.ACCEPTED,
    "sent": Status.SENT,
    "delivered": Status.DELIVERED,
    "read": Status.DELIVERED,
    "undelivered": Status.UNDELIVERABLE,  # final, though one public consumer takes it for `sent`
    "failed": Status.REJECTED,  # Plivo could not hand it over
    "rejected": Status.REJECTED,
}
REPORTED = frozenset({Status.DELIVERED, Status.UNDELIVERABLE})
CHAT = "whatsapp"
"""The `Type` of a chat's receipts, which say nothing of the number for SMS (others are `sms` and `mms`)."""
WRITTEN = frozenset({"Text", "Body", "MediaCount", "Media0"})
"""What a message of a person has: an SMS its text, an MMS the others."""
ONLY_V3 = "v3:"
"""Before a secret: a signature of the second way is not taken."""

_PART = re.compile(r"(\d{1,4})\s+of\s+(\d{1,4})", re.ASCII)


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said = form(callback)
    if said.get("Type") == CHAT or ("Status" not in said and WRITTEN & said.keys()):
        return [Inbound()]
    word = need(said, "Status")
    status = STATUS.get(word.lower(), Status.UNKNOWN)
    segment, segments = part(said)
    return [
        Receipt(
            message_id=need(said, "ParentMessageUUID", "MessageUUID"),  # the parent's is what sending answered
            status=status,
            word=word,
            number=plus(first(said, "To")),
            sender=origin(first(said, "From")),
            code=error(first(said, "ErrorCode")),  # 000 says that there is none
            code_space=SPACE,
            mcc=first(said, "MCC"),
            mnc=first(said, "MNC"),
            segment=segment,
            segments=segments,
            # `YYYY-mm-dd HH:MM:SS.SSSSSS`, in a zone that its page does not name.
            occurred_at=asked_moment(first(said, "DeliveryReportTime")) if status in REPORTED else None,
            sent_at=asked_moment(first(said, "SentTime")),
        )
    ]


def part(said: Said) -> tuple[int | None, int | None]:
    """`PartInfo`, as `2 of 3`; without it the parts that were charged."""
    if found := _PART.fullmatch(first(said, "PartInfo") or ""):
        return int(found[1]), int(found[2])
    return None, count(said.get("Units"))


def verify(callback: Callback, secret: str, _: Link) -> bool:
    """By the account's auth token, or the main account's (`-Ma-`). A header may hold several signatures."""
    token = secret.removeprefix(ONLY_V3)
    if not token.strip() or len(callback.body) > LONGEST_FORM:
        return False
    base, _question, query = callback.url.partition("?")
    made = [_made_by(callback, "v3", token, signed(callback, base, query) + ".")]
    if not secret.startswith(ONLY_V3):
        made.append(_made_by(callback, "v2", token, base))
    return True in made


def _made_by(callback: Callback, way: str, token: str, text: str) -> bool:
    nonce = callback.header(f"x-plivo-signature-{way}-nonce")
    given = ",".join(callback.header(f"x-plivo-signature-{whose}{way}") for whose in ("", "ma-")).encode(
        "latin-1", "replace"
    )
    made = _signature(token, text + nonce)
    return bool(nonce) and True in [hmac.compare_digest(made, one.strip()) for one in given.split(b",")]


def _signature(token: str, text: str) -> bytes:
    return base64.b64encode(hmac.digest(token.encode(), text.encode("utf-8", "surrogateescape"), "sha256"))


def sign(callback: Callback, secret: str, _: Link) -> Callback:
    """Both ways, as some accounts get it; the third alone where nothing else is taken."""
    token = secret.removeprefix(ONLY_V3)
    base, _question, query = callback.url.partition("?")
    texts = {"v3": signed(callback, base, query) + "."} | ({} if secret.startswith(ONLY_V3) else {"v2": base})
    headers = dict(callback.headers)
    for way, text in texts.items():
        nonce = headers[f"x-plivo-signature-{way}-nonce"] = _verify.unique()
        headers[f"x-plivo-signature-{way}"] = _signature(token, text + nonce).decode()
    return replace(callback, headers=headers)


def signed(callback: Callback, base: str, query: str) -> str:
    """What V3 covers: the URL with its query by name, and for a POST the form run together.

    Between the two stands a dot, but a lone `?` where there is no query.
    """
    asked = "&".join(f"{name}={value}" for name, value in _pairs(query))
    posted = "".join(name + value for name, value in _pairs(callback.body.decode("latin-1")))
    if not posted:
        return f"{base}?{asked}" if asked else base
    return f"{base}?{asked}.{posted}" if asked else f"{base}?{posted}"


def _pairs(text: str) -> list[tuple[str, str]]:
    return sorted(parse_qsl(text, keep_blank_values=True, errors="surrogateescape"))


def nonce(callback: Callback) -> str | None:
    """That of V2 before that of V3: no signature of V2 covers V3's header, so a copy could bring a new nonce there."""
    return callback.header("x-plivo-signature-v2-nonce") or callback.header("x-plivo-signature-v3-nonce") or None


gateway = Gateway(
    name="plivo",
    docs="https://www.plivo.com/docs/messaging/api/message/send-a-message#callbacks",
    parse=parse,
    verify=verify,
    sign=sign,
    code_space=SPACE,
    hint="set `public_url` to the address that Plivo calls: its signature covers it",
    nonce=nonce,
    nonce_alone=True,
    words=frozenset({"text", "body"}),
)
