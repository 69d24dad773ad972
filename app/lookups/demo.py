"""A provider without a network, for `make demo`: the number's own digits say what is answered, always the same.

The last digit is what happened, the one before it the carrier. Nothing is sent: the call's address has the scheme
`demo:`, and whatever comes back is not looked at. docs/lookups.md lists the digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from app.models.http import Call, HttpAnswer, Options
from app.models.lookup import Failed, Found, Provider

SCHEME = "demo:"

# By the last digit but one (6 to 9 begin again), with a network code that each is known by.
CARRIERS = (
    ("Verizon Wireless", "311", "480"),
    ("AT&T", "310", "410"),
    ("T-Mobile", "310", "260"),
    ("US Cellular", "311", "580"),
    ("Metro by T-Mobile", "310", "260"),
    ("Cricket", "310", "150"),
)
PORTED, PORTING, LANDLINE, GONE, UNKNOWN = "0123", "6", "7", "8", "9"  # 4 and 5: nothing has changed


def build(numbers: Sequence[str], _: Options) -> Call:
    return Call("GET", SCHEME + ",".join(numbers))


def read(_: HttpAnswer, numbers: Sequence[str], _options: Options) -> Mapping[str, Found | Failed]:
    return {number: told(number) for number in numbers}


def told(number: str) -> Found | Failed:
    happened, place = number[-1], int(number[-2]) % len(CARRIERS)
    if happened == UNKNOWN:
        return Failed(number, "not_found", "the last digit is 9")
    if happened == LANDLINE:
        return Found(number, carrier="Demo Telephone Co.", ported=False, line_type="landline", raw={"digit": happened})
    carrier, mcc, mnc = CARRIERS[place]
    return Found(
        number=number,
        carrier=carrier,
        original_carrier=CARRIERS[place - 1][0] if happened in PORTED else carrier,
        ported=happened in PORTED,
        porting=happened == PORTING,
        line_type="mobile",
        mcc=mcc,
        mnc=mnc,
        active=happened != GONE,
        raw={"digit": happened},
    )


provider = Provider(
    name="demo",
    docs="docs/lookups.md",
    base_url=SCHEME,
    needs=(),
    price=Decimal(0),
    build=build,
    read=read,
    batch=100,
    per_second=1000.0,
    tells_ports=True,
)
