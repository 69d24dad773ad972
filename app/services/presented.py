"""Secrets that a refused request presented, purely: each is kept as a salted digest, which is enough to find it again
among the secrets we hold, and to put it back in its place.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote_plus

_MARK = "sendable-digest-"
_MARKED = re.compile(_MARK + r"([0-9a-f]{64})")
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
"""Its head is a JSON object: a token of ours with two dots in it is none."""
_PRESENTED = ("token", "secret", "password", "passwd")
"""Parts of the names of headers and parameters that carry a secret itself. Signatures are none: they are kept. Nor is
the `api-key` that some vendors send beside a signature: it names the account, and is signed."""


def _digest(salt: bytes, secret: str) -> str:
    return hashlib.blake2b(secret.encode("utf-8", "surrogateescape"), key=salt, digest_size=32).hexdigest()


def _masked(salt: bytes, secret: str) -> str:
    return _MARK + _digest(salt, secret)


def _is_presented(name: str, presents: frozenset[str]) -> bool:
    name = unquote_plus(name).lower()
    return name in presents or ("signature" not in name and any(part in name for part in _PRESENTED))


# Masked ------------------------------------------------------------------------------------------------------------


def masked_header(salt: bytes, name: str, value: str, presents: frozenset[str]) -> str:
    """A JSON Web Token proves what it covers as a signature does, so it is kept; anything else here is a secret."""
    if name in {"authorization", "proxy-authorization"}:
        return _authorization(salt, value)
    if _is_presented(name, presents) and not _JWT.fullmatch(value):
        return _masked(salt, value)
    return value


def _authorization(salt: bytes, value: str) -> str:
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "basic":
        pair = _decoded(rest.strip())
        user, _, password = pair.partition(":")
        return f"Basic {_masked(salt, pair)} {_masked(salt, password)} {_masked(salt, user)}"
    if scheme.lower() == "bearer" and not _JWT.fullmatch(rest.strip()):
        return f"{scheme} {_masked(salt, rest.strip())}"
    return value if rest else _masked(salt, value)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
    except ValueError:
        return ""


def masked_parameter(salt: bytes, part: str, presents: frozenset[str]) -> str:
    name, equals, value = part.partition("=")
    given = unquote_plus(value)
    if not equals or not _is_presented(name, presents) or _JWT.fullmatch(given):
        return part
    return f"{name}={_masked(salt, given)}"


# Put back ----------------------------------------------------------------------------------------------------------


def restored(text: str, salt: bytes, live: Sequence[str], spelled: Callable[[str], str] = str) -> str:
    """The text with those of our secrets in it that it was received with, whole or either half of `user:password`."""
    live = [part for one in live for part in (one, *one.partition(":")[::2]) if part.strip()]

    def secret(found: re.Match[str]) -> str:
        known = [one for one in live if hmac.compare_digest(_digest(salt, one), found[1])]
        return spelled(known[0]) if known else found[0]

    return _MARKED.sub(secret, text)


def restored_header(name: str, value: str, salt: bytes, live: Sequence[str]) -> str:
    if name != "authorization" or not value.startswith(f"Basic {_MARK}"):
        return restored(value, salt, live)
    pair, password, user = (restored(one, salt, live) for one in value.split(" ")[1:])
    if pair.startswith(_MARK):
        pair = f"{user}:{password}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
