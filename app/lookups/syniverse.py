"""Syniverse Phone Number Verification: one number a POST; the last event of a number, and who had it before.

Answers that were recorded have the record under `numberidentity`; the specification misspells another name for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from app.lookups._fields import Said, day, flag, line_type, name, network, part, text, word
from app.lookups._http import Refused, about, single
from app.models.http import Call, Options, address
from app.models.lookup import Failure, Found, Provider

BASE = "https://api.syniverse.com"
NESTED = ("SucessResponse", "SuccessResponse", "numberidentity")
LETTERS = {"m": "mobile", "l": "landline", "vm": "voip", "vl": "voip"}  # as documented
LETTERS |= {"f": "landline", "v": "voip"}  # likely

CODES: dict[tuple[int, str], Failure] = {
    (400, "NIS04000001"): "invalid_number",
    (400, "NIS04000002"): "bad_request",
    (400, "NIS04000003"): "forbidden",  # Canada; under 403 the same code stands for wrong parameters
    (401, "NIS04010001"): "auth",
    (403, "NIS04000003"): "bad_request",
    (403, "NIS04030001"): "bad_request",  # a wrong HTTP method
    (500, "NIS05000001"): "provider_error",
}


def build(numbers: Sequence[str], options: Options) -> Call:
    (number,) = numbers
    return Call(
        "POST",
        address(options, BASE, "/numberidentity/v3/lookup"),
        headers={"authorization": f"Bearer {options['token']}", "accept": "application/json"},
        json={"phone_number": number, "feature": options.get("feature") or "fs5"},
    )


def meaning(status: int, said: Said) -> tuple[Failure, object] | None:
    code = str(said.get("error_code"))
    return (CODES[status, code], code) if (status, code) in CODES else None


def found(said: Said, number: str) -> Found:
    """A number whose last event is a disconnection is disconnected; a new owner would be a later event. So it is after
    a deactivation that left no carrier; where one serves it, the old network may tell of it after a port.

    Another previous carrier proves no port: the number may have been given to somebody else.
    """
    record = next((part(said, name) for name in NESTED if part(said, name)), said)
    if flag(record.get("validity")) is False:
        raise Refused("invalid_number", "validity is false")
    about(number, record.get("number"))
    event, kind = word(record.get("last_known_event")), record.get("number_type")
    carrier, ported = name(record.get("carrier_name")), event.startswith("port")
    disconnected = event.startswith("disconnect")
    gone = disconnected or (event.startswith("deactivat") and carrier is None)
    ended = record.get("disconnect_date" if disconnected else "deactivation_date")
    return Found(
        number=number,
        carrier=carrier,
        ported=True if ported else None,
        ported_at=day(record.get("porting_date")) if ported else None,
        line_type=line_type(LETTERS.get(word(kind), kind)),
        **network(record.get("carrier_mcc"), record.get("carrier_mnc")),
        active=False if gone else None,
        deactivated_at=day(ended) if gone else None,
        request_id=text(record.get("tracking_id")) or text(said.get("tracking_id")),
        raw=record,
    )


provider = Provider(
    name="syniverse",
    docs="https://developer.syniverse.com/phone-number-verification",
    base_url=BASE,
    needs=("token",),
    may=("feature",),
    price=Decimal("0.01"),
    build=build,
    read=single(found, meaning),
    tells_ports=True,
)
