"""Plivo Lookup: one number a GET; tells whether an American or Canadian number was ported, not when."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from app.lookups._fields import Said, flag, line_type, name, network, part, text
from app.lookups._http import about, quoted, single
from app.models.http import Call, Options, address
from app.models.lookup import Failure, Found, Provider

BASE = "https://lookup.plivo.com"
INVALID = "20404"


def build(numbers: Sequence[str], options: Options) -> Call:
    (number,) = numbers
    return Call(
        "GET",
        address(options, BASE, f"/v1/Number/{quoted(number)}"),
        params=(("type", "carrier"),),
        basic=(options["auth_id"], options["auth_token"]),
    )


def meaning(_: int, said: Said) -> tuple[Failure, object] | None:
    code = str(said.get("error_code", said.get("code")))
    return ("invalid_number", code) if code == INVALID else None


def found(said: Said, number: str) -> Found:
    """Where the port is unknown Plivo itself calls the carrier's name unreliable: then it is kept in `raw` alone."""
    carrier = part(said, "carrier") or part(said, "service_provider")  # as the older address has it
    about(number, said.get("phone_number") or part(said, "number_format").get("e164"))
    ported = flag(carrier.get("ported"))
    sure = ported is not None
    codes = (carrier.get("mobile_country_code"), carrier.get("mobile_network_code")) if sure else (None, None)
    return Found(
        number=number,
        carrier=name(carrier.get("name")) if sure else None,
        ported=ported,
        line_type=line_type(carrier.get("type")),
        **network(*codes),
        request_id=text(said.get("api_id")),
        partial=not sure,
        raw=said,
    )


provider = Provider(
    name="plivo",
    docs="https://www.plivo.com/docs/lookup/api/lookup-phone-number",
    base_url=BASE,
    needs=("auth_id", "auth_token"),
    price=Decimal("0.004"),
    build=build,
    read=single(found, meaning),
    tells_ports=True,
)
