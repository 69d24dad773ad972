"""A gateway's mass error must not empty a list: the breaker, its quarantines, and a person's decision."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.models.receipt import Receipt, Status
from app.services import breaker, quarantine
from app.services.arrival import arrival
from app.services.connection import POOL_SIZE, transaction
from app.services.keep import keep
from tests.conftest import Service, Start

SENDER, LIST = "12345", "spring"
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def numbers(many: int) -> list[str]:
    return [f"+1415555{place:04}" for place in range(many)]


def failure(number: str, code: str = "561", **said: Any) -> dict[str, Any]:
    return {"message_id": f"{code}-{number}", "number": number, "sender": SENDER, "status": "undeliverable",
            "code": code, "carrier": "T-Mobile", "occurred_at": BEGAN.isoformat()} | said  # fmt: skip


async def post(service: Service, receipts: Iterable[dict[str, Any]], *, one_by_one: bool = False) -> None:
    bodies: list[Any] = [[one] for one in receipts] if one_by_one else [[*receipts]]
    for body in bodies:
        answer = await service.client.post("/v1/receipts/native", json=body)
        assert (answer.status_code, "sendable-unread" in answer.headers) == (200, False)


async def register(service: Service, carriers: Mapping[str, str], code: str = "561") -> None:
    """Their messages of that code, each sent by a carrier."""
    sent_at = (BEGAN - timedelta(hours=2)).isoformat()
    sent = [{"gateway": "native", "message_id": f"{code}-{number}", "number": number, "sender": SENDER,
             "carrier": carrier, "sent_at": sent_at} for number, carrier in carriers.items()]  # fmt: skip
    assert (await service.client.post("/v1/messages", json=sent)).status_code == 200


async def subscribe(service: Service, many: Iterable[str], days: float = 30) -> None:
    call = {"consented_at": (BEGAN - timedelta(days=days)).isoformat(), "source": "web form"}
    gate = asyncio.Semaphore(POOL_SIZE)  # who waits longer than 5 s for one of its connections hears 503

    async def one(number: str) -> None:
        async with gate:
            path = f"/v1/senders/{SENDER}/lists/{LIST}/subscribers/{number}"
            assert (await service.client.put(path, json=call)).status_code == 200

    await asyncio.gather(*map(one, many))


async def status(service: Service, number: str) -> Any:
    return (await service.client.get(f"/v1/numbers/{number}", params={"sender": SENDER, "list": LIST})).json()


async def tally(service: Service) -> tuple[int, int, int]:
    """How many are opted out, how many may be texted, how many are held."""
    asked = """SELECT (SELECT count(*) FROM published.opt_outs), (SELECT count(*) FROM published.sendable),
                      (SELECT count(*) FROM published.number_status WHERE state = 'held')"""
    return (await service.sql(asked))[0]  # type: ignore[return-value]


async def waiting(service: Service) -> Any:
    told = (await service.client.get("/v1/quarantine", params={"open": True})).json()
    return told["items"]


class Counts(NamedTuple):
    """How a mass event is counted: of the list, in the report of that day by reason, and by the hour."""

    subscribers: int
    sendable: int
    held: int
    opted_out: int
    report: dict[str, int]
    hourly: int


async def counts(service: Service) -> Counts:
    (one,) = (await service.client.get("/v1/lists", params={"sender": SENDER})).json()["items"]
    frame = {"from": (BEGAN - timedelta(hours=12)).isoformat(), "to": (BEGAN + timedelta(hours=12)).isoformat()}
    report = (await service.client.get("/v1/reports/opt-outs", params=frame)).json()
    edges = {"from": (BEGAN - timedelta(seconds=1)).isoformat(), "to": (BEGAN + timedelta(seconds=1)).isoformat()}
    raw = (await service.client.get("/v1/reports/opt-outs", params=edges)).json()
    assert raw["reasons"] == report["reasons"]  # from the history alone, and from the roll-up
    hourly = await service.sql("""SELECT hour, sender, carrier, total FROM hourly_counts
                                  WHERE outcome = 'list.opted_out' AND total <> 0""")  # fmt: skip
    assert [row[:3] for row in hourly] == [(BEGAN, SENDER, "T-Mobile")] * len(hourly)
    return Counts(
        one["subscribers"], one["sendable"], one["held"], one["opted_out"],
        {each["reason"]: each["count"] for each in report["reasons"]}, sum(row[3] for row in hourly),
    )  # fmt: skip


@pytest.fixture
async def small(start: Start, tmp_path: Path) -> AsyncIterator[Service]:
    """To which four numbers are a mass event."""
    file = tmp_path / "small.toml"
    file.write_text("[breaker]\nleast = 3\n")
    async with start(policy_file=str(file)) as service:
        yield service


# A whole list ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_by_one", [False, True], ids=["in one callback", "in one callback each"])
async def test_a_gateway_that_suddenly_sends_561_for_a_whole_list_opts_nobody_out(
    service: Service, *, one_by_one: bool
) -> None:
    everybody = numbers(400)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody), one_by_one=one_by_one)
    assert await tally(service) == (0, 0, 400)
    (event,) = await waiting(service)
    seen = {"gateway": "native", "code_space": "openmarket", "code": "561", "sender": SENDER, "carrier": "T-Mobile",
            "reason": "content_blocked_for_subscriber", "allowed": 50, "waiting": 400, "decision": None}  # fmt: skip
    assert seen.items() <= event.items()
    assert event["seen"] == (51 if one_by_one else 400)
    told = await status(service, everybody[7])
    assert (told["state"], told["sendable"], told["reason"], told["waiting_for"]) == (
        "held", False, "content_blocked_for_subscriber", "person")  # fmt: skip
    assert (told["sender"]["blocked"], told["lists"][0]["consent"]) == (False, "opted_in")
    assert told["evidence"]["message_id"] == f"561-{everybody[7]}"
    alarms = (await service.client.get("/v1/alarms")).json()["items"]
    assert [one["kind"] for one in alarms] == ["quarantine"]
    metrics = (await service.client.get("/metrics")).text
    assert "sendable_quarantines 1.0" in metrics
    assert "sendable_quarantined_numbers 400.0" in metrics


async def test_released_the_opt_outs_happen_with_their_original_dates(service: Service) -> None:
    everybody = numbers(60)
    await subscribe(service, everybody)
    await subscribe(service, everybody[:1], days=-1)  # agreed again a day after the message was sent
    await post(service, map(failure, everybody))
    (event,) = await waiting(service)
    answer = await service.client.post(f"/v1/quarantine/{event['id']}/release")
    assert answer.json() == {"numbers": 60}
    assert await tally(service) == (59, 1, 0)
    outs = await service.sql("SELECT DISTINCT reason, code, at FROM published.opt_outs")
    assert outs == [("content_blocked_for_subscriber", "561", BEGAN)]
    assert (await status(service, everybody[0]))["decision"]["sendable"]  # the newer opt-in outlives it
    told = await service.sql("""SELECT DISTINCT kind, cause ->> 'kind', occurred_at FROM changes
                                WHERE kind = 'list.opted_out'""")  # fmt: skip
    assert told == [("list.opted_out", "receipt", BEGAN)]
    assert await waiting(service) == []
    (decided,) = (await service.client.get("/v1/quarantine")).json()["items"]
    assert (decided["decision"], decided["decided_by"], decided["waiting"]) == ("release", "api", 0)
    assert (await service.client.get("/v1/alarms")).json()["items"][0]["cleared"]


@pytest.mark.parametrize("one_by_one", [False, True], ids=["in one callback", "in one callback each"])
@pytest.mark.parametrize("decision", ["release", "discard"])
async def test_everything_that_counts_follows_what_the_breaker_undoes_and_a_person_decides(
    service: Service, decision: str, *, one_by_one: bool
) -> None:
    """Also where the first fifty had been opted out, and counted, before anybody could know."""
    everybody = numbers(60)
    await subscribe(service, everybody)
    fifty, rest = everybody[:50], everybody[50:]
    await post(service, map(failure, fifty), one_by_one=one_by_one)
    reason = "content_blocked_for_subscriber"
    assert await counts(service) == Counts(10, 10, 0, 50, {reason: 50}, 50)
    again = failure(fifty[0], message_id="again")  # in the same callback as the one that is too many
    await post(service, [failure(rest[0]), again])
    await post(service, map(failure, rest[1:]), one_by_one=one_by_one)
    assert await counts(service) == Counts(60, 0, 60, 0, {}, 0)
    (event,) = await waiting(service)
    assert (await service.client.post(f"/v1/quarantine/{event['id']}/{decision}")).json() == {"numbers": 60}
    released = Counts(0, 0, 0, 60, {reason: 60}, 60)
    assert await counts(service) == (released if decision == "release" else Counts(60, 60, 0, 0, {}, 0))


async def test_what_upkeep_catches_is_counted_no_more_and_an_erased_number_neither(service: Service) -> None:
    everybody = numbers(2)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody))
    await service.sql("""INSERT INTO quarantines (key, gateway, code_space, code, sender, carrier, reason, seen,
                         allowed, opened_at) SELECT key, '', '', '', '12345', 'T-Mobile', '', 51, 50, now()
                         FROM breaker_hits LIMIT 1""")  # fmt: skip
    assert (await counts(service)).hourly == 2
    await quarantine.keep(service.app.state.engine, service.app.state.meaning.policy)
    assert await counts(service) == Counts(2, 0, 2, 0, {}, 0)
    await service.client.delete(f"/v1/numbers/{everybody[0]}")
    assert await counts(service) == Counts(1, 0, 1, 0, {}, 0)


async def test_discarded_it_is_as_if_the_receipts_had_not_acted(service: Service) -> None:
    everybody = numbers(400)
    await subscribe(service, everybody)
    before = [await status(service, one) for one in everybody[::50]]
    await post(service, map(failure, everybody), one_by_one=True)
    (event,) = await waiting(service)
    answer = await service.client.post(f"/v1/quarantine/{event['id']}/discard")
    assert answer.json() == {"numbers": 400}
    assert await tally(service) == (0, 400, 0)
    for was in before:
        now = await status(service, was["number"])
        assert {key: now[key] for key in ("state", "sender", "lists", "decision")} == {
            key: was[key] for key in ("state", "sender", "lists", "decision")}  # fmt: skip
    assert (await service.client.post(f"/v1/quarantine/{event['id']}/discard")).status_code == 404
    left = await service.sql("SELECT (SELECT count(*) FROM breaker_hits), (SELECT count(*) FROM sender_blocks)")
    assert left == [(0, 0)]


async def test_a_stop_in_the_middle_acts_and_outlives_every_decision(service: Service) -> None:
    everybody = numbers(60)
    stopped, asked_us = everybody[3], everybody[4]
    await subscribe(service, everybody)
    await post(service, map(failure, everybody[:55]))
    await post(service, [failure(stopped, "603"), failure(asked_us, "573")])
    await service.client.delete(f"/v1/senders/{SENDER}/lists/{LIST}/subscribers/{everybody[5]}")
    await post(service, map(failure, everybody[55:]))
    assert await tally(service) == (3, 0, 60)
    (event,) = await waiting(service)
    await service.client.post(f"/v1/quarantine/{event['id']}/discard")
    assert await tally(service) == (3, 57, 0)
    told = await status(service, stopped)
    assert (told["sender"]["blocked"], told["lists"][0]["reason"]) == (True, "opted_out")


@pytest.mark.parametrize("code", ["603", "573"])
async def test_the_persons_own_will_is_never_a_mass_event(service: Service, code: str) -> None:
    everybody = numbers(80)
    await subscribe(service, everybody)
    await post(service, (failure(one, code) for one in everybody))
    assert await tally(service) == (80, 0, 0)
    assert await waiting(service) == []


# The limit ---------------------------------------------------------------------------------------------------------


async def test_fifty_numbers_are_no_mass_event_and_one_more_is(service: Service) -> None:
    everybody = numbers(51)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody[:50]))
    again = (failure(one, message_id=f"again-{one}") for one in everybody[:50])  # the same numbers count once
    await post(service, again)
    assert await tally(service) == (50, 1, 0)
    await post(service, [failure(everybody[50])])
    assert await tally(service) == (0, 0, 51)


async def test_another_code_sender_gateway_or_carrier_is_counted_by_itself(service: Service) -> None:
    everybody = numbers(48)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody))
    await post(service, (failure(one, "560") for one in numbers(20)))
    await post(service, (failure(one, sender="67890", message_id=f"s-{one}") for one in numbers(20)))
    await post(service, (failure(one, carrier="Verizon", message_id=f"c-{one}") for one in numbers(20)))
    assert await waiting(service) == []
    assert (await tally(service))[2] == 0


@pytest.mark.parametrize("named", [True, False], ids=["a receipt with its number", "one with its message id alone"])
@pytest.mark.parametrize("late", [False, True], ids=["register first", "receipts first"])
async def test_a_receipt_that_names_no_carrier_counts_for_the_one_its_message_was_sent_by(
    small: Service, *, named: bool, late: bool
) -> None:
    """But for one that could act before the register told: it counted for nobody's carrier then."""
    everybody = numbers(7)
    by = ["T-Mobile USA, Inc."] * 4 + ["AT&T"] * 3
    await subscribe(small, everybody)
    unnamed = {"carrier": None} | ({} if named else {"number": None, "sender": None})
    steps = [register(small, dict(zip(everybody, by, strict=True))),
             post(small, (failure(number) | unnamed for number in everybody))]  # fmt: skip
    for step in reversed(steps) if late else steps:
        await step
    if named and late:
        expected, counted = [("", 7)], [("AT&T", 3), ("T-Mobile", 4)]
        assert await tally(small) == (0, 0, 7)
    else:
        expected, counted = [("T-Mobile", 4)], [("AT&T", 3)]
        assert await tally(small) == (3, 0, 4)
    assert [(event["carrier"], event["waiting"]) for event in await waiting(small)] == expected
    left = """SELECT carrier, sum(total)::int FROM hourly_counts WHERE outcome = 'list.opted_out'
              GROUP BY 1 HAVING sum(total) <> 0 ORDER BY 1"""
    for event in await waiting(small):
        await small.client.post(f"/v1/quarantine/{event['id']}/discard")
    assert await small.sql(left) == ([] if named and late else counted)


