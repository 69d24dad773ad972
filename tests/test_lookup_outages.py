"""Providers that misbehave or refuse our account: nobody is opted out by it, no lookup lost, and others are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text

from app.services.lookup import commit
from app.services.lookup.panel import Panel
from tests.conftest import Service, Start
from tests.locks import waiting
from tests.lookup_steps import WHO, looked_up, opt_in, receipt, served_by
from tests.number_steps import status
from tests.provider import Reply, answering, says, says_as_plivo, telnyx, today

pytestmark = pytest.mark.usefixtures("quick_lookups")


# Providers that misbehave -------------------------------------------------------------------------------------------

BAD: dict[str, Callable[[asyncio.Event], Callable[[str], Reply]]] = {
    "slow": lambda never: lambda number: Reply(telnyx(number, "AT&T Mobility"), after=never),
    "down": lambda _: lambda _number: Reply(b"oops", 503),
    "rate-limiting": lambda _: lambda _number: Reply(b"{}", 429, {"retry-after": "3600"}),
    "lying about its content type": lambda _: lambda _number: Reply(b"<html>sign in</html>", 200,
                                                                   {"content-type": "application/json"}),
    "cutting its bodies": lambda _: lambda number: Reply(telnyx(number, "AT&T Mobility"), cut=40),
    "refusing our key": lambda _: lambda _number: Reply(b'{"errors": [{"code": "10009"}]}', 401),
    "closing at once": lambda _: lambda _number: Reply(b"x", 200, {}, cut=0),
}  # fmt: skip


@pytest.mark.parametrize("how", BAD)
async def test_a_provider_that_fails_hands_over_to_the_next(start: Start, how: str) -> None:
    never = asyncio.Event()
    async with answering(BAD[how](never)) as bad, answering(says_as_plivo("T-Mobile USA, Inc.")) as good:
        both = good.settings("plivo") | {"telnyx": bad.settings(timeout="1s")["telnyx"]}
        async with start(lookup=both | {"providers": ["telnyx", "plivo"]}) as service:
            await served_by(service)
            await opt_in(service)
            await receipt(service, "3041")
            await looked_up(service)
            told = await status(service)
            assert (told["state"], told["carrier"]["source"], told["lists"][0]["consent"]) == (
                "active",
                "plivo",
                "opted_in",
            )
            kept = (await service.client.get("/v1/lookups", params={"number": WHO})).json()["items"]
            assert {one["provider"]: one["outcome"] == "ok" for one in kept} == {"plivo": True, "telnyx": False}


@pytest.mark.parametrize("how", BAD)
async def test_nobody_is_opted_out_by_an_outage_and_no_step_is_lost(start: Start, how: str) -> None:
    never = asyncio.Event()
    async with answering(BAD[how](never)) as bad:
        async with start(lookup=bad.settings(timeout="1s") | {"timetable": ["0s"]}) as service:
            await served_by(service)
            await opt_in(service)
            await receipt(service, "3041")
            async with asyncio.timeout(30):
                while not await service.sql("SELECT 1 FROM lookups WHERE tries > 0 AND lease_until IS NULL"):
                    await asyncio.sleep(0.02)
            told = await status(service)
            assert (told["state"], told["waiting_for"], told["lists"][0]["consent"]) == (
                "deactivated",
                "lookup",
                "opted_in",
            )
            [(step, waits)] = await service.sql("SELECT step, waiting_for FROM lookups")
            assert (step, waits) == (0, "lookup")
            alarms = (await service.client.get("/v1/alarms")).json()["items"]
            refused = {("lookup_stopped", "telnyx")} if how == "refusing our key" else set()
            assert {(one["kind"], one["key"]) for one in alarms} == {("lookup_outage", "telnyx"), *refused}
            bad.says = says("T-Mobile USA, Inc.", ported="Y", on=today())
            if refused:
                assert (await service.client.post("/v1/lookups/providers/telnyx/resume")).json()["resumed"]
            for asker in service.app.state.lookups.panel.askers:
                asker.breaker.open_until = asker.pace._next = asker.pace._rests_until = 0.0
            await service.sql("UPDATE lookups SET due_at = now()")
            await looked_up(service)
            assert (await status(service))["state"] == "active"
            assert await service.sql("SELECT kind FROM alarms WHERE cleared_at IS NULL") == []


async def standing(service: Service) -> list[tuple[str, ...]]:
    return await service.sql("SELECT kind FROM alarms WHERE cleared_at IS NULL")


async def test_what_an_earlier_answer_decides_ends_no_outage(start: Start) -> None:
    async with answering(says("T-Mobile USA, Inc.", ported="Y")) as provider:
        async with start(lookup=provider.settings()) as service:
            await receipt(service, "345")
            await looked_up(service)
            provider.says = lambda _: Reply(b"", 503)
            await receipt(service, "345", "+15555550001")
            await looked_up(service)
            calls = provider.calls.total()
            await receipt(service, "345", message="m2")
            await looked_up(service)
            assert provider.calls.total() == calls
            assert await standing(service) == [("lookup_outage",)]


async def test_an_outage_that_one_process_met_ends_when_another_one_hears_an_answer(start: Start) -> None:
    async with answering(lambda _: Reply(b"", 503)) as bad, answering(says("T-Mobile USA, Inc.")) as good:
        async with start(lookup=bad.settings()) as one, start(lookup=good.settings()) as two:
            for _ in range(2):  # a second outage as well
                assert (await one.client.post(f"/v1/numbers/{WHO}/lookup")).json()["outcome"] == "provider_error"
                assert await standing(one) == [("lookup_outage",)]
                assert (await two.client.post("/v1/numbers/+15555550001/lookup")).json()["outcome"] == "ok"
                assert await standing(two) == []


async def test_what_a_provider_asks_us_to_wait_is_waited_and_then_asked_again(start: Start) -> None:
    replies = iter([Reply(b"{}", 429, {"retry-after": "1"}), Reply(b"{}", 502)])
    async with answering(lambda number: next(replies, Reply(telnyx(number, "T-Mobile USA", ported="Y")))) as provider:
        async with start(lookup=provider.settings()) as service:
            began = asyncio.get_running_loop().time()
            told = (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()
            assert (told["outcome"], told["errors"], told["carrier"]["name"]) == ("ok", [], "T-Mobile")
            assert asyncio.get_running_loop().time() - began >= 1
            assert provider.calls == {WHO: 3}
            assert told["price"] == "0.02"  # the 429 was not billed; the 502 may have been


async def test_a_lookup_that_cannot_be_kept_fails_no_other_and_is_not_paid_for_again_at_once(start: Start) -> None:
    first, broken, good = whos = ("+15555550101", "+15555550102", "+15555550103")
    go = {who: asyncio.Event() for who in whos}
    async with (
        answering(lambda who: Reply(telnyx(who, "T-Mobile", ported="Y", on=today()), after=go[who])) as provider,
        start(lookup=provider.settings()) as service,
    ):
        await service.sql("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                             'BEGIN RAISE EXCEPTION ''refused''; END'""")
        await service.sql(f"""CREATE TRIGGER refuse BEFORE INSERT ON lookup_answers FOR EACH ROW
                              WHEN (NEW.number = '{broken}') EXECUTE FUNCTION refuse()""")
        for who in whos:
            await receipt(service, "3041", who)
        async with asyncio.timeout(30), service.app.state.engine.begin() as db:
            await db.execute(text("SELECT FROM numbers FOR UPDATE"))
            go[first].set()
            await waiting(service, 1)  # the first one's commit: behind it the others gather
            go[broken].set()
            go[good].set()
            while len(service.app.state.lookups._commits._done) < 2:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            while (await status(service, good))["state"] != "active":
                await asyncio.sleep(0.01)
        assert await service.sql("SELECT number, lease_until > now() FROM lookups") == [(broken, True)]
        assert provider.calls == dict.fromkeys(whos, 1)


