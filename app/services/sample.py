"""A signed sample through the public URL: it finds what stands between a vendor and us and breaks its signatures.

The doctor posts what the vendor would post. The service that it reaches keeps nothing of it: it answers how the sample
arrived, in digests, so that nobody learns more from the answer than they have sent. What differs is what the proxy has
changed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from msgspec import structs

from app.gateways import prove, signed_by
from app.models.receipt import Callback, Gateway, Link

HEADER = "sendable-doctor"
"""Marks a sample, and names the headers whose arrival is asked for: `ID name,name`."""
FORM = "application/x-www-form-urlencoded"
QUERY = "doctor-b=%7E1&doctor-a=2"
"""Out of order and escaped where it need not be: what sorts or rewrites a query shows itself."""
NAMES_MOST = 16


# What the service tells --------------------------------------------------------------------------------------------


def arrived(callback: Callback, *, proven: bool | None) -> dict[str, Any]:
    """How a sample arrived; `proven` None: no secret is set, so anything is taken."""
    mark, _, names = callback.header(HEADER).partition(" ")
    wanted = [name for name in names.lower().split(",") if name][:NAMES_MOST]
    return {
        "sample": mark[:64],
        "method": callback.method,
        "url": digest(callback.url.partition("?")[0]),
        "query": [*map(digest, callback.query.split("&"))] if callback.query else [],
        "body": sha256(callback.body).hexdigest(),
        "size": len(callback.body),
        "headers": {name: digest(callback.headers[name]) for name in wanted if name in callback.headers},
        "proven": proven,
    }


def digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


# What the doctor sends ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. `url` is where it is posted; `id` marks it and its message. It is `signed` where we could."""

    id: str
    callback: Callback
    signed: bool = True

    @property
    def url(self) -> str:
        return self.callback.url


def sample(gateway: Gateway, link: Link, base: str, secret: str | None, now: datetime) -> Sample:
    """What this vendor would post with such a secret; unsigned where it alone has the key. Raises ValueError for a
    secret that is none of this vendor's.
    """
    mark = f"sendable-doctor-{secrets.token_hex(8)}"
    path = "/".join(filter(None, ("/v1/receipts", link.gateway, link.account)))
    body = f"MessageSid={mark}&message_id={mark}&status=accepted&MessageStatus=accepted&text=a+b%21%C3%A9".encode()
    plain = Callback("POST", f"{base}{path}?{QUERY}", {"content-type": FORM}, QUERY, body, now)
    signed = signed_by(gateway, plain, secret, link) if secret else None
    return Sample(mark, signed or plain, signed is not None)


def covers_url(gateway: Gateway, link: Link, secret: str) -> bool:
    """Whether a signature of this vendor is another one for another address."""
    signed = sample(gateway, link, "https://dlr.example.com", secret, datetime.now(UTC)).callback
    elsewhere = structs.replace(signed, url=signed.url.replace("dlr.example.com", "dlr.example.net"))
    alone = replace(link, secrets=(secret,))
    return prove(gateway, signed, alone) and not prove(gateway, elsewhere, alone)
