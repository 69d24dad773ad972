"""What a deactivation file does to numbers: what follows for them, their lists, the views and the feed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from app.services.deactivations.events import when
from tests.conftest import Service, Start
from tests.deactivation_steps import DAY, OTHER, STRANGER, WHO, changes, opt_in, post, status
from tests.locks import waiting
from tests.provider import Reply, answering, telnyx

# Without a lookup provider the file decides --------------------------------------------------------------------------


async def test_a_number_in_a_file_is_unsendable_at_once_and_loses_the_consent_of_every_sender(service: Service) -> None:
    await opt_in(service)
    await opt_in(service, sender="67890", name="autumn")
    told = await post(service, "15555551234\n", date=DAY)
    assert (told["records"], told["held"], told["opted_out"], told["remembered"]) == (1, 1, 2, 0)
    shown = await status(service)
    assert (shown["state"], shown["sendable"], shown["reason"]) == ("deactivated", False, "deactivated")
    assert [(one["consent"], one["reason"]) for one in shown["lists"]] == [("opted_out", "deactivated")] * 2
    assert (shown["evidence"]["code_space"], shown["evidence"]["code"]) == ("deactivation_feed", "DEACT")
    history = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"]
    causes = [one["cause"] for one in history if one["reason"] == "deactivated"]
    assert len(causes) == 3
    assert all((c["kind"], c["source"], c["evidence"]) == ("file", "twilio", f"file of {DAY}") for c in causes)
    assert await service.sql("SELECT sum(total)::int FROM hourly_counts WHERE outcome = 'list.opted_out'") == [(2,)]


async def test_an_opt_in_that_is_newer_than_the_file_survives_it(service: Service) -> None:
    await opt_in(service, at="2026-11-21T10:00:00Z")
    await post(service, "15555551234\n", date=DAY)
    shown = await status(service)
    assert (shown["state"], shown["lists"][0]["sendable"]) == ("active", True)


@pytest.mark.parametrize("hour", ["10:00:00", "00:00:00"])
async def test_an_opt_in_of_the_files_own_day_is_kept_and_not_sent_to(service: Service, hour: str) -> None:
    await opt_in(service, at=f"{DAY}T{hour}Z")
    await post(service, "15555551234\n", date=DAY)
    shown = await status(service)
    assert (shown["state"], shown["lists"][0]["consent"], shown["lists"][0]["sendable"]) == (
        "deactivated", "opted_in", False,
    )  # fmt: skip


async def test_a_record_with_its_moment_ends_only_opt_ins_that_are_older(service: Service) -> None:
    moment = f"{DAY}T10:00:00Z"
    await opt_in(service, at=moment)
    await opt_in(service, name="autumn", at=f"{DAY}T09:59:59Z")
    await post(service, f"number,type,date\n{WHO},DEACT,{moment}\n", "records")
    lists = {one["list"]: (one["consent"], one["sendable"]) for one in (await status(service))["lists"]}
    assert lists == {"spring": ("opted_in", False), "autumn": ("opted_out", False)}


async def test_a_file_of_yesterday_that_comes_after_a_newer_one_changes_nothing_for_readers(service: Service) -> None:
    await opt_in(service)
    await post(service, "15555551234\n", date=DAY)
    before = await status(service)
    await post(service, "15555551234\n", date="2026-11-10")
    after = await status(service)
    assert before == after


def test_a_day_ends_later_for_sending_than_for_consent_and_nothing_lies_ahead() -> None:
    arrived = datetime(2026, 11, 21, 9, tzinfo=UTC)
    start = datetime(2026, 11, 20, tzinfo=UTC)
    instant = timedelta(microseconds=1)
    end = start + timedelta(days=1) - instant
    assert when(start.date(), "DEACT", arrived) == (end, start - instant)
    assert when(arrived.date(), "DEACT", arrived) == (arrived, end)
    assert when(start.date(), "SUSPEND", arrived) == (start, start)
    assert when(None, "DEACT", arrived) == (arrived, arrived)
    assert when(arrived + timedelta(days=3), "DEACT", arrived) == (arrived, arrived - instant)
    five = start + timedelta(hours=5)
    assert when(five, "DEACT", arrived) == (five, five - instant)
    assert when(five, "SUSPEND", arrived) == (five, five)


# Numbers that we do not hold -----------------------------------------------------------------------------------------


async def test_a_number_that_nobody_holds_is_remembered_and_a_later_opt_in_must_be_newer(service: Service) -> None:
    told = await post(service, "15555551234\n15555550142\n", date=DAY)
    assert (told["held"], told["remembered"], told["changes"]) == (0, 2, 0)
    shown = await status(service)
    assert (shown["state"], shown["sendable"], shown["evidence"]["code"]) == ("deactivated", False, "DEACT")
    refused = await opt_in(service)
    assert (refused.status_code, (await status(service))["state"]) == (409, "deactivated")
    assert (await status(service))["lists"][0]["reason"] == "deactivated"
    assert (await opt_in(service, OTHER, at="2026-11-21T10:00:00Z")).status_code == 200
    shown = await status(service, OTHER)
    assert (shown["state"], shown["lists"][0]["sendable"]) == ("active", True)


@pytest.mark.parametrize("key", ["lapse", "alone_lapse"])
async def test_what_lapses_by_an_owners_rule_lapses_for_numbers_that_nobody_holds_too(
    start: Start, tmp_path: Path, key: str
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f'[rules.deactivated]\n{key} = "3650d"\n')
    async with start(policy_file=mine) as service:
        await opt_in(service, OTHER)
        await post(service, f"{WHO}\n{OTHER}\n", date=DAY)
        untils = [(await status(service, who))["until"] for who in (OTHER, WHO)]
        assert untils == ["2036-11-17T23:59:59.999999Z"] * 2
    async with start(policy_file=mine, lookup={}) as service:
        told = await post(service, "+15555550177\n", date=DAY)
        assert told["remembered"] == (key == "alone_lapse"), "which says nothing where there is a provider"


async def test_a_remembered_number_that_was_handed_over_says_so_also_when_somebody_speaks_of_it(
    service: Service,
) -> None:
    await post(service, f"number,type,date\n{WHO},TRANSFER,2026-11-19\n", "records", date=DAY)
    sent = {"message_id": "m1", "number": WHO, "sender": "12345", "status": "sent"}
    for last in (None, sent):
        if last:
            assert (await service.client.post("/v1/receipts/native", json=last)).status_code == 200
        shown = await status(service)
        assert (shown["state"], shown["reason"], shown["evidence"]["code"]) == (
            "deactivated", "number_changed", "TRANSFER",
        )  # fmt: skip
        assert (shown["last_receipt_at"] is None) == (last is None)


async def test_the_feed_tells_of_a_remembered_number_when_somebody_first_speaks_of_it(service: Service) -> None:
    await post(service, "15555551234\n", date=DAY)
    assert await changes(service) == []
    await opt_in(service, at="2026-11-21T10:00:00Z")
    assert await changes(service) == [
        (WHO, "number.state", "unseen", "deactivated", "file"), (WHO, "number.state", "deactivated", "active", "call"),
        (WHO, "list.opted_in", None, "opted_in", "call"),
    ]  # fmt: skip


async def test_a_receipt_for_a_remembered_number_finds_what_the_file_said(service: Service) -> None:
    await post(service, "15555551234\n", date=DAY)
    body = {"message_id": "m1", "number": WHO, "sender": "12345", "status": "delivered"}
    assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200
    shown = await status(service)
    assert (shown["state"], shown["evidence"]["message_id"]) == ("reassigned", "m1")


async def test_of_two_files_about_a_remembered_number_the_newer_one_counts_in_either_order(service: Service) -> None:
    for number, days in ((WHO, ("2026-11-10", DAY)), (OTHER, (DAY, "2026-11-10"))):
        for day in days:
            await post(service, f"{number}\n", date=day)
    dates = {(await status(service, who))["evidence"]["occurred_at"][:10] for who in (WHO, OTHER)}
    assert dates == {DAY}
    assert (await opt_in(service, WHO, at="2026-11-15T10:00:00Z")).status_code == 409


async def test_an_opt_in_that_is_written_while_a_file_is_taken_in_is_not_missed(service: Service) -> None:
    """Whichever of the two comes first, the other one sees it: the number's own row is where they meet."""
    who = [f"+1555556{place:04}" for place in range(200)]
    body = "".join(f"{number}\n" for number in who)
    _, *answers = await asyncio.gather(post(service, body, date=DAY, yes=True), *(opt_in(service, one) for one in who))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert await service.sql("SELECT consent, count(*)::int FROM subscriptions GROUP BY 1") == [("opted_out", 200)]
    assert await service.sql("SELECT count(*)::int FROM published.sendable") == [(0,)]