async def test_an_answer_that_was_paid_for_outlives_a_lost_connection(start: Start) -> None:
    go = asyncio.Event()
    async with (
        answering(lambda who: Reply(telnyx(who, "T-Mobile", ported="Y", on=today()), after=go)) as provider,
        start(lookup=provider.settings()) as service,
    ):
        await receipt(service, "3041")
        await provider.asked.wait()
        asking = asyncio.create_task(service.client.post(f"/v1/numbers/{WHO}/lookup"))
        async with asyncio.timeout(30), service.app.state.engine.begin() as db:
            await db.execute(text("SELECT FROM numbers FOR UPDATE"))
            go.set()
            await waiting(service, 1)
            await service.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        await looked_up(service)
        assert ((await status(service))["state"], provider.calls) == ("active", {WHO: 1})
        assert (await asking).status_code == 200


async def lose_whoever_pays(service: Service, go: asyncio.Event) -> None:
    """Let a provider answer, and end the connection that what follows is reserved or corrected on."""
    async with asyncio.timeout(30), service.app.state.engine.begin() as db:
        await db.execute(text("SELECT FROM lookup_days FOR UPDATE"))
        go.set()
        await waiting(service, 1)
        await service.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


async def test_an_answer_outlives_a_connection_that_is_lost_while_its_price_is_corrected(start: Start) -> None:
    """What was not billed is given back with the next correction."""
    go, other = asyncio.Event(), "+15555550109"
    refusal = Reply(b'{"errors": [{"code": "10015", "detail": "Canadian numbers"}]}', 422, after=go)
    async with answering(lambda _: refusal) as provider, start(lookup=provider.settings()) as service:
        await receipt(service, "3041")
        await provider.asked.wait()
        await lose_whoever_pays(service, go)
        await looked_up(service)
        assert provider.calls == {WHO: 1}
        assert await service.sql("SELECT outcome, price FROM lookup_answers") == [("forbidden", 0)]
        await receipt(service, "3041", other)
        await looked_up(service)
        assert provider.calls == {WHO: 1, other: 1}
        assert await service.sql("SELECT spent FROM lookup_days") == [(0,)]
        assert await service.sql("SELECT number, spent FROM lookup_spend ORDER BY 1") == [(other, 0), (WHO, 0)]