@pytest.mark.parametrize("decision", ["release", "discard"])
async def test_what_the_breaker_undoes_was_counted_for_the_carrier_of_its_message_whoever_serves_the_number_now(
    small: Service, decision: str
) -> None:
    everybody = numbers(4)
    await subscribe(small, everybody)
    await register(small, dict.fromkeys(everybody, "AT&T"))
    moved = {"status": "delivered", "code": None, "carrier": "Verizon",
             "occurred_at": (BEGAN - timedelta(hours=1)).isoformat()}  # fmt: skip
    await post(small, (failure(number, message_id=f"d-{number}", **moved) for number in everybody))
    counted = """SELECT outcome, carrier, sum(total)::int FROM hourly_counts WHERE outcome IN ('sent', 'list.opted_out')
                 GROUP BY 1, 2 HAVING sum(total) <> 0 ORDER BY 1, 2"""
    await post(small, (failure(number, carrier=None) for number in everybody[:3]))
    sent = [("sent", "AT&T", 3), ("sent", "Verizon", 4)]
    assert await small.sql(counted) == [("list.opted_out", "AT&T", 3), *sent]
    await post(small, [failure(everybody[3], carrier=None)])
    sent[0] = ("sent", "AT&T", 4)
    assert await small.sql(counted) == sent
    (event,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{event['id']}/{decision}")
    left = [("list.opted_out", "AT&T", 4)] if decision == "release" else []
    assert await small.sql(counted) == [*left, *sent]


async def test_a_code_with_leading_zeros_is_counted_as_the_one_of_the_catalogue(service: Service) -> None:
    everybody = numbers(51)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody[:30]))
    await post(service, (failure(one, "0561") for one in everybody[30:]))
    assert [one["code"] for one in await waiting(service)] == ["561"]
    assert await tally(service) == (0, 0, 51)


