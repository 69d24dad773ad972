"""Probes, metrics and the doctor: what an operator asks, and what the answers must and must not hold."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import StaticPool, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.catalogue.policy import load_policy
from app.config import Settings
from app.routers import operating
from app.routers.access import AccessLog
from app.services import intake, keys, migrate, partitions
from app.services.connection import connect, transaction
from app.services.deactivations import files
from app.services.doctor import database as server
from app.services.doctor import left_open
from app.services.doctor import settings as told
from app.services.doctor.finding import Finding
from app.services.doctor.waiting import _MENDS
from app.services.migrate import head
from tests.running import sendable

NUMBER = "+15550002222"
DEACTIVATED = {"message_id": "m1", "number": NUMBER, "sender": "12345", "status": "undeliverable", "code": "3041"}
NOWHERE = "postgresql+asyncpg://nobody@127.0.0.1:1/nowhere"


async def lose_the_database(service) -> None:
    for engine in ("reads", "quick"):
        await getattr(service.app.state, engine).dispose()
        setattr(service.app.state, engine, connect(NOWHERE))


# Probes ------------------------------------------------------------------------------------------------------------


async def test_alive_does_not_ask_the_database(service):
    await lose_the_database(service)
    answer = await service.client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"alive": True})


async def test_ready_when_the_database_answers_with_this_codes_schema(service):
    answer = await service.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "schema": head()})


async def test_not_ready_while_the_database_is_away(service):
    await lose_the_database(service)
    answer = await service.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["detail"] == "database: it does not answer"


async def test_not_ready_on_another_schema(service):
    async with service.app.state.engine.begin() as db:
        await db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    answer = await service.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] == f"schema: the database is at version 9999, this code at {head()}"


async def test_not_ready_on_a_server_that_takes_no_writes(service, database_url):
    name = make_url(database_url).database
    async with service.app.state.engine.begin() as db:
        await db.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    service.app.state.quick = connect(database_url).execution_options(isolation_level="AUTOCOMMIT")
    answer = await service.client.get("/readyz")
    await service.app.state.quick.dispose()
    assert answer.status_code == 503
    assert "takes no writes" in answer.json()["detail"]


async def test_not_ready_while_the_intake_is_full(service):
    service.app.state.intake._depth = intake.WAITING_MOST
    answer = await service.client.get("/readyz")
    service.app.state.intake._depth = 0
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith(f"intake: {intake.WAITING_MOST} receipts wait")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_nobody_may_keep_an_answer_of_these(service, path):
    assert (await service.client.get(path)).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_need_no_key(start, path):
    async with start(auth="on") as service:
        assert (await service.client.get(path)).status_code == 200


# Metrics -----------------------------------------------------------------------------------------------------------


async def metrics(service, **headers) -> dict[str, list[tuple[dict[str, str], float]]]:
    answer = await service.client.get("/metrics", headers=headers)
    assert answer.status_code == 200
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def test_metrics_tell_what_waits_and_since_when(start):
    async with start() as service:
        held = DEACTIVATED | {"code": "345", "message_id": "m2", "number": "+15550002223"}
        unread = b"{"
        before = taken(await metrics(service))
        for body in (held, held | {"message_id": "m3", "code": "99999"}):
            assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200
        assert (await service.client.post("/v1/receipts/native", content=unread)).headers["sendable-unread"] == "1"
        found = await metrics(service)
    assert found["sendable_database_up"] == [({}, 1)]
    assert found["sendable_held"] == [({"waiting_for": "no_lookup_provider"}, 1)]
    assert found["sendable_unread_waiting"] == [({"gateway": "native"}, 1)]
    assert found["sendable_alarms"] == [({"kind": "unknown_code"}, 1)]
    assert found["sendable_held_oldest_seconds"][0][1] > 0
    assert found["sendable_queue_receipts"] == [({}, 0)]
    assert found["sendable_pool_size"][0][1] > 0
    assert taken(found) == before + 1


def taken(found) -> float:
    """How many receipts of the held number's kind this process has taken: other tests run in it too."""
    kind = {"gateway": "native", "status": "undeliverable", "reason": "carrier_unknown"}
    return sum(value for labels, value in found.get("sendable_receipts_total", ()) if labels == kind)


EARLY = {"reads": "query", "fields": {"message_id": "id", "status": "state"}, "statuses": {"ok": "delivered"}}
FROM_THE_START = ("unread", "inbound", "unknown_codes", "forged")


async def test_what_has_not_happened_yet_is_there_as_none_so_that_a_rate_sees_the_first(start):
    async with start(gateways={"custom": {"early": EARLY}}) as service:
        found = await metrics(service)
    for name in FROM_THE_START:
        assert ({"gateway": "custom/early"}, 0) in found[f"sendable_{name}_total"]
    assert {labels["what"] for labels, _ in found["sendable_busy_total"]} == {"receipts", "api"}


