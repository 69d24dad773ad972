"""Lookups as they are made: a real HTTP server on loopback answers as a provider does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import asyncpg
import orjson
import pytest
from sqlalchemy import make_url, text

from app.config import Settings
from app.services.connection import transaction
from app.services.lookup import service as making
from app.services.lookup.budget import Budget
from app.wiring import plan_of
from tests.clock import set_clock
from tests.conftest import Service, Start
from tests.locks import waiting
from tests.lookup_steps import LONG_AGO, WHO, looked_up, opt_in, receipt, served_by
from tests.number_steps import status
from tests.provider import Provider, Reply, answering, says, says_as_plivo, telnyx, today

pytestmark = pytest.mark.usefixtures("quick_lookups")


# The story ----------------------------------------------------------------------------------------------------------


async def test_a_number_that_left_att_is_found_on_t_mobile_with_all_its_opt_ins(start: Start) -> None:
    go = asyncio.Event()
    ported = {"ported": "Y", "on": today()}
    async with (
        answering(lambda number: Reply(telnyx(number, "T-Mobile USA, Inc.", **ported), after=go)) as provider,
        start(lookup=provider.settings()) as service,
    ):
        await served_by(service)
        for sender, name in (("12345", "spring"), ("12345", "summer"), ("67890", "spring")):
            await opt_in(service, sender=sender, name=name)
        assert (await status(service))["carrier"]["name"] == "AT&T"
        await receipt(service, "3041")
        told = await status(service, sender="12345", list="spring")
        assert (told["state"], told["sendable"], told["waiting_for"]) == ("deactivated", False, "lookup")
        assert [one["consent"] for one in (await status(service))["lists"]] == ["opted_in"] * 3
        assert await service.sql("SELECT 1 FROM published.sendable") == []
        go.set()
        await looked_up(service)
        told = await status(service)
        assert (told["state"], told["sendable"], told["waiting_for"]) == ("active", True, None)
        carrier = told["carrier"]
        assert (carrier["name"], carrier["name_raw"]) == ("T-Mobile", "T-Mobile USA, Inc.")
        assert (carrier["ported"], carrier["source"], carrier["ported_at"][:10]) == (True, "telnyx", today())
        assert [one["sendable"] for one in told["lists"]] == [True] * 3
        assert len(await service.sql("SELECT 1 FROM published.sendable")) == 3
        assert await service.sql("SELECT state, carrier, ported FROM published.number_status") == [
            ("active", "T-Mobile", True)
        ]
        feed = (await service.client.get("/v1/changes")).json()["items"]
        tail = [(c["kind"], c["from"], c["to"], c["cause"]["kind"]) for c in feed][-3:]
        assert tail == [
            ("number.state", "active", "deactivated", "receipt"),
            ("number.state", "deactivated", "active", "lookup"),
            ("number.carrier", "AT&T", "T-Mobile", "lookup"),
        ]
        assert provider.calls == {WHO: 1}


@pytest.mark.parametrize(("code", "space", "state"), [
    ("341", "openmarket", "active"), ("345", "openmarket", "active"), ("349", "openmarket", "active"),
    ("592", "openmarket", "active"), ("3041", "openmarket", "active"), ("wrong_carrier", "", "active"),
])  # fmt: skip
async def test_each_code_that_asks_is_decided_by_a_port(start: Start, code: str, space: str, state: str) -> None:
    async with answering(says("T-Mobile USA, Inc.", ported="Y", on=today())) as provider:
        async with start(lookup=provider.settings()) as service:
            await served_by(service)
            await opt_in(service)
            if code == "wrong_carrier":
                catalogue = service.app.state.meaning.catalogue
                found = next(c for c in catalogue.codes.values() if c.reason == "wrong_carrier")
                code, space = found.code, found.space
            await receipt(service, code, code_space=space)
            await looked_up(service)
            told = await status(service, sender="12345", list="spring")
            assert (told["state"], told["carrier"]["name"], told["lists"][0]["consent"]) == (
                state,
                "T-Mobile",
                "opted_in",
            )
            assert told["decision"]["sendable"] == (code != "592")  # 592: that sender stays blocked
            assert provider.calls == {WHO: 1}


async def test_a_landline_ends_consent_and_says_why(start: Start) -> None:
    async with answering(says("Verizon New England", line="landline")) as provider:
        async with start(lookup=provider.settings()) as service:
            await opt_in(service)
            await opt_in(service, sender="67890")
            await receipt(service, "345")
            await looked_up(service)
            told = await status(service)
            assert (told["state"], told["reason"]) == ("not_sms_capable", "not_sms_capable")
            assert {one["sender"]: one["consent"] for one in told["lists"]} == {
                "12345": "opted_out",
                "67890": "opted_in",
            }
            [(code, reason)] = await service.sql("SELECT code, reason FROM published.opt_outs")
            assert (code, reason) == ("345", "not_sms_capable")


async def test_the_last_step_of_the_timetable_ends_consent_and_the_ones_before_do_not(start: Start) -> None:
    async with answering(says("AT&T Mobility", ported="N")) as provider:
        async with start(lookup=provider.settings() | {"timetable": ["0s", "4h", "1d"]}) as service:
            await served_by(service)
            await opt_in(service)
            await opt_in(service, sender="67890")
            await receipt(service, "3041")
            gaps = []
            for _ in range(2):
                await looked_up(service)
                told = await status(service)
                assert (told["state"], told["waiting_for"], {one["consent"] for one in told["lists"]}) == (
                    "deactivated", "lookup", {"opted_in"})  # fmt: skip
                [(due,)] = await service.sql("SELECT due_at - now() FROM lookups")
                gaps.append(round(due.total_seconds() / 3600))
                await service.sql("UPDATE lookups SET due_at = now()")
            await looked_up(service)
            told = await status(service)
            assert (told["state"], told["waiting_for"], {one["consent"] for one in told["lists"]}) == (
                "deactivated", None, {"opted_out"})  # fmt: skip
            assert gaps == [4, 20]
            assert await service.sql("SELECT 1 FROM lookups") == []
            assert provider.calls == {WHO: 3}


@pytest.mark.parametrize("apart", ["12 days", "-12 days"])
async def test_the_timetable_is_kept_where_the_databases_clock_is_another(
    start: Start, database_url: str, apart: str
) -> None:
    """It was run through within seconds where ours was behind, and consent ended; where ours was ahead, nobody was
    asked for days.
    """
    await set_clock(database_url, apart)
    async with answering(says("AT&T Mobility", ported="N")) as provider, start(lookup=provider.settings()) as service:
        await served_by(service)
        await opt_in(service)
        await receipt(service, "3041")
        async with asyncio.timeout(90):
            while await service.sql("SELECT 1 FROM lookups WHERE step = 0 OR due_at <= clock_timestamp()"):
                await asyncio.sleep(0.02)
        [(step, due)] = await service.sql("SELECT step, due_at - clock_timestamp() FROM lookups")
        assert (step, round(due.total_seconds() / 3600), provider.calls) == (1, 4, {WHO: 1})
        assert [one["consent"] for one in (await status(service))["lists"]] == ["opted_in"]


@pytest.mark.parametrize("waits", ["provider", "budget"])
async def test_a_provider_is_asked_no_sooner_again_where_the_databases_clock_is_ahead(
    start: Start, database_url: str, waits: str
) -> None:
    await set_clock(database_url, "2 days")
    budget = {"budget_per_day": "0.0001"} if waits == "budget" else {}
    async with answering(lambda _: Reply(b"{}", 400)) as provider:
        async with start(lookup=provider.settings() | budget) as service:
            await receipt(service, "3041")
            async with asyncio.timeout(90):
                while not await service.sql("SELECT 1 FROM lookups WHERE waiting_for IS NOT NULL"):
                    await asyncio.sleep(0.02)
            assert await service.sql("SELECT due_at > clock_timestamp() FROM lookups") == [(True,)]


_PLANNED = "SELECT step, tries, waiting_for, due_at, lease_until FROM lookups"


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("call", ["undecided", "down", "over the budget"])
async def test_a_call_in_between_leaves_the_timetable_where_it_stands(start: Start, call: str, step: int) -> None:
    """Whatever came of it: the last step ends consent, and must not come days too early."""
    async with answering(says("AT&T Mobility", ported="N")) as provider:
        budget = {"budget_per_day": "0.01"} if call == "over the budget" else {}
        async with start(lookup=provider.settings() | budget) as service:
            await served_by(service)
            await opt_in(service)
            await receipt(service, "3041")
            await looked_up(service)
            await service.sql("UPDATE lookups SET step = :step, due_at = now() + interval '6 days'", step=step)
            before = await service.sql(_PLANNED)
            if call == "down":
                provider.says = lambda _: Reply(b"", 503)
            told = (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()
            wanted = {"undecided": "ok", "down": "provider_error", "over the budget": "quota"}
            assert told["outcome"] == wanted[call]
            assert await service.sql(_PLANNED) == before
            number = await status(service)
            assert (number["state"], number["waiting_for"], number["lists"][0]["consent"]) == (
                "deactivated", "lookup", "opted_in")  # fmt: skip


# Budget -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("under_way", [False, True])
async def test_another_question_has_the_whole_timetable_from_now_on(start: Start, *, under_way: bool) -> None:
    """The same question once more changes nothing of when it is asked."""
    at_its_end = """UPDATE lookups SET step = 3, tries = 2, waiting_for = 'budget', due_at = now() + interval '6 days',
                    lease_until = now() + CAST(:lease AS interval) RETURNING step, tries, waiting_for, due_at"""
    asked = "SELECT step, tries, waiting_for, due_at FROM lookups"
    async with start(lookup={}) as service:
        await receipt(service, "345", message="m1")
        (before,) = await service.sql(at_its_end, lease=timedelta(minutes=1) if under_way else None)
        await receipt(service, "345", message="m2")
        assert await service.sql(asked) == [before]
        await receipt(service, "592", message="m3")
        ((step, tries, waiting_for, due_at),) = await service.sql(asked)
        assert (step, tries, waiting_for) == (0, 0, None)
        assert due_at <= datetime.now(UTC)
        assert await service.sql("SELECT lease_until IS NOT NULL FROM lookups") == [(under_way,)]


@pytest.mark.parametrize("call", [False, True])
async def test_a_deactivation_does_not_end_consent_by_the_last_answer_to_another_question_that_was_on_its_way(
    start: Start, *, call: bool
) -> None:
    """The answer is the first of a timetable of its own, whether it was due or a call asked for it."""
    go = asyncio.Event()
    async with answering(lambda n: Reply(telnyx(n, "AT&T Mobility", ported="N"), after=go)) as provider:
        async with start(lookup={}) as service:
            await served_by(service)
            await opt_in(service)
            await receipt(service, "345", message="m1")
            at_its_end = "UPDATE lookups SET step = 4, due_at = now() + CAST(:due AS interval)"
            await service.sql(at_its_end, due=timedelta(days=6 if call else 0))
        async with start(lookup=provider.settings()) as service:
            asking = asyncio.create_task(service.client.post(f"/v1/numbers/{WHO}/lookup")) if call else None
            await provider.asked.wait()
            await receipt(service, "3041", message="m2")
            go.set()
            await looked_up(service)
            told = await status(service)
            assert (told["state"], told["waiting_for"], told["lists"][0]["consent"]) == (
                "deactivated", "lookup", "opted_in")  # fmt: skip
            ((step, gap),) = await service.sql("SELECT step, due_at - now() FROM lookups")
            assert (step, round(gap / timedelta(hours=1))) == (0 if call else 1, 4)
            if asking:
                assert (await asking).json()["outcome"] == "ok"


async def test_an_earlier_answer_decides_nothing_against_a_deactivation_that_comes_before_it_acts(start: Start) -> None:
    async with answering(says("T-Mobile USA, Inc.", ported="Y")) as provider:
        async with start(lookup=provider.settings()) as service:
            await served_by(service)
            await opt_in(service)
            await receipt(service, "345", message="m1")
            await looked_up(service)
            await service.sql("UPDATE lookup_answers SET asked_at = now() - interval '20 days'")
        provider.says = says("T-Mobile USA, Inc.", ported="N")
        async with start(lookup={}) as service:
            await receipt(service, "341", message="m2")
            async with AsyncExitStack() as stack:
                async with service.app.state.engine.begin() as db:
                    await db.execute(text("SELECT FROM numbers FOR UPDATE"))
                    dead = asyncio.create_task(receipt(service, "3041", message="m3"))
                    await waiting(service, 1, dead)
                    await stack.enter_async_context(start(lookup=provider.settings()))
                    await waiting(service, 2, dead)
                await dead
                await looked_up(service)
                told = await status(service)
            assert (told["state"], told["waiting_for"], told["lists"][0]["consent"]) == (
                "deactivated", "lookup", "opted_in")  # fmt: skip
            assert provider.calls == {WHO: 2}


async def test_over_the_budget_numbers_wait_for_it_and_say_so(start: Start) -> None:
    async with answering(says("T-Mobile USA, Inc.", ported="Y")) as provider:
        async with start(lookup=provider.settings() | {"budget_per_day": "0.025"}) as service:
            await asyncio.gather(*(receipt(service, "345", f"+1555555{n:04}", f"m{n}") for n in range(5)))
            async with asyncio.timeout(30):
                while await service.sql("SELECT 1 FROM lookups WHERE waiting_for IS DISTINCT FROM 'budget'"):
                    await asyncio.sleep(0.02)
            assert provider.calls.total() == 2
            waits = await service.sql("SELECT waiting_for, count(*) FROM published.number_status GROUP BY 1 ORDER BY 1")
            assert waits == [("budget", 3), (None, 2)]
            assert await service.sql("SELECT spent FROM lookup_days") == [(Decimal("0.02"),)]
            metrics = (await service.client.get("/metrics")).text
            assert "sendable_lookup_budget_left 0.005" in metrics
            number = (await service.sql("SELECT number FROM lookups LIMIT 1"))[0][0]
            told = (await service.client.post(f"/v1/numbers/{number}/lookup")).json()
            assert (told["outcome"], told["waiting_for"], told["price"]) == ("quota", "budget", "0")
        async with start(lookup=provider.settings() | {"budget_per_day": "1"}) as service:
            async with asyncio.timeout(30):
                while await service.sql("SELECT 1 FROM lookups"):
                    await asyncio.sleep(0.02)
            assert await service.sql("SELECT DISTINCT state, waiting_for FROM published.number_status") == [
                ("active", None)
            ]


async def test_a_number_costs_no_more_than_its_own_budget_in_thirty_days(start: Start) -> None:
    async with answering(says("AT&T Mobility")) as provider:
        async with start(lookup=provider.settings() | {"budget_per_number": "0.02"}) as service:
            outcomes = [(await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()["outcome"] for _ in range(3)]
            assert outcomes == ["ok", "ok", "quota"]
            await service.sql("UPDATE lookup_spend SET day = day - 31")
            assert (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()["outcome"] == "ok"


async def test_what_is_given_back_after_midnight_is_given_back_to_the_day_that_paid(service: Service) -> None:
    days = [date(2026, 5, 4)]
    budget = Budget(service.app.state.engine, per_day=Decimal("0.05"), today=lambda: days[-1])
    granted = await budget.reserve([WHO, "+15555551235"], Decimal("0.02"))
    assert granted.numbers == [WHO, "+15555551235"]
    days.append(date(2026, 5, 5))
    assert (await budget.reserve(["+15555551236"], Decimal("0.02"))).numbers == ["+15555551236"]
    await budget.settle({WHO: Decimal("-0.02"), "+15555551235": Decimal("0.01")}, granted.day)
    assert await service.sql("SELECT day, spent FROM lookup_days ORDER BY 1") == [
        (date(2026, 5, 4), Decimal("0.03")),
        (date(2026, 5, 5), Decimal("0.02")),
    ]


@pytest.mark.parametrize("cap", ["per_day", "most"])
async def test_those_who_are_paid_in_one_transaction_get_no_more_than_is_left(service: Service, cap: str) -> None:
    """And a cap that was passed already, by a call that cost more than its price, leaves nobody anything."""
    budget, price = Budget(service.app.state.engine, **{cap: Decimal("0.05")}), Decimal("0.02")
    group = [f"+155555512{place:02}" for place in range(20)]
    granted = await asyncio.gather(*(budget.reserve([number], price) for number in group))
    assert [one.numbers for one in granted] == [[group[0]], [group[1]], *([] for _ in group[2:])]
    await budget.settle({WHO: Decimal("0.21")}, granted[0].day)
    assert (await budget.reserve(group, price)).numbers == []
    await budget.settle({WHO: Decimal("-0.23")}, granted[0].day)
    assert (await budget.reserve(group, price)).numbers == group[:1]


async def test_a_number_that_is_asked_for_twice_in_one_transaction_has_one_budget(service: Service) -> None:
    budget, price = Budget(service.app.state.engine, per_number=Decimal("0.03")), Decimal("0.02")
    granted = await asyncio.gather(*(budget.reserve([WHO], price) for _ in range(2)))
    assert [one.numbers for one in granted] == [[WHO], []]


CHARGED = {"http": {"net": "T-Mobile USA, Inc.", "moved": True, "charge": "0.50"},
           "hlr-lookups": {"msisdn": WHO, "query_status": "OK", "is_ported": True, "cost": "0.0050",
                           "ported_network_name": "T-Mobile US:6529 - SVR/2"}}  # fmt: skip
KEYS = {"http": {"url": "{base}/{number}", "fields": {"carrier": "net", "ported": "moved", "price": "charge"}},
        "hlr-lookups": {"base_url": "{base}", "api_key": "k", "api_secret": "s"}}  # fmt: skip


@pytest.mark.parametrize(("name", "given", "spent"), [
    ("http", {}, "0.50"),  # mapped, so in our currency
    ("http", {"price": "0.02"}, "0.02"),
    ("hlr-lookups", {}, "0.006"),  # 0.0050 are euros
    ("hlr-lookups", {"price": "0.007"}, "0.007"),
])  # fmt: skip
async def test_the_budget_counts_in_one_currency_and_as_the_settings_say(
    start: Start, name: str, given: dict[str, str], spent: str
) -> None:
    async with answering(lambda _: Reply(orjson.dumps(CHARGED[name]))) as provider:
        keys = {key: value.replace("{base}", provider.url) if isinstance(value, str) else value
                for key, value in KEYS[name].items()}  # fmt: skip
        async with start(lookup={"providers": [name], "budget_per_day": "1", name: keys | given}) as service:
            told = (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()
            assert (told["outcome"], Decimal(told["price"])) == ("ok", Decimal(spent))
            assert await service.sql("SELECT spent FROM lookup_days") == [(Decimal(spent),)]


# By call ------------------------------------------------------------------------------------------------------------


ARRIVALS = """
CREATE SEQUENCE arrived;
CREATE FUNCTION arrives() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('arrived'); RETURN NEW; END $$;
CREATE TRIGGER arrives BEFORE INSERT ON lookups FOR EACH ROW EXECUTE FUNCTION arrives();
"""
"""Counts who wants a lookup, also where there is one: a sequence tells others before anything is committed."""


async def test_callers_join_the_call_in_flight(start: Start) -> None:
    go = asyncio.Event()
    async with answering(lambda number: Reply(telnyx(number, "T-Mobile USA", ported="Y"), after=go)) as provider:
        async with start(lookup=provider.settings()) as one, start(lookup=provider.settings()) as two:
            async with transaction(one.app.state.engine) as db:
                await db.execute(ARRIVALS)
            calls = [asyncio.create_task(s.client.post(f"/v1/numbers/{WHO}/lookup")) for s in (one, two) * 10]
            async with asyncio.timeout(60):
                while await one.sql("SELECT last_value FROM arrived") != [(20,)]:
                    await asyncio.sleep(0.02)
                await provider.asked.wait()
            go.set()
            told = [(await call).json() for call in calls]
            assert {(t["outcome"], t["provider"], t["carrier"]["name"]) for t in told} == {("ok", "telnyx", "T-Mobile")}
            assert provider.calls == {WHO: 1}
            assert await one.sql("SELECT 1 FROM lookups") == []


_ELSEWHERE = """
INSERT INTO lookups (number, reason, cause, asked_at, due_at, lease_until)
SELECT $1, 'by_hand', '{}', clock_timestamp(), clock_timestamp(), clock_timestamp() + interval '1 hour'
"""
_ANSWERED = """
INSERT INTO lookup_answers (number, asked_at, provider, outcome, detail, price, config)
SELECT $1, clock_timestamp() + $2::interval, 'telnyx', $3, '', 0.0015, 'theirs'
"""


@pytest.mark.parametrize("apart", [timedelta(days=-2), timedelta(minutes=-5), timedelta(0), timedelta(days=2)])
async def test_who_joins_a_call_of_another_process_is_told_of_it_alone_by_whatever_clock(
    start: Start, apart: timedelta
) -> None:
    """Where the other's clock was behind its answer was not found, and the provider was paid twice; an earlier one was
    told as this one's.
    """
    async with answering(says("AT&T")) as provider, start(lookup=provider.settings()) as service:
        async with transaction(service.app.state.engine) as db:
            await db.execute(_ELSEWHERE, WHO)
            await db.execute(_ANSWERED, WHO, apart - timedelta(seconds=30), "ok")
            await db.execute(ARRIVALS)
        calling = asyncio.create_task(service.client.post(f"/v1/numbers/{WHO}/lookup"))
        async with asyncio.timeout(30):
            while await service.sql("SELECT is_called FROM arrived") != [(True,)]:
                await asyncio.sleep(0.02)
        async with transaction(service.app.state.engine) as db:
            await db.execute(_ANSWERED, WHO, apart, "timeout")
            await db.execute("DELETE FROM lookups")
        told = (await calling).json()
        assert (told["outcome"], told["errors"], told["price"], provider.calls) == (
            "timeout", [{"provider": "telnyx", "error": "timeout"}], "0.0015", {},
        )  # fmt: skip


async def test_a_caller_is_answered_though_its_number_was_erased_and_is_looked_up_anew_meanwhile(start: Start) -> None:
    go = asyncio.Event()
    async with (
        answering(lambda number: Reply(telnyx(number, "AT&T"), after=go)) as provider,
        start(lookup=provider.settings()) as service,
    ):
        calling = asyncio.create_task(service.client.post(f"/v1/numbers/{WHO}/lookup"))
        await provider.asked.wait()
        assert (await service.client.delete(f"/v1/numbers/{WHO}")).status_code == 200
        await receipt(service, "345")
        while provider.calls != {WHO: 2}:
            await asyncio.sleep(0.01)
        go.set()
        async with asyncio.timeout(30):
            assert (await calling).json()["outcome"] == "ok"
        await looked_up(service)


async def test_an_answer_counts_though_what_asked_for_it_has_ended_meanwhile(start: Start) -> None:
    """It is paid for: the carrier is known by it, and whoever called meanwhile hears of it."""
    go = asyncio.Event()
    port = lambda number: Reply(telnyx(number, "T-Mobile USA", ported="Y"), after=go)  # noqa: E731
    async with answering(port) as provider, start(lookup=provider.settings()) as service:
        await receipt(service, "345", message="m1")
        await provider.asked.wait()
        calling = asyncio.create_task(service.client.post(f"/v1/numbers/{WHO}/lookup"))
        await receipt(service, "4", message="m2", status="delivered")
        assert (await status(service))["state"] == "active"
        go.set()
        told = (await calling).json()
        assert (told["outcome"], told["carrier"]["name"]) == ("ok", "T-Mobile")
        assert [change["kind"] for change in told["changes"]] == ["number.carrier"]
        assert (provider.calls, await service.sql("SELECT 1 FROM lookups")) == ({WHO: 1}, [])


async def test_without_a_provider_a_lookup_by_call_is_refused(start: Start) -> None:
    for settings in ({}, {"lookup": {}}):
        async with start(**settings) as service:
            answer = await service.client.post(f"/v1/numbers/{WHO}/lookup")
            assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")


async def test_nobody_is_paid_for_a_toll_free_or_premium_number(start: Start) -> None:
    async with answering(says("AT&T")) as provider, start(lookup=provider.settings()) as service:
        for number in ("+18005551234", "+19005551234"):
            told = (await service.client.post(f"/v1/numbers/{number}/lookup")).json()
            assert (told["outcome"], told["provider"], told["price"]) == ("ok", "numbering-plan", "0")
            assert (await status(service, number))["state"] == "not_sms_capable"
        assert not provider.calls


@pytest.mark.parametrize("code", ["345", "3041"])
async def test_a_burst_of_receipts_is_decided_by_one_answer(start: Start, code: str) -> None:
    async with answering(says("T-Mobile USA, Inc.", ported="Y", on=today())) as provider:
        async with start(lookup=provider.settings()) as service:
            await served_by(service)
            for n in range(6):
                await receipt(service, code, message=f"m{n}")
                await looked_up(service)
                assert (await status(service))["state"] == "active"
            assert provider.calls == {WHO: 1}


async def after_a_port(service: Service, provider: Provider) -> None:
    """Five days ago the number was found on T-Mobile; by now the provider says that it is on AT&T."""
    await served_by(service)
    await receipt(service, "345")
    await looked_up(service)
    assert (await status(service))["carrier"]["name"] == "T-Mobile"
    await service.sql("UPDATE lookup_answers SET asked_at = asked_at - interval '5 days'")
    provider.says = says("AT&T Mobility", ported="N")


async def test_an_earlier_port_decides_nothing_against_a_carrier_that_was_told_since(start: Start) -> None:
    async with answering(says("T-Mobile USA, Inc.", ported="Y")) as provider:
        async with start(lookup=provider.settings()) as service:
            await after_a_port(service, provider)
            entry = {"gateway": "native", "message_id": "later", "number": WHO, "sender": "12345", "carrier": "AT&T",
                     "sent_at": datetime.now(UTC).isoformat()}  # fmt: skip
            assert (await service.client.post("/v1/messages", json=[entry])).status_code == 200
            await receipt(service, "345", message="m2")
            await looked_up(service)
            told = await status(service)
            assert (told["state"], told["carrier"]["name"]) == ("active", "AT&T")
            assert provider.calls == {WHO: 2}


async def test_an_earlier_port_brings_no_number_back_that_was_deactivated_since(start: Start) -> None:
    async with answering(says("T-Mobile USA, Inc.", ported="Y")) as provider:
        async with start(lookup=provider.settings()) as service:
            await after_a_port(service, provider)
            failed = {"number": WHO, "sender": "12345", "status": "undeliverable"}
            both = [failed | {"message_id": f"m{code}", "code": code} for code in ("341", "3041")]
            assert (await service.client.post("/v1/receipts/native", json=both)).status_code == 200
            await looked_up(service)
            told = await status(service)
            assert (told["state"], told["waiting_for"]) == ("deactivated", "lookup")
            assert provider.calls == {WHO: 2}


NO_CARRIER = "UPDATE lookup_answers SET kept_until = kept_until - CAST(:hours AS int) * interval '1 hour', "
NO_CARRIER += "asked_at = asked_at - CAST(:hours AS int) * interval '1 hour'"


@pytest.mark.parametrize(("hours", "code", "calls"), [(23, "345", 1), (25, "345", 2), (23, "3041", 2)])
async def test_a_provider_that_named_no_carrier_is_paid_again_after_a_day_or_for_a_deactivation(
    start: Start, hours: int, code: str, calls: int
) -> None:
    async with answering(says("")) as provider, start(lookup=provider.settings()) as service:
        await served_by(service)
        await receipt(service, "345")
        await looked_up(service)
        assert (await status(service))["state"] == "held"
        await receipt(service, "345", message="m2", status="delivered")
        assert (await status(service))["state"] == "active"
        await service.sql(NO_CARRIER, hours=hours)
        await receipt(service, code, message="m3")
        await looked_up(service)
        assert provider.calls == {WHO: calls}
        told = await status(service)
        assert (told["state"], told["waiting_for"]) == ("held" if code == "345" else "deactivated", "lookup")


async def test_another_provider_is_asked_where_the_first_has_named_no_carrier_before(start: Start) -> None:
    async with answering(says("")) as bare, answering(says_as_plivo("AT&T Mobility")) as other:
        both = other.settings("plivo") | {"telnyx": bare.settings()["telnyx"]}
        async with start(lookup=both | {"providers": ["telnyx", "plivo"]}) as service:
            await served_by(service)
            for message in ("m1", "m2"):
                await receipt(service, "345", message=message, sent_at=LONG_AGO)
                await looked_up(service)
                assert (await status(service))["state"] == "active"
                await service.sql(NO_CARRIER, hours=20)
            assert (bare.calls, other.calls) == ({WHO: 1}, {WHO: 2})


async def test_two_providers_that_disagree_stand_both_in_the_history(start: Start) -> None:
    async with answering(says("AT&T Mobility")) as bare, answering(says_as_plivo("T-Mobile USA, Inc.")) as explicit:
        both = explicit.settings("plivo") | {"telnyx": bare.settings()["telnyx"]}
        async with start(lookup=both | {"providers": ["telnyx", "plivo"]}) as service:
            await served_by(service)
            await receipt(service, "3041")
            await looked_up(service)
            told = await status(service)
            assert (told["state"], told["carrier"]["name"], told["carrier"]["source"]) == (
                "active",
                "T-Mobile",
                "plivo",
            )
            history = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"]
            assert (
                history[0]["cause"]["evidence"]
                == "plivo: T-Mobile USA, Inc. mobile ported; telnyx: AT&T Mobility mobile"
            )


async def test_a_late_answer_overwrites_nothing(start: Start) -> None:
    go = asyncio.Event()
    replies = iter([Reply(b"", after=go)])
    async with answering(lambda n: next(replies, Reply(telnyx(n, "T-Mobile USA", ported="Y")))) as provider:
        provider_settings = provider.settings()
        async with start(lookup=provider_settings) as service:
            await receipt(service, "345")
            await provider.asked.wait()
            await service.sql(
                "UPDATE lookups SET token = gen_random_uuid(), step = 3, lease_until = now() + interval '1 h'"
            )
            go.set()
            async with asyncio.timeout(30):
                while not await service.sql("SELECT 1 FROM lookup_answers"):
                    await asyncio.sleep(0.02)
            assert (await status(service))["state"] == "held"
            [(step, leased)] = await service.sql("SELECT step, lease_until > now() FROM lookups")
            assert (step, leased) == (3, True)


async def test_a_late_answer_takes_nothing_away_of_a_number_that_only_a_file_has_spoken_of(start: Start) -> None:
    go = asyncio.Event()
    async with answering(lambda n: Reply(telnyx(n, "Verizon Wireless"), after=go)) as provider:
        async with start(lookup=provider.settings()) as service:
            told = await service.client.post("/v1/deactivations/twilio", content=WHO, params={"date": "2026-11-01"})
            assert told.json()["remembered"] == 1
            asking = asyncio.create_task(service.client.post(f"/v1/numbers/{WHO}/lookup"))
            await provider.asked.wait()
            await service.sql("UPDATE lookups SET token = gen_random_uuid()")
            go.set()
            assert (await asking).status_code == 200
            assert (await status(service))["state"] == "deactivated"


# A stop -------------------------------------------------------------------------------------------------------------


async def test_a_stop_waits_for_no_provider_and_gives_its_numbers_to_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "STOPS_WITHIN", 3_600)
    never = asyncio.Event()
    replies = iter([Reply(b"", after=never)])
    async with answering(lambda n: next(replies, Reply(telnyx(n, "T-Mobile USA", ported="Y", on=today())))) as provider:
        async with asyncio.timeout(20):
            async with start(lookup=provider.settings(timeout="1h")) as service:
                await receipt(service, "3041")
                await provider.asked.wait()
                assert await service.sql("SELECT lease_until > now() FROM lookups") == [(True,)]
        async with start(lookup=provider.settings(timeout="1h")) as service:
            await looked_up(service)
            assert (await status(service))["state"] == "active"
            assert provider.calls == {WHO: 2}
            assert await service.sql("SELECT spent FROM lookup_days") == [(Decimal("0.02"),)]  # both may be billed


async def test_what_is_claimed_in_the_moment_of_a_stop_is_given_to_others(start: Start) -> None:
    """It has not even begun to ask."""
    async with answering(says("T-Mobile USA, Inc.")) as provider, start(lookup={}) as service:
        await receipt(service, "3041")
        state = service.app.state
        settings = Settings.model_validate({"lookup": provider.settings()})
        stopping = making.Lookups(state.engine, state.meaning, plan_of(settings))
        stopping.stop()
        async with stopping.open():
            await stopping._look()
        assert await service.sql("SELECT token IS NULL, lease_until IS NULL FROM lookups") == [(False, True)]


async def test_an_answer_that_has_come_is_committed_before_a_stop(start: Start, database_url: str) -> None:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    go = asyncio.Event()
    reply = Reply(telnyx(WHO, "T-Mobile USA", ported="Y", on=today()), after=go)
    async with answering(lambda _: reply) as provider, AsyncExitStack() as running:
        service = await running.enter_async_context(start(lookup=provider.settings()))
        await receipt(service, "3041")
        await provider.asked.wait()
        db = await asyncpg.connect(plain)
        async with db.transaction():
            await db.execute("SELECT 1 FROM numbers FOR UPDATE")
            go.set()
            async with asyncio.timeout(20):
                while not await db.fetch("SELECT 1 FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
            stopping = asyncio.create_task(running.aclose())
            await asyncio.wait([stopping], timeout=0.1)
        await stopping
        assert await db.fetchval("SELECT state FROM numbers") == "active"
        assert await db.fetchval("SELECT count(*) FROM lookups") == 0
        assert provider.calls == {WHO: 1}
        await db.close()
