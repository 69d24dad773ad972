"""A gateway that the settings file describes (docs/gateways/custom.md), so that no company waits for a release."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from urllib.parse import quote

import orjson
from lxml import etree
from msgspec.structs import replace

from app.gateways import _fields, _verify
from app.gateways._fields import LONGEST_FORM, MOST, Unreadable, an_object, count, each, moment, origin, plus, text
from app.gateways._smpp import STAT, report
from app.gateways._words import NO_RECEIPT
from app.gateways._words import RECEIPT_TEXT as RECEIPT_END
from app.models.described import RECEIPT_TEXT, Description, Path, Place, Signature
from app.models.path import lies_at
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Reply, Status

LONGEST_WORD = 1000
LIGHT = 4096
"""Bytes around the elements of a batch."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a path may lead into: one element of a batch, the body that holds it, the query."""

    element: object
    body: object
    query: Mapping[str, str]


def described(name: str, description: Description) -> Gateway:
    """`[gateways.custom.NAME]` as a gateway like any other; it is called `custom/NAME`."""
    answer = description.answer
    reply = Reply(answer.status, answer.body.encode(), answer.content_type)
    return Gateway(
        name=f"{gateway.name}/{name}",
        docs=gateway.docs,
        parse=partial(parse, description),
        verify=partial(verify, description),
        sign=partial(sign, description),
        reply=lambda _: reply,
        split=partial(split, description),
        hides=_hidden(description),
        presents=_presented(description),
        words=_told(description),
        hint=_hint(description),
    )


def _hint(description: Description) -> str:
    if description.fields.code_space or all(code.space for code in description.fields.code):
        return ""
    return "set `code_space` to the space of its codes: without it they are kept, and act on nobody"


# What comes --------------------------------------------------------------------------------------------------------


def parse(description: Description, callback: Callback) -> list[Receipt | Inbound | Broken]:
    body, elements = _elements(description, callback)
    if len(elements) > MOST:
        raise Unreadable(f"more than {MOST} elements")
    query = callback.params()
    scopes = [Scope(_said(element), body, query) for element in elements]
    return each(scopes, partial(_heard, description))


def split(description: Description, callback: Callback) -> list[bytes]:
    """Each element as a body that reads alone; none where that cannot be, and then the whole body is kept."""
    body, elements = _elements(description, callback)
    if description.reads in {"form", "query"} or (body is not None and not _is_light(description, body)):
        return []
    return [_raw(one if body is None else _alone(body, description.each, one)) for one in elements]


def _is_light(description: Description, body: object) -> bool:
    """Whether what stands around the elements of a JSON body is little enough to be repeated with each of them."""
    return description.reads == "json" and len(orjson.dumps(_alone(body, description.each, None))) < LIGHT


def _alone(body: object, each: tuple[str, ...], element: object) -> object:
    """The body with this element as the only one of its list."""
    if not each:
        return [element] if isinstance(body, list) else body
    if not isinstance(body, dict) or each[0] not in body:
        return body
    return {**body, each[0]: [element] if len(each) == 1 else _alone(body[each[0]], each[1:], element)}


def _elements(description: Description, callback: Callback) -> tuple[object, list[object]]:
    """The body, where a path leads into it from its root, and the elements as they were received."""
    if description.reads == "query":
        return None, [callback.params()]
    if description.reads == "form":
        return None, [_form(callback)]
    if description.reads == "lines":
        return None, _lines(callback.body)
    if description.reads == "xml":
        root = _fields.xml(callback.body)
        return (told_by(root) if _looks_around(description) else None), [*_nodes(root, description.each)]
    body = _fields.json(callback.body)
    found = lies_at(body, description.each) if description.each else body
    found = body if found is None else found
    return (body if _looks_around(description) else None), found if isinstance(found, list) else [found]


def _looks_around(description: Description) -> bool:
    return any(path.start == "body" for path in description.paths())


def _form(callback: Callback) -> dict[str, str]:
    if len(callback.body) > LONGEST_FORM:
        raise Unreadable(f"a form of more than {LONGEST_FORM} bytes")
    return callback.form()


def _lines(body: bytes) -> list[object]:
    lines: list[object] = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise Unreadable("nothing in it")
    return lines


def _nodes(root: etree._Element, path: tuple[str, ...]) -> list[etree._Element]:
    """All elements at the end of this path of names; the root itself where there are none."""
    found = [root]
    for step in path:
        found = [child for node in found for child in node if _fields.name_of(child.tag) == step]
    return found or [root]


