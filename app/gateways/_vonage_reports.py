"""Vonage's Reports API, for messages of its SMS API: many ids a request, without their words. Vonage charges for it."""

from __future__ import annotations

from collections.abc import Sequence

from app.gateways._fields import Said, Unreadable, an_object, each, first, json, moment, need, origin, plus
from app.gateways._smpp import error
from app.models.http import Call, HttpAnswer, Options, address
from app.models.receipt import Broken, Inquiry, Missed, Receipt, Status

SPACE = "vonage_dlr"
BASE = "https://api.nexmo.com"

STATUS = {
    "submitted": Status.ACCEPTED,
    "accepted": Status.SENT,  # by the carrier
    "buffered": Status.SENT,
    "delivered": Status.DELIVERED,
    "expired": Status.EXPIRED,
    "failed": Status.UNDELIVERABLE,
    "rejected": Status.REJECTED,
    "deleted": Status.REJECTED,
    "unknown": Status.UNKNOWN,
}


def ask(messages: Sequence[Missed], options: Options) -> Call:
    key = str(options["api_key"])
    return Call(
        "GET",
        address(options, BASE, "/v2/reports/records"),
        params=(
            ("account_id", str(options.get("account_id") or key)),
            ("product", "SMS"),
            ("direction", "outbound"),
            ("include_message", "false"),
            ("id", ",".join(message.message_id for message in messages)),
        ),
        headers={"accept": "application/json"},
        basic=(key, str(options["api_secret"])),
    )


def answer(answered: HttpAnswer, _: Sequence[Missed]) -> list[Receipt | Broken]:
    records = an_object(json(answered.body)).get("records")
    if not isinstance(records, list):
        raise Unreadable("no records")
    return each(records, lambda record: _receipt(an_object(record)))


def _receipt(said: Said) -> Receipt:
    word, network = need(said, "status").lower(), first(said, "network") or ""
    return Receipt(
        message_id=need(said, "message_id"),
        status=STATUS.get(word, Status.UNKNOWN),
        word=word,
        number=plus(first(said, "to")),  # other than in a pushed receipt, this is the handset
        sender=origin(first(said, "from")),
        code=error(first(said, "error_code")),
        code_space=SPACE,
        mcc=network[:3],
        mnc=network[3:],
        occurred_at=moment(first(said, "date_finalized")),
        sent_at=moment(first(said, "date_received")),
    )


inquiry = Inquiry(
    docs="https://developer.vonage.com/en/api/reports",
    base_url=BASE,
    needs=("api_key", "api_secret"),
    ask=ask,
    answer=answer,
    may=("account_id",),
    batch=20,
    per_second=5.0,
)
