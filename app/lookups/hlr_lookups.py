"""HLR Lookups, the portability product (MNP): one number a POST, signed over path, time, method and body.

LRN and SPID of American numbers hide in texts: `"extra": "LRN:4154250000"`, `"T-Mobile US:6529 - SVR/2"`. Their
`cost` is in EUR, which the budget does not count in: it stays in the raw answer.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from decimal import Decimal

import orjson

from app.lookups._fields import Said, flag, label, name, network, text, word
from app.lookups._http import Refused, about, now, single
from app.models.http import Call, Options, address
from app.models.lookup import Found, Provider

BASE = "https://www.hlr-lookups.com/api/v2"
PATH = "/mnp-lookup"
_LRN, _SPID = re.compile(r"LRN:(\d{10})\b", re.ASCII), re.compile(r":([0-9A-Z]{4})\b", re.ASCII)


def build(numbers: Sequence[str], options: Options) -> Call:
    """The body goes as bytes: the signature covers them as they are."""
    (number,) = numbers
    body, signed_at = orjson.dumps({"msisdn": number}), str(int(now(options).timestamp()))
    message = PATH.encode() + signed_at.encode() + b"POST" + body
    return Call(
        "POST",
        address(options, BASE, PATH),
        headers={
            "content-type": "application/json",
            "x-digest-key": options["api_key"],
            "x-digest-timestamp": signed_at,
            "x-digest-signature": hmac.digest(str(options["api_secret"]).encode(), message, "sha256").hex(),
        },
        content=body,
    )


def found(said: Said, number: str) -> Found:
    """Where nobody knows of a port, the original network may be the one that was left."""
    about(number, said.get("msisdn"))
    _check(said)
    ported, codes = flag(said.get("is_ported")), network(said.get("mcc"), said.get("mnc"))
    original, new = name(said.get("original_network_name")), name(said.get("ported_network_name"))
    carrier = {True: new, False: original, None: None}[ported]
    return Found(
        number=number,
        carrier=carrier,
        original_carrier=original,
        ported=ported,
        **codes,
        lrn=_inside(_LRN, said.get("extra")),
        spid=_inside(_SPID, carrier),
        request_id=text(said.get("id")),
        partial=ported is None and not codes,
        raw=said,
    )


def _check(said: Said) -> None:
    status = word(said["query_status"])
    if status != "ok":
        raise Refused("invalid_number" if "invalid" in status else "provider_error", label(said.get("error_code")))


def _inside(pattern: re.Pattern[str], told: object) -> str | None:
    match = pattern.search(text(told) or "")
    return match[1] if match else None


provider = Provider(
    name="hlr-lookups",
    docs="https://www.hlr-lookups.com/en/api-docs#post-mnp-lookup",
    base_url=BASE,
    needs=("api_key", "api_secret"),
    price=Decimal("0.006"),
    build=build,
    read=single(found),
    tells_ports=True,
)
