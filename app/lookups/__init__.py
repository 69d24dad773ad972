"""The lookup providers. The folder is the registry: every module here that does not start with `_` is one of them.

A provider builds a request and reads its answer. Both are pure: no HTTP client, no clock. `read` is the one boundary:
readers are written in a straight line, and whatever they trip over becomes `malformed` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

import orjson

from app.lookups import _rnd as rnd
from app.lookups._fields import CANNOT_READ, why
from app.lookups._http import Refused, wait
from app.models.http import HttpAnswer, Options
from app.models.lookup import Failed, Found, Provider

__all__ = ["PROVIDERS", "read", "rnd", "wait"]


def _found() -> dict[str, Provider]:
    modules = sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
    return {name.replace("_", "-"): import_module(f"{__name__}.{name}").provider for name in modules}


PROVIDERS: dict[str, Provider] = _found()

LONGEST_NAME, LARGEST_RAW = 128, 16_384
"""Characters of any text, bytes of one answer that is kept. The largest published answer has some 1,500 bytes."""


def read(provider: Provider, answer: HttpAnswer, numbers: Sequence[str], options: Options) -> dict[str, Found | Failed]:
    """What an answer says about each number that was asked. Never raises for what it is given.

    A number of which the answer says nothing is `malformed`, not `not_found`: that one ends consent in the end, so it
    must have been said.
    """
    try:
        told = provider.read(answer, numbers, options)
        return {number: _finish(told.get(number), number, options) for number in numbers}
    except Refused as no:
        failed = Failed("", no.error, no.detail, no.retry_after)
    except CANNOT_READ as error:
        failed = Failed("", "malformed", why(error))
    return {number: _discreet(replace(failed, number=number), options) for number in numbers}


def _finish(told: Found | Failed | None, number: str, options: Options) -> Found | Failed:
    if told is None:
        return Failed(number, "malformed", "the answer says nothing about this number")
    if told.number != number:
        return Failed(number, "malformed", "the answer is about another number")
    if isinstance(told, Failed):
        return _discreet(told, options)
    if not _tells(told):
        return Failed(number, "partial", "no carrier, line type or port in the answer")
    return _storable(told)


def _tells(found: Found) -> bool:
    """Whether anything is known: an answer may be all nulls, as of packages that were not asked for."""
    said = (found.carrier, found.original_carrier, found.line_type, found.ported, found.active, found.mcc)
    return any(value is not None for value in said) or found.porting


def _storable(found: Found) -> Found:
    """The record in values that PostgreSQL takes, its raw answer without what is nobody's business."""
    raw = _public(dict(found.raw))
    return replace(
        found,
        carrier=_text(found.carrier),
        voice_carrier=_text(found.voice_carrier),
        original_carrier=_text(found.original_carrier),
        lrn=_text(found.lrn),
        spid=_text(found.spid),
        ocn=_text(found.ocn),
        request_id=_text(found.request_id),
        raw=raw if isinstance(raw, dict) and len(orjson.dumps(raw)) <= LARGEST_RAW else {},
    )


def _text(text: str | None) -> str | None:
    return None if text is None else text.replace("\0", "")[:LONGEST_NAME] or None


PRIVATE = ("imsi", "msin", "servingmsc", "servinghlr", "callername", "cnam", "subscriber", "roaming", "location")
"""Parts of names, without `_`, under which providers tell who a person is or where."""


def _public(said: object) -> object:
    """The same without private members, at any depth, and without NUL, which JSON in PostgreSQL cannot hold."""
    if isinstance(said, dict):
        return {_clean(name): _public(value) for name, value in said.items() if not _is_private(name)}
    if isinstance(said, list):
        return [_public(value) for value in said]
    return _clean(said) if isinstance(said, str) else said


def _clean(text: str) -> str:
    return text.replace("\0", "")


def _is_private(name: str) -> bool:
    plain = "".join(filter(str.isalnum, name)).lower()
    return plain == "msc" or any(part in plain for part in PRIVATE)


def _discreet(failed: Failed, options: Options) -> Failed:
    """Without its words where they hold the number or a secret: a provider may echo what it was sent."""
    hidden = {failed.number.removeprefix("+"), *_texts(options)}
    return replace(failed, detail="") if any(text in failed.detail for text in hidden) else failed


def _texts(options: Mapping[str, object]) -> Iterator[str]:
    """Every text of the settings that is long enough to be a secret."""
    for value in options.values():
        if isinstance(value, str) and len(value) > 7:  # noqa: PLR2004
            yield value
        elif isinstance(value, dict):
            yield from _texts(value)
