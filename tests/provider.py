"""A lookup provider on loopback: a real HTTP server that answers as Telnyx does, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import unquote

from tests.loopback import Reply, Request, listening


def telnyx(number: str, carrier: str, *, ported: str = "", on: str = "", line: str = "mobile") -> bytes:
    """An answer as Telnyx gives it for an American number."""
    portability = {"lrn": "", "ported_status": ported, "ported_date": on, "ocn": "6529", "line_type": line,
                   "spid": "6529", "spid_carrier_name": carrier, "spid_carrier_type": "", "altspid": "",
                   "altspid_carrier_name": "", "altspid_carrier_type": "", "city": "", "state": ""}  # fmt: skip
    return json.dumps({"data": {"country_code": "US", "phone_number": number, "record_type": "number_lookup",
                                "fraud": None, "caller_name": None, "carrier": {"name": carrier, "type": line},
                                "portability": portability}}).encode()  # fmt: skip


Says = Callable[[str], Reply]


def says(carrier: str, **told: str) -> Says:
    return lambda number: Reply(telnyx(number, carrier, **told))


def says_as_plivo(carrier: str) -> Says:
    def reply(number: str) -> Reply:
        said = {"api_id": "x", "phone_number": number, "carrier": {"mobile_country_code": "310", "name": carrier,
                "mobile_network_code": "260", "type": "mobile", "ported": "yes"}}  # fmt: skip
        return Reply(json.dumps(said).encode())

    return reply


@dataclass
class Provider:
    """`says` answers for a number; `calls` counts by number; `busiest` is how many were under way at once;
    `connections` how many were accepted.
    """

    says: Says
    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)
    under_way: int = 0
    busiest: int = 0
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def settings(self, name: str = "telnyx", **more: Any) -> dict[str, Any]:
        """`lookup` of the settings with this provider alone."""
        key = {"telnyx": {"api_key": "KEY-for-tests"}, "plivo": {"auth_id": "id", "auth_token": "token"}}[name]
        return {"providers": [name], name: {"base_url": self.url, "price": "0.01", **key, **more}}


@asynccontextmanager
async def answering(says: Says) -> AsyncIterator[Provider]:
    provider = Provider(says)
    async with listening(lambda request: _answer(provider, request)) as provider.url:
        yield provider


async def _answer(provider: Provider, request: Request) -> Reply:
    provider.bodies.append(request.body)
    provider.connections = max(provider.connections, request.connection)
    number = unquote(request.path.rstrip("/").rpartition("/")[2])
    provider.calls[number] += 1
    provider.under_way += 1
    provider.busiest = max(provider.busiest, provider.under_way)
    provider.asked.set()
    try:
        reply = provider.says(number)
        if reply.after:
            await reply.after.wait()
        return reply
    finally:
        provider.under_way -= 1


def today() -> str:
    return date.today().isoformat()  # noqa: DTZ011 - a day is told