# Kinds ---------------------------------------------------------------------------------------------------------------


async def test_a_file_and_whoever_adds_one_of_its_numbers_meanwhile_end_in_no_deadlock(service: Service) -> None:
    """New numbers are locked before known ones by both, whatever their order."""
    first = "+15555550101"
    for who in (first, OTHER):
        await opt_in(service, who)
    receipts = [{"message_id": who, "number": who, "sender": "12345", "status": "undeliverable", "code": "560"}
                for who in (first, OTHER, STRANGER)]  # fmt: skip
    async with service.app.state.engine.begin() as db:
        await db.execute(text("SELECT FROM numbers WHERE number = :first FOR UPDATE"), {"first": first})
        calls = []
        for call in (service.client.post("/v1/receipts/native", json=receipts),
                     service.client.post("/v1/deactivations/twilio", content=f"{OTHER}\n{STRANGER}")):  # fmt: skip
            calls.append(asyncio.create_task(call))
            await waiting(service, len(calls), *calls)
    assert [(await call).status_code for call in calls] == [200, 200]
    assert [(await status(service, who))["state"] for who in (first, OTHER, STRANGER)] == [
        "active", "deactivated", "deactivated",
    ]  # fmt: skip


async def test_a_suspension_keeps_consent_lapses_after_thirty_days_and_ends_by_a_resume(service: Service) -> None:
    today = datetime.now(UTC).date()
    await opt_in(service)
    await opt_in(service, OTHER)
    lines = f"number,type,date\n{WHO},SUSPEND,{today}\n{OTHER},SUSPEND,{today - timedelta(days=31)}\n"
    await post(service, lines, "records")
    shown = await status(service)
    assert (shown["state"], shown["until"][:10]) == ("suspended", str(today + timedelta(days=30)))
    assert shown["lists"][0]["consent"] == "opted_in"
    assert (await status(service, OTHER))["state"] == "active"
    await post(service, f"number,type,date\n{WHO},RESUME,{today}\n", "records")
    assert (await status(service))["lists"][0]["sendable"] is True


