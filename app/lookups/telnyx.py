"""Telnyx Number Lookup: one number a GET; the only self-service one that tells port, date, LRN and SPID of US numbers.

`portability` speaks of the number and comes with every American one; `carrier` speaks of the carrier.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import orjson

from app.lookups._fields import Said, day, flag, line_type, name, network, part, text
from app.lookups._http import Refused, about, an_object, quoted, single
from app.models.http import Call, Options, address
from app.models.lookup import Failure, Found, Provider

BASE = "https://api.telnyx.com"

# developers.telnyx.com/docs/overview/errors
CODES: dict[str, Failure] = {
    "10001": "not_found",  # "inactive"; also stands beside a good caller name, so no more than that is made of it
    "10002": "invalid_number",
    "10007": "provider_error",
    "10008": "provider_error",
    "10009": "auth",
    "10010": "auth",
    "10011": "rate_limited",
    "10015": "bad_request",
    "10016": "bad_request",
}


def build(numbers: Sequence[str], options: Options) -> Call:
    (number,) = numbers
    return Call(
        "GET",
        address(options, BASE, f"/v2/number_lookup/{quoted(number)}"),
        params=(("type", "carrier"),),
        headers={"authorization": f"Bearer {options['api_key']}", "accept": "application/json"},
    )


def meaning(status: int, said: Said) -> tuple[Failure, object] | None:
    """By the first error's code. A Canadian number has the status of a wrong one: only the words tell them apart."""
    errors = said.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    code = str(first.get("code"))
    if status == 422 and b"canadian" in orjson.dumps(errors).lower():  # noqa: PLR2004
        return "forbidden", code
    return (CODES[code], code) if code in CODES else None


def found(said: Said, number: str) -> Found:
    data = an_object(said["data"])
    carrier, ported = part(data, "carrier"), part(data, "portability")
    about(number, data.get("phone_number"))
    if data.get("valid_number") is False:
        raise Refused("invalid_number", "valid_number is false")
    spid = text(ported.get("spid"))
    behind = name(ported.get("spid_carrier_name")) if spid else None  # without one: who first held the block of numbers
    return Found(
        number=number,
        carrier=behind or name(carrier.get("name")),
        voice_carrier=behind,
        ported=flag(ported.get("ported_status")),
        ported_at=day(ported.get("ported_date")),
        line_type=line_type(ported.get("line_type") if ported else carrier.get("type")),
        **network(carrier.get("mobile_country_code"), carrier.get("mobile_network_code")),
        lrn=text(ported.get("lrn")),
        spid=spid,
        ocn=text(ported.get("ocn")),
        raw=data,
    )


provider = Provider(
    name="telnyx",
    docs="https://developers.telnyx.com/docs/identity/number-lookup",
    base_url=BASE,
    needs=("api_key",),
    price=Decimal("0.01"),
    build=build,
    read=single(found, meaning),
    tells_ports=True,
)
