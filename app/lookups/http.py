"""Any JSON API, described by settings: what to send, and where in the answer each field lies (docs/lookups.md).

`{number}` in the address, parameters and body is the number in E.164, `{digits}` the same without the plus sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, cast, get_args
from urllib.parse import urlsplit

from app.lookups import _fields
from app.lookups._fields import Said, label, text, word
from app.lookups._http import Refused, about, quoted, said
from app.lookups._template import filled, leaf
from app.models.http import Call, HttpAnswer, Options
from app.models.lookup import ANSWERS, Failed, Failure, Found, Provider
from app.models.path import lies_at

READERS: dict[str, Callable[[object], object]] = {
    **dict.fromkeys(("carrier", "voice_carrier", "original_carrier"), _fields.name),
    **dict.fromkeys(("ported", "active"), _fields.flag),
    "porting": lambda value: _fields.flag(value) is True,
    **dict.fromkeys(("ported_at", "deactivated_at"), _fields.day),
    **dict.fromkeys(("number", "lrn", "spid", "ocn", "request_id"), _fields.text),
    "line_type": _fields.line_type,
    "price": _fields.price,
}
ERRORS = ("path", "words")
CODES = ("mcc", "mnc", "mccmnc")
FAILURES: frozenset[str] = frozenset(get_args(Failure))


def build(numbers: Sequence[str], options: Options) -> Call:
    """Raises ValueError, in words for whoever wrote the settings."""
    _check(options)
    (number,) = numbers
    plain = partial(filled, number=number, digits=number.removeprefix("+"))
    in_path = partial(filled, number=quoted(number), digits=number.removeprefix("+"))
    body = options.get("body")
    return Call(
        method="POST" if str(options.get("method", "GET")).upper() == "POST" else "GET",
        url=str(in_path(_address(options))),
        params=tuple((key, str(plain(value))) for key, value in options.get("params", {}).items()),
        headers={key.lower(): str(value) for key, value in options.get("headers", {}).items()},
        json=plain(body) if isinstance(body, dict | list) else None,
        content=str(plain(body)).encode() if isinstance(body, str) else None,
    )


def _address(options: Options) -> str:
    """`url`; where `base_url` is set it stands for the scheme and host."""
    url, base = str(options["url"]), str(options.get("base_url") or "")
    return base.rstrip("/") + url.removeprefix("{}://{}".format(*urlsplit(url)[:2])) if base else url


def _check(options: Options) -> None:
    _check_request(options)
    for key, path in options["fields"].items():
        if key not in READERS and key not in CODES:
            raise ValueError(f"fields.{key}: no such field; there are {', '.join(sorted([*READERS, *CODES]))}")
        if not path or not isinstance(path, str | list) or not all(isinstance(step, str) for step in path):
            raise ValueError(f"fields.{key}: must be names joined by dots, or a list of names")
    for key, table in options.get("words", {}).items():
        if key not in READERS:
            raise ValueError(f"words.{key}: no such field with words; there are {', '.join(sorted(READERS))}")
        if not isinstance(table, dict):
            raise ValueError(f"words.{key}: must be a table of their words and ours")  # noqa: TRY004 - a setting
    _check_errors(options.get("errors", {}))
    told = [*options.get("statuses", {}).values(), *options.get("errors", {}).get("words", {}).values()]
    for failure in told:
        if failure not in FAILURES:
            raise ValueError(f"{failure!r} is no failure; there are {', '.join(sorted(FAILURES))}")


def _check_request(options: Options) -> None:
    """What would be asked in vain, and paid for, each time: nobody, or about nobody."""
    where = urlsplit(_address(options))
    if where.scheme not in {"http", "https"} or not where.netloc:
        raise ValueError('url: must be absolute, for example "https://numbers.example.com/{number}"')
    if str(options.get("method", "GET")).upper() not in {"GET", "POST"}:
        raise ValueError("method: must be GET or POST")
    asked = str([options["url"], options.get("params"), options.get("body")])
    if "{number}" not in asked and "{digits}" not in asked:
        raise ValueError("neither url, params nor body hold {number} or {digits}: nobody would be asked about")


def _check_errors(errors: Mapping[str, Any]) -> None:
    for key in errors:
        if key not in ERRORS:
            raise ValueError(f"errors.{key}: no such key; there are {', '.join(ERRORS)}")
    if errors and not errors.get("path"):
        raise ValueError("errors.path is missing: where in the answer an error stands")


def read(answer: HttpAnswer, numbers: Sequence[str], options: Options) -> Mapping[str, Found | Failed]:
    (number,) = numbers
    body = said(answer, partial(_meaning, options.get("statuses", {})))
    _refuse(body, options.get("errors", {}))
    return {number: found(body, number, options)}


def _meaning(statuses: Mapping[str, str], status: int, body: Said) -> tuple[Failure, object] | None:
    """A status as the settings have it. An answer about the number must be JSON: a proxy has 404s as well."""
    told = cast("Failure | None", statuses.get(str(status)))
    return None if told is None or (told in ANSWERS and not body) else (told, None)


def _refuse(body: Said, errors: Mapping[str, Any]) -> None:
    """Raises Refused where an error stands in a good answer: `path` leads there, `words` says what it means."""
    value = lies_at(body, errors["path"]) if errors else None
    told = {word(key): failure for key, failure in errors.get("words", {}).items()}.get(word(_plain(value)))
    if told is not None:
        raise Refused(cast("Failure", told), label(text(_plain(value))))


def found(body: Said, number: str, options: Options) -> Found:
    """Only what the settings name is read, and kept: an API may tell things about a person as well."""
    values = {key: leaf(lies_at(body, path)) for key, path in options["fields"].items()}
    about(number, values.get("number"))
    words = options.get("words", {})
    fields = {
        key: READERS[key](_translated(value, words.get(key, {}))) for key, value in values.items() if key in READERS
    }
    codes = _fields.joined(values.get("mccmnc")) or _fields.network(values.get("mcc"), values.get("mnc"))
    return Found(**cast("dict[str, Any]", {**fields, **codes, "number": number, "raw": values}))


def _translated(value: object, words: Mapping[str, object]) -> object:
    """A word of theirs as one of ours, where `words` of the settings has it."""
    table = {word(key): ours for key, ours in words.items()}
    return table.get(word(_plain(value)), value) if table else value


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool | float) else value


provider = Provider(
    name="http",
    docs="docs/lookups.md",
    base_url="",
    needs=("url", "fields"),
    may=("method", "params", "headers", "body", "statuses", "words", "errors"),
    price=Decimal("0.01"),
    build=build,
    read=read,
    tells_ports=True,
)
