"""Ways to prove that a callback comes from whom we configured. Secrets are compared in constant time, over bytes."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import quote

from msgspec.structs import replace

from app.gateways._fields import moment
from app.models.receipt import Callback, Link

DIGESTS = {20: "sha1", 28: "sha224", 32: "sha256", 48: "sha384", 64: "sha512"}
"""Which hash made a signature of so many bytes. MD5 is not taken, though a vendor may offer it."""


def same(given: bytes, secret: str) -> bool:
    return hmac.compare_digest(given, secret.encode())


def token(callback: Callback, secret: str, _: Link) -> bool:
    """`?token=…`, `X-Sendable-Token`, or Basic: for a vendor that signs nothing and lets us write its URL."""
    return True in [same(given, secret) for given in _given(callback)]


def sign_token(callback: Callback, secret: str, _: Link) -> Callback:
    """With our token in the URL, where most vendors' consoles have room for it."""
    pair = f"token={quote(secret, safe='')}"
    return replace(
        callback,
        url=f"{callback.url}{'&' if callback.query else '?'}{pair}",
        query=f"{callback.query}&{pair}" if callback.query else pair,
    )


def sign_basic(callback: Callback, secret: str, _: Link) -> Callback:
    """As Basic authentication: the secret is the pair, or the password of any user."""
    pair = secret if ":" in secret else f"sendable:{secret}"
    value = base64.b64encode(pair.encode()).decode()
    return replace(callback, headers={**callback.headers, "authorization": f"Basic {value}"})


def _given(callback: Callback) -> Iterator[bytes]:
    if "token=" in callback.query:
        yield callback.params().get("token", "").encode("utf-8", "replace")
    yield _header(callback, "x-sendable-token")
    yield from _basic(callback)


def _basic(callback: Callback) -> Iterator[bytes]:
    """`user:password`, and the password alone: the secret may be either."""
    scheme, _, rest = callback.header("authorization").partition(" ")
    if scheme.lower() == "basic":
        pair = decoded(rest.strip())
        yield pair
        yield pair.partition(b":")[2]


def challenge(callback: Callback, _: Link) -> str | None:
    """The `WWW-Authenticate` for a vendor that sends credentials only after a 401; None where it sent some already."""
    return None if any(_given(callback)) else 'Basic realm="Sendable"'


def body_hmac(callback: Callback, secret: str, headers: tuple[str, ...]) -> bool:
    """An HMAC of the raw body, keyed by the secret, as hex or base64 in one of these headers; `sha256=` may lead it.

    The length of the signature says which hash it is.
    """
    given = [signature(callback.header(name)) for name in headers]
    return True in [_made_by(made, secret, callback.body) for made in given if len(made) in DIGESTS]


def _made_by(made: bytes, secret: str, body: bytes) -> bool:
    return hmac.compare_digest(made, hmac.digest(secret.encode(), body, DIGESTS[len(made)]))


def signature(text: str) -> bytes:
    """The bytes of a signature that is written as hex or as base64."""
    text = re.sub(r"^(?i:sha-?\d+)=", "", text.strip())
    if re.fullmatch(r"(?:[0-9a-fA-F]{2}){20,64}", text):
        return bytes.fromhex(text)
    return decoded(text)


def as_base64(given: str, made: bytes) -> bool:
    """Whether this is how base64 writes a signature, to the letter: its last letter has several ways."""
    return hmac.compare_digest(given.strip().encode("latin-1", "replace"), base64.b64encode(made))


def decoded(text: str) -> bytes:
    """Base64, or nothing."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def timely(signed: object, callback: Callback, link: Link, late: timedelta = timedelta()) -> bool:
    """Whether a signed time lies within the link's window of the arrival: an older one may be a copy.

    As far ahead is taken too, for clocks differ. A time that names no zone proves nothing. `late` is how much longer a
    vendor sends the same again without a new signature.
    """
    at = moment(signed)
    return at is not None and at.tzinfo is not None and -link.window <= callback.at - at <= link.window + late


def stamp(callback: Callback) -> str:
    """When it is signed, in seconds: for those who sign a sample."""
    return str(int(callback.at.timestamp()))


def unique() -> str:
    """What stands for a vendor's nonce in a sample."""
    return secrets.token_hex(16)


def _header(callback: Callback, name: str) -> bytes:
    return callback.header(name).encode("latin-1", "replace")
