"""How lists stand and why people left: by roll-ups that are always what the raw data says."""

from __future__ import annotations

import asyncio
import importlib.util
import random
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.services import reports
from app.services.store import hour_of
from tests.conftest import Service, Start
from tests.passing import passes

SPRING = "/v1/senders/12345/lists/spring/subscribers"
OPT_IN = {"consented_at": "2026-03-02T09:15:00Z", "source": "web form"}


def number(place: int) -> str:
    return f"+1415555{place:04}"


async def opt_in(service: Service, *places: int, sender: str = "12345", list_: str = "spring", **more: str) -> None:
    for place in places:
        path = f"/v1/senders/{sender}/lists/{list_}/subscribers/{number(place)}"
        assert (await service.client.put(path, json=OPT_IN | more)).status_code in {200, 409}


async def receipt(service: Service, place: int, code: str | None, **said: Any) -> None:
    body = {"message_id": f"m{place}-{code}", "number": number(place), "sender": "12345", "status": "undeliverable"}
    answer = await service.client.post("/v1/receipts/native", json=body | {"code": code} | said)
    assert answer.status_code == 200


# Lists -------------------------------------------------------------------------------------------------------------


async def test_what_happens_counts_in_its_utc_hour_whatever_zone_it_is_told_in(service: Service) -> None:
    await opt_in(service, 1)
    await receipt(service, 1, "603", occurred_at="2026-11-02T00:15:00+05:30")
    counted = await service.sql("SELECT DISTINCT hour FROM hourly_counts")
    assert counted == [(datetime(2026, 11, 1, 18, tzinfo=UTC),)]
    assert await service.sql("SELECT count(*) FROM hourly_counts WHERE outcome = 'list.opted_out'") == [(1,)]
    ahead = timezone(timedelta(hours=5, minutes=30))
    assert hour_of(datetime(2026, 11, 2, 0, 15, tzinfo=ahead)) == datetime(2026, 11, 1, 18, tzinfo=UTC)


async def test_a_list_counts_its_subscribers_and_who_of_them_may_be_texted(start: Start) -> None:
    async with start(lookup={}) as service:
        ((space, suspended),) = await service.sql("SELECT space, code FROM codes WHERE reason = 'suspended' LIMIT 1")
        await opt_in(service, 1, 2, 3, 4, 5, 6)
        await opt_in(service, 1, list_="fall")
        await opt_in(service, 1, sender="67890", list_="news")
        await receipt(service, 2, suspended, code_space=space)
        await receipt(service, 3, "345")  # held until a lookup
        await receipt(service, 4, "592")  # this sender is blocked, consent kept
        await receipt(service, 5, "603")  # opted out
        await service.client.delete(f"{SPRING}/{number(7)}")  # never was on it, and does not want to
        spring = {"sender": "12345", "list": "spring", "subscribers": 5, "sendable": 2, "suspended": 1, "held": 1,
                  "opted_out": 2}  # fmt: skip
        one = {"subscribers": 1, "sendable": 1, "suspended": 0, "held": 0, "opted_out": 0}
        fall, news = {"sender": "12345", "list": "fall"} | one, {"sender": "67890", "list": "news"} | one
        assert (await service.get("/v1/lists"))["items"] == [fall, spring, news]
        assert (await service.get("/v1/lists", sender="67890"))["items"] == [news]


async def test_a_suspension_that_lapses_counts_as_lapsed_without_any_job(start: Start) -> None:
    async with start(lookup={}) as service:
        ((space, suspended),) = await service.sql("SELECT space, code FROM codes WHERE reason = 'suspended' LIMIT 1")
        await opt_in(service, 1)
        at = datetime.now(UTC) + timedelta(hours=1) - timedelta(days=30)
        await receipt(service, 1, suspended, code_space=space, occurred_at=at.isoformat())

        async def counted() -> tuple[tuple[int, int, int], int]:
            (spring,) = (await service.get("/v1/lists"))["items"]
            ((texted,),) = await service.sql("SELECT count(*) FROM published.sendable")
            return (spring["subscribers"], spring["sendable"], spring["suspended"]), texted

        assert await counted() == ((1, 0, 1), 0)
        await passes(service, timedelta(hours=1))
        assert await counted() == ((1, 1, 0), 1)


