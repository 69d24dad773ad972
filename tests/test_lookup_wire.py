"""What a provider sees of us, and what we hold meanwhile: connections, tries, waits, deadlines, locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest
from sqlalchemy import make_url

from app.lookups import PROVIDERS
from app.models.lookup import Failed, Found
from app.services.connection import connect
from app.services.lookup import ask
from app.services.lookup import service as making
from app.services.lookup.ask import Answer, Asker, Source
from app.services.lookup.budget import Budget
from app.services.lookup.transport import Transport
from tests.conftest import Service, Start
from tests.provider import Provider, Reply, answering, telnyx, today
from tests.running import CALM

WHO, OTHER = "+15555551234", "+15555551235"
FREE = Decimal(0)
PORTED = {"ported": "Y", "on": today()}


def well(number: str) -> Reply:
    return Reply(telnyx(number, "T-Mobile USA, Inc.", **PORTED))


def plivo(number: str) -> Reply:
    carrier = {"name": "T-Mobile USA, Inc.", "type": "mobile", "ported": "yes"}
    return Reply(orjson.dumps({"api_id": "x", "phone_number": number, "carrier": carrier}))


async def ask_for(service: Service, number: str = WHO) -> Any:
    return (await service.client.post(f"/v1/numbers/{number}/lookup")).json()


async def fail(service: Service, *numbers: str, code: str = "345") -> None:
    """Each number is held, and a lookup of it is due."""
    posts = [{"message_id": f"{code}-{number}", "number": number, "sender": "12345", "status": "undeliverable",
              "code": code} for number in numbers]  # fmt: skip
    assert (await service.client.post("/v1/receipts/native", json=posts)).status_code == 200


async def quiet(service: Service, waiting: str = "SELECT 1 FROM lookups") -> None:
    async with asyncio.timeout(60):
        while await service.sql(waiting):
            await asyncio.sleep(0.02)


async def count(service: Service, statement: str) -> Any:
    [(value,)] = await service.sql(statement)
    return value


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "LOOKS_EVERY", 0.05)


# Connections --------------------------------------------------------------------------------------------------------


async def test_calls_one_after_the_other_share_one_connection(start: Start) -> None:
    async with answering(well) as provider, start(lookup=provider.settings(per_second=1000)) as service:
        for n in range(20):
            assert (await ask_for(service, f"+1555555{n:04}"))["outcome"] == "ok"
        assert (provider.calls.total(), provider.connections) == (20, 1)


async def test_many_lookups_at_once_share_as_many_connections_as_were_busy(start: Start) -> None:
    numbers = [f"+1555555{n:04}" for n in range(300)]
    async with (
        answering(well) as provider,
        start(lookup=provider.settings(per_second=10_000), policy_file=CALM) as service,
    ):
        await fail(service, *numbers)
        await quiet(service)
        assert provider.calls == dict.fromkeys(numbers, 1)
        assert provider.connections <= making.AT_ONCE


# One provider, by itself --------------------------------------------------------------------------------------------


class Slept:
    """A sleep that only remembers: time does not pass."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


NOWHERE = "postgresql+asyncpg:///nowhere"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    pooled = Transport()
    yield pooled
    await pooled.close()


def asker(
    provider: Provider, transport: Transport, sleep: Any = asyncio.sleep, *, pace: float = 1e9, url: str = NOWHERE
) -> Asker:
    """Of Telnyx, for nothing: nothing is reserved."""
    source = Source(PROVIDERS["telnyx"], {"api_key": "KEY", "base_url": provider.url}, FREE, pace, within=60)
    return Asker(source, transport, Budget(connect(url)), sleep)


async def answer_of(one: Asker, number: str = WHO) -> Answer:
    answer = (await one.ask([number]))[number]
    assert answer
    return answer


NOT_TRIED_AGAIN = {
    "nobody there": Reply(b'{"errors": [{"code": "10001"}]}', 404),
    "Canada": Reply(b'{"errors": [{"code": "10015", "detail": "Canadian numbers"}]}', 422),
    "a bad request": Reply(b"{}", 400),
    "a page in HTML": Reply(b"<html>", 200),
    "a redirect": Reply(b"", 302, {"location": "http://127.0.0.1:1/"}),
}
TRIED_AGAIN = {
    "its rate": Reply(b"{}", 429),
    "its fault": Reply(b"", 503),
    "a cut body": Reply(telnyx(WHO, "AT&T Mobility"), cut=40),
}


