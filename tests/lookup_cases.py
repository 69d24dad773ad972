"""The recorded cases of the lookup providers, as values: what is asked, and what `tests/lookups/<name>.toml` answers.

docs/lookups.md says how to write them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.lookups import PROVIDERS, read
from app.models.http import HttpAnswer
from app.models.lookup import Failed, Found, Provider
from tests.recorded import one_by_one

RECORDED = Path(__file__).parent / "lookups"
NUMBER = "+15555551234"


@cache
def rsa_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@dataclass(frozen=True)
class Case:
    """What is sent for some numbers, or what an answer says about them."""

    provider: Provider
    name: str
    numbers: list[str]
    options: dict[str, Any]
    said: dict[str, Any]
    answer: HttpAnswer
    wanted: dict[str, Found | Failed] = field(default_factory=dict)


def recorded(kind: str) -> list[Case]:
    there = [(provider, RECORDED / f"{name.replace('-', '_')}.toml") for name, provider in PROVIDERS.items()]
    return [case for provider, path in there if path.exists() for case in cases_of(provider, path, kind)]


def cases_of(provider: Provider, path: Path, kind: str) -> Iterator[Case]:
    file = tomllib.loads(path.read_text())
    for said in one_by_one(file.get(kind, [])):
        yield as_case(provider, file.get("options", {}), said)


def as_case(provider: Provider, options: dict[str, Any], said: dict[str, Any]) -> Case:
    options = options | said.get("options", {})
    if "private_key" in options:
        options["private_key"] = rsa_key()
    found = [as_found(one) for one in said.get("found", [])]
    failed = [Failed(**{"number": NUMBER, **one}) for one in said.get("failed", [])]
    return Case(
        provider=provider,
        name=f"{provider.name}: {said['name']}",
        numbers=said.get("numbers", [NUMBER]),
        options=options,
        said=said,
        answer=HttpAnswer(int(said.get("status", 200)), said.get("headers", {}), said.get("body", "").encode()),
        wanted={one.number: one for one in [*found, *failed]},
    )


def as_found(said: dict[str, Any]) -> Found:
    """What the case names, and nothing else told. In a row of `each` yes, no and "" are true, false and not told."""
    flags = {"yes": True, "no": False, "": None}
    values = {key: flags.get(value, value) if key == "active" else value for key, value in said.items()}
    if "price" in values:
        values["price"] = Decimal(values["price"])
    return Found(**{"number": NUMBER, **values})


BUILDS, CASES = recorded("build"), recorded("case")
GOOD = {case.provider.name: case for case in reversed(CASES) if isinstance(next(iter(case.wanted.values())), Found)}
SENT = [provider for provider in PROVIDERS.values() if provider.name != "demo"]
each_build = pytest.mark.parametrize("case", BUILDS, ids=lambda case: case.name)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
each_that_sends = pytest.mark.parametrize("provider", SENT, ids=lambda provider: provider.name)


def told(case: Case, answer: HttpAnswer | None = None) -> dict[str, Found | Failed]:
    return read(case.provider, answer or case.answer, case.numbers, case.options)
