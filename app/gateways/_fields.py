"""Reading what vendors write: texts, counts, clocks, numbers, JSON, forms and XML, all of it possibly wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar

import orjson
from lxml import etree

from app.models.receipt import Broken, Callback, Inbound, Receipt

Said: TypeAlias = Mapping[str, object]
"""One report as the vendor wrote it: names and values, of any type until they are read."""

Element = TypeVar("Element")
Heard = TypeVar("Heard", bound=Receipt | Inbound)

MOST = 200_000
"""Elements of one batch. 8 MiB hold some 140,000 short receipts; more elements than that are no receipts."""


MARK = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8."""
LONGEST_FORM = 65_536
"""Bytes of a form. A receipt has some 500; two million empty fields would take two seconds to take apart."""


class Unreadable(ValueError):
    """Bytes that are no receipt. The words are kept and shown: they never repeat what was received."""


CANNOT_READ = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, SyntaxError)
"""What a parser may trip over. lxml's errors are SyntaxErrors, UnicodeError is a ValueError."""


def why(error: Exception) -> str:
    """Our own words, or the kind of error alone: other messages may repeat a number."""
    return str(error) if isinstance(error, Unreadable) else f"unexpected shape ({type(error).__name__})"


def text(value: object) -> str | None:
    """A string as it is, a whole number as its digits; nothing, and what has no letter but blanks, are None."""
    if isinstance(value, str):
        return None if not value or value.isspace() else value
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:  # past that, digits are already lost
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Unreadable("neither text nor a whole number where one of them belongs")


def first(said: Said, *names: str) -> str | None:
    """The first of these names that says something."""
    for name in names:
        if (found := text(said.get(name))) is not None:
            return found
    return None


def need(said: Said, *names: str) -> str:
    """As `first`, for what a receipt cannot lack."""
    found = first(said, *names)
    if found is None:
        raise Unreadable(f"no {names[0]}")
    return found


def part(said: Said, name: str) -> Said:
    """The object under this name; empty where there is none, or something else."""
    found = said.get(name)
    return found if isinstance(found, dict) else {}


_SMALL = re.compile(r"\d{1,9}", re.ASCII)