async def test_a_number_that_came_back_for_one_list_counts_for_that_list_alone(start: Start) -> None:
    """While its lookup is awaited the other list's consent stands, older than the deactivation."""
    async with start(lookup={}) as service:
        await opt_in(service, 1)
        await opt_in(service, 1, list_="fall")
        await receipt(service, 1, "3041", occurred_at="2026-05-01T00:00:00Z")
        await opt_in(service, 1, consented_at="2026-06-01T00:00:00Z")
        sizes = {
            one["list"]: (one["subscribers"], one["sendable"]) for one in (await service.get("/v1/lists"))["items"]
        }
        assert sizes == {"spring": (1, 1), "fall": (1, 0)}


async def test_however_many_ask_for_long_reports_a_number_is_answered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_LISTS", "SELECT pg_advisory_xact_lock_shared(1), $1::text")
    async with service.app.state.engine.connect() as db:
        await db.execute(text("SELECT pg_advisory_xact_lock(1)"))
        asked = [asyncio.create_task(service.client.get("/v1/lists")) for _ in range(20)]
        while not await service.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 1"):
            await asyncio.sleep(0.01)
        assert (await service.get(f"/v1/numbers/{number(1)}"))["state"] == "unseen"
        await db.rollback()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def test_a_report_that_waits_too_long_for_others_is_told_to_come_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.routers.reports.TURN_WITHIN", 0.1)
    turns = service.app.state.reports
    while not turns.locked():
        await turns.acquire()
    refused = await service.client.get("/v1/lists")
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    turns.release()
    assert (await service.get("/v1/lists"))["items"] == []


# The opted-out tab -------------------------------------------------------------------------------------------------


async def test_those_who_left_are_listed_with_why_and_when_whatever_else_stands_in_the_way(service: Service) -> None:
    await opt_in(service, 1, 2, 3)
    await service.client.delete(f"{SPRING}/{number(1)}", params={"at": "2026-04-01T00:00:00Z"})
    await receipt(service, 1, "3041", occurred_at="2026-05-01T00:00:00Z")
    await receipt(service, 2, "568", occurred_at="2026-05-02T00:00:00Z")
    gone = (await service.get(SPRING, consent="opted_out"))["items"]
    assert [(one["number"], one["reason"], one["at"]) for one in gone] == [
        (number(1), "deactivated", "2026-05-01T00:00:00Z"), (number(2), "sms_not_provisioned", "2026-05-02T00:00:00Z"),
    ]  # fmt: skip
    await opt_in(service, 1, consented_at="2026-06-01T00:00:00Z")
    await service.client.delete(f"{SPRING}/{number(1)}", params={"at": "2026-06-02T00:00:00Z"})
    await receipt(service, 1, "345", occurred_at="2026-06-03T00:00:00Z")
    (tab, _), (everybody, *_) = [(await service.get(SPRING, **q))["items"] for q in ({"consent": "opted_out"}, {})]
    assert (tab["reason"], tab["at"]) == ("unsubscribed", "2026-06-02T00:00:00Z")
    assert everybody["reason"] == "carrier_unknown"


# Why people left ---------------------------------------------------------------------------------------------------

REPORT = "/v1/reports/opt-outs"


async def test_the_report_tells_counts_and_shares_by_reason_of_each_list(service: Service) -> None:
    await opt_in(service, *range(1, 9))
    await opt_in(service, 1, 2, list_="fall")
    for place, code in ((1, "3041"), (2, "573"), (3, "3041"), (4, "568")):
        await receipt(service, place, code, occurred_at=f"2026-11-0{place}T10:30:00Z")
    await service.client.delete(f"{SPRING}/{number(5)}", params={"at": "2026-11-05T00:00:00Z"})
    told = await service.get(REPORT, **{"from": "2026-11-01T00:00:00Z", "to": "2026-11-06T00:00:00Z"})
    assert (told["from"], told["to"], told["total"]) == ("2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z", 7)
    assert told["reasons"][:2] == [
        {"reason": "deactivated", "count": 3, "share": round(3 / 7, 6)},
        {"reason": "sender_blocked_by_subscriber", "count": 2, "share": round(2 / 7, 6)},
    ]
    fall, spring = told["items"]
    assert (fall["list"], fall["total"], [one["share"] for one in fall["reasons"]]) == ("fall", 2, [0.5, 0.5])
    assert (spring["list"], {one["reason"]: (one["count"], one["share"]) for one in spring["reasons"]}) == ("spring", {
        "deactivated": (2, 0.4), "sender_blocked_by_subscriber": (1, 0.2), "sms_not_provisioned": (1, 0.2),
        "unsubscribed": (1, 0.2)})  # fmt: skip
    only = await service.get(REPORT, sender="12345", list="fall", **{"from": "2026-11-01T00:00:00Z"})
    assert ([one["list"] for one in only["items"]], only["total"]) == (["fall"], 2)