async def test_due_lookups_are_told_with_the_age_of_the_oldest(start):
    async with start(lookup={}) as service:
        body = DEACTIVATED | {"message_id": "m4", "number": "+15550002224", "code": "345"}
        await service.client.post("/v1/receipts/native", json=body)
        found = await metrics(service)
    assert found["sendable_lookups_due"] == [({}, 1)]
    assert found["sendable_lookups_due_oldest_seconds"][0][1] > 0


WAITS = """
WITH hours (n) AS (VALUES (2), (5), (1)), ages AS (SELECT n, now() - make_interval(hours => n) AS since FROM hours),
held AS (INSERT INTO numbers (number, state, waiting_for, changed_at)
    SELECT '+1555000300' || n, 'held', 'lookup', since FROM ages),
due AS (INSERT INTO lookups (number, reason, cause, asked_at, due_at)
    SELECT '+1555000300' || n, 'x', '{}'::jsonb, since, since FROM ages
    UNION ALL SELECT '+15550003009', 'x', '{}'::jsonb, now(), now() + interval '1 hour'),
unread AS (INSERT INTO unread (digest, gateway, account, reason, method, headers, query, body, first_at, last_at)
    SELECT gen_random_uuid(), 'native', '', 'x', 'POST', '{}', '', '', since, now() FROM ages),
unnamed AS (INSERT INTO unnamed (gateway, account, message_id, key, receipt, received_at)
    SELECT 'native', '', 'm' || n, gen_random_uuid(), '{}', since FROM ages),
mass AS (INSERT INTO quarantines (key, gateway, code_space, code, sender, carrier, reason, seen, allowed, opened_at,
        decision)
    SELECT 'key ' || n, 'native', 'openmarket', '561', '12345', '', 'x', 60, 50, since, null FROM ages
    UNION ALL SELECT 'key 9', 'native', 'openmarket', '561', '12345', '', 'x', 60, 50, now() - interval '9 h', 'discard'
    RETURNING id, decision),
hits AS (INSERT INTO breaker_hits (key, number, at, quarantine)
    SELECT 'key', '+1555000400' || id % 10, now(), id FROM mass WHERE decision IS NULL
    UNION ALL SELECT 'other key', '+1555000400' || id % 10, now(), id FROM mass WHERE decision IS NULL
    UNION ALL SELECT 'key', '+15550005000', now(), NULL)
INSERT INTO refused (gateway, account, arrived_at, method, url, headers, query, body, salt)
SELECT 'native', '', timestamptz '2026-11-20' + make_interval(hours => n), 'POST', '', '{}', '', '', ''
FROM hours
"""
"""Three of everything that waits, for 2, 5 and 1 hours; and what does not wait: not due yet, decided, or let pass."""


@pytest.mark.parametrize("what", ["held", "lookups_due", "unread_waiting", "unnamed_receipts", "quarantines"])
async def test_of_what_waits_all_are_counted_and_the_oldest_tells_the_age(start, what):
    async with start() as service:
        await service.sql(WAITS)
        found = await metrics(service)
    ((_, many),), ((_, oldest),) = found[f"sendable_{what}"], found[f"sendable_{what}_oldest_seconds"]
    assert many == 3
    assert 5 * 3600 <= oldest < 5 * 3600 + 300
    assert found["sendable_quarantined_numbers"] == [({}, 3)]


async def test_of_refused_requests_the_doctor_tells_the_newest(service, database_url):
    await service.sql(WAITS)
    (says,) = [finding.says for finding in await examined(database_url) if finding.about == "refused"]
    assert "3 requests to native" in says
    assert "the newest at 2026-11-20 05:00 UTC" in says


async def test_no_number_stands_in_the_metrics(start):
    async with start() as service:
        client = service.client
        client._transport.app = AccessLog(service.app)
        await client.post("/v1/receipts/native", json=DEACTIVATED)
        await client.get(f"/v1/numbers/{NUMBER}")
        await client.get(f"/nowhere/{NUMBER}")
        await client.request(NUMBER.replace("+", "M"), "/v1/messages")
        text = (await client.get("/metrics")).text
    assert NUMBER.lstrip("+") not in text
    assert '{method="GET",route="/v1/numbers/{number}",status="200"}' in text
    assert '{method="other",route="/v1/messages",status="405"}' in text


async def test_metrics_of_the_process_are_there_while_the_database_is_away(service):
    await lose_the_database(service)
    found = await metrics(service)
    assert found["sendable_database_up"] == [({}, 0)]
    assert "sendable_queue_receipts" in found
    assert "sendable_held" not in found


