"""One subscriber's two years, through HTTP alone, with every answer of HTTP, of the views and of the feed on the way.

The years before last month were quiet. Then the phone was suspended and paid for again, its number taken to another
carrier, suspended once more and given up; a stranger got it, and gave it back; and its owner agreed anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Service, Start
from tests.provider import Reply, answering, telnyx

ANN = "+15555551234"
SPRING, SUMMER, NEWS = ("12345", "spring"), ("12345", "summer"), ("67890", "news")
EVERYTHING = (SPRING, SUMMER, NEWS)
IN, OUT = "opted_in", "opted_out"
TODAY = datetime.now(UTC)


def day(ago: float) -> datetime:
    return TODAY - timedelta(days=ago)


# What happens to her, and to whom it is told ------------------------------------------------------------------------


@dataclass
class Ann:
    """Her number as everybody sees it. `read`: up to where the feed has been read."""

    service: Service
    read: int = 0

    async def agrees(self, place: tuple[str, str], ago: float) -> int:
        call = {"consented_at": day(ago).isoformat(), "source": "web form"}
        sender, name = place
        path = f"/v1/senders/{sender}/lists/{name}/subscribers/{ANN}"
        return (await self.service.client.put(path, json=call)).status_code

    async def stands_on_an_old_list(self, place: tuple[str, str], ago: float) -> Any:
        """Which is imported again."""
        file = f"number,consented_at,source\n{ANN},{day(ago).isoformat()},old export\n"
        sender, name = place
        return (await self.service.client.post(f"/v1/senders/{sender}/lists/{name}/subscribers", content=file)).json()

    async def is_sent_a_message(self, ago: float, *, code: str | None = None, sender: str = "12345") -> None:
        """It is delivered, or fails with a code."""
        receipt = {"message_id": f"sent {ago} days ago", "number": ANN, "sender": sender, "code": code,
                   "status": "undeliverable" if code else "delivered", "sent_at": day(ago).isoformat(),
                   "occurred_at": (day(ago) + timedelta(minutes=1)).isoformat()}  # fmt: skip
        assert (await self.service.client.post("/v1/receipts/native", json=receipt)).status_code == 200

    async def stands_in_a_file(self, kind: str, ago: float) -> Any:
        lines = f"number,type,date\n{ANN},{kind},{day(ago).isoformat()}\n"
        answer = await self.service.client.post("/v1/deactivations/records", content=lines)
        assert answer.status_code == 200
        return answer.json()

    async def is_looked_up(self) -> None:
        """Until nothing is due and nothing is under way."""
        due = "SELECT 1 FROM lookups WHERE due_at <= clock_timestamp() OR lease_until IS NOT NULL"
        async with asyncio.timeout(30):
            while await self.service.sql(due):
                await asyncio.sleep(0.02)

    async def waits_for_the_last_lookup(self) -> None:
        await self.service.sql("UPDATE lookups SET due_at = now()")
        await self.is_looked_up()

    # What is told of her -------------------------------------------------------------------------------------------

    async def stands(self, state: str, *, may_be_texted: Sequence[tuple[str, str]] = (),
                     left: Sequence[tuple[str, str]] = (), waiting_for: str | None = None) -> Any:  # fmt: skip
        """The same everywhere: of the number, of each sender and list, of the views, of the lists. Returns what HTTP
        tells of the number.
        """
        told = await self.asked()
        sendable = state in {"active", "unseen"}
        assert (told["state"], told["sendable"], told["waiting_for"]) == (state, sendable, waiting_for)
        assert await self.service.sql("SELECT state, sendable, waiting_for FROM published.number_status") == [
            (state, sendable, waiting_for)]  # fmt: skip
        for one in told["lists"]:
            place = one["sender"], one["list"]
            assert (one["consent"], one["sendable"]) == (OUT if place in left else IN, place in may_be_texted)
            exactly = await self.asked(sender=one["sender"], list=one["list"])
            assert exactly["decision"]["sendable"] is (place in may_be_texted)
        assert await self.service.sql("SELECT sender, list FROM published.sendable ORDER BY 1, 2") == [*may_be_texted]
        assert await self.service.sql("SELECT sender, list FROM published.opt_outs ORDER BY 1, 2") == [*left]
        await self._counts(may_be_texted, left, state)
        return told

    async def _counts(self, may_be_texted: Sequence[tuple[str, str]], left: Sequence[tuple[str, str]],
                      state: str) -> None:  # fmt: skip
        for one in (await self.service.client.get("/v1/lists")).json()["items"]:
            place = one["sender"], one["list"]
            subscriber = int(place not in left)
            assert (one["subscribers"], one["opted_out"]) == (subscriber, 1 - subscriber)
            assert one["sendable"] == (place in may_be_texted)
            assert one["suspended"] == (subscriber if state == "suspended" else 0)

    async def asked(self, **query: str) -> Any:
        return (await self.service.client.get(f"/v1/numbers/{ANN}", params=query)).json()

    async def news(self) -> list[str]:
        """What has come into the feed since it was last read: what, from what to what, and by what."""
        items = (await self.service.client.get("/v1/changes", params={"after": self.read})).json()["items"]
        self.read = items[-1]["seq"] if items else self.read
        return [" ".join(filter(None, (
            "/".join(filter(None, (one.get("sender"), one.get("list")))) or None,
            f"{one['from']} -> {one['to']}", f"by {one['cause']['kind']}"))) for one in items]  # fmt: skip


# Her story -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_lookups")
async def test_two_years_of_one_subscriber(start: Start) -> None:
    go = asyncio.Event()
    on_t_mobile = telnyx(ANN, "T-Mobile USA, Inc.", ported="Y", on=f"{day(20):%Y-%m-%d}")
    async with answering(lambda _: Reply(on_t_mobile, after=go)) as provider:
        async with start(lookup=provider.settings() | {"timetable": ["0s", "4h"]}) as service:
            ann = Ann(service)
            await she_agrees_to_three_lists(ann)
            await she_is_suspended(ann)
            await she_is_back(ann)
            await she_takes_her_number_to_another_carrier(ann, go)
            await she_gives_it_up_while_suspended(ann)
            await a_stranger_has_it(ann)
            await nothing_old_brings_her_back(ann)
            await its_owner_agrees_to_one_list(ann)
            await it_can_all_be_read_afterwards(ann)
            assert provider.calls == {ANN: 2}  # for the file's first question the port's answer was new enough


async def she_agrees_to_three_lists(ann: Ann) -> None:
    """Two years ago she agrees to three lists of two senders, and gets what she asked for."""
    for place in EVERYTHING:
        assert await ann.agrees(place, 730) == 200
    assert await ann.news() == [
        "unseen -> active by call", "12345/spring None -> opted_in by call",
        "12345/summer None -> opted_in by call", "67890/news None -> opted_in by call",
    ]  # fmt: skip
    await ann.stands("active", may_be_texted=EVERYTHING)
    for ago in (700, 400, 100):
        await ann.is_sent_a_message(ago)
    assert await ann.news() == []
    entry = {"gateway": "native", "message_id": "sent 60 days ago", "number": ANN, "sender": "12345",
             "carrier": "AT&T", "sent_at": day(60).isoformat()}  # fmt: skip
    await ann.service.client.post("/v1/messages", json=[entry])
    assert await ann.news() == ["None -> AT&T by register"]


async def she_is_suspended(ann: Ann) -> None:
    """28 days ago the bill is not paid: suspended, no message, but a subscriber all the same."""
    await ann.stands_in_a_file("SUSPEND", 28)
    told = await ann.stands("suspended")
    assert datetime.fromisoformat(told["until"]) == day(-2)
    assert await ann.news() == ["active -> suspended by file"]
    await ann.is_sent_a_message(29)  # sent before that, delivered: says nothing of it
    await ann.stands("suspended")


async def she_is_back(ann: Ann) -> None:
    """Two days later it is: nobody asks her anything."""
    await ann.stands_in_a_file("RESUME", 26)
    await ann.stands("active", may_be_texted=EVERYTHING)
    assert await ann.news() == ["suspended -> active by file"]


async def she_takes_her_number_to_another_carrier(ann: Ann, go: asyncio.Event) -> None:
    """20 days ago she takes her number to another carrier. Her old one does not know it any more; a lookup does."""
    await ann.is_sent_a_message(20, code="410")
    await ann.stands("held", waiting_for="lookup")
    assert await ann.news() == ["active -> held by receipt"]
    go.set()
    await ann.is_looked_up()
    told = await ann.stands("active", may_be_texted=EVERYTHING)
    assert (told["carrier"]["name"], told["carrier"]["ported"]) == ("T-Mobile", True)
    assert await ann.news() == ["held -> active by lookup", "AT&T -> T-Mobile by lookup"]


async def she_gives_it_up_while_suspended(ann: Ann) -> None:
    """15 days ago suspended again, and this time given up: deactivated while suspended."""
    await ann.stands_in_a_file("SUSPEND", 15)
    await ann.stands("suspended")
    assert await ann.news() == ["active -> suspended by file"]
    taken = await ann.stands_in_a_file("DEACT", 10)
    assert (taken["held"], taken["opted_out"]) == (1, 0)
    await ann.stands("deactivated", waiting_for="lookup")  # a port-out perhaps: consent waits for the lookups
    assert await ann.news() == ["suspended -> deactivated by file"]
    await ann.is_looked_up()
    await ann.stands("deactivated", waiting_for="lookup")  # on its own carrier: perhaps somebody else's
    assert await ann.news() == []
    await ann.waits_for_the_last_lookup()
    await ann.stands("deactivated", left=EVERYTHING)
    assert await ann.news() == [
        "12345/spring opted_in -> opted_out by lookup", "12345/summer opted_in -> opted_out by lookup",
        "67890/news opted_in -> opted_out by lookup",
    ]  # fmt: skip


async def a_stranger_has_it(ann: Ann) -> None:
    """5 days ago a message is delivered: to a stranger, who has the number now."""
    await ann.is_sent_a_message(5)
    await ann.stands("reassigned", left=EVERYTHING)
    assert await ann.news() == ["deactivated -> reassigned by receipt"]


async def nothing_old_brings_her_back(ann: Ann) -> None:
    """What she once said does not count for the stranger, and old lists bring nobody back."""
    assert (await ann.stands_on_an_old_list(SUMMER, 730))["reasons"] == {"deactivated": 1}
    assert await ann.agrees(SPRING, 11) == 409
    await ann.stands("reassigned", left=EVERYTHING)
    assert await ann.news() == []


async def its_owner_agrees_to_one_list(ann: Ann) -> None:
    """Yesterday the number's owner agrees to one list: to that one alone."""
    assert await ann.agrees(SPRING, 1) == 200
    await ann.stands("active", may_be_texted=[SPRING], left=[SUMMER, NEWS])
    assert await ann.news() == ["reassigned -> active by call", "12345/spring opted_out -> opted_in by call"]
    await ann.is_sent_a_message(0.5)
    await ann.stands("active", may_be_texted=[SPRING], left=[SUMMER, NEWS])
    assert await ann.news() == []


