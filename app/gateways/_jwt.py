"""JSON web tokens that are signed by a shared secret: what two vendors send along with a callback.

By hand, though PyJWT is there for the lookups: it takes three times as long, for every receipt, and warns of secrets as
short as vendors give out.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping

import orjson

from app.gateways._fields import Said, Unreadable, an_object, json

ALGORITHMS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
LONGEST = 8_192
"""Characters of a token. Those that vendors send have some 500."""


def claims(token: str, secret: str, algorithms: Mapping[str, str] = ALGORITHMS) -> Said:
    """What the token claims. Raises Unreadable for one that the secret did not sign, by one of these algorithms."""
    told = unproven(token)
    signed, _, signature = token.rpartition(".")
    algorithm = an_object(json(_decoded(signed.partition(".")[0]))).get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise Unreadable("a token that is signed in another way")
    made = hmac.digest(secret.encode(), signed.encode(), algorithms[algorithm])
    if not hmac.compare_digest(base64.urlsafe_b64encode(made).rstrip(b"="), signature.encode("latin-1", "replace")):
        raise Unreadable("a token that another secret has signed")
    return told


def unproven(token: str) -> Said:
    """What the token claims, whoever signed it: for callbacks that have been proven before."""
    parts = token.split(".", 3)
    if len(token) > LONGEST or len(parts) != 3:  # noqa: PLR2004
        raise Unreadable("no token")
    return an_object(json(_decoded(parts[1])))


def signed(claims: Said, secret: str) -> str:
    """A token that claims this, by HS256: what the vendor would send, for a sample."""
    text = ".".join(_encoded(orjson.dumps(one)) for one in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{text}.{_encoded(hmac.digest(secret.encode(), text.encode(), 'sha256'))}"


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Base64 in the alphabet of URLs, without padding."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise Unreadable("no token")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise Unreadable("no token") from error