async def test_five_times_what_is_usual_is_allowed(service: Service) -> None:
    """The baseline: the mean over the days on which it came of each day's busiest window; here 16, of 12 and 20."""
    past = """INSERT INTO breaker_windows SELECT 'native/openmarket/561/12345/T-Mobile', now() - s::interval, n
              FROM (VALUES ('2 days', 12), ('2 days 1 hour', 3), ('5 days', 20), ('60 days', 900)) AS v (s, n)"""
    await service.sql(past.replace("now()", "date_trunc('day', now()) + interval '12 hours'"))
    everybody = numbers(81)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody[:80]))
    assert await tally(service) == (80, 1, 0)
    await post(service, [failure(everybody[80])])
    assert await tally(service) == (0, 0, 81)
    assert [one["allowed"] for one in await waiting(service)] == [80]


async def test_what_leaves_the_window_becomes_final_and_counts_for_the_baseline(service: Service) -> None:
    everybody = numbers(70)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody[:40]))
    await service.sql("UPDATE breaker_hits SET at = at - interval '16 minutes'")
    await post(service, map(failure, everybody[40:]))  # 30 within this window
    assert await waiting(service) == []
    await quarantine.keep(service.app.state.engine, service.app.state.meaning.policy)
    assert await service.sql("SELECT key, total FROM breaker_windows") == [("native/openmarket/561/12345/T-Mobile", 40)]
    assert await service.sql("SELECT count(*) FROM breaker_hits") == [(30,)]
    assert (await tally(service))[0] == 70


