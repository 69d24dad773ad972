"""Infobip Number Lookup, synchronous: up to 1,000 numbers a POST. What arrives depends on the package.

A lookup is told in the words of a message: `status` says how it ended, `error` what the network answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from app.lookups._fields import Said, flag, joined, label, name, part, text
from app.lookups._http import Refused, each, objects, said
from app.models.http import Call, HttpAnswer, Options, address
from app.models.lookup import Failed, Failure, Found, Provider

BASE = "https://api.infobip.com"
PENDING, DELIVERED, REJECTED = 1, 3, 5
UNKNOWN_SUBSCRIBER = "EC_UNKNOWN_SUBSCRIBER"

# infobip.com/docs/essentials/api-essentials/response-status-and-error-codes, by status id
REFUSALS: dict[object, Failure] = {
    6: "no_coverage",
    8: "invalid_number",
    12: "quota",
    17: "quota",
    18: "forbidden",
    19: "no_coverage",
    20: "rate_limited",
    21: "provider_error",
    52: "invalid_number",
}


def build(numbers: Sequence[str], options: Options) -> Call:
    return Call(
        "POST",
        address(options, BASE, "/number/1/query"),
        headers={"authorization": f"App {options['api_key']}", "accept": "application/json"},
        json={"to": [number.removeprefix("+") for number in numbers]},
    )


def read(answer: HttpAnswer, numbers: Sequence[str], _: Options) -> Mapping[str, Found | Failed]:
    told = {f"+{str(one.get('to')).removeprefix('+')}": one for one in objects(said(answer)["results"])}
    return each(((number, told[number]) for number in numbers if number in told), found)


def found(said: Said, number: str) -> Found:
    """Of a ported number `mccMnc` is that of the old network, so it is not told. Where nothing is said of a port it is
    told if a network has answered; and the original network may be the one that was left.
    """
    ported, answered = flag(said.get("ported")), part(said, "status").get("groupId") == DELIVERED
    if not ported:
        _check(part(said, "status"), part(said, "error"))
    original, new = (name(part(said, key).get("networkName")) for key in ("originalNetwork", "portedNetwork"))
    codes = joined(said.get("mccMnc") if ported is False or (ported is None and answered) else None)
    return Found(
        number=number,
        carrier={True: new, False: original, None: None}[ported],
        original_carrier=original,
        ported=ported,
        **codes,
        active=True if answered else None,
        request_id=text(said.get("messageId")),
        partial=ported is None and not codes,
        raw=said,
    )


def _check(status: Said, error: Said) -> None:
    """Raises Refused where nothing was found out. A network that does not know the subscriber is `not_found`; a phone
    that is off (EC_ABSENT_SUBSCRIBER) or barred still has its network.
    """
    group, code = status.get("groupId"), status.get("id")
    if group == PENDING:
        raise Refused("pending", "PENDING")
    if error.get("name") == UNKNOWN_SUBSCRIBER:
        raise Refused("not_found", f"code {UNKNOWN_SUBSCRIBER}")
    if group == REJECTED or code in REFUSALS:
        raise Refused(REFUSALS.get(code, "bad_request"), label(code))


provider = Provider(
    name="infobip",
    docs="https://www.infobip.com/docs/api/connectivity/number-lookup",
    base_url=BASE,
    needs=("api_key",),
    price=Decimal("0.01"),
    build=build,
    read=read,
    batch=1_000,
    per_second=5.0,
    tells_ports=True,
)