def told_by(node: etree._Element) -> object:
    """An element as JSON would say it: attributes and children by name, repeated ones as a list, else its text."""
    said: dict[str, list[object]] = {name: [value] for name, value in _fields.attributes(node).items()}
    for child in node:
        said.setdefault(_fields.name_of(child.tag), []).append(told_by(child))
    words = (node.text or "").strip()
    if not said:
        return words
    return {name: found[0] if len(found) == 1 else found for name, found in said.items()} | {"#text": words}


def _said(element: object) -> object:
    if isinstance(element, etree._Element):  # noqa: SLF001 - the only name that it has
        return told_by(element)
    if not isinstance(element, bytes):
        return element
    try:
        return _fields.loads(element)
    except orjson.JSONDecodeError:
        return None


def _raw(element: object) -> bytes:
    if isinstance(element, etree._Element):  # noqa: SLF001
        return etree.tostring(element, with_tail=False)
    return element if isinstance(element, bytes) else orjson.dumps(element)


# What it says ------------------------------------------------------------------------------------------------------


def _heard(description: Description, scope: Scope) -> Receipt | Inbound:
    return receipt(description, scope) if _wanted(description, scope) else Inbound()


def receipt(description: Description, scope: Scope) -> Receipt:
    scope = _with_text(description, scope)
    fields = description.fields
    words = _words(description, scope)
    status = next((found for word in words if (found := _meaning(description, word))), None)
    became = status or Status.UNKNOWN
    code, space = _code(description, scope, became)
    network = _text(fields.mccmnc, scope) or ""
    number, sender = _text(fields.number, scope), _text(fields.sender, scope)
    return Receipt(
        message_id=_text(fields.message_id, scope),
        status=became,
        word=None if status else "/".join(words),
        number=number if description.numbers == "as_written" else plus(number),
        sender=sender if description.numbers == "as_written" else origin(sender),
        code=code,
        code_space=space,
        carrier=_text(fields.carrier, scope),
        mcc=_text(fields.mcc, scope) or network[:3],
        mnc=_text(fields.mnc, scope) or network[3:],
        segment=count(_value(fields.segment, scope)),
        segments=count(_value(fields.segments, scope)),
        occurred_at=_moment(description, fields.occurred_at, scope),
        sent_at=_moment(description, fields.sent_at, scope),
    )


def _with_text(description: Description, scope: Scope) -> Scope:
    """The parts of a receipt text (SMPP, Appendix B) laid beside the rest, where one is to be read."""
    element = an_object(scope.element)
    if not description.receipt_text:
        return scope
    told = report(_text(description.receipt_text, scope) or "")
    parts = {
        "id": told.id,
        "stat": told.stat,
        "err": told.err,
        "submitted": told.submitted,
        "done": told.ended(STAT.get(told.stat or "")),
    }
    return Scope({**element, RECEIPT_TEXT: parts}, scope.body, scope.query)


def _wanted(description: Description, scope: Scope) -> bool:
    """Whether it is read: not where `only` names other words. What says nothing there is read all the same."""
    for at, words in description.only:
        found = _plain(_value(at, scope))
        if isinstance(found, str | int) and str(found).strip().casefold() not in words:
            return False
    return True


def _words(description: Description, scope: Scope) -> list[str]:
    """What each alternative says of the status: the first that is known counts."""
    places = description.fields.status
    words = [word for alternative in places if (word := _text((alternative,), scope)) is not None]
    if not words:
        raise Unreadable("no status")
    return words


def _meaning(description: Description, word: str) -> Status | None:
    """Exactly, or else without regard to case. Without a table of theirs, the words are ours."""
    table = description.statuses or {status.value: status for status in Status}
    if word in table:
        return table[word]
    folded = {ours.casefold(): status for ours, status in table.items()}
    return folded.get(word[:LONGEST_WORD].strip().casefold())


def _code(description: Description, scope: Scope, status: Status) -> tuple[str | None, str | None]:
    """The first place with a code that is not zero, of those that speak of this status."""
    for place in description.fields.code:
        code = _text(place.at, scope) if not place.when or status in place.when else None
        if code and code.strip("0"):
            return code, place.space or _text(description.fields.code_space, scope)
    return None, None


def _moment(description: Description, place: Place, scope: Scope) -> datetime | None:
    """A time in the described form, or in one that says itself what it is. What cannot be read is none."""
    value = _value(place, scope)
    if isinstance(value, datetime):
        return value
    if description.time_format is None:
        return moment(value)
    try:
        return datetime.strptime(text(value) or "", description.time_format)  # noqa: DTZ007 - its zone is the link's
    except (ValueError, OverflowError):
        return None