@pytest.mark.parametrize("apart", [timedelta(minutes=-20), timedelta(minutes=20)])
async def test_who_takes_a_mass_event_by_another_clock_stops_it_all_the_same(
    service: Service, apart: timedelta
) -> None:
    """Where one process was behind by more than the window, the others put what it had counted out of it at once."""
    state, theirs = service.app.state, datetime.now(UTC) + apart
    everybody = numbers(60)
    await subscribe(service, everybody)
    for part in (everybody[:30], everybody[30:]):
        arrivals = [arrival(_received(number), theirs, state.meaning) for number in part]
        async with transaction(state.engine) as db:
            await keep(db, arrivals, [], state.meaning, theirs)
        await quarantine.keep(state.engine, state.meaning.policy)
    assert [one["waiting"] for one in await waiting(service)] == [60]
    assert (await tally(service))[0] == 0


def _received(number: str) -> Receipt:
    return Receipt(f"561-{number}", Status.UNDELIVERABLE, number, SENDER, "561", "openmarket", gateway="native",
                   carrier="T-Mobile", occurred_at=BEGAN)  # fmt: skip


async def test_a_mass_event_never_becomes_usual_also_where_it_was_released(small: Service) -> None:
    """One that is released by mistake would else let the next ones of five times its size through."""
    await post(small, map(failure, numbers(8)))
    (event,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{event['id']}/release")
    await small.sql("UPDATE breaker_hits SET at = at - interval '16 minutes'")
    await quarantine.keep(small.app.state.engine, small.app.state.meaning.policy)
    assert await small.sql("SELECT count(*) FROM breaker_windows") == [(0,)]


async def test_the_limits_are_settings(start: Start, tmp_path: Any) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[breaker]\nleast = 3\n")
    async with start(policy_file=str(file)) as service:
        everybody = numbers(4)
        await subscribe(service, everybody)
        await post(service, map(failure, everybody[:3]))
        assert await tally(service) == (3, 1, 0)
        await post(service, map(failure, everybody[3:]))
        assert await tally(service) == (0, 0, 4)


# Holds and their lookups -------------------------------------------------------------------------------------------


async def test_a_burst_of_holds_asks_for_no_more_lookups_than_the_limit_and_takes_back_what_it_asked(
    start: Start,
) -> None:
    async with start(lookup={}) as service:
        everybody = numbers(120)
        await subscribe(service, everybody)
        asked = []
        for place, one in enumerate(everybody):
            await post(service, [failure(one, "345")])
            if place in {40, 49, 50, 119}:
                asked += await service.sql("SELECT count(*) FROM lookups")
        assert asked == [(41,), (50,), (0,), (0,)]
        assert await tally(service) == (0, 0, 120)
        assert (await status(service, everybody[9]))["waiting_for"] == "person"
        (event,) = await waiting(service)
        await service.client.post(f"/v1/quarantine/{event['id']}/release")
        assert await service.sql("SELECT count(*) FROM lookups") == [(120,)]
        assert (await status(service, everybody[9]))["waiting_for"] == "lookup"


async def test_a_deactivation_of_a_whole_list_waits_too(service: Service) -> None:
    """With no provider each would end consent on every list at once."""
    everybody = numbers(60)
    await subscribe(service, everybody)
    await post(service, (failure(one, "3041") for one in everybody))
    assert await tally(service) == (0, 0, 60)
    (event,) = await waiting(service)
    await service.client.post(f"/v1/quarantine/{event['id']}/release")
    assert await tally(service) == (60, 0, 0)
    assert (await status(service, everybody[0]))["state"] == "deactivated"


# What was there before, and what comes after -----------------------------------------------------------------------


async def test_an_older_opt_out_and_an_older_block_stand_again_when_the_event_is_discarded(service: Service) -> None:
    everybody = numbers(60)
    await subscribe(service, everybody)
    early = (BEGAN - timedelta(days=2)).isoformat()
    await post(service, [failure(everybody[0], "560", occurred_at=early)])
    await post(service, [failure(everybody[1], occurred_at=early, message_id="early")])
    await service.sql("DELETE FROM breaker_hits")
    await asyncio.gather(*(status(service, one) for one in everybody[:2]))
    await age(service)
    await post(service, map(failure, everybody))
    (event,) = await waiting(service)
    await service.client.post(f"/v1/quarantine/{event['id']}/discard")
    assert await tally(service) == (2, 58, 0)
    blocked = await service.sql("SELECT number, code, at FROM published.sender_blocks ORDER BY number")
    was = BEGAN - timedelta(days=2)
    assert blocked == [(everybody[0], "560", was), (everybody[1], "561", was)]


async def age(service: Service) -> None:
    """Let what is aside have arrived a quarter of an hour ago."""
    await service.sql(r"""UPDATE numbers SET facts = regexp_replace(facts::text, '"(received|apart)_at":"[^"]+"',
                          '"\1_at":"2026-01-01T00:00:00Z"', 'g')::json""")  # fmt: skip


async def test_a_repeated_callback_neither_adds_to_a_quarantine_nor_undoes_a_decision(service: Service) -> None:
    everybody = numbers(60)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody))
    (event,) = await waiting(service)
    await post(service, map(failure, everybody))
    assert [(one["id"], one["waiting"]) for one in await waiting(service)] == [(event["id"], 60)]
    await service.client.post(f"/v1/quarantine/{event['id']}/discard")
    await post(service, map(failure, everybody))
    assert await tally(service) == (0, 60, 0)


