"""Derived once more: a healthy database shows no difference, and a single changed row shows one."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.services import upkeep
from tests.conftest import Service, Start
from tests.events import PEOPLE, some_decision, some_event
from tests.passing import passes
from tests.provider import Reply, answering, telnyx, today
from tests.rows import contents
from tests.running import Said, sendable

WHO = "+15555551234"
SPRING = f"/v1/senders/12345/lists/spring/subscribers/{WHO}"


async def replayed(database_url: str, *more: str, **settings: str) -> Said:
    return await sendable("replay", *more, database_url=database_url, **settings)


async def a_life(service: Service) -> None:
    """Two lists, one of them left by call; a failure that blocks and ends consent on the other; a deactivation."""
    for name in ("spring", "summer"):
        await service.client.put(SPRING.replace("spring", name),
                                 json={"consented_at": "2026-01-01T00:00:00Z", "source": "form"})  # fmt: skip
    await service.client.delete(SPRING.replace("spring", "summer"))
    for code in ("560", "569", "3041"):
        body = {"message_id": code, "number": WHO, "sender": "12345", "status": "undeliverable", "code": code,
                "carrier": "T-Mobile"}  # fmt: skip
        assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("provider", [True, False])
async def test_after_random_lives_there_is_no_difference(
    start: Start, database_url: str, tmp_path: Path, seed: int, *, provider: bool
) -> None:
    """Opt-ins and opt-outs, receipts of all kinds, mass events and decisions, files, lookups, lapses, the register."""
    chance = random.Random(seed)  # noqa: S311 - a test
    config, policy = tmp_path / "sendable.toml", tmp_path / "policy.toml"
    policy.write_text("[breaker]\nleast = 3\n")
    async with answering(lambda number: Reply(telnyx(number, "Verizon Wireless", on=today()))) as answers:
        given = {"lookup": answers.settings()} if provider else {}
        config.write_text('[lookup]\nproviders = ["demo"]\n' if provider else "")
        async with start(policy_file=policy, **given) as service:
            for turn in range(4):
                for _ in range(40):
                    await some_event(service, chance, chance.choice(PEOPLE))
                await some_file(service, chance)
                await some_messages(service, chance)
                for number in chance.sample(PEOPLE, 3):
                    await service.client.post(f"/v1/numbers/{number}/lookup")
                if turn % 2:
                    await some_decision(service, chance)
            assert await service.sql("SELECT count(*) FROM changes WHERE kind = 'list.opted_out'") > [(10,)]
            assert await service.sql("SELECT count(*) FROM receipts") > [(50,)]
            said = await replayed(database_url, "--json", config=str(config), policy=str(policy))
            assert (said.code, json.loads(said.out)) == (0, {"differences": []}), said.out
            for more in (("--since", "1d"), ("--number", PEOPLE[0])):
                said = await replayed(database_url, *more, config=str(config), policy=str(policy))
                assert (said.code, said.err) == (0, "no difference\n")


async def some_file(service: Service, chance: random.Random) -> None:
    day = (datetime.now(UTC) - timedelta(days=chance.randrange(1, 40))).date()
    kinds = [chance.choice(["DEACT", "SUSPEND", "RESUME"]) for _ in range(3)]
    lines = [f"{number},{kind}" for number, kind in zip(chance.sample(PEOPLE, 3), kinds, strict=True)]
    answer = await service.client.post(
        "/v1/deactivations/generic", params={"date": str(day), "yes": True, "columns": "number=1,kind=2"},
        content="\n".join(lines),
    )  # fmt: skip
    assert answer.status_code == 200, answer.text


async def some_messages(service: Service, chance: random.Random) -> None:
    at = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    whose = [(f"m{chance.randrange(40)}", chance.choice(PEOPLE)) for _ in range(4)]
    sent = [{"gateway": "native", "message_id": message, "number": number, "sender": "12345", "sent_at": at,
             "carrier": chance.choice([None, "AT&T", "T-Mobile"])} for message, number in whose]  # fmt: skip
    assert (await service.client.post("/v1/messages", json=sent)).status_code == 200


async def test_a_lapse_that_nobody_has_told_yet_is_no_difference_nor_one_that_was_told(
    service: Service, database_url: str
) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1) - timedelta(days=30)).isoformat()
    body = {"message_id": "m", "number": WHO, "sender": "12345", "status": "undeliverable", "code": "569",
            "occurred_at": at}  # fmt: skip
    await service.client.post("/v1/receipts/native", json=body)
    assert await service.sql("SELECT state FROM numbers") == [("suspended",)]
    await passes(service, timedelta(hours=1))
    assert await service.sql("SELECT state FROM published.number_status") == [("active",)]
    assert (await replayed(database_url)).code == 0
    assert await upkeep.tell_lapses(service.app.state.reads, service.app.state.meaning.policy, datetime.now(UTC)) == 1
    assert (await replayed(database_url)).code == 0


TAMPERED = {
    "UPDATE numbers SET state = 'active', reason = NULL": "state",
    "UPDATE numbers SET dead_since = NULL": "dead_since",
    "UPDATE numbers SET steps = '[]'": "steps",
    "UPDATE numbers SET carrier = NULL": "carrier",
    "UPDATE numbers SET last_receipt_at = now() + interval '1 day'": "last_receipt_at",
    "UPDATE numbers SET facts = (facts::jsonb #- '{conditions,suspended/suspended}')::json": "receipts",
    "UPDATE numbers SET facts = (facts::jsonb #- '{aside}')::json": "receipts",
    "UPDATE subscriptions SET facts = '[null,null]'": "consent 12345/spring",
    "DELETE FROM sender_blocks": "blocks",
    "UPDATE sender_blocks SET reason = 'opted_out'": "blocks",
    "UPDATE subscriptions SET consent = 'opted_in', reason = NULL WHERE list = 'summer'": "consent 12345/summer",
    "UPDATE subscriptions SET opted_in_at = now()": "consent 12345/spring",
    "UPDATE list_sizes SET opted_in = opted_in + 1": "list_sizes 12345/spring",
    "UPDATE opt_out_hours SET total = total + 1": "opt_out_hours",
    "DELETE FROM changes WHERE kind = 'list.opted_out' AND list = 'spring'": "the feed's consent 12345/spring",
}


@pytest.mark.parametrize("statement", TAMPERED)
async def test_a_row_that_was_changed_by_hand_is_shown(service: Service, database_url: str, statement: str) -> None:
    await a_life(service)
    assert (await replayed(database_url)).code == 0
    assert await service.sql(f"{statement} RETURNING 1")
    said = await replayed(database_url)
    assert said.code == 1
    lines = said.err.splitlines()
    assert any(line.startswith(TAMPERED[statement]) for line in lines), said.err
    assert "stands as" in lines[0]
    assert WHO not in said.err
    found = json.loads((await replayed(database_url, "--json")).out)["differences"]
    assert len(found) == len(lines) - 1
    assert {one["number"] for one in found} <= {WHO, None}


async def test_a_receipt_that_is_there_and_never_acted_is_shown(service: Service, database_url: str) -> None:
    await a_life(service)
    await service.sql("UPDATE receipts SET code = '629', reason = 'not_sms_capable' WHERE code = '569' RETURNING 1")
    said = await replayed(database_url, "--number", WHO)
    assert said.code == 1
    assert "receipts +1555***1234: stands as without effect" in said.err
    assert len(said.err.splitlines()) == 2


async def test_a_strike_so_old_that_it_was_settled_for_good_is_no_difference(
    service: Service, database_url: str
) -> None:
    """It was forgotten when another sender's strike of the next day was told: that one is nobody's second."""
    first = datetime.now(UTC) - timedelta(days=20)
    strikes = [("12345", first + timedelta(days=day)) for day in range(9)]
    for sender, at in [*strikes, ("54321", first + timedelta(days=1, hours=-1))]:
        body = {"message_id": str(at), "number": WHO, "sender": sender, "status": "undeliverable", "code": "514",
                "occurred_at": at.isoformat()}  # fmt: skip
        assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200
    said = await replayed(database_url)
    assert (said.code, said.err) == (0, "no difference\n"), said.out


async def test_senders_are_no_difference_however_the_database_sorts_them(service: Service, database_url: str) -> None:
    """By code point, the embedded one; by a language, most others: in `en_US.UTF-8` 12345 stands before +1555…. So it
    can fail only with such a server in SENDABLE_TEST_DATABASE_URL.
    """
    for sender in ("+15555550100", "12345", "a-b", "ab", "acme"):
        body = {"message_id": sender, "number": WHO, "sender": sender, "status": "undeliverable", "code": "560"}
        assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200
    assert (await replayed(database_url)).code == 0


async def test_a_replay_touches_nothing(service: Service, database_url: str) -> None:
    await a_life(service)
    before = await contents(service)
    assert (await replayed(database_url)).code == 0
    assert await contents(service) == before


WRONG: dict[tuple[str, ...], str] = {
    ("--number", "12"): "not a possible phone number",
    ("--since", "soon"): '--since: "soon" is not a duration',
    ("--since", "999999d"): '--since: "999999d" is longer than a hundred years: write',
    ("--number", WHO, "--since", "1d"): "say --number or --since, not both",
}


@pytest.mark.parametrize("args", WRONG)
async def test_wrong_input_is_told_in_one_line(args: tuple[str, ...]) -> None:
    said: Any = await sendable("replay", *args)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert WRONG[args] in said.err