async def test_a_report_is_of_the_last_thirty_days_unless_it_is_asked_for_others(service: Service) -> None:
    await opt_in(service, 1, 2, 3)
    for place, days in ((1, 1), (2, 29), (3, 31)):
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        await service.client.delete(f"{SPRING}/{number(place)}", params={"at": at})
    assert (await service.get(REPORT))["total"] == 2
    told = await service.get(REPORT, to=(datetime.now(UTC) - timedelta(days=30)).isoformat())
    assert told["total"] == 1
    assert datetime.fromisoformat(told["to"]) - datetime.fromisoformat(told["from"]) == timedelta(days=30)


@pytest.mark.parametrize(("since", "until", "count"), [
    ("10:30:00Z", "10:30:01Z", 1), ("10:30:01Z", "11:00:00Z", 0), ("10:00:00Z", "10:30:00Z", 0),
    ("10:00:00Z", "11:00:00Z", 1), ("09:59:59Z", "10:30:01Z", 1), ("10:29:59Z", "13:10:00Z", 1),
    ("10:30:00Z", "10:30:00Z", 0), ("05:30:00-05:00", "05:31:00-05:00", 1),
])  # fmt: skip
async def test_the_time_frame_holds_to_the_instant(service: Service, since: str, until: str, count: int) -> None:
    await opt_in(service, 1)
    await service.client.delete(f"{SPRING}/{number(1)}", params={"at": "2026-11-02T10:30:00Z"})
    told = await service.get(REPORT, **{"from": f"2026-11-02T{since}", "to": f"2026-11-02T{until}"})
    assert told["total"] == count


async def test_who_was_never_in_did_not_leave(service: Service) -> None:
    """An opt-out by call where no list exists yet, and an opt-in that comes too late."""
    await service.client.delete(f"{SPRING}/{number(1)}", params={"scope": "sender"})
    await opt_in(service, 1, list_="fall")
    assert (await service.get(REPORT))["total"] == 0
    assert {one["list"]: one["opted_out"] for one in (await service.get("/v1/lists"))["items"]} == {
        "spring": 1, "fall": 1,
    }  # fmt: skip