async def test_a_delivery_after_it_frees_the_number_at_once(service: Service) -> None:
    everybody = numbers(60)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody))
    sent = (BEGAN + timedelta(hours=1)).isoformat()
    await post(service, [failure(everybody[0], "0", status="delivered", sent_at=sent, occurred_at=sent)])
    assert await tally(service) == (0, 1, 59)


async def test_a_decision_that_was_cut_off_is_carried_on(service: Service) -> None:
    everybody = numbers(60)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody))
    await service.sql("UPDATE quarantines SET decision = 'release', decided_at = now(), decided_by = 'somebody'")
    await quarantine.keep(service.app.state.engine, service.app.state.meaning.policy)
    assert await tally(service) == (60, 0, 0)


async def test_while_a_decision_is_carried_out_counting_has_begun_anew(service: Service) -> None:
    """Else each release of something that goes on would be followed by the next quarantine at once."""
    many = numbers(61)
    await subscribe(service, many)
    await post(service, map(failure, many[:60]))
    await service.sql("UPDATE quarantines SET decision = 'release', decided_at = now(), decided_by = 'somebody'")
    await post(service, [failure(many[60])])
    told = await status(service, many[60])
    assert (told["state"], told["lists"][0]["consent"]) == ("active", "opted_out")
    assert await waiting(service) == []


@pytest.mark.parametrize("decision", ["release", "discard"])
async def test_who_fails_beside_a_number_whose_decision_is_still_to_be_carried_out_is_not_held_with_it(
    service: Service, decision: str
) -> None:
    """In one callback; nobody would ever decide on those who were."""
    many = numbers(61)
    await subscribe(service, many)
    await post(service, map(failure, many[:60]))
    await service.sql(
        "UPDATE quarantines SET decision = :word, decided_at = now(), decided_by = 'somebody'", word=decision
    )
    await post(service, [failure(many[0], message_id="again"), failure(many[60])])
    told = await status(service, many[60])
    assert (told["state"], told["lists"][0]["consent"]) == ("active", "opted_out")
    await quarantine.keep(service.app.state.engine, service.app.state.meaning.policy)
    assert await tally(service) == ((61, 0, 0) if decision == "release" else (2, 59, 0))


