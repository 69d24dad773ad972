"""A gateway that settings describe: where each field lies, what words mean, how it proves its origin, what it hears.

Read once, at the start: what is wrong is told then, by its key. docs/gateways/custom.md is for those who write one.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, field_validator, model_validator

from app.models.receipt import Status

AN_EVENING = datetime(2026, 11, 21, 18, 42, 7, tzinfo=UTC)
ITS_TWIN = AN_EVENING.replace(year=2015)
"""The same day of a year whose calendar is the same: what writes both alike tells no year."""
RECEIPT_TEXT = "smpp"
"""The name under which the parts of a receipt text lie: `smpp.stat`."""


Start = Literal["element", "body", "query"]
STARTS: dict[str, Start] = {"?": "query", "/": "body"}


@dataclass(frozen=True, slots=True)
class Path:
    """The way to one value, from the element of a batch, from the whole body (`/batch_id`) or the query (`?ref`)."""

    start: Start
    steps: tuple[str, ...]


Place: TypeAlias = tuple[tuple[Path, ...], ...]
"""Alternatives (`a | b`), the first that says something; each one value, or several joined by plus signs (`a + b`)."""


def place(written: object) -> Place:
    """Raises ValueError for what leads nowhere."""
    if isinstance(written, str) and written.strip():
        return tuple(tuple(map(_path, one.split(" + "))) for one in written.split(" | "))
    if isinstance(written, list) and written and all(isinstance(step, str) and step for step in written):
        return ((Path("element", tuple(written)),),)
    raise ValueError('must be a path such as "data.state", or a list of names where names have dots: ["data.state"]')


def _path(written: str) -> Path:
    written = written.strip()
    start = STARTS.get(written[:1])
    rest = written[1:] if start else written
    steps = (rest,) if start == "query" else tuple(rest.split("."))
    if not all(steps):
        raise ValueError('has an empty step: write a path such as "data.state", "/batch.id" or "?ref"')
    return Path(start or "element", steps)


At = Annotated[Place, PlainValidator(place)]
Header = Annotated[str, BeforeValidator(lambda name: name.lower() if isinstance(name, str) else name),
                   Field(pattern=r"^[a-z0-9_-]+$")]  # fmt: skip
Hash = Literal["sha1", "sha224", "sha256", "sha384", "sha512"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Code(_Part):
    """A place where a code may stand, whose it is, and of which statuses it is the cause (of any unless said)."""

    at: At
    space: str | None = None
    when: tuple[Status, ...] = ()


def _codes(written: object) -> object:
    tables = isinstance(written, list) and any(isinstance(one, dict) for one in written)
    return written if tables else [{"at": written}]


class Fields(_Part):
    """Where the parts of a receipt lie. Needed are the status, and the message's id or the number."""

    status: At
    message_id: At = ()
    number: At = ()
    sender: At = ()
    code: Annotated[tuple[Code, ...], BeforeValidator(_codes)] = ()
    code_space: At = ()
    carrier: At = ()
    mcc: At = ()
    mnc: At = ()
    mccmnc: At = ()
    segment: At = ()
    segments: At = ()
    occurred_at: At = ()
    sent_at: At = ()

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if not self.message_id and not self.number:
            raise ValueError("must say where `message_id` or `number` lies: a receipt that names neither has no effect")
        return self

    def places(self) -> list[Place]:
        """Every place that is read."""
        named = [getattr(self, name) for name in type(self).model_fields if name != "code"]
        return [*named, *(code.at for code in self.code)]


class Answer(_Part):
    """What this vendor counts as success."""

    status: int = Field(200, ge=200, le=299)
    body: str = ""
    content_type: str = "text/plain"

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        """An answer that cannot be sent breaks the connection after the commit: the vendor would repeat for ever."""
        if self.body and self.status in {204, 205}:
            raise ValueError("has a `body`, which no answer 204 or 205 can hold: take it out, or set another `status`")
        if not (self.content_type and self.content_type.isascii() and self.content_type.isprintable()):
            raise ValueError('has no valid `content_type`: write one such as "text/plain"')
        return self


class Token(_Part):
    """Another header or parameter for our token than `X-Sendable-Token` and `token`."""

    header: Header | None = None
    param: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.header is None) == (self.param is None):
            raise ValueError('must name one of `header` and `param`, for example { header = "X-Api-Key" }')
        return self