async def it_can_all_be_read_afterwards(ann: Ann) -> None:
    client = ann.service.client
    history = (await client.get(f"/v1/numbers/{ANN}/history")).json()["items"]
    states = [one["to"] for one in reversed(history) if one["kind"] == "number.state"]
    assert states == ["active", "suspended", "active", "held", "active", "suspended", "deactivated", "reassigned",
                      "active"]  # fmt: skip
    frame = {"from": day(800).isoformat(), "to": (TODAY + timedelta(days=1)).isoformat()}
    report = (await client.get("/v1/reports/opt-outs", params=frame)).json()
    assert (report["total"], [(one["reason"], one["count"], one["share"]) for one in report["reasons"]]) == (
        3, [("deactivated", 3, 1.0)])  # fmt: skip
    gone = (await client.get("/v1/senders/67890/lists/news/subscribers", params={"consent": OUT})).json()["items"]
    assert [(one["number"], one["reason"]) for one in gone] == [(ANN, "deactivated")]
    opt_outs = await ann.service.sql("SELECT sender, list, reason, code_space, code FROM published.opt_outs "
                                     "ORDER BY 1, 2")  # fmt: skip
    assert opt_outs == [(*place, "deactivated", "deactivation_feed", "DEACT") for place in (SUMMER, NEWS)]