@pytest.mark.parametrize("first", ["release", "discard"])
@pytest.mark.parametrize("second", ["release", "discard"])
@pytest.mark.parametrize("open_already", [True, False])
async def test_each_failure_follows_the_decision_that_it_waited_for_also_where_the_next_event_comes_first(
    small: Service, first: str, second: str, *, open_already: bool
) -> None:
    """One who failed in both: the second event begins while the decision on the first one is still carried out."""
    everybody = numbers(8)
    await subscribe(small, everybody)
    await post(small, map(failure, everybody[:4]))
    await small.sql("UPDATE quarantines SET decision = :word, decided_at = now(), decided_by = 'somebody'", word=first)
    again = [failure(one, message_id=f"again-{one}") for one in (*everybody[4:], everybody[0])]
    await post(small, again, one_by_one=open_already)
    told = await status(small, everybody[0])
    assert (told["state"], told["lists"][0]["consent"]) == ("held", "opted_out" if first == "release" else "opted_in")
    (event,) = await waiting(small)
    assert event["waiting"] == 5
    await quarantine.keep(small.app.state.engine, small.app.state.meaning.policy)
    await small.client.post(f"/v1/quarantine/{event['id']}/{second}")
    out = {
        *(everybody[:4] if first == "release" else ()),
        *(everybody[:1] + everybody[4:] if second == "release" else ()),
    }
    assert await tally(small) == (len(out), 8 - len(out), 0)
    assert (await counts(small)).hourly == len(out)
    told = (await small.client.get("/v1/changes", params={"limit": 1000})).json()["items"]
    states = [one["to"] for one in told if one["number"] == everybody[0] and one["kind"] == "number.state"]
    assert states == ["active", "held", "active", "held", "active"]


@dataclass
class Ledger:
    """Whose failures have acted, one by one, as the pages say it."""

    loose: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)

    def came(self, many: list[str]) -> None:
        if self.waiting:
            self.waiting += many
        elif len({*self.loose, *many}) > 3:
            self.waiting, self.loose = self.loose + many, []
        else:
            self.loose += many

    def decided(self, decision: str) -> None:
        self.happened += self.waiting if decision == "release" else []
        self.waiting = []

    @property
    def out(self) -> set[str]:
        return {*self.loose, *self.happened}


@pytest.mark.parametrize("seed", range(4))
async def test_of_any_traffic_and_any_decisions_each_failure_follows_its_own(small: Service, seed: int) -> None:
    """Also where decisions are cut off before they are carried out, and upkeep comes at any time."""
    chance, ledger, everybody = random.Random(seed), Ledger(), numbers(10)  # noqa: S311 - a test
    await subscribe(small, everybody)
    decide = """UPDATE quarantines SET decision = :word, decided_at = now(), decided_by = 'somebody'
                WHERE decision IS NULL"""
    for step in range(40):
        what = chance.random()
        if what < 0.6:
            many = chance.choices(everybody, k=chance.randrange(1, 5))
            ledger.came(many)
            await post(small, (failure(one, message_id=f"{step}-{place}") for place, one in enumerate(many)))
        elif what < 0.85:
            word = chance.choice(["release", "discard"])
            ledger.decided(word)
            await small.sql(decide, word=word)
        else:
            await quarantine.keep(small.app.state.engine, small.app.state.meaning.policy)
            assert {row[0] for row in await small.sql("SELECT number FROM published.opt_outs")} == ledger.out
    await quarantine.keep(small.app.state.engine, small.app.state.meaning.policy)
    assert await tally(small) == (len(ledger.out), len({*everybody} - ledger.out - {*ledger.waiting}),
                                  len({*ledger.waiting}))  # fmt: skip
    assert (await counts(small)).hourly == len(ledger.out)


