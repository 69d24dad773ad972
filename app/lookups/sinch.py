"""Sinch Number Lookup v2: one number a POST; port and date of American numbers. Any member may be null or missing."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from app.lookups._fields import Said, Unreadable, day, flag, label, line_type, name, network, part, text
from app.lookups._http import Refused, about, quoted, single
from app.models.http import Call, Options, address
from app.models.lookup import Failure, Found, Provider

BASE = "https://lookup.api.sinch.com"

# In `line.error`, by its status: 100 is "Feature Disabled", the others are HTTP's.
LINE_ERRORS: dict[object, Failure] = {
    100: "auth",
    400: "bad_request",
    401: "auth",
    402: "quota",
    403: "forbidden",
    404: "not_found",
    429: "rate_limited",
}


def build(numbers: Sequence[str], options: Options) -> Call:
    (number,) = numbers
    return Call(
        "POST",
        address(options, BASE, f"/v2/projects/{quoted(options['project_id'])}/lookups"),
        basic=(options["key_id"], options["key_secret"]),
        json={"number": number, "features": ["LineType"]},
    )


def meaning(status: int, said: Said) -> tuple[Failure, object] | None:
    """A 403 is about the country (Canada needs a licence) or our account. A 404 counts if it says "Number not found":
    one of a path that they do not know has the same shape.
    """
    title = (text(said.get("title")) or "").lower()
    if status == 403 and ("country" in title or "canad" in title):  # noqa: PLR2004
        return "forbidden", "country"
    if status == 404 and "number" in title and said.get("status") == status:  # noqa: PLR2004
        return "not_found", status
    return None


def found(said: Said, number: str) -> Found:
    about(number, said.get("number"))
    line = part(said, "line")
    if line.get("error") is not None:
        raise _refused(line["error"])
    return Found(
        number=number,
        carrier=name(line.get("carrier")),
        ported=flag(line.get("ported")),
        ported_at=day(line.get("portingDate")),
        line_type=line_type(line.get("type")),
        **network(line.get("mobileCountryCode"), line.get("mobileNetworkCode")),
        request_id=text(said.get("traceId")),
        raw=said,
    )


def _refused(error: object) -> Refused:
    if not isinstance(error, dict):
        raise Unreadable("an error that is no object")
    code = error.get("status", error.get("code"))
    known = LINE_ERRORS.get(code) if isinstance(code, int) else None
    return Refused(known or "provider_error", label(code))


provider = Provider(
    name="sinch",
    docs="https://developers.sinch.com/docs/number-lookup-api-v2",
    base_url=BASE,
    needs=("project_id", "key_id", "key_secret"),
    price=Decimal("0.01"),
    build=build,
    read=single(found, meaning),
    tells_ports=True,
)
