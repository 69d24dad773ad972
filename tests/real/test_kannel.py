"""The twelve codes through a real Kannel: submitted to its sendsms, reported by a message centre, posted by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from tests.real.outcome import TWELVE, a_month_ago, between, ended_as_the_policy_says, final, subscribed
from tests.real.programs import answers, free_port, installed, running

TEMPLATE = "{service}/v1/receipts/kannel?id={id}&st=%d&a=%A&fid=%F&to=%p&from=%P&smsc=%i&ts=%T&token=between-us"
SETTINGS = """
[gateways.kannel]
secrets = ["between-us"]
code_space = "openmarket"
"""
CONFIG = """
group = core
admin-port = {admin}
admin-password = bar
admin-interface = 127.0.0.1
smsbox-port = {boxes}
smsbox-interface = 127.0.0.1
dlr-storage = internal
log-level = 1

group = smsc
smsc = smpp
smsc-id = smscA
host = 127.0.0.1
port = {centre}
transceiver-mode = true
smsc-username = us
smsc-password = secret
system-type = VMA

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {sendsms}
sendsms-interface = 127.0.0.1
http-request-retry = 5
http-queue-delay = 1

group = sendsms-user
username = us
password = secret
"""


@asynccontextmanager
async def kannel(folder: Path, centre: int) -> AsyncIterator[str]:
    """A Kannel bound to the message centre at that port; the URL of its sendsms."""
    admin, boxes, sendsms = free_port(), free_port(), free_port()
    config = folder / "kannel.conf"
    config.write_text(CONFIG.format(admin=admin, boxes=boxes, sendsms=sendsms, centre=centre))
    async with running(folder / "bearerbox.log", installed("bearerbox", "kannel"), str(config)):
        await answers(boxes)
        async with running(folder / "smsbox.log", installed("smsbox", "kannel"), str(config)):
            await answers(sendsms)
            yield f"http://127.0.0.1:{sendsms}/cgi-bin/sendsms"


async def test_each_of_the_twelve_codes_comes_through_kannel_whole_and_does_what_the_policy_says(
    database_url: str, tmp_path: Path
) -> None:
    async with between(kannel, tmp_path, database_url=database_url, settings=SETTINGS) as (send, ours, service, sender):
        opted_in = a_month_ago()
        for place, code in enumerate(TWELVE):
            await subscribed(service, place, opted_in)
            sent = await sender.get(send, params={
                "username": "us", "password": "secret", "to": number_as_given(place), "from": "12345",
                "text": f"UNDELIV {code}", "dlr-mask": "31", "dlr-url": url(ours, f"ours-{code}"),
            })  # fmt: skip
            assert sent.status_code == 202, sent.text
        await asyncio.gather(*(final(service, f"ours-{code}") for code in TWELVE))
        for place, (code, expected) in enumerate(TWELVE.items()):
            await ended_as_the_policy_says(service, place, code, f"ours-{code}", expected)


def number_as_given(place: int) -> str:
    """As E.164, and as the bare digits that many write."""
    return f"{'+' if place % 2 else ''}1415555{place:04}"


def url(service: str, message_id: str) -> str:
    """The template, with our own id in it; httpx escapes it once, as Kannel asks."""
    return TEMPLATE.format(service=service, id=quote(message_id))
