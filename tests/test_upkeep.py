"""What time does: lapses hold to the instant for every reader, and the feed tells them dated at their moment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.services import connection, held, upkeep
from app.services.connection import connect, transaction
from app.services.held import Which
from app.services.store import FEED_LOCK
from tests.conftest import Service, Start
from tests.locks import waiting
from tests.lookup_steps import looked_up
from tests.number_steps import WHO, status
from tests.passing import passes
from tests.provider import Reply, answering, telnyx

OTHER = "+15555551235"
HOUR = timedelta(hours=1)


async def receipt(service: Service, code: str, at: datetime, space: str = "openmarket", who: str = WHO) -> None:
    body = {"message_id": f"{code}-{at.timestamp()}", "number": who, "sender": "12345", "status": "undeliverable",
            "code": code, "code_space": space, "occurred_at": at.isoformat()}  # fmt: skip
    answer = await service.client.post("/v1/receipts/native", json=body)
    assert (answer.status_code, "sendable-unread" in answer.headers) == (200, False)


async def view(service: Service) -> list[tuple[Any, ...]]:
    return await service.sql("SELECT state, sendable, until FROM published.number_status WHERE number = :who", who=WHO)


async def test_a_suspension_lapses_after_thirty_days_without_any_job_having_run(service: Service) -> None:
    ends = datetime.now(UTC) + HOUR
    await receipt(service, "569", ends - timedelta(days=30))
    told = await status(service)
    assert (told["state"], datetime.fromisoformat(told["until"]), told["waiting_for"]) == ("suspended", ends, None)
    assert await view(service) == [("suspended", False, ends)]
    await passes(service, HOUR)
    told = await status(service)
    assert (told["state"], told["sendable"], told["until"]) == ("active", True, None)
    assert datetime.fromisoformat(told["changed_at"]) == ends - HOUR
    assert await view(service) == [("active", True, None)]


async def test_the_feed_tells_a_lapse_once_dated_at_its_moment(service: Service) -> None:
    now = datetime.now(UTC)
    await receipt(service, "569", now + HOUR - timedelta(days=30))
    await passes(service, HOUR)
    policy = service.app.state.meaning.policy
    assert await upkeep.tell_lapses(service.app.state.engine, policy, datetime.now(UTC)) == 1
    assert await upkeep.tell_lapses(service.app.state.engine, policy, datetime.now(UTC)) == 0
    told = await service.sql("""SELECT kind, before, after, reason, cause ->> 'kind', occurred_at FROM changes
                                WHERE before = 'suspended'""")  # fmt: skip
    assert told == [("number.state", "suspended", "active", "suspended", "lapse", now)]
    assert datetime.fromisoformat((await status(service))["changed_at"]) == now


async def test_a_lapse_is_told_when_it_is_over_by_our_clock_too_and_nothing_waits_for_it(service: Service) -> None:
    now, policy = datetime.now(UTC), service.app.state.meaning.policy
    await receipt(service, "569", now + HOUR - timedelta(days=30))
    await passes(service, HOUR)
    async with asyncio.timeout(30):
        assert await upkeep.tell_lapses(service.app.state.engine, policy, now - timedelta(microseconds=1)) == 0
    assert await upkeep.tell_lapses(service.app.state.engine, policy, now) == 1


async def test_a_receipt_that_comes_between_a_lapse_and_its_telling_finds_it_told_first(service: Service) -> None:
    now = datetime.now(UTC)
    await receipt(service, "569", now + HOUR - timedelta(days=30))
    await passes(service, HOUR)
    await receipt(service, "629", datetime.now(UTC))
    told = await service.sql("SELECT before, after FROM changes WHERE kind = 'number.state' ORDER BY seq")
    assert told == [("unseen", "suspended"), ("suspended", "active"), ("active", "not_sms_capable")]


async def test_a_state_that_comes_again_between_its_lapse_and_the_telling_began_again(service: Service) -> None:
    now = datetime.now(UTC)
    await receipt(service, "569", now + HOUR - timedelta(days=30))
    await passes(service, HOUR)
    await receipt(service, "569", datetime.now(UTC))
    told = await service.sql("SELECT after, committed_at FROM changes WHERE kind = 'number.state' ORDER BY seq")
    assert [after for after, _ in told] == ["suspended", "active", "suspended"]
    assert told[0][1] < now < datetime.fromisoformat((await status(service))["changed_at"])


async def test_held_numbers_follow_when_a_provider_is_configured_and_when_it_is_taken_away(start: Start) -> None:
    async with start() as service:
        await receipt(service, "345", datetime.now(UTC))
        assert (await status(service))["waiting_for"] == "no_lookup_provider"
    async with start(lookup={}) as service:
        assert (await status(service))["waiting_for"] == "lookup"
        assert await service.sql("SELECT number, reason FROM lookups") == [(WHO, "carrier_unknown")]
    async with start() as service:
        assert (await status(service))["waiting_for"] == "no_lookup_provider"


async def test_what_waits_for_the_budget_of_a_provider_that_is_taken_away_waits_for_a_provider(start: Start) -> None:
    async with answering(lambda number: Reply(telnyx(number, "T-Mobile"))) as provider:
        async with start(lookup=provider.settings() | {"budget_per_day": "0"}) as service:
            await receipt(service, "345", datetime.now(UTC))
            await looked_up(service)
            assert (await status(service))["waiting_for"] == "budget"
        async with start() as service:
            assert (await status(service))["waiting_for"] == "no_lookup_provider"
        async with start(lookup=provider.settings()) as service:
            await provider.asked.wait()
            await looked_up(service)
            assert ((await status(service))["state"], provider.calls) == ("active", {WHO: 1})


async def test_nothing_is_asked_about_who_came_back_while_no_provider_was_configured(start: Start) -> None:
    """Nor does it count as due meanwhile; of who still waits, the place in the timetable is kept."""
    async with start(lookup={}) as service:
        for who in (WHO, OTHER):
            await receipt(service, "345", datetime.now(UTC), who=who)
        await service.sql("UPDATE lookups SET step = 1")
    async with start() as service:
        assert await held.release(service.app.state.engine, Which(WHO), service.app.state.meaning.policy, "test") == 1
        await upkeep.follow_policy(service.app.state.engine, service.app.state.meaning.policy)
        assert await service.sql("SELECT number, step FROM lookups") == [(OTHER, 1)]


async def test_a_provider_that_is_configured_later_is_asked_once_about_a_block_that_stands(start: Start) -> None:
    """Nothing else would be heard of the number: this sender sends it nothing more."""
    async with start() as service:
        await receipt(service, "592", datetime.now(UTC))
    async with answering(lambda number: Reply(telnyx(number, "Verizon Wireless"))) as provider:
        for _ in range(2):
            async with start(lookup=provider.settings()) as service:
                await looked_up(service)
                assert await service.sql("SELECT reason FROM published.sender_blocks") == [("network_not_covered",)]
                assert provider.calls == {WHO: 1}


async def test_a_block_that_a_port_lifts_by_a_new_policy_is_lifted_of_who_has_moved_already(
    start: Start, tmp_path: Path
) -> None:
    moved, mine = datetime(2026, 11, 10, tzinfo=UTC), tmp_path / "mine.toml"
    async with start() as service:
        for who, code, at in ((WHO, "560", moved - timedelta(days=1)), (WHO, "603", moved + timedelta(days=1)),
                              (OTHER, "560", moved - timedelta(days=1))):  # fmt: skip
            await receipt(service, code, at, who=who)
        file = "number,type,date,new_carrier\n" + "".join(f"{who},PORT,{moved},T-Mobile\n" for who in (WHO, OTHER))
        assert (await service.client.post("/v1/deactivations/records", content=file)).json()["changes"] == 2
        blocks = "SELECT number, reason FROM published.sender_blocks ORDER BY 1"
        assert await service.sql(blocks) == [(WHO, "opted_out"), (OTHER, "carrier_blocked_subscriber")]
    mine.write_text("[rules.carrier_blocked_subscriber]\nlifted_by_port = true\n")
    async with start(policy_file=mine) as service:
        assert await service.sql(blocks) == [(WHO, "opted_out")]
        told = "SELECT number, reason, cause ->> 'kind' FROM changes WHERE kind = 'sender.unblocked'"
        assert await service.sql(told) == [(OTHER, "carrier_blocked_subscriber", "policy")]


async def test_what_a_process_without_the_provider_still_takes_beside_us_is_asked_soon_after(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as older:
        monkeypatch.setattr(upkeep, "LAPSES_EVERY", 0.05)
        monkeypatch.setattr(upkeep, "HOUSE_EVERY", 0.05)
        monkeypatch.setattr(upkeep, "HOUSE_FIRST", 0.05)
        async with start(lookup={}) as newer, asyncio.timeout(30):
            await receipt(older, "345", datetime.now(UTC))
            while (await status(newer))["waiting_for"] != "lookup":
                await asyncio.sleep(0.05)
            assert await newer.sql("SELECT number, reason FROM lookups") == [(WHO, "carrier_unknown")]


async def test_what_lapses_without_a_provider_asks_the_one_that_is_configured(start: Start) -> None:
    now, stale = datetime.now(UTC), "+15555551235"
    async with start() as service:
        await receipt(service, "5", now, space="vonage_dlr")
        for hours in (30, 1):
            await receipt(service, "341", now - timedelta(hours=hours), who=stale)
        assert [(await status(service, who))["waiting_for"] for who in (WHO, stale)] == [None, "person"]
    async with start(lookup={}) as service:
        told = await status(service)
        assert (told["state"], datetime.fromisoformat(told["until"])) == ("porting", now + timedelta(days=14))
        assert [(await status(service, who))["waiting_for"] for who in (WHO, stale)] == ["lookup", "lookup"]
        asked = await service.sql("SELECT number, reason FROM lookups ORDER BY number")
        assert asked == [(WHO, "porting_in_progress"), (stale, "stale_carrier")]
    async with start() as service:
        assert [(await status(service, who))["waiting_for"] for who in (WHO, stale)] == [None, "person"]


async def test_however_many_lapse_or_are_shown_anew_none_is_left_out(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "AT_ONCE", 2)
    now, whos = datetime.now(UTC), [f"+1415555{place:04}" for place in range(10)]
    async with start() as service:
        for place, who in enumerate(whos):
            code, at = ("345", now) if place < 5 else ("569", now - timedelta(days=30))
            await receipt(service, code, at, who=who)
        engine, policy = service.app.state.engine, service.app.state.meaning.policy
        assert await upkeep.tell_lapses(engine, policy, datetime.now(UTC)) == 0
        await service.sql("UPDATE numbers SET state = 'suspended', until = now() WHERE number >= :who", who=whos[5])
        assert await upkeep.tell_lapses(engine, policy, datetime.now(UTC)) == 5
    async with start(lookup={}) as service:
        assert [(await status(service, who))["waiting_for"] for who in whos] == ["lookup"] * 5 + [None] * 5


async def test_the_codes_that_others_read_are_those_of_the_tables_since_the_last_start(
    start: Start,
) -> None:
    cells = ("space", "code", "meaning", "level", "permanence", "reason", "confidence", "source")
    shown = f"SELECT {', '.join(cells)} FROM published.codes ORDER BY space, code"  # noqa: S608 - a constant
    async with start() as service:
        before = await service.sql(shown)
        await service.sql("UPDATE codes SET meaning = 'x', level = 'x', permanence = 'x', reason = 'x', "
                          "confidence = 'x', source = 'x' WHERE code = '560'")  # fmt: skip
        await service.sql("UPDATE codes SET code = 'gone since' WHERE space = 'openmarket' AND code = '603'")
    async with start() as service:
        assert await service.sql(shown) == before


async def test_a_lapse_follows_the_policy_that_the_service_starts_with(start: Start, tmp_path: Path) -> None:
    now, other, gone = datetime.now(UTC), "+15555551235", "+15555551236"
    policy = tmp_path / "policy.toml"
    async with start() as service:
        await receipt(service, "569", now - timedelta(days=5))
        await receipt(service, "569", now - timedelta(days=20), who=gone)
        await receipt(service, "341", now - timedelta(hours=5), who=other)
    for days, hours in ((10, 6), (20, 12), (6, 24)):
        policy.write_text(f'[rules.suspended]\nlapse = "{days}d"\n[rules.stale_carrier]\nalone_lapse = "{hours}h"\n')
        async with start(policy_file=policy) as service:
            told = await status(service)
            ends = now + timedelta(days=days - 5)
            assert (told["state"], datetime.fromisoformat(told["until"])) == ("suspended", ends)
            assert await view(service) == [("suspended", False, ends)]
            held_until = datetime.fromisoformat((await status(service, other))["until"])
            assert held_until == now + timedelta(hours=hours - 5)
            assert (await status(service, gone))["sendable"]
    changes = "SELECT before, after, cause ->> 'kind' FROM changes WHERE number = :who ORDER BY seq"
    async with start() as service:
        assert await service.sql(changes, who=WHO) == [("unseen", "suspended", "receipt")]
        over = ("suspended", "active", "policy")
        assert await service.sql(changes, who=gone) == [("unseen", "suspended", "receipt"), over]


async def test_a_stale_carrier_alone_holds_a_day_and_the_second_time_waits_for_a_person(service: Service) -> None:
    await receipt(service, "341", datetime.now(UTC) - timedelta(days=3))
    assert (await status(service))["state"] == "active"
    await receipt(service, "341", datetime.now(UTC))
    told = await status(service)
    assert (told["state"], told["until"], told["waiting_for"]) == ("held", None, "person")


async def test_a_person_releases_or_gives_up_what_one_code_holds(service: Service) -> None:
    now = datetime.now(UTC)
    whos = [f"+1415555{place:04}" for place in range(4)]
    for who in whos:
        await receipt(service, "345" if who != whos[3] else "349", now + timedelta(minutes=4), who=who)
    listed = (await service.client.get("/v1/held", params={"code": "345"})).json()
    assert [one["number"] for one in listed["items"]] == whos[:3]
    answer = await service.client.post("/v1/held/release", json={"number": whos[0]})
    assert answer.json() == {"numbers": 1}
    consented = {"consented_at": (now - timedelta(days=1)).isoformat(), "source": "web form"}
    await service.client.put(f"/v1/senders/12345/lists/spring/subscribers/{whos[1]}", json=consented)
    answer = await service.client.post("/v1/held/opt-out", json={"code": "345", "code_space": "openmarket"})
    assert answer.json() == {"numbers": 2}
    assert [(await status(service, who))["state"] for who in whos] == ["active", "active", "active", "held"]
    assert (await status(service, whos[1]))["lists"][0]["reason"] == "permanent_failure"
    for vague in ({}, {"code": "349"}):
        assert (await service.client.post("/v1/held/release", json=vague)).status_code == 422
    which = Which(reason="carrier_unknown")
    assert await held.release(service.app.state.engine, which, service.app.state.meaning.policy, "test") == 1


@pytest.mark.parametrize("decision", ["release", "opt-out"])
async def test_what_holds_a_number_by_another_code_meanwhile_is_not_decided_with_the_first(
    start: Start, decision: str
) -> None:
    """While a person decides on one code, another one holds some of its numbers: nobody has decided on that."""
    call = {"code": "345", "code_space": "openmarket"}
    async with start() as one, start() as two:
        for who in (WHO, OTHER):
            await receipt(one, "345", datetime.now(UTC) - timedelta(minutes=1), who=who)
        async with one.app.state.engine.begin() as db:
            await db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": FEED_LOCK})
            holding = asyncio.create_task(receipt(two, "341", datetime.now(UTC), who=OTHER))
            await waiting(one, 1, holding)
            deciding = asyncio.create_task(one.client.post(f"/v1/held/{decision}", json=call))
            await waiting(one, 2, holding, deciding)
        await holding
        assert (await deciding).json() == {"numbers": 1}
        assert [(await status(one, who))["state"] for who in (WHO, OTHER)] == ["active", "held"]


KEYS = """INSERT INTO receipt_keys SELECT gen_random_uuid(), now() - CAST(:days AS int) * interval '1 day'
          FROM generate_series(1, CAST(:rows AS int))"""
SENT = """INSERT INTO messages (gateway, account, message_id, registered_at)
          SELECT 'native', '', gen_random_uuid()::text, now() - CAST(:days AS int) * interval '1 day'
          FROM generate_series(1, CAST(:rows AS int))"""


async def test_what_only_serves_for_days_is_pruned_in_parts(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_PRUNED_AT_ONCE", 100)
    for insert, kept_days in ((KEYS, 8), (SENT, 14)):
        await service.sql(insert, days=kept_days + 1, rows=250)
        await service.sql(insert, days=kept_days - 1, rows=7)
    await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
    counts = "SELECT (SELECT count(*) FROM receipt_keys), (SELECT count(*) FROM messages)"
    assert await service.sql(counts) == [(7, 7)]


async def test_what_is_written_anew_as_it_is_pruned_stays(service: Service) -> None:
    await service.sql(SENT, days=15, rows=1)
    async with service.app.state.engine.begin() as db:
        await db.execute(text("UPDATE messages SET registered_at = now()"))
        pruning = asyncio.create_task(
            upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
        )
        await waiting(service, 1, pruning)
    await pruning
    assert await service.sql("SELECT count(*) FROM messages") == [(1,)]


async def test_a_clock_that_is_years_ahead_of_the_databases_deletes_nothing(service: Service) -> None:
    """Nor does it at a start, which drops days as this does."""
    await service.sql(KEYS, days=1, rows=3)
    await service.sql(SENT, days=1, rows=3)
    yesterday = f"receipts_{datetime.now(UTC).date() - timedelta(days=1):%Y%m%d}"
    ahead = datetime.now(UTC) + timedelta(days=3_000)
    await upkeep.keep_house(service.app.state.engine, service.app.state.settings, ahead)
    there = "SELECT (SELECT count(*) FROM receipt_keys), (SELECT count(*) FROM messages), to_regclass(:day)::text"
    assert await service.sql(there, day=yesterday) == [(3, 3, yesterday)]
    assert await service.sql("SELECT to_regclass(:day) IS NULL", day=f"receipts_{ahead:%Y%m%d}") == [(False,)]


YEARS = 5 * 365
KEPT = {
    "unnamed": (14, "gateway, account, message_id, key, receipt, received_at", "'', '', '', gen_random_uuid(), '{}'"),
    "refused": (
        90,
        "gateway, account, method, url, headers, query, body, salt, arrived_at",
        "'', '', '', '', '{}', '', '', ''",
    ),
    "changes": (YEARS, "number, kind, cause, occurred_at, committed_at", "'', 'number.state', '{}', now()"),
    "lookup_answers": (YEARS, "number, provider, outcome, detail, price, config, asked_at", "'', '', 'ok', '', 0, ''"),
    "rnd_checks": (YEARS, "number, consented_on, via, asked_at", "'', '2020-01-01', 'api'"),
    "opt_out_hours": (YEARS, "sender, list, reason, total, hour", "'', '', '', 1"),
}
"""For how many days, and a row but for its date, which comes last."""


@pytest.mark.parametrize("table", KEPT)
async def test_what_is_kept_for_a_time_goes_when_it_is_over_and_not_before(service: Service, table: str) -> None:
    days, columns, row = KEPT[table]
    now = datetime.now(UTC)
    for age in (timedelta(days=days, hours=1), timedelta(days=days - 1)):
        await service.sql(f"INSERT INTO {table} ({columns}) VALUES ({row}, :at)", at=now - age)  # noqa: S608 - ours
    await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
    assert await service.sql(f"SELECT count(*) FROM {table}") == [(1,)]  # noqa: S608


SLOWLY = """
CREATE FUNCTION watched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT count(*) FROM gone) > 100 THEN RAISE 'too many at once'; END IF;
    IF TG_TABLE_NAME = 'unnamed' THEN PERFORM pg_sleep(2.5); END IF;
    RETURN NULL;