async def test_a_connection_that_was_ended_makes_no_scrape_fail(start, database_url):
    idle = connect(database_url, pool=1)
    async with transaction(idle) as db:
        pid = await db.fetchval("SELECT pg_backend_pid()")
    async with start(lookup={"providers": ["demo"], "budget_per_day": "1"}) as service:
        await service.sql("SELECT pg_terminate_backend(:pid, 10000)", pid=pid)
        service.app.state.lookups.budget.engine = idle
        assert (await metrics(service))["sendable_database_up"] == [({}, 1)]
        assert (await metrics(service))["sendable_lookup_budget_left"] == [({}, 1)]
    await idle.dispose()


async def test_a_database_that_is_long_in_counting_is_not_away(service, database_url, monkeypatch):
    monkeypatch.setattr(operating, "COUNTS_WITHIN", 0.5)
    slow = connect(database_url, pool=1)
    async with transaction(slow) as db:
        await db.execute("LOCK TABLE unread")
        found = await metrics(service)
    await slow.dispose()
    assert found["sendable_database_up"] == [({}, 1)]
    assert "sendable_held" not in found


async def test_metrics_need_a_key_with_their_own_scope(start):
    async with start(auth="on") as service:
        engine = service.app.state.engine
        tokens = {scope: (await keys.create(engine, "x", [scope]))[1] for scope in ("metrics:read", "numbers:read")}
        assert (await service.client.get("/metrics")).status_code == 401
        assert await metrics(service, Authorization=f"Bearer {tokens['metrics:read']}")
        refused = await service.client.get("/metrics", headers={"Authorization": f"Bearer {tokens['numbers:read']}"})
    assert refused.status_code == 403


# The doctor: settings ----------------------------------------------------------------------------------------------


def of_settings(**given) -> list[Finding]:
    return list(told.of_settings(Settings.model_validate(given)))


def test_a_gateway_without_a_secret_is_wrong_with_auth_on_and_fine_without():
    gateways = {"twilio": {"sender": "12345"}, "plivo": {"secrets": ["x"]}}
    (wrong,) = [f for f in of_settings(gateways=gateways, lookup={}) if f.level == "wrong"]
    assert wrong == Finding("wrong", "gateways.twilio", "has no secret, so it is answered 404",
                            "give it `secrets` under [gateways.twilio]")  # fmt: skip
    assert [f for f in of_settings(gateways=gateways, auth="off") if f.level == "wrong"] == []


def test_a_gateway_whose_accounts_have_secrets_needs_none_of_its_own():
    gateways = {"twilio": {"accounts": {"eu": {"secrets": ["x"]}}}}
    assert [f for f in of_settings(gateways=gateways, lookup={}) if f.level == "wrong"] == []


def test_auth_on_without_any_gateway_is_wrong():
    assert [f.about for f in of_settings() if f.level == "wrong"] == ["gateways"]


def test_a_gateway_whose_codes_belong_to_no_space_is_noted():
    found = of_settings(
        gateways={"kannel": {"secrets": ["x"]}, "openmarket": {"secrets": ["y"]}}, lookup={"providers": ["demo"]}
    )
    assert [(f.level, f.about) for f in found] == [("note", "gateways.kannel"), ("ok", "lookups")]


@pytest.mark.parametrize(("given", "level", "says", "mend"), [
    ({}, "note", "no lookup provider: held numbers wait for a person", "add a [lookup] table"),
    ({"lookup": {}}, "note", "no provider is named: numbers wait until one is",
     "name one under `providers` in `[lookup]` of the settings"),
    ({"lookup": {"providers": ["telnyx", "plivo"], "budget_per_day": "1"}}, "ok", "asked in this order: telnyx, plivo",
     None),
])  # fmt: skip
def test_the_doctor_says_who_is_asked_about_carriers(given, level, says, mend):
    assert [f for f in of_settings(auth="off", **given) if f.about == "lookups"] == [
        Finding(level, "lookups", says, mend)
    ]


def test_lookups_without_a_budget_are_noted():
    found = of_settings(auth="off", lookup={"providers": ["telnyx"]})
    assert found[-1] == Finding("note", "lookups", "no budget for a day: they may cost any sum",
                                "set `lookup.budget_per_day`")  # fmt: skip


def test_little_room_on_the_disk_is_wrong(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=told.ROOM_LEAST - 1))
    assert told.of_disk(tmp_path) == Finding("wrong", "disk", "2.0 GiB free where PostgreSQL lives",
                                               f"make room in {tmp_path}")  # fmt: skip


# The doctor: the database ------------------------------------------------------------------------------------------


async def examined(url: str, **given) -> list[Finding]:
    engine = connect(url)
    settings = Settings.model_validate({"lookup": {}} | given)
    try:
        return [finding async for finding in server.of_database(engine, settings)]
    finally:
        await engine.dispose()


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "wrong"]


