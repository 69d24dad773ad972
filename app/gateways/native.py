"""Our own shape: a JSON object, an array of them, or one a line (NDJSON). For senders that you write yourself."""

from __future__ import annotations

from contextlib import suppress

import orjson

from app.gateways import _verify
from app.gateways._fields import MARK, Said, Unreadable, an_object, batch, count, each, json, loads, moment, text
from app.models.receipt import Broken, Callback, Gateway, Receipt, Status

STATUS = {status.value: status for status in Status}


def parse(callback: Callback) -> list[Receipt | Broken]:
    try:
        said = orjson.loads(callback.body)
    except orjson.JSONDecodeError:
        return _otherwise(callback.body)
    return batch(said, receipt)


def _otherwise(body: bytes) -> list[Receipt | Broken]:
    """Behind a byte order mark, or one a line. Apart from `parse`, which is asked for every receipt."""
    with suppress(orjson.JSONDecodeError):
        if body.startswith(MARK):
            return batch(loads(body), receipt)
    return each(_lines(body), lambda line: receipt(an_object(json(line))))


def receipt(said: Said) -> Receipt:
    """One object. `status` is needed, and a message id or a number; members that are missing or null are not told."""
    status = text(said.get("status"))
    if status is None:
        raise Unreadable("no status")
    get = said.get
    return Receipt(
        message_id=text(get("message_id")),
        status=STATUS.get(status) or STATUS.get(status.strip().lower(), Status.UNKNOWN),
        number=text(get("number")),
        sender=text(get("sender")),
        code=text(get("code")),
        code_space=text(get("code_space")),
        carrier=text(get("carrier")),
        mcc=text(get("mcc")),
        mnc=text(get("mnc")),
        segment=count(get("segment")),
        occurred_at=moment(get("occurred_at")),
        sent_at=moment(get("sent_at")),
        word=status,
    )


def _lines(body: bytes) -> list[bytes]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise Unreadable("nothing in it")
    return lines


def split(callback: Callback) -> list[bytes]:
    try:
        said = loads(callback.body)
    except orjson.JSONDecodeError:
        return _lines(callback.body)
    return [orjson.dumps(one) for one in said] if isinstance(said, list) else [callback.body]


gateway = Gateway(
    name="native",
    docs="docs/gateways/native.md",
    parse=parse,
    verify=_verify.token,
    sign=_verify.sign_token,
    code_space="openmarket",
    hint="post JSON with `message_id`, `number`, `sender`, `status` and `code`",
    split=split,
)
