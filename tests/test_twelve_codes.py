"""The main job: the twelve codes, each by an OpenMarket v3 receipt for a number that is opted in to three lists of one
short code and one list of another. Expectations are tests/twelve.py's, read back by HTTP and by the published views.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Service, Start
from tests.twelve import KEPT, OURS, OUT, Expected, lookup_first, number, strict

MODES: dict[str, tuple[dict[str, Any], dict[str, Expected]]] = {
    "lookup first, with a provider": ({"lookup": {}}, lookup_first(provider=True)),
    "lookup first, without one": ({}, lookup_first(provider=False)),
    "strict, with a provider": ({"policy": {"mode": "strict"}, "lookup": {}}, strict(provider=True)),
    "strict, without one": ({"policy": {"mode": "strict"}}, strict(provider=False)),
}
V3 = """<?xml version="1.0" encoding="UTF-8"?>
<deliveryReceipt ticketId="{ticket}">
  <response code="{code}" description="as the vendor words it"/>
  <message deliveryDate="{at:%Y-%m-%dT%H:%M:%S.000Z}" segmentNumber="1">
    <state id="6" description="not delivered"/>
  </message>
</deliveryReceipt>"""


@pytest.mark.parametrize("mode", MODES)
async def test_each_of_the_twelve_codes_ends_in_what_the_policy_says(start: Start, mode: str) -> None:
    settings, expected = MODES[mode]
    async with start(**settings) as service:
        for place, code in enumerate(expected):
            await subscribed_and_sent(service, number(place), f"ticket-{code}")
        for place, (code, row) in enumerate(expected.items()):
            at = datetime.now(UTC).replace(microsecond=0)
            body = V3.format(ticket=f"ticket-{code}", code=code, at=at)
            answer = await service.client.post(
                "/v1/receipts/openmarket", content=body, headers={"content-type": "text/xml"}
            )
            assert (answer.status_code, answer.text, "sendable-unread" in answer.headers) == (200, "OK", False), code
            await by_http(service, number(place), code, at, row)
            await by_the_views(service, number(place), code, row)


async def subscribed_and_sent(service: Service, who: str, ticket: str) -> None:
    now = datetime.now(UTC)
    consent = {"consented_at": (now - timedelta(days=30)).isoformat(), "source": "web form"}
    for sender, name in [*(("12345", name) for name in OURS), ("67890", "news")]:
        put = await service.client.put(f"/v1/senders/{sender}/lists/{name}/subscribers/{who}", json=consent)
        assert put.json()["consent"] == KEPT
    sent = {"gateway": "openmarket", "message_id": ticket, "number": who, "sender": "12345", "carrier": "AT&T",
            "sent_at": (now - timedelta(minutes=10)).isoformat()}  # fmt: skip
    assert (await service.client.post("/v1/messages", json=[sent])).json()["registered"] == 1


async def by_http(service: Service, who: str, code: str, at: datetime, row: Expected) -> None:
    told = (await service.client.get(f"/v1/numbers/{who}", params={"sender": "12345"})).json()
    assert (told["state"], told["waiting_for"]) == (row.state, row.waiting_for), code
    assert told["sendable"] == (row.state == "active"), code
    until = told["until"] and datetime.fromisoformat(told["until"])
    assert until == (at + row.until if row.until else None), code
    assert told["sender"]["blocked"] == row.blocked, code
    assert told["decision"]["sendable"] is False, code
    assert [(one["list"], one["consent"], one["sendable"]) for one in told["lists"]] == [
        (name, row.ours, False) for name in OURS
    ], code
    if row.state != "active":
        assert (told["evidence"]["code"], told["evidence"]["message_id"]) == (code, f"ticket-{code}")
    other = (await service.client.get(f"/v1/numbers/{who}", params={"sender": "67890", "list": "news"})).json()
    assert other["lists"][0]["consent"] == row.other, code
    assert other["decision"]["sendable"] == (row.state == "active" and row.other == KEPT), code


async def by_the_views(service: Service, who: str, code: str, row: Expected) -> None:
    shown = "SELECT state, sendable, waiting_for FROM published.number_status WHERE number = :who"
    assert await service.sql(shown, who=who) == [(row.state, row.state == "active", row.waiting_for)], code
    blocks = await service.sql("SELECT sender, code FROM published.sender_blocks WHERE number = :who", who=who)
    assert blocks == ([("12345", code)] if row.blocked else [])
    outs = await service.sql("SELECT list, code FROM published.opt_outs WHERE number = :who ORDER BY list", who=who)
    lists = (["news"] if row.other == OUT else []) + (OURS if row.ours == OUT else [])
    assert outs == [(name, code) for name in lists]
    sendable = await service.sql("SELECT list FROM published.sendable WHERE number = :who", who=who)
    assert sendable == ([("news",)] if row.state == "active" and row.other == KEPT else [])
    due = await service.sql("SELECT number FROM lookups WHERE number = :who", who=who)
    assert due == ([(who,)] if row.lookup else []), code
