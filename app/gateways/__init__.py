"""The gateways. The folder is the registry: every module here that does not start with `_` is one vendor.

No module's name can begin with a digit, so a vendor whose does has `_` in front of it: 8x8 is `_8x8.py`.

`prove` says whether a callback comes from whom we configured, `read` what it says. Both are pure: bytes in, values out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from importlib import import_module
from pkgutil import iter_modules
from uuid import UUID

from msgspec.structs import replace

from app.gateways._fields import CANNOT_READ, Unreadable, why
from app.gateways._words import cut
from app.models.http import HttpAnswer
from app.models.phone import e164, sender_id
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Missed, Receipt, Status

__all__ = [
    "GATEWAYS", "answered", "certificate_at", "confirmation_at", "cut", "not_a_secret", "once",
    "prove", "read", "signed_by",
]  # fmt: skip


def _found() -> dict[str, Gateway]:
    modules = {module.name for module in iter_modules(__path__)}
    vendors = {name.lstrip("_").replace("_", "-"): name for name in modules if re.match(r"[a-z]|_\d", name)}
    return {name: import_module(f"{__name__}.{vendors[name]}").gateway for name in sorted(vendors)}


PARTS = range(1, 1001)
"""What can be the number of a part, or of parts: SMS itself ends at 255."""

GATEWAYS: dict[str, Gateway] = _found()

_ANY = Callback("POST", "", {}, "", b"")


def prove(gateway: Gateway, callback: Callback, link: Link) -> bool:
    """Whether any live secret of the link verifies the callback. All are tried, so that the time tells nothing.

    A blank secret never counts: whoever sends nothing would match it. Without a live secret nothing can be proven, and
    the answer is False; whether a link may go without one (auth off) is for the caller to decide.
    """
    return True in [_proves(gateway, callback, secret, link) for secret in link.secrets if secret.strip()]


def _proves(gateway: Gateway, callback: Callback, secret: str, link: Link) -> bool:
    try:
        return gateway.verify(callback, secret, link)
    except CANNOT_READ:
        return False


def _nonce(gateway: Gateway, callback: Callback) -> str | None:
    """What the vendor signs but once, of a callback that has been proven; None where it signs nothing of the kind."""
    try:
        return gateway.nonce(callback) if gateway.nonce else None
    except CANNOT_READ:  # proven in another way, by our token: what else it brings along may be anything
        return None


def once(gateway: Gateway, callback: Callback, link: Link) -> UUID | None:
    """What recognises a copy of a proven callback, where its vendor signs a nonce; None where it signs none.

    The words that came with the nonce count too: a vendor that used one twice would else lose a receipt. Not where no
    signature covers them: with others they are a copy that somebody has altered.
    """
    said_once = _nonce(gateway, callback)
    if not said_once:
        return None
    query, body = ("", b"") if gateway.nonce_alone else (callback.query, callback.body)
    known = (link.gateway, link.account, said_once, query)
    said = "\x1f".join(known).encode("utf-8", "surrogatepass") + b"\x1f" + body
    return UUID(bytes=hashlib.blake2b(said, digest_size=16, person=b"nonce").digest())


def signed_by(gateway: Gateway, callback: Callback, secret: str, link: Link) -> Callback | None:
    """What the vendor would send with such a secret; None where it alone can sign. Raises ValueError for a secret that
    is none of this vendor's.
    """
    try:
        return gateway.sign(callback, secret, link) if gateway.sign else None
    except CANNOT_READ as error:
        raise ValueError("the secret is not written as those of this vendor are") from error


def not_a_secret(gateway: Gateway, link: Link) -> int | None:
    """The place of the first secret that is none of this vendor's: with it every callback would be refused."""
    for place, secret in enumerate(link.secrets):
        try:
            signed_by(gateway, _ANY, secret, link)
        except ValueError:
            return place
    return None


def certificate_at(gateway: Gateway, callback: Callback, link: Link) -> str | None:
    """Where the certificate lies that the proof of this callback rests on; None where it rests on none."""
    try:
        return gateway.certificate(callback, link) if gateway.certificate else None
    except CANNOT_READ:
        return None


def confirmation_at(gateway: Gateway, callback: Callback) -> str | None:
    """What to call to confirm this callback, once it is proven; None where it is no handshake."""
    try:
        return gateway.confirmation(callback) if gateway.confirmation else None
    except CANNOT_READ:
        return None


def read(gateway: Gateway, callback: Callback, link: Link) -> list[Receipt | Broken | Inbound]:
    """What a callback says: finished receipts, what could not be read, and what people wrote to us. Never raises.

    The one boundary: parsers are written in a straight line, and whatever they trip over becomes `Broken` here.
    """
    try:
        said = gateway.parse(callback)
    except CANNOT_READ as error:
        return [Broken(_bytes(callback), why(error))]
    finished = [_finish(gateway, one, link) for one in said]
    if Broken in map(type, finished):
        return _with_bytes(gateway, callback, finished)
    return finished


def answered(
    gateway: Gateway, answer: HttpAnswer, asked: Sequence[Missed], link: Link
) -> list[Receipt | Broken | Inbound]:
    """What a gateway that was asked says, as `read` finishes what it posts. Never raises for what it is given."""
    try:
        said = gateway.inquiry.answer(answer, asked) if gateway.inquiry else []
    except CANNOT_READ as error:
        return [Broken(b"", why(error))]
    known = {message.message_id for message in asked}
    return [_finish(gateway, one, link) for one in said if not isinstance(one, Receipt) or one.message_id in known]


