"""The recorded cases of the gateways, as values: what `tests/gateways/<name>.toml` says came, and what it means.

docs/adding-a-gateway.md says how to write them.
"""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.gateways import GATEWAYS, custom, prove, read
from app.models.described import Description
from app.models.receipt import NEVER, Broken, Callback, Gateway, Inbound, Link, Receipt, Status
from tests.recorded import filled, one_by_one

RECORDED = Path(__file__).parent / "gateways"


@dataclass(frozen=True)
class Case:
    """One recorded callback and what it means."""

    gateway: Gateway
    name: str
    callback: Callback
    link: Link
    receipts: list[Receipt]
    broken: list[dict[str, str]]
    inbound: int
    reply: dict[str, Any] | None
    secret: str = ""
    covers: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    valid: timedelta = timedelta()
    nonce: str | None = None


def cases_of(gateway: Gateway, path: Path, kind: str = "case") -> Iterator[Case]:
    recorded = tomllib.loads(path.read_text())
    for said in one_by_one(recorded.get(kind, [])):
        yield as_case(described(said.pop("as"), path) if "as" in said else gateway, said)


@cache
def described(name: str, path: Path) -> Gateway:
    """A gateway that a file of cases describes, as a settings file would."""
    table = tomllib.loads(path.read_text())["described"][name]
    return custom.described(name, Description.model_validate(table))


def as_case(gateway: Gateway, said: dict[str, Any]) -> Case:
    wanted = said.get("receipt", [])
    if many := said.get("many"):
        ns = [f"{n:04}" for n in range(many["times"])]
        said["body"] = (
            many["before"] + many["between"].join(filled(many["element"], {"n": n}) for n in ns) + many["after"]
        )
        wanted = [filled(one, {"n": n}) for n in ns for one in wanted]
    link = as_link(gateway, said.get("link", {}))
    return Case(
        gateway=gateway,
        name=f"{gateway.name}: {said['name']}",
        callback=as_callback(gateway, said),
        link=link,
        receipts=[as_receipt(one, link) for one in wanted],
        broken=said.get("broken", []),
        inbound=said.get("inbound", 0),
        reply=said.get("reply"),
        secret=said.get("secret", ""),
        covers=tuple(said.get("covers", ())),
        inside=("token", *said.get("inside", ())),
        valid=timedelta(seconds=said["valid"]) if "valid" in said else link.window,
        nonce=said.get("nonce"),
    )


def as_callback(gateway: Gateway, said: dict[str, Any]) -> Callback:
    body = base64.b64decode(said["body_base64"]) if "body_base64" in said else said.get("body", "").encode()
    url = said.get("url", f"https://dlr.example.com/v1/receipts/{gateway.name}")
    return Callback(
        method=said.get("method", "POST"),
        url=url + (f"?{said['query']}" if said.get("query") else ""),
        headers=said.get("headers", {}),
        query=said.get("query") or url.partition("?")[2],
        body=body,
        at=said.get("at", NEVER),
        certificate=said.get("certificate", "").encode(),
    )


def as_link(gateway: Gateway, said: dict[str, Any]) -> Link:
    zone = {"timezone": ZoneInfo(said["timezone"])} if "timezone" in said else {}
    return Link(gateway.name, account="eu", **{**said, **zone})


def as_receipt(said: dict[str, Any], link: Link) -> Receipt:
    """What the case names, and nothing else told. The vendor's word is told of an unknown status alone."""
    names = {"message_id": None} | said | {"status": Status(said["status"])}
    if names["status"] is not Status.UNKNOWN or names.get("word", "").lower() == Status.UNKNOWN:
        names.pop("word", None)
    return Receipt(**names, gateway=link.gateway, account=link.account)


def recorded(kind: str = "case") -> list[Case]:
    there = [(gateway, RECORDED / f"{name.replace('-', '_')}.toml") for name, gateway in GATEWAYS.items()]
    return [case for gateway, path in there if path.exists() for case in cases_of(gateway, path, kind)]


CASES, PROOFS = recorded(), recorded("proof")
READERS = [gateway for gateway in GATEWAYS.values() if gateway is not custom.gateway]
READERS += {case.gateway.name: case.gateway for case in CASES if case.gateway not in GATEWAYS.values()}.values()

each_gateway = pytest.mark.parametrize("gateway", READERS, ids=lambda gateway: gateway.name)


def check(case: Case) -> None:
    found = read(case.gateway, case.callback, case.link)
    assert [one for one in found if isinstance(one, Receipt)] == case.receipts
    assert found.count(Inbound()) == case.inbound
    broken = [one for one in found if isinstance(one, Broken)]
    assert [one.reason for one in broken] == [wanted["reason"] for wanted in case.broken]
    for one, wanted in zip(broken, case.broken, strict=True):
        assert one.raw == wanted["raw"].encode() if "raw" in wanted else one.raw == case.callback.body


def proven(case: Case, *secrets: str, callback: Callback | None = None) -> bool:
    return prove(case.gateway, callback or case.callback, replace(case.link, secrets=secrets))