async def test_what_waits_for_a_person_waits_however_long_and_is_decided_by_parts(
    small: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is a quarter of an hour, a decision may take a weekend; a list may have millions."""
    monkeypatch.setattr(quarantine, "AT_ONCE", 2)
    everybody = numbers(5)
    await subscribe(small, everybody)
    await post(small, map(failure, everybody))
    await small.sql("UPDATE breaker_hits SET at = at - interval '3 days'")
    await quarantine.keep(small.app.state.engine, small.app.state.meaning.policy)
    (event,) = await waiting(small)
    assert event["waiting"] == 5
    answer = await small.client.post(f"/v1/quarantine/{event['id']}/release")
    assert (answer.json(), await tally(small)) == ({"numbers": 5}, (5, 0, 0))


async def test_receipts_that_the_register_names_late_are_a_mass_event_too(small: Service) -> None:
    """Two had acted already when the others were named: what they did is undone, and told."""
    everybody = numbers(5)
    await subscribe(small, everybody)
    nameless = {"number": None, "sender": None, "sent_at": BEGAN.isoformat()}
    await post(small, (failure(number) | nameless for number in everybody))
    sent = [{"gateway": "native", "message_id": f"561-{number}", "number": number, "sender": SENDER,
             "sent_at": BEGAN.isoformat()} for number in everybody]  # fmt: skip
    for part, left in ((sent[:2], (2, 3, 0)), (sent[2:], (0, 0, 5))):
        assert (await small.client.post("/v1/messages", json=part)).json()["receipts_applied"] == len(part)
        assert await tally(small) == left
    (event,) = await waiting(small)
    assert event["waiting"] == 5
    assert [one["kind"] for one in (await small.client.get("/v1/alarms")).json()["items"]] == ["quarantine"]
    feed = (await small.client.get("/v1/changes")).json()["items"]
    for number in everybody:
        *_, last = (change for change in feed if change["number"] == number and "list" in change)
        assert last["to"] == "opted_in"


async def test_what_waited_long_for_the_register_can_be_undone_as_long_as_what_came_just_now(small: Service) -> None:
    """The breaker goes by when things act: so it is with callbacks that are read again, days after they came."""
    everybody = numbers(5)
    await subscribe(small, everybody)
    await post(small, (failure(number) | {"number": None, "sender": None} for number in everybody))
    await small.sql("""UPDATE unnamed SET receipt = jsonb_set(receipt::jsonb, '{2}',
                       to_jsonb(now() - interval '3 hours'))::json""")  # fmt: skip
    await register(small, dict.fromkeys(everybody[:2], "T-Mobile"))
    assert await tally(small) == (2, 3, 0)
    await register(small, dict.fromkeys(everybody[2:], "T-Mobile"))
    assert await tally(small) == (0, 0, 5)
    (event,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{event['id']}/discard")
    assert await tally(small) == (0, 5, 0)


async def test_the_history_says_that_a_person_decided_and_how(small: Service) -> None:
    await post(small, map(failure, numbers(5)))
    (event,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{event['id']}/discard")
    last, *_ = (await small.client.get(f"/v1/numbers/{numbers(1)[0]}/history")).json()["items"]
    assert (last["kind"], last["from"], last["to"]) == ("number.state", "held", "active")
    assert last["cause"] == {"kind": "person", "source": "api"}


async def test_mass_events_are_listed_newest_first_and_by_pages(small: Service) -> None:
    for code in ("561", "568", "629"):
        await post(small, (failure(number, code) for number in numbers(5)))
    pages, after = [], {}
    while True:
        page = (await small.client.get("/v1/quarantine", params={"limit": 1} | after)).json()
        pages.append([one["code"] for one in page["items"]])
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert pages == [["629"], ["568"], ["561"]]


async def test_all_that_leaves_the_window_makes_the_baseline_however_much_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "AT_ONCE", 10)
    await post(service, map(failure, numbers(35)))
    await service.sql("UPDATE breaker_hits SET at = date_trunc('hour', now()) - interval '1 hour'")
    await quarantine.keep(service.app.state.engine, service.app.state.meaning.policy)
    assert await service.sql("SELECT total FROM breaker_windows") == [(35,)]
    assert await service.sql("SELECT count(*) FROM breaker_hits") == [(0,)]


async def test_who_was_in_flight_when_the_quarantine_opened_is_caught(service: Service) -> None:
    """Its hit was not to be seen when the others were undone."""
    everybody = numbers(60)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody[:1]))
    await service.sql("""INSERT INTO quarantines (key, gateway, code_space, code, sender, carrier, reason, seen,
                         allowed, opened_at) SELECT key, '', '', '', '', '', '', 51, 50, now() FROM breaker_hits""")
    assert await tally(service) == (1, 59, 0)
    await quarantine.keep(service.app.state.engine, service.app.state.meaning.policy)
    assert await tally(service) == (0, 59, 1)


@pytest.mark.parametrize("decision", [None, "discard"])
async def test_an_event_of_more_than_one_transaction_can_undo_is_undone_in_parts(
    service: Service, monkeypatch: pytest.MonkeyPatch, decision: str | None
) -> None:
    """In one, that of 55,000 numbers took longer than a group of receipts may: each was rolled back, for ever. Those
    of the first part that arrived first; the others soon, and before a person's decision.
    """
    monkeypatch.setattr(breaker, "UNDONE_AT_ONCE", 10)
    everybody = numbers(51)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody), one_by_one=True)
    assert await tally(service) == (40, 0, 11)
    assert [(await status(service, number))["state"] for number in everybody[9:11]] == ["held", "active"]
    if decision:
        (event,) = await waiting(service)
        answer = await service.client.post(f"/v1/quarantine/{event['id']}/{decision}")
        assert (answer.json(), await tally(service)) == ({"numbers": 51}, (0, 51, 0))
    else:
        await quarantine.keep(service.app.state.engine, service.app.state.meaning.policy)
        assert await tally(service) == (0, 0, 51)


async def test_many_processes_trip_it_once_between_them(start: Start) -> None:
    async with start() as one, start() as other:
        everybody = numbers(400)
        await subscribe(one, everybody)
        posts = [post((one, other)[place % 2], [failure(who)]) for place, who in enumerate(everybody)]
        await asyncio.gather(*posts)
        await quarantine.keep(one.app.state.engine, one.app.state.meaning.policy)
        assert await tally(one) == (0, 0, 400)
        (event,) = await waiting(other)
        assert event["waiting"] == 400
        alarms = (await one.client.get("/v1/alarms")).json()["items"]
        assert [alarm["kind"] for alarm in alarms] == ["quarantine"]


async def test_who_fails_at_a_process_that_has_not_counted_the_next_event_waits_for_it_all_the_same(
    start: Start,
) -> None:
    async with start() as one, start() as other:
        *first, again = numbers(51)
        await post(one, [failure(again, message_id="before")])
        await post(other, map(failure, [*first, again]))
        await one.sql("UPDATE quarantines SET decision = 'discard', decided_at = now(), decided_by = 'somebody'")
        await post(other, map(failure, numbers(102)[51:]))
        await post(one, [failure(again, message_id="again")])
        (event,) = await waiting(one)
        assert (event["waiting"], (await status(one, again))["state"]) == (52, "held")


async def test_what_waits_is_told_in_the_feed_as_what_it_undid(service: Service) -> None:
    everybody = numbers(51)
    await subscribe(service, everybody)
    await post(service, map(failure, everybody), one_by_one=True)
    told = await service.sql("""SELECT kind, after, cause ->> 'kind' FROM changes
                                WHERE number = :who AND cause ->> 'kind' <> 'call' ORDER BY seq""",
                             who=everybody[0])  # fmt: skip
    assert told == [
        ("number.carrier", "T-Mobile", "receipt"), ("sender.blocked", "blocked", "receipt"),
        ("list.opted_out", "opted_out", "receipt"), ("number.state", "held", "policy"),
        ("sender.unblocked", "open", "policy"), ("list.opted_in", "opted_in", "policy"),
    ]  # fmt: skip


@pytest.mark.parametrize("many", [1, 5])
@pytest.mark.parametrize(("sender", "carrier"), [(SENDER, "T-Mobile"), (None, "T-Mobile"), (None, None)], ids=[
    "its sender and carrier known", "without a sender", "without a sender and a carrier"])  # fmt: skip
@pytest.mark.parametrize("decision", ["release", "discard"])
async def test_what_was_decided_stays_decided_when_the_register_tells_of_its_messages_afterwards(
    small: Service, decision: str, sender: str | None, carrier: str | None, many: int
) -> None:
    """It is heard again then, with the name of its sender, its carrier or the date of its sending."""
    everybody = numbers(5)
    await subscribe(small, everybody)
    await post(small, (failure(one, "3041", sender=sender, carrier=carrier) for one in everybody))
    (event,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{event['id']}/{decision}")
    decided = await tally(small)
    assert decided == ((5, 0, 0) if decision == "release" else (0, 5, 0))
    await register(small, dict.fromkeys(everybody[:many], "T-Mobile"), code="3041")
    assert (await tally(small), await waiting(small)) == (decided, [])
    of_sender = "SELECT sum(total)::int FROM hourly_counts WHERE outcome = 'sent' AND sender = :sender"
    assert await small.sql(of_sender, sender=SENDER) == [(5 if sender else many,)]


async def test_a_hold_that_was_released_learns_of_the_register_whose_message_it_was(small: Service) -> None:
    """A lookup is still to decide, and ends the consent of that sender."""
    everybody = numbers(5)
    await post(small, (failure(one, "345", sender=None) for one in everybody))
    (event,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{event['id']}/release")
    await register(small, dict.fromkeys(everybody, "T-Mobile"), code="345")
    whose = "SELECT DISTINCT facts #>> '{conditions,held/carrier_unknown,sender}' FROM numbers"
    assert await small.sql(whose) == [(SENDER,)]


async def test_the_register_tells_more_of_what_came_after_a_decision_than_that_it_was_decided(small: Service) -> None:
    """Its send date spares a newer opt-in, as ever."""
    everybody = numbers(5)
    await subscribe(small, everybody, days=1 / 24)
    await post(small, (failure(one, message_id=f"first-{one}") for one in everybody))
    (event,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{event['id']}/discard")
    await post(small, [failure(everybody[0])])
    assert (await status(small, everybody[0]))["lists"][0]["consent"] == "opted_out"
    await register(small, {everybody[0]: "T-Mobile"})
    assert (await status(small, everybody[0]))["lists"][0]["consent"] == "opted_in"


async def test_the_register_tells_of_the_first_of_two_events_while_the_second_one_waits(small: Service) -> None:
    everybody = numbers(10)
    await subscribe(small, everybody)
    await post(small, map(failure, everybody[:5]))
    (event,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{event['id']}/discard")
    await post(small, map(failure, everybody[5:]))
    assert await tally(small) == (0, 5, 5)
    await register(small, dict.fromkeys(everybody[:5], "T-Mobile"))
    assert await tally(small) == (0, 5, 5)


async def test_what_had_no_number_while_a_mass_event_went_by_is_no_part_of_it(small: Service) -> None:
    *event, late = numbers(5)
    await subscribe(small, [*event, late])
    await post(small, [failure(late) | {"number": None}, *map(failure, event)])
    (case,) = await waiting(small)
    await small.client.post(f"/v1/quarantine/{case['id']}/discard")
    assert (case["waiting"], await tally(small)) == (4, (0, 5, 0))
    await register(small, {late: "T-Mobile"})
    assert await tally(small) == (1, 4, 0)


@pytest.mark.parametrize("code", ["345", "3041"])
@pytest.mark.parametrize("decision", ["release", "discard"])
async def test_what_waits_for_a_person_goes_on_waiting_when_its_sender_has_a_name(
    small: Service, decision: str, code: str
) -> None:
    """Fewer than a mass event are named: they would act, and nobody could decide on them any more."""
    everybody = numbers(5)
    await subscribe(small, everybody)
    await post(small, (failure(one, code, sender=None) for one in everybody))
    await register(small, dict.fromkeys(everybody[:2], "T-Mobile"), code=code)
    assert await tally(small) == (0, 0, 5)
    (event,) = await waiting(small)
    assert (event["sender"], event["waiting"]) == ("", 5)
    await small.client.post(f"/v1/quarantine/{event['id']}/{decision}")
    released = (0, 0, 5) if code == "345" else (5, 0, 0)
    assert await tally(small) == (released if decision == "release" else (0, 5, 0))