async def test_a_deactivation_during_a_suspension_ends_consent(service: Service) -> None:
    await opt_in(service)
    await post(service, f"number,type,date\n{WHO},SUSPEND,2026-11-18\n{WHO},DEACT,2026-11-19\n", "records")
    shown = await status(service)
    assert (shown["state"], shown["lists"][0]["consent"]) == ("deactivated", "opted_out")


async def test_a_transfer_ends_consent_and_its_new_number_is_a_hint_and_no_opt_in(service: Service) -> None:
    await opt_in(service)
    await post(service, f"number,type,date,new number\n{WHO},TRANSFER,2026-11-19,{STRANGER}\n", "records", date=DAY)
    shown = await status(service)
    assert (shown["state"], shown["reason"], shown["lists"][0]["consent"]) == (
        "deactivated", "number_changed", "opted_out",
    )  # fmt: skip
    assert (await status(service, STRANGER))["state"] == "unseen"
    told = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"][0]
    assert told["cause"]["evidence"] == f"file of {DAY}; now {STRANGER}"


async def test_a_number_that_is_active_again_after_a_deactivation_is_a_strangers(service: Service) -> None:
    await opt_in(service)
    await post(service, f"number,type,date\n{WHO},ACTIVATION,2026-11-19T08:00:00Z\n", "records")
    shown = await status(service)
    assert (shown["state"], shown["lists"][0]["consent"]) == ("reassigned", "opted_out")
    assert (await opt_in(service, at="2026-11-20T08:00:00Z")).status_code == 200
    assert (await status(service))["lists"][0]["sendable"] is True


async def test_a_port_keeps_consent_and_brings_the_carrier_or_waits_for_a_lookup(service: Service) -> None:
    await opt_in(service)
    await opt_in(service, OTHER)
    lines = f"number,type,date,new carrier\n{WHO},PORT,2026-11-19,T-Mobile USA\n{OTHER},PORT,2026-11-19,\n"
    await post(service, lines, "records")
    shown = await status(service)
    assert (shown["state"], shown["carrier"]["name"], shown["carrier"]["ported"]) == ("active", "T-Mobile", True)
    assert shown["lists"][0]["sendable"] is True
    shown = await status(service, OTHER)
    assert (shown["state"], shown["waiting_for"]) == ("held", "no_lookup_provider")
    assert shown["lists"][0]["consent"] == "opted_in"


