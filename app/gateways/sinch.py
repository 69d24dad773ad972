"""Sinch's SMS REST API (once CLX and mblox): a report for each recipient, or one for a whole batch.

A message has no id of its own: it is the batch's, with the recipient. A summary of many messages names nobody.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
from msgspec.structs import replace

from app.gateways import _verify
from app.gateways._fields import Said, Unreadable, an_object, count, each, first, json, moment, need, origin, plus
from app.gateways._smpp import error
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Status

CODES, STATUSES = "sinch_rest", "sinch_status"

# developers.sinch.com/docs/sms/api-reference/sms/tag/Delivery-reports
STATUS = {
    "queued": Status.ACCEPTED,
    "dispatched": Status.SENT,
    "delivered": Status.DELIVERED,
    "aborted": Status.REJECTED,
    "cancelled": Status.REJECTED,
    "rejected": Status.REJECTED,
    "deleted": Status.UNDELIVERABLE,
    "failed": Status.UNDELIVERABLE,
    "expired": Status.EXPIRED,
    "unknown": Status.UNKNOWN,
}
FINE = frozenset({Status.ACCEPTED, Status.SENT, Status.DELIVERED, Status.UNKNOWN})
OWN = frozenset(map(str, range(400, 419)))
"""Sinch's own codes. Any other is the carrier's SMPP error, passed on: only the link can say whose."""

DELETED = "deleted"
"""The word itself says why (an invalid number, or one that opted out), whatever the code beside it."""

SUMMARY = "a summary of many messages names no recipient: send with delivery_report full or per_recipient"


def parse(callback: Callback) -> list[Receipt | Inbound | Broken]:
    said = an_object(json(callback.body))
    if (first(said, "type") or "").startswith("mo_"):
        return [Inbound()]
    return [*each(_elements(said), report)] if "statuses" in said else [report(said)]


def _elements(said: Said) -> Iterator[object]:
    """A report of a batch as one for each recipient, each of which reads alone."""
    of_all = {name: said.get(name) for name in ("type", "batch_id", "total_message_count")}
    statuses = said["statuses"]
    if not isinstance(statuses, list):
        raise Unreadable("statuses that are no array")
    for one in statuses:
        if not isinstance(one, dict):
            yield one
            continue
        recipients = one.get("recipients")
        for recipient in recipients if isinstance(recipients, list) and recipients else [None]:
            yield of_all | {"code": one.get("code"), "status": one.get("status"), "recipient": recipient}


def report(element: object) -> Receipt:
    said = an_object(element)
    word = need(said, "status")
    became = STATUS.get(word.lower(), Status.UNKNOWN)
    code, space = cause(word.lower(), became, error(first(said, "code")))
    operator = first(said, "operator") or ""
    return Receipt(
        message_id=need(said, "batch_id"),
        status=became,
        word=word,
        number=plus(_recipient(said)),
        sender=origin(first(said, "applied_originator")),
        code=code,
        code_space=space,
        carrier=None if _is_network(operator) else operator,
        mcc=operator[:3] if _is_network(operator) else None,
        mnc=operator[3:] if _is_network(operator) else None,
        segments=count(said.get("number_of_message_parts")),
        occurred_at=_occurred(said),
    )


def _occurred(said: Said) -> datetime | None:
    """By Sinch's clock, which its own library takes for UTC where no zone is named. `operator_status_at` is the
    carrier's, and not all have it.
    """
    at = moment(said.get("at"))
    return at.replace(tzinfo=UTC) if at and at.tzinfo is None else at


def _recipient(said: Said) -> str | None:
    """None only for a batch of one: the register of sent messages knows whom."""
    recipient = first(said, "recipient")
    if recipient is None and count(said.get("total_message_count")) != 1:
        raise Unreadable(SUMMARY if "total_message_count" in said else "no recipient")
    return recipient


def cause(word: str, became: Status, code: str | None) -> tuple[str | None, str | None]:
    """Sinch's code; the carrier's, in no space of ours; or, where neither says why, the word for the failure."""
    if word == DELETED or (code is None and became not in FINE):
        return word.capitalize(), STATUSES
    return code, CODES if code in OWN else None


def _is_network(operator: str) -> bool:
    """MCC and MNC. Whether Sinch writes these or a name is not verified: both are read."""
    return operator.isascii() and operator.isdigit() and len(operator) in (5, 6)


def split(callback: Callback) -> list[bytes]:
    said = an_object(json(callback.body))
    return [orjson.dumps(one) for one in _elements(said)] if "statuses" in said else [callback.body]


def verify(callback: Callback, secret: str, link: Link) -> bool:
    """As the account has it: signed, or Basic, or our token in the URL."""
    return True in [_verify.token(callback, secret, link), _signed(callback, secret, link)]


def _signed(callback: Callback, secret: str, link: Link) -> bool:
    given, nonce, at, algorithm = (
        callback.header(f"x-sinch-webhook-signature{part}") for part in ("", "-nonce", "-timestamp", "-algorithm")
    )
    same = _verify.as_base64(given, _signature(callback.body, nonce, at, secret))
    return same and algorithm in {"HmacSHA256", ""} and _verify.timely(at, callback, link)


def _signature(body: bytes, nonce: str, at: str, secret: str) -> bytes:
    """HMAC-SHA256 of body, nonce and time. Sinch's Numbers API signs in another way."""
    signed = b".".join((body, nonce.encode("latin-1", "replace"), at.encode("latin-1", "replace")))
    return hmac.digest(secret.encode(), signed, "sha256")


def sign(callback: Callback, secret: str, _: Link) -> Callback:
    nonce, at = _verify.unique(), _verify.stamp(callback)
    made = base64.b64encode(_signature(callback.body, nonce, at, secret)).decode()
    parts = {"": made, "-nonce": nonce, "-timestamp": at, "-algorithm": "HmacSHA256"}
    signed = {f"x-sinch-webhook-signature{part}": value for part, value in parts.items()}
    return replace(callback, headers={**callback.headers, **signed})


gateway = Gateway(
    name="sinch",
    docs="https://developers.sinch.com/docs/sms/api-reference/sms/tag/Delivery-reports/",
    parse=parse,
    verify=verify,
    sign=sign,
    hint="send with `delivery_report` `per_recipient` or `full`: a summary names nobody",
    split=split,
    nonce=lambda callback: callback.header("x-sinch-webhook-signature-nonce") or None,
    words=frozenset({"body"}),
)