def _text(place: Place, scope: Scope) -> str | None:
    return text(_plain(_value(place, scope)))


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _value(place: Place, scope: Scope) -> object:
    """What lies at the first alternative that says something."""
    for alternative in place:
        values = [_at(path, scope) for path in alternative]
        if not any(value is None or value == "" for value in values):
            return values[0] if len(values) == 1 else "+".join(text(_plain(value)) or "" for value in values)
    return None


def _at(path: Path, scope: Scope) -> object:
    if path.start == "query":
        return scope.query.get(path.steps[0])
    found = lies_at(scope.element if path.start == "element" else scope.body, path.steps)
    return found.get("#text", found) if isinstance(found, dict) else found


# Whom it comes from ------------------------------------------------------------------------------------------------


def verify(description: Description, callback: Callback, secret: str, link: Link) -> bool:
    if description.signature:
        return _is_signed(description.signature, callback, secret, link)
    if description.token is None:
        return _verify.token(callback, secret, link)
    name = description.token.header
    given = callback.header(name) if name else callback.params().get(description.token.param or "", "")
    return _verify.same(given.encode("latin-1" if name else "utf-8", "replace"), secret)


def sign(description: Description, callback: Callback, secret: str, link: Link) -> Callback:
    """As the description says that this vendor proves itself."""
    if description.signature:
        return _signed_by(description.signature, callback, secret)
    if description.token is None:
        return _verify.sign_token(callback, secret, link)
    if name := description.token.header:
        value = secret.encode().decode("latin-1")
        return replace(callback, headers={**callback.headers, name.lower(): value})
    pair = f"{quote(description.token.param or '', safe='')}={quote(secret, safe='')}"
    query = f"{callback.query}&{pair}" if callback.query else pair
    return replace(callback, query=query, url=f"{callback.url.partition('?')[0]}?{query}")


def _signed_by(signature: Signature, callback: Callback, secret: str) -> Callback:
    timed = {signature.time: _verify.stamp(callback)} if signature.time else {}
    plain = replace(callback, headers={**callback.headers, **timed})
    made = hmac.digest(signature.key_of(secret), _signed(signature.over, plain), signature.hash)
    return replace(plain, headers={**plain.headers, signature.header: signature.prefix + made.hex()})


def _is_signed(signature: Signature, callback: Callback, secret: str, link: Link) -> bool:
    given = callback.header(signature.header).strip()
    if not given.startswith(signature.prefix):
        return False
    made = hmac.digest(signature.key_of(secret), _signed(signature.over, callback), signature.hash)
    proven = hmac.compare_digest(made, _verify.signature(given.removeprefix(signature.prefix)))
    return proven and (signature.time is None or _verify.timely(callback.header(signature.time), callback, link))


def _signed(over: str, callback: Callback) -> bytes:
    """The template with what it names, byte for byte; whatever is none of ours is a header."""
    ours = {"url": callback.url, "query": callback.query, "method": callback.method}
    parts = re.split(r"\{([a-zA-Z0-9_-]+)\}", over)
    for place in range(1, len(parts), 2):
        name = parts[place].lower()
        parts[place] = "\0" if name == "body" else ours.get(name, callback.header(name)).replace("\0", "")
    text = "".join(parts).encode("latin-1", "replace")
    return text.replace(b"\0", callback.body)


def _hidden(description: Description) -> frozenset[str]:
    """Headers and parameters that would prove an origin once more."""
    signed = [description.signature.header.lower()] if description.signature else []
    return _presented(description).union(signed)


def _presented(description: Description) -> frozenset[str]:
    """Those of them that hold our secret itself."""
    named = (description.token.header, description.token.param) if description.token else ()
    return frozenset(name.lower() for name in named if name)


def _told(description: Description) -> frozenset[str]:
    """Where its messages' words may stand. A receipt text is kept under any name: a description that missed it is
    mended, and reads what was kept.
    """
    read = {step.lower() for path in description.paths() for step in path.steps} | {*map(str.lower, description.each)}
    return frozenset({RECEIPT_END} if read & {"text", "body"} else {RECEIPT_END, NO_RECEIPT})


def _undescribed(_: Callback) -> list[Receipt | Broken]:
    raise Unreadable("nobody described this gateway")


gateway = Gateway(
    name="custom",
    docs="docs/gateways/custom.md",
    parse=_undescribed,
    verify=_verify.token,
    hint="describe it under [gateways.custom.NAME]; it posts to /v1/receipts/custom/NAME",
)
"""What the descriptions share. It reads nothing by itself, and has no address."""