class Signature(_Part):
    """An HMAC in a header. `over` is what is signed: `{body}`, `{url}`, `{query}`, `{method}`, `{name-of-a-header}`."""

    header: Header
    over: str = "{body}"
    hash: Hash = "sha256"
    key: Literal["text", "hex", "base64"] = "text"
    prefix: str = ""
    time: Header | None = None

    @model_validator(mode="after")
    def _signs_its_time(self) -> Self:
        if self.time and f"{{{self.time}}}" not in self.over.lower():
            raise ValueError(f'has a `time` that is not signed: name it in `over`, such as "{{{self.time}}}.{{body}}"')
        return self

    def key_of(self, secret: str) -> bytes:
        """The secret as bytes. Raises ValueError where it is not written as `key` says."""
        try:
            if self.key == "hex":
                return bytes.fromhex(secret)
            return base64.b64decode(secret, validate=True) if self.key == "base64" else secret.encode()
        except ValueError:
            raise ValueError(
                f'has a secret that is not {self.key}: mend it, or set `signature.key` to "text"'
            ) from None

    def signs(self, *what: str) -> bool:
        return any(f"{{{one}}}" in self.over for one in what)


def _only(written: object) -> tuple[tuple[Place, frozenset[str]], ...]:
    if not isinstance(written, dict) or not all(isinstance(words, list) for words in written.values()):
        raise ValueError('must say which words to take at which path, for example { "event.type" = ["dlr"] }')
    return tuple((place(path), frozenset(str(word).casefold() for word in words)) for path, words in written.items())


def _steps(written: object) -> tuple[str, ...]:
    ((path, *more), *others) = place(written)
    if more or others or path.start != "element":
        raise ValueError('must be the path of a list in the body, such as "results"')
    return path.steps


class Description(_Part):
    """`[gateways.custom.NAME]`, but for the keys that every gateway has."""

    reads: Literal["json", "lines", "form", "query", "xml"]
    fields: Fields
    statuses: dict[str, Status] = {}
    each: Annotated[tuple[str, ...], PlainValidator(_steps)] = ()
    only: Annotated[tuple[tuple[Place, frozenset[str]], ...], PlainValidator(_only)] = ()
    receipt_text: At = ()
    numbers: Literal["as_written", "international"] = "as_written"
    time_format: str | None = None
    answer: Answer = Answer()
    token: Token | None = None
    signature: Signature | None = None

    @field_validator("time_format")
    @classmethod
    def _reads_what_it_writes(cls, form: str | None) -> str | None:
        """A part of a time that it lacks would be made up: midnight, or a morning in place of an evening."""
        if form is None:
            return None
        try:
            written, twin = AN_EVENING.strftime(form), ITS_TWIN.strftime(form)
            # Python 3.13 warns of a day without a year, and later ones may refuse it.
            read = datetime.strptime(written, form) if written != twin else None  # noqa: DTZ007 - only whether it can be
        except (ValueError, re.error) as error:
            raise ValueError('is no format of a time: write one such as "%d/%m/%Y %H:%M:%S"') from error
        if read is None or read.replace(second=AN_EVENING.second, tzinfo=UTC) != AN_EVENING:
            raise ValueError("must tell year, day, hour and minute: times that lack one do not belong in `fields`")
        if "%Z" in form:
            raise ValueError("has %Z, a name that tells no offset: write its letters, and set `timezone`")
        return form

    def paths(self) -> list[Path]:
        """Every path that is followed, whatever it leads to."""
        places = [*self.fields.places(), self.receipt_text, *(at for at, _ in self.only)]
        return [path for place in places for alternative in place for path in alternative]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        paths = self.paths()
        if self.each and self.reads not in {"json", "xml"}:
            raise ValueError(f"`each` leads into JSON or XML: take it out, or set `reads` to what comes ({self.reads})")
        if not self.receipt_text and any(path.steps[0] == RECEIPT_TEXT for path in paths):
            raise ValueError("a path begins with `smpp`: say in `receipt_text` where the text of the receipt lies")
        if self.token and self.signature:
            raise ValueError("`token` and `signature` exclude each other: keep the signature")
        self._all_signed({path.start for path in paths} - {"element"})
        return self

    def _all_signed(self, starts: set[Start]) -> None:
        """What is read must be signed, else it could be altered, or added, on the way."""
        if self.signature is None:
            return
        if self.reads != "query" and not self.signature.signs("body"):
            raise ValueError("`signature.over` must hold {body}, since the receipt is read from it")
        if (self.reads == "query" or "query" in starts) and not self.signature.signs("url", "query"):
            raise ValueError("`signature.over` must hold {url} or {query}, since the receipt is read from it")