@pytest.mark.parametrize("why", [*NOT_TRIED_AGAIN, *TRIED_AGAIN])
async def test_only_rate_limits_and_faults_are_tried_again_and_three_times_at_most(
    why: str, transport: Transport
) -> None:
    reply = (NOT_TRIED_AGAIN | TRIED_AGAIN)[why]
    async with answering(lambda _: reply) as provider:
        said = (await answer_of(asker(provider, transport, Slept()))).said
        assert isinstance(said, Failed)
        assert provider.calls.total() == (3 if why in TRIED_AGAIN else 1)


async def test_the_waits_between_tries_are_spread_over_the_whole_of_a_growing_span(transport: Transport) -> None:
    async with answering(lambda _: Reply(b"", 503)) as provider:
        firsts, seconds = [], []
        for _ in range(200):
            slept = Slept()
            await answer_of(asker(provider, transport, slept))
            first, second = (wait for wait in slept.seconds if wait > 1e-6)  # beside them only the pace's own
            firsts.append(first)
            seconds.append(second)
    for waits, cap in ((firsts, 0.5), (seconds, 1.0)):
        assert 0 <= min(waits) < cap / 10
        assert cap * 9 / 10 < max(waits) <= cap + 1e-6


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked", [2, 10])
async def test_what_a_provider_asks_us_to_wait_is_waited_at_least_and_not_by_all_at_once(
    asked: int, status: int, transport: Transport
) -> None:
    replies = iter([Reply(b"{}", status, {"retry-after": str(asked)})])
    async with answering(lambda number: next(replies, well(number))) as provider:
        slept = Slept()
        assert isinstance((await answer_of(asker(provider, transport, slept))).said, Found)
        assert asked < max(slept.seconds) <= asked + 0.5
        assert provider.calls.total() == 2


@pytest.mark.parametrize(("status", "error"), [(429, "rate_limited"), (503, "provider_error")])
async def test_a_provider_that_asks_for_an_hour_is_left_alone_for_a_minute_and_holds_nobody_up(
    status: int, error: str, transport: Transport
) -> None:
    async with answering(lambda _: Reply(b"{}", status, {"retry-after": "3600"})) as provider:
        slept = Slept()
        one = asker(provider, transport, slept)
        for number in (WHO, OTHER):
            said = (await answer_of(one, number)).said
            assert isinstance(said, Failed)
            assert said.error == (error if number == WHO else "rate_limited")
        assert max(slept.seconds) < 1
        assert provider.calls == {WHO: 1}
        assert 55 < one.pace.rests() <= 60
        assert (one.ready(), one.room) == (False, 0)


async def test_the_end_of_a_rate_limit_is_nothing_to_wait_for_after_a_fault(transport: Transport) -> None:
    """Telnyx names it in every answer."""
    replies = iter([Reply(b"", 500, {"x-ratelimit-reset": "60"})])
    async with answering(lambda number: next(replies, well(number))) as provider:
        one = asker(provider, transport, Slept())
        assert isinstance((await answer_of(one)).said, Found)
        assert one.pace.rests() == 0


async def test_whose_turn_would_come_too_late_is_not_asked_for_and_that_is_no_fault_of_the_provider(
    transport: Transport,
) -> None:
    async with answering(well) as provider:
        one = asker(provider, transport, pace=0.01)
        assert isinstance((await answer_of(one)).said, Found)
        late = await answer_of(one, OTHER)
        assert isinstance(late.said, Failed)
        assert (late.said.error, late.price, late.config) == ("rate_limited", 0, "")
        assert (provider.calls, one.breaker.failures) == ({WHO: 1}, 0)


@pytest.mark.parametrize(("reply", "error"), [(Reply(b"{}", 401), "auth"), (Reply(b"{}", 402), "quota")])
async def test_who_waits_for_a_turn_while_the_account_is_refused_makes_no_call(
    reply: Reply, error: str, service: Service, transport: Transport, database_url: str
) -> None:
    gate = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if seconds > 1:
            await gate.wait()

    async with answering(lambda _: reply) as provider:
        one = asker(provider, transport, sleep, pace=0.5, url=database_url)
        first = asyncio.create_task(answer_of(one))
        await provider.asked.wait()
        second = asyncio.create_task(answer_of(one, OTHER))
        await first
        gate.set()
        said = (await second).said
        assert isinstance(said, Failed)
        assert said.error == error
        assert provider.calls == {WHO: 1}
        assert await service.sql("SELECT provider, error FROM lookup_stops") == [("telnyx", error)]
        await one._budget.engine.dispose()


# Through the whole service ------------------------------------------------------------------------------------------


