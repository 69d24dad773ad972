"""Changing one's mind about policy: what another one would have made of the receipts that are kept."""

from __future__ import annotations

import asyncio
import json
import os
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from app.config import Settings
from app.models.number import Cause, Change, Number
from app.models.receipt import Status
from app.services.connection import connect
from app.services.past import Dated, Past, past
from app.services.simulate import Between, beginning, simulate
from app.wiring import meaning_of
from tests.conftest import Service, Start
from tests.provider import Reply, answering, telnyx, today
from tests.rows import contents
from tests.running import Said, sendable

FIRST, SECOND = "+15555551001", "+15555551002"
OLD_ENOUGH = "2020-01-01T00:00:00Z"


async def opt_in(service: Service, number: str, name: str = "spring") -> None:
    call = {"consented_at": OLD_ENOUGH, "source": "form"}
    answer = await service.client.put(f"/v1/senders/12345/lists/{name}/subscribers/{number}", json=call)
    assert answer.json()["consent"] == "opted_in"


async def hear(service: Service, number: str, code: str | None, **said: Any) -> None:
    body = {"message_id": f"{number}-{code}", "number": number, "sender": "12345", "status": "undeliverable",
            "code": code} | said  # fmt: skip
    assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200


async def simulated(database_url: str, policy: Path, *more: str, **settings: str) -> Any:
    said = await sendable("policy", "simulate", "--policy", str(policy), "--json", *more, database_url=database_url,
                          **settings)  # fmt: skip
    assert said.code == 0, said.err
    return json.loads(said.out)


def rows(told: Any) -> dict[tuple[Any, ...], tuple[int, int, int]]:
    return {
        (row["what"], row["reason"], row["sender"], row["list"]): (row["only_old"], row["only_new"], row["both"])
        for row in told["rows"]
    }


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "new.toml"


async def test_what_another_policy_changes_is_told_by_reason_sender_and_list(
    service: Service, database_url: str, mine: Path
) -> None:
    await opt_in(service, FIRST)
    await opt_in(service, SECOND)
    await opt_in(service, SECOND, "summer")
    await hear(service, FIRST, "560")
    await hear(service, SECOND, "568")
    mine.write_text('[rules.carrier_blocked_subscriber]\nconsent = "keep"\n[rules.sms_not_provisioned]\nblock = true\n')
    told = await simulated(database_url, mine)
    assert (told["numbers"], told["receipts"], told["differ"]) == (2, 2, 2)
    assert rows(told) == {
        ("opted_out", "carrier_blocked_subscriber", "12345", "spring"): (1, 0, 0),
        ("opted_out", "sms_not_provisioned", "12345", "spring"): (0, 0, 1),
        ("opted_out", "sms_not_provisioned", "12345", "summer"): (0, 0, 1),
        ("blocked", "carrier_blocked_subscriber", "12345", None): (0, 0, 1),
        ("blocked", "sms_not_provisioned", "12345", None): (0, 1, 0),
        ("not_sms_capable", "sms_not_provisioned", None, None): (0, 0, 1),
    }


async def test_nothing_is_touched_not_even_by_the_report_before_an_application(
    service: Service, database_url: str, mine: Path, tmp_path: Path
) -> None:
    for number in (FIRST, SECOND):
        await opt_in(service, number)
    for code in ("561", "345", "569", "3041"):
        await hear(service, FIRST, code)
    await hear(service, SECOND, "345")
    before = await contents(service)
    mine.write_text('mode = "strict"\n')
    told = await simulated(database_url, mine)
    assert told["differ"] == 1
    target = tmp_path / "in-force.toml"
    said = await sendable("policy", "apply", "--policy", str(mine), database_url=database_url, policy=str(target))
    assert (said.code, target.exists()) == (1, False)
    assert "nothing is changed" in said.err
    assert await contents(service) == before


