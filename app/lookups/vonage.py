"""Vonage Identity Insights (Number Insight ends on 2027-02-04): one number a POST, signed with the application's key.

Each insight has a status of its own. `original_carrier` comes from the numbering plan and knows no ports.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from uuid import NAMESPACE_URL, uuid5

import jwt

from app.lookups._fields import Said, Unreadable, joined, label, line_type, name, part, text
from app.lookups._http import Refused, about, an_object, now, single
from app.models.http import Call, Options, address
from app.models.lookup import Failure, Found, LineType, Provider

BASE = "https://api-us.vonage.com"
LIFETIME = timedelta(minutes=5)
GOOD = frozenset({"ok", "partial_success"})
UNSUPPORTED = "unsupported_network_type"

# developer.vonage.com/en/api/identity-insights; compared without case, since their own libraries write both
STATUS: dict[str, Failure] = {
    "invalid_number_format": "invalid_number",
    "no_coverage": "no_coverage",
    "not_found": "not_found",
    "unauthorized": "forbidden",  # of this application, supplier and number together
    "invalid_purpose": "bad_request",
    "supplier_error": "provider_error",
    "internal_error": "provider_error",
}


def build(numbers: Sequence[str], options: Options) -> Call:
    (number,) = numbers
    return Call(
        "POST",
        address(options, BASE, "/identity-insights/v1/requests"),
        headers={"authorization": f"Bearer {_token(number, options)}", "accept": "application/json"},
        json={
            "phone_number": number.removeprefix("+"),
            "insights": {"format": {}, "current_carrier": {}, "original_carrier": {}},
        },
    )


def _token(number: str, options: Options) -> str:
    """An application's JWT. Its id is new for every instant and number, and needs no chance."""
    signed_at, application = now(options), str(options["application_id"])
    claims = {
        "application_id": application,
        "iat": int(signed_at.timestamp()),
        "exp": int((signed_at + LIFETIME).timestamp()),
        "jti": str(uuid5(NAMESPACE_URL, f"{application} {signed_at.isoformat()} {number}")),
    }
    key = str(options["private_key"]).replace("\\n", "\n")  # as environment variables hold it
    try:
        return jwt.encode(claims, key, algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError):
        raise ValueError("private_key must be an RSA key in PEM: paste the application's whole private.key") from None


def found(said: Said, number: str) -> Found:
    insights = an_object(said["insights"])
    about(number, part(insights, "format").get("number_international"))
    current, original = part(insights, "current_carrier"), part(insights, "original_carrier")
    state = _state(current)
    if state not in GOOD and state != UNSUPPORTED:
        raise Refused(STATUS.get(state, "provider_error"), label(state))
    return Found(
        number=number,
        carrier=name(current.get("name")) if state in GOOD else None,
        original_carrier=name(original.get("name")) if _state(original) in GOOD else None,
        line_type=_line(current, original),
        **joined(current.get("network_code") if state in GOOD else None),
        request_id=text(said.get("request_id")),
        partial=state != "ok",
        raw=said,
    )


def _state(insight: Said) -> str:
    code = text(part(insight, "status").get("code"))
    if code is None:
        raise Unreadable("an insight without a status")
    return code.lower()


def _line(current: Said, original: Said) -> LineType | None:
    """The current carrier's, who are all mobile. A number that it cannot speak of is what the numbering plan says,
    unless that says mobile: the two do not agree, so nobody knows.
    """
    if _state(current) in GOOD:
        return line_type(current.get("network_type"))
    planned = line_type(original.get("network_type")) if _state(original) in GOOD else None
    return "unknown" if planned == "mobile" else planned


provider = Provider(
    name="vonage",
    docs="https://developer.vonage.com/en/identity-insights/overview",
    base_url=BASE,
    needs=("application_id", "private_key"),
    price=Decimal("0.03"),
    build=build,
    read=single(found),
)