def both(first: Provider, second: Provider, **more: Any) -> dict[str, Any]:
    telnyx_table = first.settings(**more)["telnyx"]
    return second.settings("plivo") | {"providers": ["telnyx", "plivo"], "telnyx": telnyx_table}


@pytest.mark.parametrize("hangs", ["silent", "dripping"])
async def test_a_provider_that_hangs_is_given_up_in_time_and_the_next_one_asked(start: Start, hangs: str) -> None:
    reply = Reply(telnyx(WHO, "AT&T"), after=asyncio.Event()) if hangs == "silent" else Reply(b"x" * 10_000, drips=0.1)
    async with answering(lambda _: reply) as bad, answering(plivo) as good:
        async with start(lookup=both(bad, good, timeout="1s")) as service:
            began = asyncio.get_running_loop().time()
            told = await ask_for(service)
            took = asyncio.get_running_loop().time() - began
            assert (told["outcome"], told["provider"]) == ("ok", "plivo")
            assert told["errors"] == [{"provider": "telnyx", "error": "provider_error"}]
            assert 1 <= took < 6  # one try: no other one begins when its seconds are over
            assert (bad.calls.total(), told["price"]) == (1, "0.02")  # it may have been billed


async def test_a_provider_that_limits_its_rate_holds_up_no_other_number_and_is_not_paid(start: Start) -> None:
    async with answering(lambda _: Reply(b"{}", 429, {"retry-after": "3600"})) as bad, answering(plivo) as good:
        async with start(lookup=both(bad, good)) as service:
            began = asyncio.get_running_loop().time()
            for n in range(5):
                told = await ask_for(service, f"+1555555{n:04}")
                assert (told["outcome"], told["provider"], told["price"]) == ("ok", "plivo", "0.01")
            assert asyncio.get_running_loop().time() - began < 10
            assert (bad.calls.total(), good.calls.total()) == (1, 5)
            assert await count(service, "SELECT spent FROM lookup_days") == Decimal("0.05")


async def test_a_slow_pace_is_kept_and_taken_for_no_outage(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "WAITS_MOST", 2.0)
    monkeypatch.setattr(ask, "SOON", 0.5)
    numbers = [f"+1555555{n:04}" for n in range(64)]
    async with answering(well) as provider:
        async with start(lookup=provider.settings(per_second=15, timeout="1s"), policy_file=CALM) as service:
            began = asyncio.get_running_loop().time()
            await fail(service, *numbers)
            await quiet(service)
            assert asyncio.get_running_loop().time() - began >= 63 / 15
            assert provider.calls == dict.fromkeys(numbers, 1)
            assert await count(service, "SELECT spent FROM lookup_days") == Decimal("0.64")
            assert await service.sql("SELECT kind FROM alarms WHERE kind LIKE 'lookup%'") == []


async def test_while_a_call_is_open_no_transaction_and_no_lock_is(start: Start, database_url: str) -> None:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    go = asyncio.Event()
    async with answering(lambda number: Reply(well(number).body, after=go)) as provider:
        async with start(lookup=provider.settings() | {"budget_per_day": "1"}) as service:
            await fail(service, WHO)
            await provider.asked.wait()
            db = await asyncpg.connect(plain, server_settings={"lock_timeout": "2s", "application_name": "a stranger"})
            asked_at = await db.fetchval("SELECT clock_timestamp()")
            async with asyncio.timeout(10):  # whatever else was open then ends by itself; the call does not
                while await db.fetch(OPEN_SINCE, asked_at):
                    await asyncio.sleep(0.02)
            for statement in (
                "UPDATE numbers SET number = number",
                "UPDATE lookups SET number = number",
                "UPDATE lookup_days SET spent = spent",
            ):
                assert await db.execute(statement) == "UPDATE 1"
            await db.close()
            shown = (await service.client.get(f"/v1/numbers/{WHO}")).json()
            assert (shown["state"], shown["waiting_for"]) == ("held", "lookup")  # a reader is answered meanwhile
            await fail(service, WHO, code="508")  # and so is a gateway
            assert provider.under_way == 1
            go.set()
            await quiet(service)
            assert (await service.client.get(f"/v1/numbers/{WHO}")).json()["state"] == "active"


OPEN_SINCE = """
SELECT 1 FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < $1 AND application_name = 'sendable'
"""