async def test_the_policy_in_force_makes_of_the_past_what_it_has_made_of_it(
    service: Service, database_url: str, mine: Path
) -> None:
    """Held against the feed: what is told to be under both is what has happened."""
    codes = ("341", "345", "560", "565", "568", "569", "573", "592", "603", "629", "3041", "1")
    people = [f"+1555555{2000 + place}" for place in range(len(codes))]
    for number, code in zip(people, codes, strict=True):
        await opt_in(service, number)
        await hear(service, number, code)
        await hear(service, number, None, status="delivered", message_id=f"d{number}")
    mine.write_text("")
    told = await simulated(database_url, mine)
    assert told["differ"] == 0
    told_of = {key[:4]: counts[2] for key, counts in rows(told).items() if key[0] != "sendable"}
    happened = await service.sql(
        "SELECT CASE kind WHEN 'list.opted_out' THEN 'opted_out' WHEN 'sender.blocked' THEN 'blocked' ELSE after END, "
        "reason, sender, list, count(DISTINCT number) FROM changes WHERE kind IN ('list.opted_out', 'sender.blocked') "
        "OR (kind = 'number.state' AND after NOT IN ('active', 'unseen')) GROUP BY 1, 2, 3, 4"
    )
    assert told_of == {row[:4]: row[4] for row in happened}
    may = await service.sql("SELECT sender, list, count(*) FROM published.sendable GROUP BY 1, 2")
    sendable_ = {key[2:]: counts[2] for key, counts in rows(told).items() if key[0] == "sendable"}
    assert sendable_ == {row[:2]: row[2] for row in may}


async def test_a_message_of_which_a_part_is_missing_is_not_delivered_in_a_simulation_either(
    service: Service, database_url: str, mine: Path
) -> None:
    """The last part came first, and nobody tells how many there are."""
    await opt_in(service, FIRST)
    await hear(service, FIRST, "345")
    for segment in (3, 2):
        await hear(service, FIRST, None, status="delivered", message_id="m", segment=segment)
    assert (await service.client.get(f"/v1/numbers/{FIRST}")).json()["state"] == "held"
    mine.write_text("")
    assert rows(await simulated(database_url, mine)) == {("held", "carrier_unknown", None, None): (0, 0, 1)}
    await hear(service, FIRST, None, status="delivered", message_id="m", segment=1)
    assert (await service.client.get(f"/v1/numbers/{FIRST}")).json()["state"] == "active"
    assert ("sendable", None, "12345", "spring") in rows(await simulated(database_url, mine))


async def test_who_left_before_the_time_is_not_opted_out_in_it_again(
    service: Service, database_url: str, mine: Path
) -> None:
    await opt_in(service, FIRST)
    await hear(service, FIRST, "603")
    await service.sql("UPDATE changes SET committed_at = committed_at - interval '40 days', "
                      "occurred_at = occurred_at - interval '40 days' RETURNING 1")  # fmt: skip
    await hear(service, FIRST, "560")
    mine.write_text('[rules.carrier_blocked_subscriber]\nblock = false\nconsent = "everyone"\n')
    told = await simulated(database_url, mine)
    assert (told["receipts"], rows(told)) == (2, {})  # out, and blocked, since before the time


async def test_an_opt_in_that_the_old_policy_made_needless_counts_under_the_new_one(
    service: Service, database_url: str, mine: Path
) -> None:
    """Calls are heard in both: who left by call leaves under either."""
    await opt_in(service, FIRST)
    await hear(service, FIRST, "345")
    await service.client.delete(f"/v1/senders/12345/lists/spring/subscribers/{FIRST}")
    mine.write_text('[rules.carrier_unknown]\nstate = "unreachable"\n')
    found = rows(await simulated(database_url, mine))
    assert found["opted_out", "unsubscribed", "12345", "spring"] == (0, 0, 1)
    assert found["held", "carrier_unknown", None, None] == (1, 0, 0)
    assert found["unreachable", "carrier_unknown", None, None] == (0, 1, 0)


async def test_a_deactivation_file_is_heard_again_under_the_other_policy(
    service: Service, database_url: str, mine: Path
) -> None:
    await opt_in(service, FIRST)
    await hear(service, FIRST, None, status="delivered", sent_at="2026-01-01T00:00:00Z",
               occurred_at="2026-01-01T00:00:00Z")  # fmt: skip
    answer = await service.client.post("/v1/deactivations/govdelivery", params={"date": "2026-11-01", "yes": True},
                                       content=f"{FIRST[1:]}\n")  # fmt: skip
    assert answer.json()["held"] == 1, answer.text
    mine.write_text('[rules.deactivated]\nalone_consent = "keep"\nconsent = "keep"\n')
    found = rows(await simulated(database_url, mine))
    assert found["opted_out", "deactivated", "12345", "spring"] == (1, 0, 0)
    assert found["deactivated", "deactivated", None, None] == (0, 0, 1)