async def test_an_answer_outlives_a_connection_that_is_lost_while_the_next_provider_is_to_be_paid(start: Start) -> None:
    go = asyncio.Event()
    async with (
        answering(lambda who: Reply(telnyx(who, "T-Mobile"), after=go)) as first,
        answering(says_as_plivo("T-Mobile USA, Inc.")) as second,
    ):
        both = first.settings() | {"plivo": second.settings("plivo")["plivo"], "providers": ["telnyx", "plivo"]}
        async with start(lookup=both) as service:
            await receipt(service, "345")
            await first.asked.wait()
            await lose_whoever_pays(service, go)
            await looked_up(service)
            told = await status(service)
    assert (told["state"], told["carrier"]["source"]) == ("active", "telnyx")
    assert (first.calls, second.calls) == ({WHO: 1}, {})


@pytest.mark.parametrize("held", ["lookup_answers", "numbers"])
async def test_an_answer_is_kept_and_its_number_held_for_as_long_as_a_table_is_locked(
    start: Start, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """Whoever called is told to come again."""
    monkeypatch.setattr(commit, "AGAIN_WITHIN", 0.0)
    monkeypatch.setattr(commit, "AGAIN_AFTER", 0.0)
    monkeypatch.setattr(commit, "COMMIT_WITHIN", 0.1)
    monkeypatch.setattr(Panel, "lease", 4.0)
    lease = "SELECT lease_until > now() + interval '5 seconds' FROM lookups"
    async with (
        answering(lambda who: Reply(telnyx(who, "T-Mobile", ported="Y", on=today()))) as provider,
        start(lookup=provider.settings()) as service,
    ):
        await receipt(service, "3041")
        async with asyncio.timeout(30), service.app.state.engine.begin() as db:
            await db.execute(text(f"LOCK TABLE {held} IN SHARE MODE"))
            assert (await service.client.post(f"/v1/numbers/{WHO}/lookup")).status_code == 503
            while await service.sql(lease) == [(False,)]:
                assert provider.calls == {WHO: 1}
            assert (await service.client.post(f"/v1/numbers/{WHO}/lookup")).status_code == 503
        await looked_up(service)
        assert ((await status(service))["state"], provider.calls) == ("active", {WHO: 1})


async def test_a_call_names_the_provider_that_rests_and_until_when(start: Start) -> None:
    failed = {"provider": "telnyx", "error": "provider_error"}
    async with answering(lambda _: Reply(b"", 503)) as bad, start(lookup=bad.settings()) as service:
        assert (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()["errors"] == [failed]
        for _ in range(2):  # the fifth failure opens the breaker; the last time nobody is asked
            began = datetime.now(UTC)
            told = (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()
            until = datetime.fromisoformat(told["errors"][0].pop("until"))
            assert began < until <= datetime.now(UTC) + timedelta(seconds=15)
            assert (told["outcome"], told["provider"], told["errors"]) == ("provider_error", "telnyx", [failed])
        assert (bad.calls.total(), told["price"]) == (5, "0")
        assert await service.sql("SELECT key FROM alarms WHERE cleared_at IS NULL") == [("telnyx",)]


async def test_a_refusal_decides_nothing_while_another_provider_rests(start: Start) -> None:
    refusal = Reply(b'{"errors": [{"code": "10015", "detail": "Canadian numbers"}]}', 422)
    async with answering(lambda _: refusal) as first, answering(says_as_plivo("T-Mobile USA, Inc.")) as second:
        both = second.settings("plivo") | {"telnyx": first.settings()["telnyx"], "providers": ["telnyx", "plivo"]}
        async with start(lookup=both | {"timetable": ["0s"]}) as service:
            [_, rests] = service.app.state.lookups.panel.askers
            rests.breaker.failures, rests.breaker.open_until = 5, monotonic() + 3600
            await opt_in(service)
            await receipt(service, "3041")
            unfinished = "SELECT 1 FROM lookups WHERE tries < :tries OR lease_until IS NOT NULL"
            for tries in (1, 2):  # the second time the refusal is known, and nobody is asked
                await service.sql("UPDATE lookups SET due_at = now()")
                async with asyncio.timeout(30):
                    while await service.sql(unfinished, tries=tries):
                        await asyncio.sleep(0.02)
            told = await status(service)
            assert (told["lists"][0]["consent"], told["waiting_for"]) == ("opted_in", "lookup")
            assert first.calls == {WHO: 1}


async def test_metrics_count_each_provider_by_itself(start: Start) -> None:
    async def counted(service: Service) -> dict[str, float]:
        lines = (await service.client.get("/metrics")).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)
                if name.startswith("sendable_lookup") and "_bucket" not in name}  # fmt: skip

    async with answering(lambda _: Reply(b"", 503)) as bad, answering(says_as_plivo("T-Mobile USA, Inc.")) as good:
        both = good.settings("plivo") | {"telnyx": bad.settings()["telnyx"]}
        async with start(lookup=both | {"providers": ["telnyx", "plivo"], "budget_per_day": "1"}) as service:
            before = await counted(service)
            await receipt(service, "345")
            await looked_up(service)
            await receipt(service, "345", message="m2")
            await looked_up(service)
            after = await counted(service)
    more = {name: round(value - before.get(name, 0), 6) for name, value in after.items()}
    calls = bad.calls.total()
    assert more['sendable_lookup_calls_total{provider="telnyx"}'] == calls == 3
    assert more['sendable_lookups_total{outcome="provider_error",provider="telnyx"}'] == 3
    assert more['sendable_lookups_total{outcome="ok",provider="plivo"}'] == 1
    assert more['sendable_lookup_seconds_count{provider="plivo"}'] == 1
    assert more['sendable_lookup_spend_total{provider="telnyx"}'] == 0.03  # they may have been billed
    assert more['sendable_lookup_spend_total{provider="plivo"}'] == 0.01
    assert more["sendable_lookup_cache_hits_total"] == 1  # the second receipt asked nobody
    assert after["sendable_lookup_budget_left"] == 0.96


async def test_a_budget_that_was_cut_below_what_is_spent_leaves_nothing(start: Start) -> None:
    async with start(lookup={"providers": ["demo"], "budget_per_day": "1"}) as service:
        await service.sql("INSERT INTO lookup_days SELECT (now() AT TIME ZONE 'UTC')::date, 1.25")
        lines = (await service.client.get("/metrics")).text.splitlines()
        assert [line for line in lines if line.startswith("sendable_lookup_budget_left")] == [
            "sendable_lookup_budget_left 0.0"
        ]


async def test_what_costs_nothing_is_asked_though_the_budget_is_spent(start: Start) -> None:
    async with start(lookup={"providers": ["demo"], "budget_per_day": "1"}) as service:
        await service.sql("INSERT INTO lookup_days SELECT (now() AT TIME ZONE 'UTC')::date, 1.25")
        told = (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()
        assert (told["outcome"], told["price"], told["waiting_for"]) == ("ok", "0", None)


# Stopped ------------------------------------------------------------------------------------------------------------

REFUSED = {"auth": Reply(b'{"errors": [{"code": "10009"}]}', 401), "quota": Reply(b'{"errors": []}', 402)}


def gauge(metrics: str, name: str) -> str:
    [value] = [line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith(f"{name}{{")]
    return value


@pytest.mark.parametrize("why", REFUSED)
async def test_a_provider_that_refuses_our_account_is_asked_by_no_process_until_a_person_resumes_it(
    start: Start, why: str
) -> None:
    async with answering(lambda _: REFUSED[why]) as bad:
        async with start(lookup=bad.settings()) as one, start(lookup=bad.settings()) as two:
            told = (await one.client.post(f"/v1/numbers/{WHO}/lookup")).json()
            assert (told["outcome"], Decimal(told["price"]), bad.calls.total()) == (why, 0, 1)
            for service in (one, two):
                told = (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()
                assert (told["outcome"], bad.calls.total()) == (why, 1)
                assert gauge((await service.client.get("/metrics")).text, "sendable_lookup_stopped") == "1.0"
            await receipt(two, "345", "+15555550001")
            alarms = (await two.client.get("/v1/alarms", params={"cleared": False})).json()["items"]
            assert [one["count"] for one in alarms if (one["kind"], one["key"]) == ("lookup_stopped", "telnyx")] == [1]

            bad.says = says("T-Mobile USA, Inc.", ported="Y")
            answer = (await two.client.post("/v1/lookups/providers/telnyx/resume")).json()
            assert (answer["provider"], answer["resumed"], answer["error"]) == ("telnyx", True, why)
            async with asyncio.timeout(20):
                while await one.sql("SELECT 1 FROM lookups"):
                    await asyncio.sleep(0.02)
            assert (await status(one, "+15555550001"))["state"] == "active"
            assert (await one.client.post(f"/v1/numbers/{WHO}/lookup")).json()["outcome"] == "ok"
            assert await one.sql("SELECT kind FROM alarms WHERE cleared_at IS NULL") == []
            assert gauge((await one.client.get("/metrics")).text, "sendable_lookup_stopped") == "0.0"
            answer = (await two.client.post("/v1/lookups/providers/telnyx/resume")).json()
            assert (answer["resumed"], answer["error"], answer["since"]) == (False, None, None)


async def test_a_restart_or_another_key_lifts_a_stop(start: Start) -> None:
    async with answering(lambda _: REFUSED["auth"]) as bad:
        async with start(lookup=bad.settings()) as service:
            assert (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()["outcome"] == "auth"
            bad.says = says("T-Mobile USA, Inc.", ported="Y")
            async with start(lookup=bad.settings()) as again:
                assert await again.sql("SELECT 1 FROM lookup_stops") == []
                assert (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()["outcome"] == "ok"
            await service.sql("INSERT INTO lookup_stops SELECT 'telnyx', 'other', 'auth', now()")
            assert (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()["outcome"] == "ok"
            assert gauge((await service.client.get("/metrics")).text, "sendable_lookup_stopped") == "0.0"


@pytest.mark.parametrize("others", [{}, {"lookup": {"providers": ["demo"]}}])
async def test_a_start_without_a_provider_ends_its_stop_and_the_alarm(start: Start, others: dict[str, Any]) -> None:
    async with answering(lambda _: REFUSED["auth"]) as bad, start(lookup=bad.settings()) as service:
        assert (await service.client.post(f"/v1/numbers/{WHO}/lookup")).json()["outcome"] == "auth"
    async with start(**others) as service:
        assert await service.sql("SELECT 1 FROM lookup_stops") == []
        assert ("lookup_stopped",) not in await standing(service)


async def test_only_a_provider_that_is_one_can_be_resumed(service: Service) -> None:
    answer = await service.client.post("/v1/lookups/providers/telnix/resume")
    assert (answer.status_code, "telnyx" in answer.json()["detail"]) == (404, True)