async def run_sql(url: str, *statements: str) -> None:
    engine: AsyncEngine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as db:
        for statement in statements:
            await db.exec_driver_sql(statement)
    await engine.dispose()


@pytest.mark.usefixtures("service")
async def test_nothing_is_wrong_with_a_service_that_runs(database_url):
    found = await examined(database_url)
    assert wrong(found) == []
    assert {f.about for f in found} == {"database", "clock", "schema", "rights", "reader", "partitions"}


async def test_a_database_that_was_never_migrated_is_wrong(database_url):
    await run_sql(database_url, "DROP TABLE alembic_version")
    assert wrong(await examined(database_url)) == [
        Finding("wrong", "schema", "not there yet", "run `sendable migrate`")
    ]


async def test_a_database_newer_than_the_code_is_wrong(database_url):
    await run_sql(database_url, "UPDATE alembic_version SET version_num = '9999'")
    (finding,) = wrong(await examined(database_url))
    assert finding.says == f"version 9999 is newer than this code ({head()})"
    assert finding.mend == "start a newer Sendable"


async def test_a_database_of_another_program_is_wrong_and_not_called_newer(database_url):
    await run_sql(database_url, "UPDATE alembic_version SET version_num = 'a1b2c3d4e5f6'")
    (finding,) = wrong(await examined(database_url))
    assert finding.says == "at 'a1b2c3d4e5f6', which is another program's"
    assert finding.mend == "give Sendable a database of its own"