async def test_a_number_that_only_a_file_has_told_of_is_heard_too(
    service: Service, database_url: str, mine: Path
) -> None:
    """Subscribers who were never written to in the time; not those numbers that nobody holds."""
    await opt_in(service, FIRST)
    answer = await service.client.post("/v1/deactivations/govdelivery", params={"date": "2026-11-01", "yes": True},
                                       content=f"{FIRST[1:]}\n{SECOND[1:]}\n")  # fmt: skip
    assert answer.json()["held"] == 1, answer.text
    mine.write_text('[rules.deactivated]\nalone_consent = "keep"\nconsent = "keep"\n')
    told = await simulated(database_url, mine)
    assert (told["numbers"], told["receipts"], told["differ"]) == (1, 0, 1)
    assert rows(told) == {
        ("opted_out", "deactivated", "12345", "spring"): (1, 0, 0),
        ("deactivated", "deactivated", None, None): (0, 0, 1),
    }


RECORDS: dict[str, tuple[list[str], str]] = {
    "a suspension that a file ends": (["SUSPEND", "RESUME"], "active"),
    "the first word of a number": (["RESUME"], "active"),
    "a port without the new carrier": (["PORT"], "held"),
    "a port to a carrier": (["PORT", "PORT,Verizon"], "active"),
}


@pytest.mark.parametrize(("records", "state"), RECORDS.values(), ids=RECORDS)
async def test_a_files_record_does_again_what_its_kind_does(
    service: Service, database_url: str, mine: Path, records: list[str], state: str
) -> None:
    """Held against what happened: what a record ended is no reason to begin it."""
    for place, record in enumerate(records):
        kind, _, carrier = record.partition(",")
        line = f"number,type,date,new_carrier\n{FIRST},{kind},2026-11-0{place + 1}T00:00:00Z,{carrier}\n"
        answer = await service.client.post("/v1/deactivations/records", params={"yes": True}, content=line)
        assert (answer.status_code, answer.json()["held"]) == (200, 1), answer.text
    await opt_in(service, FIRST)
    assert (await service.get(f"/v1/numbers/{FIRST}"))["state"] == state
    mine.write_text("")
    told = rows(await simulated(database_url, mine))
    assert {key: counts[2] for key, counts in told.items()} == await happened(service)


async def test_calls_that_changed_nothing_count_under_the_other_policy(
    service: Service, database_url: str, mine: Path
) -> None:
    """Both had been opted out by a failure; one was imported after it, the other left all lists of the sender."""
    lately = (datetime.now(UTC) - timedelta(days=9)).isoformat()
    await hear(service, FIRST, "560", occurred_at=lately)
    await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{FIRST}",
                             json={"consented_at": OLD_ENOUGH, "source": "form"})  # fmt: skip
    await opt_in(service, SECOND)
    await hear(service, SECOND, "560", occurred_at=lately)
    left = f"/v1/senders/12345/lists/spring/subscribers/{SECOND}"
    assert (await service.client.delete(left, params={"scope": "sender"})).status_code == 200
    mine.write_text('[rules.carrier_blocked_subscriber]\nconsent = "keep"\nblock = false\n')
    found = rows(await simulated(database_url, mine))
    assert found["sendable", None, "12345", "spring"] == (0, 1, 0)
    assert found["opted_out", "unsubscribed", "12345", "spring"] == (0, 1, 0)


async def test_a_form_that_signs_up_to_two_lists_at_one_moment_counts_for_both(
    service: Service, database_url: str, mine: Path
) -> None:
    """To one of them nothing was to be told of it: the number was on that list already."""
    await opt_in(service, FIRST)
    for name in ("spring", "summer"):
        call = {"consented_at": "2026-11-02T00:00:00Z", "source": "form"}
        await service.client.put(f"/v1/senders/12345/lists/{name}/subscribers/{FIRST}", json=call)
    await hear(service, FIRST, "560", occurred_at="2026-11-01T00:00:00Z")
    mine.write_text("")
    told = rows(await simulated(database_url, mine))
    assert told == {("sendable", None, "12345", name): (0, 0, 1) for name in ("spring", "summer")}