@pytest.mark.parametrize(("number", "line"), [("+18005551234", "toll_free"), ("+19005551234", "premium")])
async def test_a_number_that_the_plan_itself_explains_is_settled_for_nothing(
    start: Start, number: str, line: str
) -> None:
    async with answering(well) as provider, start(lookup=provider.settings()) as service:
        await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{number}",
                                 json={"consented_at": "2025-01-02T09:00:00Z", "source": "form"})  # fmt: skip
        await fail(service, number)
        await quiet(service)
        told = (await service.client.get(f"/v1/numbers/{number}")).json()
        assert (told["state"], told["reason"], told["waiting_for"]) == ("not_sms_capable", "not_sms_capable", None)
        assert told["lists"][0]["consent"] == "opted_out"
        history = (await service.client.get(f"/v1/numbers/{number}/history")).json()["items"]
        assert f"numbering-plan: {line}" in {one["cause"].get("evidence") for one in history}
        assert (provider.calls.total(), await service.sql("SELECT 1 FROM lookup_days")) == (0, [])


@pytest.mark.parametrize(("raw", "name"), [
    ("AT&T", "AT&T (wireline)"), ("AT&T Local", "AT&T (wireline)"),
    ("CELLULAR SOUTH, INC.", "CELLULAR SOUTH, INC."),  # an arm that the catalogue does not have: as it was sent
])  # fmt: skip
async def test_a_fixed_line_is_not_the_mobile_carrier_of_like_name(start: Start, raw: str, name: str) -> None:
    async with answering(lambda number: Reply(telnyx(number, raw, line="landline"))) as provider:
        async with start(lookup=provider.settings()) as service:
            await fail(service, WHO)
            await quiet(service)
            carrier = (await service.client.get(f"/v1/numbers/{WHO}")).json()["carrier"]
            assert (carrier["name"], carrier["name_raw"], carrier["line_type"]) == (name, raw, "landline")


async def test_an_impossible_number_is_asked_for_nowhere(start: Start) -> None:
    async with answering(well) as provider, start(lookup=provider.settings()) as service:
        answer = await service.client.post("/v1/numbers/+1555/lookup")
        assert (answer.status_code, "not a possible phone number" in answer.json()["detail"]) == (422, True)
        told = await service.app.state.lookups.panel.ask(["+1555"])  # one that an earlier release let in
        [heard] = told["+1555"].answers
        assert (heard.provider, heard.said.error, heard.price) == ("numbering-plan", "invalid_number", 0)
        assert not provider.calls


UNDECIDED: dict[str, Callable[[str], dict[str, Any]]] = {
    "no coverage": lambda _: {"problem": "gap"},
    "the port is unknown": lambda _: {"net": "AT&T Mobility", "line": "mobile"},
    "forbidden": lambda _: {"problem": "closed"},
}


@pytest.mark.parametrize("why", UNDECIDED)
async def test_what_one_provider_does_not_tell_the_next_one_does(start: Start, why: str) -> None:
    async with answering(lambda number: Reply(orjson.dumps(UNDECIDED[why](number)))) as bare, answering(plivo) as good:
        words = {"gap": "no_coverage", "closed": "forbidden"}
        table = {"url": bare.url + "/{number}", "errors": {"path": "problem", "words": words},
                 "fields": {"carrier": "net", "line_type": "line", "ported": "moved"}}  # fmt: skip
        settings = good.settings("plivo") | {"providers": ["http", "plivo"], "http": table}
        async with start(lookup=settings) as service:
            await fail(service, WHO)
            await quiet(service)
            told = (await service.client.get(f"/v1/numbers/{WHO}")).json()
            assert (told["state"], told["carrier"]["name"], told["carrier"]["source"]) == (
                "active",
                "T-Mobile",
                "plivo",
            )
            await ask_for(service)  # what is not covered is remembered; a carrier is asked for again
            assert (bare.calls[WHO], good.calls[WHO]) == (2 if why == "the port is unknown" else 1, 2)


async def test_a_provider_that_fails_is_left_alone_and_the_next_one_asked_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "_spread", lambda _: 0.0)
    async with answering(lambda _: Reply(b"", 503)) as bad, answering(plivo) as good:
        async with start(lookup=both(bad, good)) as service:
            for n in range(4):
                told = await ask_for(service, f"+1555555{n:04}")
                assert (told["outcome"], told["provider"]) == ("ok", "plivo")
            assert (bad.calls.total(), good.calls.total()) == (5, 4)  # the fifth failure opens the breaker
            assert [one | {"until": ""} for one in told["errors"]] == [
                {"provider": "telnyx", "error": "provider_error", "until": ""}
            ]
            assert 'sendable_lookup_resting{provider="telnyx"} 1.0' in (await service.client.get("/metrics")).text
