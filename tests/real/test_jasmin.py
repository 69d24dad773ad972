"""The twelve codes through a real Jasmin: submitted to its /send, reported by a message centre, posted by itself."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import httpx

from tests.real.jasmin import jasmin
from tests.real.outcome import TWELVE, a_month_ago, between, ended_as_the_policy_says, final, subscribed
from tests.twelve import Expected, number

SETTINGS = """
[gateways.jasmin]
secrets = ["between-us"]
code_space = "openmarket"

[gateways.jasmin.accounts.mended]
codes = { "304" = "3041" }
"""
CUT = "304"
"""What Jasmin makes of 3041: `err` is cut to three characters."""
MENDED = len(TWELVE)
"""The place of the one number more, whose message is sent over the account with `codes`."""


async def test_each_of_the_twelve_codes_comes_through_jasmin_and_does_what_the_policy_says(
    database_url: str, tmp_path: Path
) -> None:
    async with between(jasmin, tmp_path, database_url=database_url, settings=SETTINGS) as (send, url, service, sender):
        opted_in, ids = a_month_ago(), []
        for place, code in enumerate([*TWELVE, "3041"]):
            account = "mended" if place == MENDED else ""
            await subscribed(service, place, opted_in)
            ids.append(await sent(sender, send, f"{url}/v1/receipts/jasmin/{account}".rstrip("/"), place, code))
            await registered(service, ids[-1], place, account)
        await asyncio.gather(*(final(service, one) for one in ids))
        for place, (code, expected) in enumerate(TWELVE.items()):
            if code == "3041":
                await ended_as_the_policy_says(service, place, CUT, ids[place], Expected("active"))
            else:
                await ended_as_the_policy_says(service, place, code, ids[place], expected)
        await ended_as_the_policy_says(service, MENDED, "3041", ids[MENDED], TWELVE["3041"])


async def sent(client: httpx.AsyncClient, send: str, receipts: str, place: int, code: str) -> str:
    """The id that Jasmin gave the message."""
    answer = await client.get(send, params={
        "username": "us", "password": "secret", "to": number(place)[1:], "from": "12345", "content": f"UNDELIV {code}",
        "dlr": "yes", "dlr-level": "3", "dlr-method": "POST", "dlr-url": f"{receipts}?token=between-us",
    })  # fmt: skip
    found = re.fullmatch('Success "(.+)"', answer.text)
    assert found, answer.text
    return found[1]


async def registered(service: httpx.AsyncClient, message_id: str, place: int, account: str) -> None:
    """Receipts may have come before: they wait for this."""
    message = {"gateway": "jasmin", "account": account, "message_id": message_id, "number": number(place),
               "sender": "12345", "carrier": "AT&T", "sent_at": datetime.now(UTC).isoformat()}  # fmt: skip
    answer = await service.post("/v1/messages", json=[message])
    assert answer.json()["registered"] == 1, answer.text