def count(value: object) -> int | None:
    """A small whole number, also when written as text; anything else is None."""
    if isinstance(value, str):
        return int(value) if _SMALL.fullmatch(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_EPOCH = re.compile(r"\d{10}(\d{3}){0,3}", re.ASCII)


def moment(value: object) -> datetime | None:
    """A time: RFC 3339, ISO 8601 (also with `+0000`), or an epoch in s, ms, µs or ns. Without a zone it stays naive.

    A time that cannot be read is None: the receipt still says what it says, and is dated by its arrival.
    """
    try:
        if isinstance(value, str):
            return _epoch(float(value)) if _EPOCH.fullmatch(value) else datetime.fromisoformat(value.upper())
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _epoch(float(value))
    except (ValueError, OverflowError, OSError):
        pass
    return None


_OFFSET = re.compile(r"(\d\d:\d\d\S*) (\d\d:?\d\d)$", re.ASCII)


def asked_moment(value: str | None) -> datetime | None:
    """A time out of a query or form, where the `+` of its offset became a blank when the vendor did not escape it."""
    return moment(_OFFSET.sub(r"\1+\2", value)) if value else None


def mail_date(value: object) -> datetime | None:
    """A time as mail writes it (RFC 2822), with its zone; None where it is none."""
    try:
        return parsedate_to_datetime(value) if isinstance(value, str) else None
    except (ValueError, TypeError, OverflowError):
        return None


def _epoch(number: float) -> datetime:
    """Seconds have 10 digits from 2001 to 2286, and each finer unit three more."""
    for _ in range(3):
        if abs(number) >= 1e11:  # noqa: PLR2004
            number /= 1000
    return datetime.fromtimestamp(number, UTC)


def plus(number: str | None) -> str | None:
    """A number whose vendor writes the international digits alone, or with 00, as E.164 has them."""
    digits = number.removeprefix("00") if number and number.isascii() and number.isdigit() else ""
    return f"+{digits}" if digits and digits[0] != "0" else number


LONGEST_CODE = 8
"""Digits of a short code."""


def origin(sender: str | None) -> str | None:
    """As `plus`, a sender of such a vendor: a number of another country must not pass for one of ours."""
    return plus(sender) if sender and len(sender) > LONGEST_CODE else sender


def form(callback: Callback) -> dict[str, str]:
    """The query and the form in the body as one: vendors let the customer choose between GET and POST."""
    if len(callback.body) > LONGEST_FORM:
        raise Unreadable(f"a form of more than {LONGEST_FORM} bytes")
    return callback.params() | callback.form() if callback.body else callback.params()


def bare(callback: Callback) -> bytes:
    """The body from its first letter on, which tells JSON from XML."""
    return callback.body.removeprefix(MARK).lstrip()


def is_xml(callback: Callback) -> bool:
    return bare(callback)[:1] == b"<"


def json(body: bytes) -> object:
    """Any JSON value. Raises Unreadable, without the library's message: that one quotes the place."""
    try:
        return loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable("not JSON") from error


def loads(body: bytes) -> Any:  # noqa: ANN401 - whatever came
    """Any JSON value, also behind a byte order mark, which some vendors write. Raises JSONDecodeError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if body.startswith(MARK):
            return orjson.loads(body.removeprefix(MARK))
        raise


def batch(said: object, one: Callable[[Said], Heard]) -> list[Heard | Broken]:
    """An object is one receipt, an array is many."""
    if isinstance(said, dict):
        return [one(said)]
    if isinstance(said, list):
        return each(said, lambda element: one(an_object(element)))
    raise Unreadable("neither an object nor an array")


def apart(callback: Callback) -> list[bytes]:
    """The elements of a JSON array, each as a body of its own; none of what is no array. For `split`."""
    body = bare(callback)
    return [orjson.dumps(one) for one in orjson.loads(body)] if body[:1] == b"[" else []


def an_object(said: object) -> Said:
    if isinstance(said, dict):
        return said
    raise Unreadable("not an object")


def each(elements: Iterable[Element], one: Callable[[Element], Heard]) -> list[Heard | Broken]:
    """Every element of a batch by itself, so that a broken one does not take the good ones with it.

    A batch of which nothing can be read is Unreadable as a whole: it is kept once, not in a thousand pieces.
    """
    elements = list(elements)
    if len(elements) > MOST:
        raise Unreadable(f"more than {MOST} elements")
    found = [_attempt(element, one) for element in elements]
    broken = [one.reason for one in found if isinstance(one, Broken)]
    if broken and len(broken) == len(found):
        raise Unreadable(broken[0])
    return found


def _attempt(element: Element, one: Callable[[Element], Heard]) -> Heard | Broken:
    try:
        return one(element)
    except CANNOT_READ as error:
        return Broken(b"", why(error))


_XML = etree.XMLParser(
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
)


def xml(body: bytes) -> etree._Element:
    """The root of an XML body. No vendor sends a DOCTYPE, and nothing else can name a file or grow without end."""
    try:
        root = etree.fromstring(body, _XML)
    except etree.XMLSyntaxError as error:
        raise Unreadable("not well-formed XML") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise Unreadable("XML with a DOCTYPE")
    return root


def said_by(element: etree._Element) -> dict[str, object]:
    """An element as JSON would say it: attributes and children by name, of a repeated name the last one."""
    said = attributes(element)
    for child in element:
        inner = said_by(child)
        said[name_of(child.tag)] = inner or (child.text or "").strip()
    return said


MOST_ATTRIBUTES = 100
"""Of one element. The library goes through all of them to find each: of half a million, for a quarter of an hour."""


def attributes(element: etree._Element) -> dict[str, object]:
    if len(element.attrib) > MOST_ATTRIBUTES:
        raise Unreadable(f"an element with more than {MOST_ATTRIBUTES} attributes")
    return {name_of(name): value for name, value in element.attrib.items()}


def outermost(root: etree._Element, *names: str) -> list[etree._Element]:
    """The elements of these names, but for those inside of others: what those say would be read once for each."""
    wanted = [f"{{*}}{name}" for name in names]
    return [one for one in root.iter(*wanted) if next(one.iterancestors(*wanted), None) is None]


def name_of(tag: str | bytes) -> str:
    """A tag or attribute without its namespace."""
    return str(tag).rpartition("}")[2]