async def test_a_server_that_takes_no_writes_is_wrong(database_url):
    name = make_url(database_url).database
    await run_sql(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    (finding,) = wrong(await examined(database_url))
    assert finding.says.endswith("takes no writes")


async def test_a_server_that_is_too_old_is_wrong_and_stops_a_start(database_url, monkeypatch):
    monkeypatch.setattr(migrate, "OLDEST_POSTGRES", 99)
    (finding,) = wrong(await examined(database_url))
    assert (finding.says[-10:], finding.mend) == ("is too old", "use PostgreSQL 99 or newer")
    with pytest.raises(migrate.SchemaError, match=r"PostgreSQL \d+ is too old: use PostgreSQL 99 or newer"):
        await migrate.upgrade(database_url)


async def test_a_database_that_lets_nobody_in_is_told_as_such(server, database_url):
    """As while an administrator puts it back, or gives it another name."""
    await run_sql(server, f"ALTER DATABASE {make_url(database_url).database} ALLOW_CONNECTIONS false")
    said = await sendable("migrate", database_url=database_url)
    assert said.code == 1
    assert said.err.startswith("sendable: the database lets nobody in: let an administrator run: ALTER DATABASE")


@pytest.mark.parametrize(("name", "theirs", "ours"), [
    ("transaction_isolation", "default_transaction_isolation = 'serializable'", "read committed"),
    ("idle_session_timeout", "idle_session_timeout = '5min'", "0"),
    ("statement_timeout", "statement_timeout = '1s'", "0"),
    ("lock_timeout", "lock_timeout = '1s'", "0"),
    ("idle_in_transaction_session_timeout", "idle_in_transaction_session_timeout = '1s'", "30s"),
    ("transaction_timeout", "transaction_timeout = '1s'", "0"),
    ("jit", "jit = on", "off"),
])  # fmt: skip
async def test_defaults_that_an_administrator_gave_the_database_do_not_make_callers_hear_503(
    database_url, name, theirs, ours
):
    await run_sql(database_url, f"ALTER DATABASE {make_url(database_url).database} SET {theirs}")
    engine = connect(database_url)
    async with transaction(engine) as db:
        assert await db.fetchval(f"SHOW {name}") == ours
    await engine.dispose()


async def test_a_pooler_that_hands_sessions_on_is_wrong_and_stops_a_start(database_url, monkeypatch):
    """One in which nothing fails at once: our statements come through, and each connection finds itself anywhere."""

    def pooled(url, **_):
        return create_async_engine(url, poolclass=StaticPool)

    engine = pooled(database_url)
    findings = [finding async for finding in server.of_database(engine, Settings())]
    await engine.dispose()
    monkeypatch.setattr(migrate, "engine_of", pooled)
    with pytest.raises(migrate.SchemaError, match=r"a pooler of transactions .* let it pool sessions"):
        await migrate.upgrade(database_url)
    assert [(f.level, f.says) for f in findings] == [("wrong", "a pooler of transactions stands before the database")]


async def test_a_database_in_an_encoding_of_few_letters_is_wrong_and_none_is_begun_in_it(database_url):
    name = f"{make_url(database_url).database}_latin"
    latin = make_url(database_url).set(database=name).render_as_string(hide_password=False)
    how = "ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    await run_sql(database_url, f"CREATE DATABASE {name} {how}")
    try:
        findings = wrong(await examined(latin))
        with pytest.raises(migrate.SchemaError, match=r"the encoding of the database is LATIN1, .* ENCODING 'UTF8'"):
            await migrate.upgrade(latin)
    finally:
        await run_sql(database_url, f"DROP DATABASE {name} WITH (FORCE)")
    assert findings[0].says.startswith("its encoding is LATIN1")
    assert "ENCODING 'UTF8'" in (findings[0].mend or "")


@pytest.mark.usefixtures("service")
async def test_a_reader_that_cannot_read_the_views_is_wrong(database_url):
    await run_sql(database_url, "REVOKE USAGE ON SCHEMA published FROM sendable_reader")
    (finding,) = wrong(await examined(database_url))
    assert finding.says == "sendable_reader cannot read the views"
    assert finding.mend
    await run_sql(database_url, *finding.mend.removeprefix("run: ").split("; "))
    assert wrong(await examined(database_url)) == []


@pytest.mark.usefixtures("service")
async def test_a_reader_that_reads_more_than_the_views_is_wrong(database_url):
    await run_sql(database_url, "GRANT SELECT ON numbers TO PUBLIC")
    (finding,) = wrong(await examined(database_url))
    assert finding.says == "sendable_reader can read more than the views"


async def test_a_table_that_another_role_owns_is_wrong_and_the_mend_lets_it_be_dropped(service, database_url):
    ((day,),) = await service.sql("SELECT min(relname) FROM pg_class WHERE relname ~ '^receipts_[0-9]{8}$'")
    await run_sql(database_url, 'CREATE ROLE "an owner"', 'GRANT "an owner" TO CURRENT_USER',
                  'GRANT CREATE ON SCHEMA public TO "an owner"', f'ALTER TABLE {day} OWNER TO "an owner"',
                  'REVOKE "an owner" FROM CURRENT_USER')  # fmt: skip
    try:
        (finding,) = wrong(await examined(database_url))
        assert finding.about == "rights"
        assert finding.mend.startswith('start Sendable as "an owner", or ')
        await run_sql(database_url, finding.mend.partition("run: ")[2])
        assert wrong(await examined(database_url)) == []
        await run_sql(database_url, f"DROP TABLE {day}")
    finally:
        await run_sql(
            database_url, 'GRANT "an owner" TO CURRENT_USER', 'DROP OWNED BY "an owner"', 'DROP ROLE "an owner"'
        )


async def left_open_in(url: str, **most) -> list[Finding]:
    engine = connect(url)
    async with engine.connect() as db:
        found = [finding async for finding in left_open.findings(db, **most)]
    await engine.dispose()
    return found


async def test_a_reader_that_looks_at_one_state_for_long_is_told_and_the_mend_ends_it(service, server, database_url):
    readers = make_url(database_url).set(username="sendable_reader")
    reader = create_async_engine(readers, isolation_level="REPEATABLE READ")
    async with reader.connect() as db:
        await db.execute(text("SELECT count(*) FROM published.number_status"))
        for _ in range(3):
            await service.client.post("/v1/receipts/native", json=DEACTIVATED)
        assert await left_open_in(database_url) == []
        (finding,) = await left_open_in(database_url, since_most=1)
        assert (finding.level, finding.about) == ("note", "left open")
        assert re.fullmatch(r"sendable_reader has held one snapshot open for \d+ transactions: .*", finding.says)
        await run_sql(as_superuser(server), finding.mend.partition("run: ")[2])
        async with asyncio.timeout(60):  # it is told to end, and ends in its own time
            while await left_open_in(database_url, since_most=1):
                await asyncio.sleep(0.05)
        await db.invalidate()
    await reader.dispose()


async def test_a_replication_slot_that_keeps_the_log_is_wrong_and_the_mend_drops_it(server, database_url):
    await run_sql(as_superuser(server), "SELECT pg_create_physical_replication_slot('warehouse', true)")
    await run_sql(database_url, "CREATE TABLE more (words text)", "INSERT INTO more SELECT repeat('x', 8000)")
    assert await left_open_in(database_url) == []
    (finding,) = await left_open_in(database_url, log_most=0)
    assert (finding.level, finding.about) == ("wrong", "left open")
    assert finding.says == "the replication slot 'warehouse' keeps 0.0 GiB of log, until the disk is full"
    await run_sql(as_superuser(server), finding.mend.partition("run: ")[2])
    assert await left_open_in(database_url, log_most=0) == []


def as_superuser(server: str) -> str:
    return make_url(server).set(username="postgres").render_as_string(hide_password=False)


async def test_what_the_doctor_found_is_told_though_the_rest_cannot_be_asked(database_url):
    await run_sql(database_url, "REVOKE SELECT ON quarantines FROM CURRENT_USER")
    said = await sendable("doctor", "--json", database_url=database_url)
    found = json.loads(said.out)
    assert {finding["about"] for finding in found} >= {"schema", "rights", "reader", "partitions"}
    assert found[-1]["says"].endswith("permission denied for table quarantines")


@pytest.mark.usefixtures("service")
async def test_a_reader_that_could_take_the_name_of_a_coming_day_is_wrong(database_url):
    await run_sql(database_url, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    (finding,) = wrong(await examined(database_url))
    assert finding.says == "sendable_reader can make tables where ours are made, and take their names"
    assert finding.mend
    await run_sql(database_url, finding.mend.removeprefix("let its owner run: "))
    assert wrong(await examined(database_url)) == []


async def test_days_without_a_partition_ahead_are_wrong(service, database_url):
    rows = await service.sql("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'receipts'::regclass")
    await run_sql(
        database_url, *(f"DROP TABLE {name}" for (name,) in sorted(rows)[2:] if name.startswith("receipts_2"))
    )
    (finding,) = wrong(await examined(database_url))
    assert finding.about == "partitions"


@pytest.mark.usefixtures("service")
async def test_days_that_a_clock_which_was_ahead_has_left_are_no_room_for_tomorrow(database_url):
    engine = connect(database_url)
    try:
        await partitions.make_room(engine, timedelta(days=900), datetime.now(UTC) + timedelta(days=400))
    finally:
        await engine.dispose()
    (found,) = [f for f in await examined(database_url) if f.about == "partitions"]
    assert found.says == "receipts have room for 7 more days"


async def test_an_alarm_that_stands_is_wrong_and_one_that_is_cleared_is_not(service, database_url):
    await service.client.post("/v1/receipts/native", json=DEACTIVATED | {"code": "99999"})
    (finding,) = wrong(await examined(database_url))
    assert finding.about == "alarm"
    assert finding.says.startswith("unknown_code native/openmarket/99999: 1 times since ")
    await run_sql(database_url, "UPDATE alarms SET cleared_at = now()")
    assert wrong(await examined(database_url)) == []


async def test_an_alarm_that_a_person_clears_stands_no_more_until_it_is_raised_again(service, database_url):
    failed = DEACTIVATED | {"code": "331"}
    for message in ("m1", "m2"):
        await service.client.post("/v1/receipts/native", json=failed | {"message_id": message})
    (finding,) = wrong(await examined(database_url))
    assert finding.mend.endswith("; then run `sendable alarms clear account_error`")
    (alarm,) = json.loads((await sendable("alarms", "list", "--json", database_url=database_url)).out)
    assert (alarm["kind"], alarm["key"], alarm["count"]) == ("account_error", "native/openmarket/331", 2)
    for key, code in (("native/openmarket/9", 1), (alarm["key"], 0)):
        assert (await sendable("alarms", "clear", "account_error", key, database_url=database_url)).code == code
    assert wrong(await examined(database_url)) == []
    await service.client.post("/v1/receipts/native", json=failed | {"message_id": "m3"})
    (finding,) = wrong(await examined(database_url))
    assert finding.says.startswith("account_error native/openmarket/331: 1 times since ")


@pytest.mark.parametrize("kind", ["quarantine", "lookup_stopped"])
async def test_an_alarm_whose_cause_stands_is_cleared_by_nobody(kind):
    said = await sendable("alarms", "clear", kind)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"sendable: {kind} stands for as long as what it tells of does: ")


MANY = """
INSERT INTO alarms (kind, key, since, last_at, count)
SELECT 'unknown_code', 'custom/acme/' || n, now(), now() + make_interval(secs => n), 1 FROM generate_series(1, 1000) n
"""


async def test_of_a_thousand_alarms_of_one_kind_the_newest_are_told_and_all_are_counted(service, database_url):
    await service.sql(MANY)
    await service.client.post("/v1/receipts/native", json=DEACTIVATED | {"code": "331"})
    assert (await metrics(service))["sendable_alarms"] == [
        ({"kind": "unknown_code"}, 1000), ({"kind": "account_error"}, 1),
    ]  # fmt: skip
    told = [finding.says.partition(": ")[0] for finding in wrong(await examined(database_url))]
    newest = sorted(f"unknown_code custom/acme/{n}" for n in range(981, 1001))
    assert told == [*newest, "account_error native/openmarket/331", "980 more of the kind unknown_code stand"]


async def test_what_waits_for_a_person_is_noted(service, database_url):
    await service.client.post("/v1/receipts/native", json=DEACTIVATED | {"code": "345"})
    await service.client.post("/v1/receipts/native", content=b"[")
    found = await examined(database_url)
    [mend] = [f.mend for f in found if f.about == "held numbers"]
    assert "name a provider under [lookup]" in mend
    notes = {f.about: f.says for f in found if f.level == "note"}
    assert notes["held numbers"] == "1 wait for a lookup provider, the oldest for 0 min"
    assert notes["unread"] == "1 callbacks of native could not be read, the oldest 0 min ago"


HALF_DONE = """
WITH event AS (
    INSERT INTO quarantines (key, gateway, code_space, code, sender, carrier, reason, seen, allowed, opened_at,
                             decision, decided_at)
    SELECT 'k', '', '', '', '', '', '', 9, 5, now(), 'release', now() - interval '1 hour' RETURNING id),
hit AS (INSERT INTO breaker_hits SELECT 'k', '+15555550001', now(), id FROM event),
list AS (INSERT INTO imports (id, touched_at) SELECT gen_random_uuid(), now() - interval '3 hours' RETURNING id),
line AS (INSERT INTO import_lines SELECT id, 2, '+15555550001', '1', 'x', now(), 'x' FROM list)
INSERT INTO feed_files (feed, digest, day, started_at)
VALUES ('twilio', '1', '2026-11-20', now() - interval '2 hours'), ('vibes', '2', NULL, now() - interval '8 days')
RETURNING id
"""


async def test_what_was_begun_and_nobody_goes_on_with_is_noted(service, database_url):
    file = (await service.sql(HALF_DONE))[0][0]
    begun = "one of twilio of 2026-11-20, begun 2 h ago, was not taken in to its end"
    others = [
        "an import of subscribers stopped 3 h ago, before all of its lines had acted",
        "1 numbers wait for what a person has decided on their mass event",
    ]
    async with transaction(service.app.state.engine) as db:
        assert await files.take_alone(db, file)
        noted = [f.says for f in await examined(database_url) if f.about in {"files", "quarantine"}]
        assert noted == others
        await files.give_back(db, file)
    noted = [f.says for f in await examined(database_url) if f.about in {"files", "quarantine"}]
    assert noted == [begun, *others]


async def test_receipts_that_lack_a_number_or_a_sender_are_noted_with_all_that_may_name_it(service, database_url):
    for lacking in ("number", "sender"):
        named = {key: value for key, value in DEACTIVATED.items() if key != lacking} | {"message_id": lacking}
        assert (await service.client.post("/v1/receipts/native", json=named)).status_code == 200
    (finding,) = [f for f in await examined(database_url) if f.about == "receipts"]
    assert finding.says == "2 wait for the register to name their number or sender, the oldest for 0 min"
    assert finding.mend == "post what is sent to /v1/messages, or set `sender` for a gateway that names none"


TELNYX = {"lookup": {"providers": ["telnyx"], "telnyx": {"api_key": "KEY"}, "budget_per_day": "2.50"}}
DUE = "INSERT INTO lookups (number, reason, cause, asked_at, due_at) SELECT '+15555550001', 'x', '{}', now(), now() - "
HEARD = """
INSERT INTO lookup_answers (number, asked_at, provider, outcome, detail, price, config)
SELECT '+15555550001', clock_timestamp() - make_interval(mins => n), 'telnyx', 'provider_error', '', 0, ''
FROM generate_series(1, 5) AS n
"""


async def on_lookups(url: str, **given) -> list[Finding]:
    return [finding for finding in await examined(url, **TELNYX | given) if finding.about == "lookups"]


@pytest.mark.usefixtures("service")
async def test_lookups_that_are_well_are_told_with_what_was_spent(database_url):
    await run_sql(database_url, "INSERT INTO lookup_days SELECT (now() AT TIME ZONE 'UTC')::date, 0.75",
                  DUE + "interval '1 minute'")  # fmt: skip
    assert await on_lookups(database_url) == [
        Finding("ok", "lookups", "1 are due, the oldest for 1 min"),
        Finding("ok", "lookups", "0.75 of today's 2.50 spent, 1.75 left"),
    ]


@pytest.mark.usefixtures("service")
async def test_lookups_that_wait_too_long_or_for_the_budget_are_noted(database_url):
    await run_sql(database_url, DUE + "interval '3 hours'", "UPDATE lookups SET waiting_for = 'budget'")
    late, _, unpaid = await on_lookups(database_url)
    assert (late.level, late.says, bool(late.mend)) == ("note", "1 are due, the oldest for 3 h", True)
    assert (unpaid.level, unpaid.says, bool(unpaid.mend)) == ("note", "1 wait for the budget", True)
    finding, _ = await on_lookups(database_url, lookup={})
    assert finding == Finding("note", "lookups", "1 are due and nobody makes them", "name a provider under [lookup]")


@pytest.mark.usefixtures("service")
async def test_a_stopped_provider_is_wrong_once_and_says_how_it_is_resumed(database_url):
    await run_sql(database_url, "INSERT INTO lookup_stops VALUES ('telnyx', 'c', 'quota', '2026-01-02T03:04Z')",
                  "INSERT INTO alarms SELECT 'lookup_stopped', 'telnyx', now(), now(), 1")  # fmt: skip
    assert wrong(await examined(database_url, **TELNYX)) == [
        Finding(
            "wrong",
            "lookups",
            "telnyx refuses our account (quota) since 2026-01-02 03:04 UTC: it is not asked",
            "mend its key or pay its bill, then run `sendable lookup resume telnyx`",
        )
    ]


@pytest.mark.usefixtures("service")
async def test_a_provider_that_only_fails_is_wrong_and_one_that_answered_once_is_not(database_url):
    await run_sql(database_url, HEARD)
    (finding,) = wrong(await examined(database_url, **TELNYX))
    assert finding.says == "telnyx failed 5 times in 15 minutes and never answered, last with provider_error"
    await run_sql(
        database_url, "UPDATE lookup_answers SET outcome = 'not_found' WHERE asked_at < now() - interval '4 min'"
    )
    assert wrong(await examined(database_url, **TELNYX)) == []


LOGGING = {
    "log_statement": "none", "log_min_duration_statement": "-1", "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "0", "log_error_verbosity": "terse",
    "log_min_duration_sample": "-1", "log_transaction_sample_rate": "0", "log_destination": "stderr",
    "log_min_messages": "warning", "us": '"an app"',
}  # fmt: skip
NUMBERS_IN_THE_LOG = {
    "log_parameter_max_length =  0": {"log_transaction_sample_rate": "0.01"},
    "log_parameter_max_length  =  0": {"log_min_duration_sample": "100"},
    "log_parameter_max_length = 0": {"log_statement": "all"},
    "log_parameter_max_length  = 0": {"log_min_duration_statement": "200"},
    "log_parameter_max_length_on_error = 0": {"log_parameter_max_length_on_error": "-1"},
    "auto_explain.log_parameter_max_length = 0": {"auto_explain.log_min_duration": "0"},
    "pgaudit.log_parameter = off": {"pgaudit.log_parameter": "on"},
}


@pytest.mark.parametrize(("mend", "shown"), NUMBERS_IN_THE_LOG.items())
def test_settings_by_which_postgres_writes_numbers_are_wrong(mend, shown):
    (finding,) = server._logging(LOGGING | shown)
    assert (finding.level, finding.mend) == ("wrong", f"set {' '.join(mend.split())}")


def test_settings_by_which_postgres_writes_no_number_are_fine():
    assert list(server._logging(LOGGING)) == []
    assert list(server._logging(LOGGING | {"log_statement": "all", "log_parameter_max_length": "0"})) == []


def test_postgres_as_it_is_delivered_may_quote_a_number_in_an_error():
    (finding,) = server._logging(LOGGING | {"log_error_verbosity": "default"})
    assert finding.level == "note"


@pytest.mark.parametrize("written", ["csvlog", "stderr,jsonlog"])
def test_logs_in_csv_and_json_hold_the_detail_of_an_error_also_where_it_is_terse(written):
    (finding,) = server._logging(LOGGING | {"log_destination": written})
    assert (finding.level, finding.about) == ("note", "database log")
    assert finding.mend == "let an administrator run: ALTER ROLE \"an app\" SET log_min_messages = 'log'"
    assert list(server._logging(LOGGING | {"log_destination": written, "log_min_messages": "log"})) == []


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_database_that_may_lose_commits_is_wrong(setting):
    (finding,) = server._durable({setting: "off"})
    assert finding.mend == f"set {setting} = on"


def test_each_alarm_that_a_rule_can_raise_says_how_it_is_mended():
    raising = {reason for reason, rule in load_policy().rules.items() if rule.alarm}
    assert raising <= _MENDS.keys(), raising - _MENDS.keys()


async def test_the_operators_page_names_every_metric_and_no_other(start):
    page = (Path(__file__).parents[1] / "docs" / "operating.md").read_text()
    section = page.partition("## Probes and metrics")[2].partition("\n## ")[0]
    async with start(lookup={"providers": ["demo"], "budget_per_day": "1"}) as service:
        text = (await service.client.get("/metrics")).text
    kinds = re.findall(r"^# TYPE (sendable_\w+) (\w+)$", text, re.MULTILINE)
    there = {name for name, _ in kinds if not name.endswith(("_created", "_oldest_seconds"))}
    assert {*re.findall(r"sendable_\w+", section)} == there


def test_the_operators_page_names_every_finding_of_the_doctor():
    page = (Path(__file__).parents[1] / "docs" / "operating.md").read_text()
    for about in ("settings", "auth", "gateways", "lookups", "disk", "database", "clock", "schema", "rights", "reader",
                  "partitions", "left open", "alarm", "files", "held numbers", "unread", "receipts", "refused",
                  "database log"):  # fmt: skip
        assert f"`{about}`" in page, about