@pytest.mark.parametrize("kind", ["SUSPEND", "RESUME", "ACTIVATION", "PORT", "DEACT", "TRANSFER"])
async def test_whoever_a_file_speaks_of_is_not_unseen(service: Service, kind: str) -> None:
    today = datetime.now(UTC).date()
    await post(service, f"number,type,date\n{WHO},{kind},{today}\n", "records")
    expected = {"SUSPEND": "suspended", "RESUME": "active", "ACTIVATION": "reassigned", "PORT": "held"}
    assert (await status(service))["state"] == expected.get(kind, "deactivated")


# With a lookup provider ----------------------------------------------------------------------------------------------


async def test_the_carriers_of_another_country_are_none_of_ours(service: Service) -> None:
    """Who keeps the number is not known then; to whom it went is called as the file calls them."""
    gone, moved = "+79161234567", "+79161234568"
    for who in (gone, moved):
        await opt_in(service, who)
    lines = f"number,type,date,carrier,new carrier\n{gone},DEACT,{DAY},MTS,\n{moved},PORT,{DAY},Beeline,MTS\n"
    await post(service, lines, "records")
    assert (await status(service, gone))["carrier"] is None
    assert (await status(service, moved))["carrier"]["name"] == "MTS"


@pytest.mark.parametrize(("carrier", "state", "consent"), [
    ("T-Mobile USA, Inc.", "active", "opted_in"), ("AT&T Mobility", "deactivated", "opted_in"),
])  # fmt: skip
async def test_with_a_provider_numbers_stop_at_once_and_the_lookup_decides_on_consent(
    start: Start, carrier: str, state: str, consent: str
) -> None:
    """A carrier's file says that the number has left it: found on another one it was a port, on the same it waits."""
    go = asyncio.Event()
    ported = {"ported": "Y", "on": DAY} if state == "active" else {}
    async with (
        answering(lambda number: Reply(telnyx(number, carrier, **ported), after=go)) as provider,
        start(lookup=provider.settings()) as service,
    ):
        await opt_in(service)
        told = await post(service, "5555551234\n", "carrier", name="att-deacts_20261120.csv")
        assert (told["day"], told["opted_out"]) == (DAY, 0)
        shown = await status(service)
        assert (shown["state"], shown["waiting_for"], shown["carrier"]["name"]) == ("deactivated", "lookup", "AT&T")
        assert shown["lists"][0]["consent"] == "opted_in"
        go.set()
        async with asyncio.timeout(30):
            while await service.sql(
                "SELECT 1 FROM lookups WHERE due_at <= clock_timestamp() OR lease_until IS NOT NULL"
            ):
                await asyncio.sleep(0.02)
        shown = await status(service)
        assert (shown["state"], shown["lists"][0]["consent"]) == (state, consent)


async def test_over_the_budget_a_files_numbers_wait_unsendable_and_opted_in_until_there_is_one(start: Start) -> None:
    people = [f"+1555555{place:04}" for place in range(5)]
    async with answering(lambda number: Reply(telnyx(number, "Verizon New England", line="landline"))) as provider:
        async with start(lookup=provider.settings() | {"budget_per_day": "0.025"}) as service:
            for one in people:
                await opt_in(service, one)
            await post(service, "\n".join(people), date=DAY, yes=True)
            await asked(service, "SELECT 1 FROM lookups WHERE waiting_for IS DISTINCT FROM 'budget'")
            shown = [await status(service, one) for one in people]
            assert provider.calls.total() == 2
            assert sorted((one["state"], str(one["waiting_for"]), one["lists"][0]["consent"]) for one in shown) == [
                ("deactivated", "None", "opted_out"), ("deactivated", "None", "opted_out"),
                *[("deactivated", "budget", "opted_in")] * 3,
            ]  # fmt: skip
            assert await service.sql("SELECT 1 FROM published.sendable") == []
        async with start(lookup=provider.settings() | {"budget_per_day": "1"}) as service:
            await asked(service, "SELECT 1 FROM lookups")
            assert {(await status(service, one))["lists"][0]["consent"] for one in people} == {"opted_out"}


async def asked(service: Service, waiting: str) -> None:
    async with asyncio.timeout(30):
        while await service.sql(waiting):
            await asyncio.sleep(0.02)


async def test_nobody_pays_for_lookups_of_numbers_that_nobody_holds(start: Start) -> None:
    async with answering(lambda number: Reply(telnyx(number, "AT&T"))) as provider:
        async with start(lookup=provider.settings()) as service:
            await post(service, "5555551234\n", date=DAY)
            assert (await status(service))["waiting_for"] is None
            assert await service.sql("SELECT count(*)::int FROM lookups") == [(0,)]