END $$
"""
WATCHED = """
CREATE TRIGGER watched AFTER DELETE ON {} REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION watched()
"""


async def test_what_is_left_of_imports_goes_in_parts_and_what_is_long_to_find_is_waited_for(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STATEMENT_WITHIN", 2.0)
    monkeypatch.setattr(upkeep, "_PRUNED_AT_ONCE", 100)
    await service.sql("INSERT INTO import_lines SELECT gen_random_uuid(), 2, '+14155550001', '1', 'x', now(), 'x' "
                      "FROM generate_series(1, 250)")  # fmt: skip
    await service.sql(SLOWLY)
    for table in ("import_lines", "unnamed"):
        await service.sql(WATCHED.format(table))
    engine = connect(database_url, pool=1)
    await upkeep.keep_house(engine, service.app.state.settings, datetime.now(UTC))
    await engine.dispose()
    assert await service.sql("SELECT count(*) FROM import_lines") == [(0,)]


async def test_a_start_does_not_wait_for_what_is_to_be_pruned_and_it_goes_soon_after(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as service:
        await service.sql("INSERT INTO receipt_keys SELECT gen_random_uuid(), now() - interval '9 days'")
    keys = "SELECT count(*) FROM receipt_keys"
    async with start() as service:
        assert await service.sql(keys) == [(1,)]
    monkeypatch.setattr(upkeep, "LAPSES_EVERY", 0.05)
    monkeypatch.setattr(upkeep, "HOUSE_FIRST", 0.05)
    async with start() as service, asyncio.timeout(30):
        while await service.sql(keys) != [(0,)]:
            await asyncio.sleep(0.02)


async def test_receipts_are_dropped_by_days_once_they_have_been_kept_as_long_as_the_settings_say(start: Start) -> None:
    today = datetime.now(UTC).date()

    def day(ahead: int) -> str:
        return f"receipts_{today + timedelta(days=ahead):%Y%m%d}"

    async def days(service: Service) -> list[str]:
        found = await service.sql("SELECT inhrelid::regclass::text FROM pg_inherits "
                                  "WHERE inhparent = 'receipts'::regclass ORDER BY 1")  # fmt: skip
        return [name for (name,) in found]

    coming = [day(ahead) for ahead in range(-1, 8)]
    async with start() as service:
        for ahead in (-400, -91, -90, -89):
            since, until = (today + timedelta(days=ahead + more) for more in (0, 1))
            await service.sql(f"CREATE TABLE {day(ahead)} PARTITION OF receipts "
                              f"FOR VALUES FROM ('{since}Z') TO ('{until}Z')")  # fmt: skip
        await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
        assert await days(service) == [day(-90), day(-89), *coming]
    async with start(receipts_kept="7d") as service:
        assert await days(service) == coming


@pytest.mark.parametrize("ahead", [0, 1])
async def test_a_day_that_lost_its_place_for_receipts_gets_one_at_the_next_look(
    start: Start, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr(upkeep, "LAPSES_EVERY", 0.05)
    day = f"receipts_{datetime.now(UTC).date() + timedelta(days=ahead):%Y%m%d}"
    async with start() as service, asyncio.timeout(30):
        await service.sql(f"DROP TABLE {day}")
        while await service.sql("SELECT to_regclass(:name)::text", name=day) != [(day,)]:
            await asyncio.sleep(0.02)


async def test_a_long_reader_of_receipts_as_a_dump_is_keeps_no_day_from_being_made_and_nobody_from_writing(
    start: Start,
) -> None:
    today = datetime.now(UTC).date()
    old, coming = (f"receipts_{today + timedelta(days=ahead):%Y%m%d}" for ahead in (-91, 7))
    since, until = (f"{today + timedelta(days=ahead)}Z" for ahead in (-91, -90))
    there = "SELECT to_regclass(:old) IS NOT NULL, to_regclass(:coming) IS NOT NULL"
    async with start() as service:
        await service.sql(f"DROP TABLE {coming}")
        await service.sql(f"CREATE TABLE {old} PARTITION OF receipts FOR VALUES FROM ('{since}') TO ('{until}')")
        async with transaction(service.app.state.engine) as dump:
            await dump.execute(f"LOCK TABLE receipts, {old} IN ACCESS SHARE MODE")
            await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
            assert await service.sql(there, old=old, coming=coming) == [(True, True)]
        await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
        assert await service.sql(there, old=old, coming=coming) == [(False, True)]


async def test_what_cannot_be_told_keeps_no_day_from_its_place_for_receipts(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LAPSES_EVERY", 0.05)
    day = f"receipts_{datetime.now(UTC).date():%Y%m%d}"
    async with start() as service, asyncio.timeout(30):
        await service.sql("INSERT INTO numbers (number, facts, until) VALUES (:who, '[]', now())", who=WHO)
        await service.sql(f"DROP TABLE {day}")
        while await service.sql("SELECT to_regclass(:name)::text", name=day) != [(day,)]:
            await asyncio.sleep(0.02)


async def test_a_start_waits_for_the_look_at_all_numbers(
    start: Start, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STATEMENT_WITHIN", 2.0)
    slow = connect(database_url, pool=1)

    async def keep_it_waiting() -> None:
        async with transaction(slow) as db:
            await db.execute("LOCK TABLE numbers")
            locked.set()
            while not await db.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'numbers'::regclass AND NOT granted)"
            ):
                await asyncio.sleep(0.02)
            await db.execute("SELECT pg_sleep(2.5)", timeout=10)

    locked = asyncio.Event()
    keeping = asyncio.create_task(keep_it_waiting())
    await locked.wait()
    async with start() as service:
        assert keeping.done()
        assert await service.sql("SELECT count(*) FROM numbers") == [(0,)]
    await keeping
    await slow.dispose()


# Alarms ------------------------------------------------------------------------------------------------------------

STANDING = "SELECT kind, key FROM alarms WHERE cleared_at IS NULL ORDER BY 1, 2"


async def raised(service: Service, kind: str, key: str, days: int) -> None:
    await service.sql("INSERT INTO alarms (kind, key, since, last_at, count) VALUES (:kind, :key, :at, :at, 1)",
                      kind=kind, key=key, at=datetime.now(UTC) - timedelta(days=days, hours=1))  # fmt: skip


async def test_an_alarm_is_over_when_nothing_raised_it_for_a_week_but_where_it_waits_for_somebody(
    service: Service,
) -> None:
    for kind, days in (("network_not_covered", 7), ("unknown_code", 6), ("quarantine", 70), ("lookup_stopped", 70)):
        await raised(service, kind, kind, days)
    await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
    assert await service.sql(STANDING) == [(kind, kind) for kind in ("lookup_stopped", "quarantine", "unknown_code")]


async def test_an_alarm_that_has_been_over_for_90_days_is_forgotten(service: Service) -> None:
    over = "UPDATE alarms SET cleared_at = now() - make_interval(days => :days) WHERE key = :key"
    for key, days in (("stands", None), ("newer", 89), ("older", 91)):
        await raised(service, "unknown_code", key, 1)
        await service.sql(over, key=key, days=days)
    await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
    assert await service.sql("SELECT key FROM alarms ORDER BY key") == [("newer",), ("stands",)]


KNOWN_LATER = """
INSERT INTO unknown_words (gateway, account, kind, space, word, status, first_at, last_at, count)
VALUES ('native', '', 'code', 'openmarket', '3041', 'undeliverable', now(), now(), 1)
"""


async def test_a_code_that_the_tables_have_by_now_raises_no_alarm_since_the_start(start: Start) -> None:
    async with start() as service:
        await service.sql(KNOWN_LATER)
        for kind in ("unknown_code", "same_code_again"):
            await raised(service, kind, "native/openmarket/3041", 1)
        await unmapped(service, "3/41")
    async with start() as service:
        standing = [("same_code_again", "native/openmarket/3041"), ("unknown_code", "kannel/3/41")]
        assert await service.sql(STANDING) == standing


async def unmapped(service: Service, code: str) -> None:
    """A failure of kannel, of whose codes nothing is said."""
    receipt = {"st": 2, "id": code, "to": "+15555550100", "a": f"id:1 stat:UNDELIV err:{code}"}
    assert (await service.client.get("/v1/receipts/kannel", params=receipt)).status_code == 200


SAYS_WHOSE = {"gateways": {"kannel": {"code_space": "openmarket", "codes": {"304": "3041"}}}}


async def test_a_code_that_the_settings_explain_by_now_is_unknown_no_more(start: Start) -> None:
    async with start() as service:
        for code in ("560", "304", "77"):
            await unmapped(service, code)
        assert len(await service.sql(STANDING)) == len((await service.get("/v1/codes/unknown"))["items"]) == 3
    async with start(**SAYS_WHOSE) as service:
        assert await service.sql(STANDING) == [("unknown_code", "kannel/77")]
        assert [one["word"] for one in (await service.get("/v1/codes/unknown"))["items"]] == ["77"]
