"""Twilio Lookup v2, Line Type Intelligence: one number a GET; carrier and line type, never a port.

Failures stand in a package's `error_code` under HTTP 200, and every package that was not asked for is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from app.lookups._fields import Said, label, line_type, name, network, part
from app.lookups._http import Refused, about, quoted, single
from app.models.http import Call, Options, address
from app.models.lookup import Failure, Found, Provider

BASE = "https://lookups.twilio.com"
NUMBERS = "/PhoneNumbers/"
PACKAGES = "line_type_intelligence"

# twilio.com/docs/api/errors: of the account, then of the package
CODES: dict[str, Failure] = {
    "20003": "auth",
    "20404": "bad_request",  # a path that it does not know, unless that is a number's
    "20429": "rate_limited",
    "60600": "no_coverage",
    "60601": "forbidden",  # Canada, until the account is approved
    "60606": "auth",  # the package is not enabled: no number will have an answer
    "60607": "no_coverage",
    "60608": "provider_error",
    "60611": "quota",
    "60614": "bad_request",
    "60616": "rate_limited",
    "60619": "bad_request",
    "60626": "rate_limited",  # this very number was asked too often
    "60627": "quota",  # no funds; seen in community posts only
}
# Of a number that its package calls unreachable the phone may be off.
LIVE = {"active": True, "reachable": True, "inactive": False}


def build(numbers: Sequence[str], options: Options) -> Call:
    """`fields` of the settings may add `line_status`, which says whether the line is in service, at its own price."""
    (number,) = numbers
    return Call(
        "GET",
        address(options, BASE, f"/v2{NUMBERS}{quoted(number)}"),
        params=(("Fields", options.get("fields") or PACKAGES),),
        basic=(options["account_sid"], options["auth_token"]),
    )


def meaning(_: int, said: Said) -> tuple[Failure, object] | None:
    code = str(said.get("code"))
    if code == "20404" and f"resource {NUMBERS}" in str(said.get("message")):
        return "invalid_number", code
    return (CODES[code], code) if code in CODES else None


def found(said: Said, number: str) -> Found:
    if said["valid"] is False:
        raise Refused("invalid_number", "valid is false")
    about(number, said.get("phone_number"))
    line, status = part(said, "line_type_intelligence"), part(said, "line_status")
    code = line.get("error_code")
    if code is not None:
        raise Refused(CODES.get(str(code), "provider_error"), label(code))
    return Found(
        number=number,
        carrier=name(line.get("carrier_name")),
        line_type=line_type(line.get("type")),
        **network(line.get("mobile_country_code"), line.get("mobile_network_code")),
        active=LIVE.get(str(status.get("status"))) if status.get("error_code") is None else None,
        raw={"phone_number": number, "line_type_intelligence": line, "line_status": status},
    )


provider = Provider(
    name="twilio",
    docs="https://www.twilio.com/docs/lookup/v2-api/line-type-intelligence",
    base_url=BASE,
    needs=("account_sid", "auth_token"),
    may=("fields",),
    price=Decimal("0.008"),
    build=build,
    read=single(found, meaning),
)