def _finish(gateway: Gateway, said: Receipt | Broken | Inbound, link: Link) -> Receipt | Broken | Inbound:
    if not isinstance(said, Receipt):
        return said
    try:
        return _finished(gateway, said, link)
    except CANNOT_READ as error:
        return Broken(b"", why(error))


def _finished(gateway: Gateway, said: Receipt, link: Link) -> Receipt:
    """The receipt with everything that only the link knows, in values that PostgreSQL takes."""
    message_id = _text(said.message_id, 256, "message id")
    number = _number(said.number, link.region)
    if message_id is None and number is None:
        raise Unreadable("neither a message id nor a number")
    supposed = not said.sender or said.sender.isspace()
    code = _text(said.code, 64, "code")
    if code is not None and link.codes:
        code = link.codes.get(code, code)
    status, word = said.status, None
    if status is Status.UNKNOWN:
        status, word = _unknown(gateway, said, code, link)
    return replace(
        said,
        message_id=message_id,
        status=status,
        number=number,
        sender=_sender(link.sender if supposed else said.sender, link),
        code=code,
        code_space=_space(gateway, said, link) if code else None,
        carrier=_text((said.carrier or "")[:128], 128, "carrier"),
        mcc=_digits(said.mcc, (3,)),
        mnc=_digits(said.mnc, (2, 3)),
        segment=_part(said.segment),
        segments=_part(said.segments),
        occurred_at=_utc(said.occurred_at, link.timezone),
        sent_at=_utc(said.sent_at, link.timezone),
        gateway=link.gateway,
        account=link.account,
        word=word,
        malformed=number is not None and number != said.number and _rewritten(said.number, number),
        supposed=supposed and bool(link.sender),
    )


def _text(text: str | None, most: int, what: str) -> str | None:
    """A text that PostgreSQL can keep: no NUL, no lone surrogate; None if it says nothing. An id or code that is cut
    would be another one.
    """
    if not text:
        return None
    if not text.isprintable():
        text = text.encode("utf-8", "ignore").decode().replace("\0", "")
    if len(text) > most:
        raise Unreadable(f"{what} of more than {most} characters")
    return None if not text or text.isspace() else text


def _number(text: str | None, region: str) -> str | None:
    if not text or text.isspace():
        return None
    try:
        return e164(text, region)
    except ValueError as error:
        raise Unreadable("not a possible phone number") from error


def _rewritten(written: str | None, number: str) -> bool:
    """Whether reading changed the digits themselves: then a vendor's "invalid number" speaks of another one."""
    return written is not None and "".join(filter(str.isdecimal, written)) != number[1:]


def _sender(text: str | None, link: Link) -> str | None:
    if not text:
        return None
    try:
        return sender_id(text, link.region)
    except ValueError as error:
        raise Unreadable("not a sender") from error


def _space(gateway: Gateway, said: Receipt, link: Link) -> str | None:
    return _text(said.code_space, 64, "code space") or link.code_space or gateway.code_space


def _unknown(gateway: Gateway, said: Receipt, code: str | None, link: Link) -> tuple[Status, str | None]:
    """What the code alone tells, in the table that the settings name; else the word that stands in no table."""
    table = gateway.statuses.get(_space(gateway, said, link) or "", {}) if said.code_space is None else {}
    told = table.get((code or "").lstrip("0"))
    return (told, None) if told else (said.status, _word(said.word or ""))


_LONG = re.compile(r"\d{7}")


def _word(word: str) -> str | None:
    """The word of an unknown status; not a vendor's own `unknown`, nor anything that could hold a phone number."""
    if word.strip().lower() == Status.UNKNOWN:
        return None
    plain = "".join(letter for letter in word.strip()[:64] if letter.isprintable())
    return "(a long number)" if _LONG.search(plain) else plain or None


def _digits(text: str | None, lengths: tuple[int, ...]) -> str | None:
    return text if text and len(text) in lengths and text.isascii() and text.isdigit() else None


def _part(number: int | None) -> int | None:
    return None if number is None or number not in PARTS else number


def _utc(at: datetime | None, zone: tzinfo | None) -> datetime | None:
    """A zone-less time is the link's local time; without a `timezone` in its settings it is not trusted. Nor is one
    that its clocks show twice as summer time ends, or never as it begins: it may be an hour from what was meant.
    """
    if at is None or at.tzinfo is UTC:
        return at
    if at.tzinfo is None:
        if zone is None:
            return None
        at = at.replace(tzinfo=zone)
        if at.utcoffset() != at.replace(fold=1).utcoffset():
            return None
    try:
        return at.astimezone(UTC)
    except OverflowError:  # the first or last hours that a datetime can hold
        return None


def _with_bytes(
    gateway: Gateway, callback: Callback, read: list[Receipt | Broken | Inbound]
) -> list[Receipt | Broken | Inbound]:
    """Each broken element with its own bytes, where the vendor posts batches; else with the whole callback."""
    elements = gateway.split(callback) if gateway.split else []
    if len(elements) != len(read):
        elements = [_bytes(callback)] * len(read)
    return [
        Broken(one.raw or raw, one.reason) if isinstance(one, Broken) else one
        for one, raw in zip(read, elements, strict=True)
    ]


def _bytes(callback: Callback) -> bytes:
    """What to keep of a callback: its body, or its query without our own token."""
    if callback.body:
        return callback.body
    pairs = [pair for pair in callback.query.split("&") if not pair.startswith("token=")]
    return "&".join(pairs).encode("latin-1", "replace")  # as it was decoded