async def test_who_was_unreachable_before_the_time_begins_so(service: Service, database_url: str, mine: Path) -> None:
    """And stays so when it fails again: the strikes that made it so are not known any more."""
    await opt_in(service, FIRST)
    for days in range(4, 25, 3):
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        await hear(service, FIRST, "513", message_id=f"m{days}", occurred_at=at)
    assert (await service.get(f"/v1/numbers/{FIRST}"))["state"] == "unreachable"
    assert await service.sql("UPDATE receipts SET received_at = received_at - interval '1 day' RETURNING 1")
    await service.sql("UPDATE changes SET committed_at = committed_at - interval '1 day'")
    await hear(service, FIRST, "513", message_id="again")
    mine.write_text("")
    told = await simulated(database_url, mine, "--since", "20h")
    assert (told["receipts"], rows(told)) == (1, {})


async def test_an_opt_in_that_something_before_the_time_refuses_is_refused_in_it(
    service: Service, database_url: str, mine: Path
) -> None:
    """Nobody had told of a list when the person left."""
    await hear(service, FIRST, "603", occurred_at="2026-11-01T00:00:00Z")
    assert await service.sql("UPDATE receipts SET received_at = received_at - interval '1 day' RETURNING 1")
    await service.sql("UPDATE changes SET committed_at = committed_at - interval '1 day'")
    await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{FIRST}",
                             json={"consented_at": OLD_ENOUGH, "source": "form"})  # fmt: skip
    await hear(service, FIRST, None, status="delivered")  # who left is no longer blocked, and not back
    mine.write_text("")
    told = await simulated(database_url, mine, "--since", "20h")
    assert (told["receipts"], rows(told)) == (1, {})


async def test_an_opt_in_of_the_day_of_a_file_is_kept_in_a_simulation_too(
    service: Service, database_url: str, mine: Path
) -> None:
    await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{FIRST}",
                             json={"consented_at": "2026-11-01T12:00:00Z", "source": "form"})  # fmt: skip
    await service.client.post("/v1/deactivations/twilio", params={"date": "2026-11-01", "yes": True}, content=FIRST)
    mine.write_text("")
    told = rows(await simulated(database_url, mine))
    assert {key: counts[2] for key, counts in told.items()} == await happened(service)
    assert [*told] == [("deactivated", "deactivated", None, None)]