@pytest.mark.parametrize("query", [
    {"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, {"from": "2026-11-02"},
    {"from": "0001-01-01T00:00:00Z"}, {"to": "9999-12-31T23:59:59Z"}, {"list": "\0"}, {"sender": " "},
])  # fmt: skip
async def test_a_report_that_cannot_be_made_says_why(service: Service, query: dict[str, str]) -> None:
    answer = await service.client.get(REPORT, params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["errors"]


# Equal to the raw data ---------------------------------------------------------------------------------------------


async def random_traffic(service: Service, dice: random.Random) -> None:
    senders, codes = ("12345", "67890"), ("3041", "573", "603", "560", "568", "345", "592", None)
    for turn in range(12):
        batch = [
            {"message_id": f"{turn}-{place}", "number": number(dice.randrange(25)), "sender": dice.choice(senders),
             "status": "delivered" if code is None else "undeliverable", "code": code,
             "occurred_at": moment(dice)}
            for place, code in enumerate(dice.choices(codes, k=12))
        ]  # fmt: skip
        assert (await service.client.post("/v1/receipts/native", json=batch)).status_code == 200
        for _ in range(10):
            await opt_in(service, dice.randrange(25), sender=dice.choice(senders), list_=dice.choice("ab"),
                         consented_at=moment(dice))  # fmt: skip
        path = f"/v1/senders/{dice.choice(senders)}/lists/{dice.choice('ab')}/subscribers/{number(dice.randrange(25))}"
        query = {"scope": dice.choice(("list", "sender", "all")), "at": moment(dice)}
        assert (await service.client.delete(path, params=query)).status_code == 200
        rows = "number,consented_at,source\n" + "".join(f"{number(n)},{moment(dice)},x\n" for n in range(25))
        path = f"/v1/senders/{dice.choice(senders)}/lists/c/subscribers"
        assert (await service.client.post(path, content=rows)).status_code == 200


def moment(dice: random.Random) -> str:
    return (datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=dice.randrange(20_000))).isoformat()


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_random_traffic_the_roll_ups_equal_the_raw_data(service: Service, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - traffic, not a secret
    await random_traffic(service, dice)
    raw = await service.sql("SELECT sender, list, reason, occurred_at FROM changes "
                            "WHERE kind = 'list.opted_out' AND before = 'opted_in'")  # fmt: skip
    assert len(raw) > 30
    for _ in range(20):
        start, end = sorted(datetime.fromisoformat(moment(dice)) for _ in range(2))
        start, end = start + timedelta(seconds=dice.randrange(60)), end + timedelta(seconds=61)
        told = await service.get(REPORT, **{"from": start.isoformat(), "to": end.isoformat()})
        counted = {
            (one["sender"], one["list"], each["reason"]): each["count"]
            for one in told["items"] for each in one["reasons"]
        }  # fmt: skip
        assert counted == Counter(row[:3] for row in raw if start <= row[3] < end)
        assert told["total"] == sum(counted.values())
    sizes = {(one["sender"], one["list"]): one for one in (await service.get("/v1/lists"))["items"]}
    for view, name in (("sendable", "sendable"), ("opt_outs", "opted_out")):
        counted = await service.sql(f"SELECT sender, list, count(*) FROM published.{view} GROUP BY 1, 2")  # noqa: S608
        assert {key: one[name] for key, one in sizes.items() if one[name]} == {row[:2]: row[2] for row in counted}
    opted_in = await service.sql(
        "SELECT sender, list, count(*) FROM subscriptions WHERE consent = 'opted_in' GROUP BY 1, 2"
    )
    assert {key: one["subscribers"] for key, one in sizes.items() if one["subscribers"]} == {
        row[:2]: row[2] for row in opted_in
    }
    for state in ("suspended", "held"):
        rows = await service.sql("SELECT sender, list, count(*) FROM subscriptions JOIN published.number_status USING "
                                 "(number) WHERE consent = 'opted_in' AND state = :state GROUP BY 1, 2",
                                 state=state)  # fmt: skip
        assert {key: one[state] for key, one in sizes.items() if one[state]} == {row[:2]: row[2] for row in rows}


def roll_ups() -> dict[str, str]:
    """The statements by which the migration fills them from what is there."""
    (path,) = (Path(__file__).parents[1] / "migrations" / "versions").glob("*_subscribers_in_bulk.py")
    spec = importlib.util.spec_from_file_location("migration", path)
    assert spec
    assert spec.loader
    migration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migration)
    return {one.split()[2]: one for one in migration.STATEMENTS if one.startswith("INSERT INTO")}


async def test_the_migration_fills_the_roll_ups_of_a_database_that_has_none(service: Service) -> None:
    await random_traffic(service, random.Random(3))  # noqa: S311 - traffic, not a secret
    kept = {table: await service.sql(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4") for table in roll_ups()}  # noqa: S608
    for table, fill in roll_ups().items():
        await service.sql(f"TRUNCATE {table}")
        await service.sql(f"{fill} RETURNING 1")
        assert await service.sql(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4") == kept[table]  # noqa: S608
        assert kept[table]


async def test_a_group_without_a_change_of_consent_writes_no_roll_up(service: Service) -> None:
    await opt_in(service, 1)
    before = await service.sql("SELECT xmin::text, opted_in FROM list_sizes")
    await receipt(service, 1, "345")
    assert await service.sql("SELECT xmin::text, opted_in FROM list_sizes") == before
