"""Bandwidth Phone Number Lookup v2, synchronous: up to 100 numbers a POST; the carriers of messages and of voice apart.

With the add-on for deactivations (DNI) it also says whether messages still arrive. Errors stand beside good results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

import orjson

from app.lookups._fields import Said, day, label, line_type, name, part, text
from app.lookups._http import Refused, each, objects, quoted, said
from app.models.http import Call, HttpAnswer, Options, address
from app.models.lookup import Failed, Failure, Found, Provider

BASE = "https://api.bandwidth.com"
ERRORS: dict[str, Failure] = {"no-match": "not_found", "rate-limiting": "rate_limited"}
LIVE = {"ACTIVE": True, "DEACTIVATED": False}


def build(numbers: Sequence[str], options: Options) -> Call:
    return Call(
        "POST",
        address(options, BASE, f"/v2/accounts/{quoted(options['account_id'])}/phoneNumberLookup"),
        basic=(options["username"], options["password"]),
        json={"phoneNumbers": list(numbers)},
    )


def read(answer: HttpAnswer, numbers: Sequence[str], _: Options) -> Mapping[str, Found | Failed]:
    body = said(answer)
    data = part(body, "data") or body  # the schema has `data`; its examples have been seen without
    if data.get("status") == "IN_PROGRESS":
        raise Refused("pending", "IN_PROGRESS")
    results = {str(one.get("phoneNumber")): one for one in objects(data.get("results"))}
    named = each(((number, results[number]) for number in numbers if number in results), found)
    return dict(_failures(body, [number for number in numbers if number not in results])) | named


def found(said: Said, number: str) -> Found:
    """A carrier's deactivation alone is not `active` False: it may have been a port. The latest delivery status is; but
    that is the last message's, and may be older than the port where that carrier is not the present one. Where no
    carrier has told of a day, it counts from when it began.
    """
    voice, messaging = name(said.get("voiceProvider")), name(said.get("messagingProvider"))
    active = LIVE.get(str(said.get("latestMessageDeliveryStatus")))
    if active is False and _was_left(name(said.get("deactivationReporter")), messaging or voice):
        active = None
    since = said.get("initialMessageDeliveryStatusDate") if active is False else None
    return Found(
        number=number,
        carrier=messaging or voice,
        voice_carrier=voice,
        line_type=line_type(said.get("lineType")),
        active=active,
        deactivated_at=day(said.get("deactivationDate")) or day(since),  # no zone is named
        partial=not (messaging or voice),  # as all Canadian ones are
        raw=said,
    )


def _was_left(reporter: str | None, present: str | None) -> bool:
    """Whether a carrier that told of a deactivation is not the one that serves the number: "att" is "AT&T"."""
    ours, theirs = ("".join(filter(str.isalnum, carrier or "")).lower() for carrier in (present, reporter))
    return bool(ours and theirs) and theirs not in ours


def _failures(body: Said, missing: Sequence[str]) -> Iterator[tuple[str, Failed]]:
    """What the errors say of numbers without a result: of those that an error names, else of all of them.

    Errors of other features (RCS) stand there as well, and say nothing about a number.
    """
    for error in objects(body.get("errors")):
        told = ERRORS.get(str(error.get("code")).lower()) or ERRORS.get(str(error.get("type")).lower())
        named = [number for number in missing if number[1:].encode() in orjson.dumps(error)]
        for number in (named or missing) if told else ():
            yield number, Failed(number, told or "provider_error", label(text(error.get("code"))))


provider = Provider(
    name="bandwidth",
    docs="https://dev.bandwidth.com/docs/numbers/guides/lookupNumbers/",
    base_url=BASE,
    needs=("account_id", "username", "password"),
    price=Decimal("0.01"),
    build=build,
    read=read,
    batch=100,
    per_second=5.0,
)