async def test_a_mass_event_that_a_person_let_happen_holds_in_a_simulation_too(
    start: Start, database_url: str, mine: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.toml"
    small.write_text("[breaker]\nleast = 3\n")
    async with start(policy_file=small) as service:
        for place in range(4):
            await opt_in(service, f"+1555555{4000 + place}")
            await hear(service, f"+1555555{4000 + place}", "345")
        ((id_,),) = await service.sql("SELECT id FROM quarantines")
        assert (await service.client.post(f"/v1/quarantine/{id_}/release")).json() == {"numbers": 4}
        assert await service.sql("SELECT count(*) FROM published.sendable") == [(0,)]
        mine.write_text("")
        found = rows(await simulated(database_url, mine))
    assert found == {("held", "carrier_unknown", None, None): (0, 0, 4)}


# Lookups -----------------------------------------------------------------------------------------------------------

GONE, MOVED, SAME, DEAF, QUIET = (f"+1555555{place}" for place in range(3001, 3006))


def say(number: str) -> Reply:
    """As a provider knows these five: cut off, elsewhere, where it was, a landline, and one it has never heard of."""
    if number == QUIET:
        return Reply(status=404)
    carrier = "Verizon Wireless" if number == MOVED else "T-Mobile USA, Inc."
    return Reply(telnyx(number, carrier, ported="Y" if number == MOVED else "", on=today() if number == MOVED else "",
                        line="landline" if number == DEAF else "mobile"))  # fmt: skip


async def settled(service: Service) -> None:
    """Until no lookup is due."""
    async with asyncio.timeout(60):
        while await service.sql("SELECT count(*) FROM lookups WHERE due_at <= now()") != [(0,)]:
            await asyncio.sleep(0.05)


async def test_what_lookups_answered_is_heard_again_under_both(
    start: Start, database_url: str, mine: Path, tmp_path: Path
) -> None:
    """Held against the feed under the policy in force; and strict asks nobody before it ends consent."""
    people = {GONE: "3041", MOVED: "345", SAME: "3041", DEAF: "345", QUIET: "345", FIRST: "560"}
    async with answering(say) as provider:
        config = tmp_path / "sendable.toml"
        config.write_text(f'[lookup]\nproviders = ["telnyx"]\n[lookup.telnyx]\napi_key = "KEY"\n'
                          f'base_url = "{provider.url}"\nprice = "0.01"\n')  # fmt: skip
        async with start(lookup=provider.settings()) as service:
            for number, code in people.items():
                await opt_in(service, number)
                await hear(service, number, None, status="delivered", carrier="T-Mobile", message_id=f"d{number}")
                await hear(service, number, code)
            await settled(service)
            mine.write_text("")
            same = await simulated(database_url, mine, config=str(config))
            assert (same["differ"], same["unanswered"]) == (0, 0)
            assert {key[:4]: counts[2] for key, counts in rows(same).items()} == await happened(service)
            mine.write_text('mode = "strict"\n')
            told = await simulated(database_url, mine, config=str(config))
            assert provider.calls.total() == len(people) - 1
    found = rows(told)
    assert found["opted_out", "carrier_unknown", "12345", "spring"] == (0, 3, 0)
    assert found["sendable", None, "12345", "spring"] == (1, 0, 0)  # who moved
    assert ("not_sms_capable", "not_sms_capable", None, None) in found


async def test_an_answer_is_held_against_the_carrier_that_the_register_told(
    start: Start, database_url: str, mine: Path, tmp_path: Path
) -> None:
    """A deactivation that is explained by a port, as only who knows the carrier of before can tell."""
    config = tmp_path / "sendable.toml"
    config.write_text('[lookup]\nproviders = ["demo"]\n')
    elsewhere = Reply(telnyx(FIRST, "Verizon Wireless"))
    async with answering(lambda _: elsewhere) as provider, start(lookup=provider.settings()) as service:
        await opt_in(service, FIRST)
        sent = {"gateway": "native", "message_id": "m1", "number": FIRST, "sender": "12345", "carrier": "AT&T",
                "sent_at": OLD_ENOUGH}  # fmt: skip
        assert (await service.client.post("/v1/messages", json=[sent])).status_code == 200
        await hear(service, FIRST, "3041")
        await settled(service)
        assert (await service.get(f"/v1/numbers/{FIRST}"))["state"] == "active"
        mine.write_text("")
        told = rows(await simulated(database_url, mine, config=str(config)))
        assert {key: counts[2] for key, counts in told.items()} == await happened(service)


async def happened(service: Service) -> dict[tuple[Any, ...], int]:
    """The feed and the view, in the words of a simulation."""
    told = await service.sql(
        "SELECT CASE kind WHEN 'list.opted_out' THEN 'opted_out' WHEN 'sender.blocked' THEN 'blocked' ELSE after END, "
        "reason, sender, list, count(DISTINCT number) FROM changes WHERE kind IN ('list.opted_out', 'sender.blocked') "
        "OR (kind = 'number.state' AND after NOT IN ('active', 'unseen')) GROUP BY 1, 2, 3, 4"
    )
    may = await service.sql("SELECT sender, list, count(*) FROM published.sendable GROUP BY 1, 2")
    return {row[:4]: row[4] for row in told} | {("sendable", None, *row[:2]): row[2] for row in may}


async def test_a_lookup_that_was_never_made_is_counted_and_not_guessed(
    start: Start, database_url: str, mine: Path, tmp_path: Path
) -> None:
    """The other policy would have asked about whoever a carrier blocks."""
    config = tmp_path / "sendable.toml"
    config.write_text('[lookup]\nproviders = ["demo"]\n')
    async with start() as service:
        await opt_in(service, FIRST)
        await hear(service, FIRST, "560")
    mine.write_text('[rules.carrier_blocked_subscriber]\nstate = "held"\nlookup = true\nconsent = "keep"\n')
    told = await simulated(database_url, mine, config=str(config))
    assert (told["unanswered"], told["quarantined"]) == (1, 0)


@pytest.mark.parametrize("policy", ["", '[rules.content_blocked_for_subscriber]\nconsent = "keep"\n'])
async def test_what_the_breaker_took_apart_is_left_out_and_counted(
    service: Service, database_url: str, mine: Path, policy: str
) -> None:
    """Also where the other policy makes less of it than the breaker would count."""
    for place in range(60):
        number = f"+1555555{4000 + place}"
        await opt_in(service, number)
        await hear(service, number, "561")
    assert await service.sql("SELECT count(*) FROM quarantines WHERE decision IS NULL") == [(1,)]
    mine.write_text(policy)
    told = await simulated(database_url, mine)
    assert (told["receipts"], told["quarantined"], told["differ"]) == (60, 60, 0)
    assert {row["what"] for row in told["rows"]} == {"sendable"}
    said = await sendable("policy", "simulate", "--policy", str(mine), database_url=database_url)
    assert "60 receipts that the breaker took apart and nobody released are left out of both" in said.err


@pytest.mark.parametrize("forgotten", [False, True])
async def test_so_it_is_of_those_whose_carrier_only_the_register_told(
    service: Service, database_url: str, mine: Path, *, forgotten: bool
) -> None:
    people = [f"+1555555{4000 + place}" for place in range(60)]
    sent = [{"gateway": "native", "message_id": f"m{number}", "number": number, "sender": "12345", "carrier": "AT&T",
             "sent_at": OLD_ENOUGH} for number in people]  # fmt: skip
    assert (await service.client.post("/v1/messages", json=sent)).status_code == 200
    for number in people:
        await opt_in(service, number)
        await hear(service, number, "561", message_id=f"m{number}")
    assert await service.sql("SELECT carrier FROM quarantines WHERE decision IS NULL") == [("AT&T",)]
    if forgotten:
        await service.sql("DELETE FROM messages")
    mine.write_text("")
    told = await simulated(database_url, mine)
    assert (told["receipts"], told["quarantined"], told["differ"]) == (60, 60, 0)
    assert (await sendable("replay", database_url=database_url)).err == "no difference\n"


MANY_RECEIPTS = """
INSERT INTO receipts (key, gateway, account, message_id, number, sender, status, code_space, code, reason, received_at)
SELECT gen_random_uuid(), 'native', '', n::text, '+1415555' || lpad(n::text, 4, '0'), '12345', 'undeliverable',
       'openmarket', '560', 'carrier_blocked_subscriber', now()
FROM generate_series(CAST(:first AS int), CAST(:last AS int)) n RETURNING 1
"""


async def test_ten_times_the_numbers_cost_no_more_memory(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.past.AT_ONCE", 25)
    old, peaks, now = meaning_of_shipped(), [], datetime.now(UTC) + timedelta(minutes=1)
    engine = connect(database_url)
    for first, last in ((1, 100), (1, 100), (101, 1_000)):  # the first one fills what is kept for ever
        await service.sql(MANY_RECEIPTS, first=first, last=last)
        tracemalloc.start()
        told = await simulate(engine, Between(old.policy, old.policy, old), now - timedelta(days=1), now, print_nothing)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    await engine.dispose()
    assert (told.numbers, told.receipts) == (1_000, 1_100)
    assert peaks[2] < 1.5 * peaks[1]


def print_nothing(_done: int, _total: int) -> None:
    """Nobody watches."""


async def test_only_the_time_asked_for_is_replayed(service: Service, database_url: str, mine: Path) -> None:
    await opt_in(service, FIRST)
    await hear(service, FIRST, "603")
    moved = "UPDATE receipts SET received_at = received_at - interval '1 day' RETURNING 1"
    assert len(await service.sql(moved)) == 1
    await hear(service, SECOND, "603")
    mine.write_text("")
    assert (await simulated(database_url, mine, "--since", "20h"))["numbers"] == 1
    assert (await simulated(database_url, mine, "--since", "30h"))["numbers"] == 2


WRONG = {
    '[rules.nobody]\nstate = "held"\n': "[rules.nobody] names an unknown reason",
    '[rules.suspended]\nlapse = "soon"\n': '[rules.suspended] lapse: "soon" is not a duration',
    "mode =": "cannot be read as a policy file",
}


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("command", ["simulate", "apply"])
async def test_a_file_that_is_wrong_is_told_in_one_line(mine: Path, tmp_path: Path, text: str, command: str) -> None:
    mine.write_text(text)
    said: Said = await sendable("policy", command, "--policy", str(mine), policy=str(tmp_path / "in-force.toml"))
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert WRONG[text] in said.err


async def test_a_time_that_is_none_is_told_in_one_line(mine: Path) -> None:
    mine.write_text("")
    said = await sendable("policy", "simulate", "--policy", str(mine), "--since", "lately")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert '--since: "lately" is not a duration' in said.err


async def test_applying_writes_the_file_that_the_next_start_reads(
    service: Service, start: Start, database_url: str, mine: Path, tmp_path: Path
) -> None:
    target = tmp_path / "in-force.toml"
    await opt_in(service, FIRST)
    await hear(service, FIRST, "560")
    mine.write_text('[rules.carrier_blocked_subscriber]\nconsent = "keep"\n')
    settings = {"database_url": database_url, "policy": str(target)}
    said = await sendable("policy", "apply", "--policy", str(mine), "--yes", "--json", **settings)
    assert said.code == 0, said.err
    assert json.loads(said.out)["differ"] == 1
    assert f"{target} holds the new policy; restart" in said.err
    assert target.read_text() == mine.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    async with start(policy_file=target) as restarted:
        await opt_in(restarted, SECOND)
        await hear(restarted, SECOND, "560")
        lists = (await restarted.client.get(f"/v1/numbers/{SECOND}")).json()["lists"]
        assert lists[0]["consent"] == "opted_in"


async def test_whose_the_file_is_and_who_may_read_it_stays(database_url: str, mine: Path, tmp_path: Path) -> None:
    """An administrator applies; the service reads it at its next start, as somebody else."""
    target, other = tmp_path / "in-force.toml", 12_345 if os.geteuid() == 0 else os.getgroups()[-1]
    target.write_text("")
    os.chown(target, -1, other)
    target.chmod(0o640)
    mine.write_text('mode = "strict"\n')
    said = await sendable("policy", "apply", "--policy", str(mine), "--yes", database_url=database_url,
                          policy=str(target))  # fmt: skip
    assert (said.code, target.read_text()) == (0, mine.read_text())
    assert (target.stat().st_gid, target.stat().st_mode & 0o777) == (other, 0o640)


async def test_applying_asks_for_the_place_where_the_service_reads_its_policy(mine: Path) -> None:
    mine.write_text("")
    said = await sendable("policy", "apply", "--policy", str(mine), "--yes")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "SENDABLE_POLICY names no file" in said.err


async def test_a_place_that_cannot_be_written_is_named_and_nothing_is_changed(
    database_url: str, mine: Path, tmp_path: Path
) -> None:
    mine.write_text('mode = "strict"\n')
    target = tmp_path / "nowhere" / "in-force.toml"
    said = await sendable("policy", "apply", "--policy", str(mine), "--yes", database_url=database_url,
                          policy=str(target))  # fmt: skip
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith(
        f"sendable: {target} cannot be written (No such file or directory): mend"
    )


# By parts ----------------------------------------------------------------------------------------------------------


def test_the_beginning_is_the_last_word_of_the_feed() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    state = Change(FIRST, "number.state", "unseen", "active", None, Cause("call"), at)
    came = Change(FIRST, "list.opted_in", None, "opted_in", None, Cause("call", source="form"), at, "1", "a")
    held = replace(state, before="active", after="held", reason="carrier_unknown")
    later = [Dated(one, at + timedelta(days=place)) for place, one in enumerate((state, came, held))]
    one = Past(FIRST, [], later, [], [], Number(FIRST))
    policy = meaning_of_shipped().policy
    number, lists = beginning(one, at + timedelta(days=2), policy)
    assert (number.conditions, lists["1", "a"].opted_in is not None) == ({}, True)
    number, _ = beginning(one, at + timedelta(days=3), policy)
    assert [*number.conditions] == ["held/carrier_unknown"]


def meaning_of_shipped() -> Any:
    return meaning_of(Settings())


async def test_a_receipt_is_read_back_as_it_came(service: Service, database_url: str) -> None:
    sent = {"gateway": "native", "message_id": "m1", "number": FIRST, "sender": "12345", "sent_at": OLD_ENOUGH}
    await service.client.post("/v1/messages", json=[sent])
    await hear(service, FIRST, "560", message_id="m1", carrier="T-Mobile", occurred_at="2026-11-01T00:00:00Z")
    engine = connect(database_url)
    async with engine.connect() as pooled:
        raw: Any = (await pooled.get_raw_connection()).driver_connection
        (one,) = await past(raw, [FIRST], datetime(2020, 1, 1, tzinfo=UTC), meaning_of_shipped())
    await engine.dispose()
    ((arrival, known),) = one.receipts
    assert (arrival.receipt.status, arrival.receipt.code, arrival.reason) == (
        Status.UNDELIVERABLE, "560", "carrier_blocked_subscriber")  # fmt: skip
    assert known is not None
    assert (known.sender, known.carrier, arrival.brand) == ("12345", None, "T-Mobile")
