"""What is asked again and again is answered from an index, however many numbers there are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from app.services import erase, past, reading, reconcile, reports, standing, upkeep
from app.services.lookup import claims
from tests.conftest import Service

MANY = """INSERT INTO numbers (number, state, waiting_for, changed_at, facts)
    SELECT '+1' || 2012000000 + i, CASE WHEN i % 20 = 0 THEN 'held' ELSE 'active' END,
           CASE WHEN i % 20 = 0 THEN 'lookup' END, now(), to_json(repeat('fact ', 100))
    FROM generate_series(1, 20000) AS i"""
LATER = """INSERT INTO lookups (number, reason, cause, asked_at, due_at)
    SELECT '+1' || 2012000000 + i, 'carrier_unknown', '{}', now(), now() + i * interval '1 minute'
    FROM generate_series(1, 20000) AS i"""
HISTORY = """INSERT INTO changes (number, kind, before, after, reason, cause, occurred_at, committed_at)
    SELECT '+1' || 2012000000 + i, CASE i % 20 WHEN 0 THEN 'list.opted_out' ELSE 'number.state' END, 'opted_in', '',
           'opted_out', '{}', now() - i * interval '1 minute', now()
    FROM generate_series(1, 20000) AS i"""


async def plan(service: Service, statement: str, **values: object) -> str:
    """How PostgreSQL goes about it, of tables that it knows well."""
    for table in ("numbers", "lookups", "changes", "messages", "receipts", "subscriptions"):
        await service.sql(f"VACUUM ANALYZE {table}")
    return "\n".join(line for (line,) in await service.sql(f"EXPLAIN {statement}", **values))


def filled(statement: str, *values: object) -> str:
    return re.sub(r"\$(\d)", lambda place: str(values[int(place[1]) - 1]), statement)


@pytest.mark.parametrize(("rows", "statement", "found"), [
    (MANY, filled(upkeep._LAPSED, "now()", 5_000), "numbers_until on numbers .*\n *Index Cond: .until <="),
    (LATER, filled(claims._CLAIM, 64, 30), "lookups_due_at on lookups .*\n *Index Cond: .due_at <="),
    (MANY, standing._HELD.text, "Index Only Scan using numbers_held"),
])  # fmt: skip
async def test_what_runs_all_the_time_reads_no_more_than_it_finds(
    service: Service, rows: str, statement: str, found: str
) -> None:
    await service.sql(rows)
    assert re.search(found, await plan(service, statement))


SENT = """INSERT INTO messages (gateway, account, message_id, number, sender, sent_at, registered_at)
    SELECT 'twilio', '', 'SM' || 10000 + i, '+15555551234', '12345', now() - interval '1 day', now()
    FROM generate_series(1, 20000) AS i"""
CAME = """INSERT INTO receipts (received_at, key, gateway, account, message_id, status)
    SELECT now() - interval '1 hour', gen_random_uuid(), 'twilio', '', 'SM' || 10000 + i, 'delivered'
    FROM generate_series(1, 20000) AS i WHERE i % 100 <> 0"""


async def test_a_claim_of_missed_receipts_goes_on_in_the_receipts_where_the_last_one_ended(service: Service) -> None:
    await service.sql(SENT)
    await service.sql(CAME)
    now, again = "clock_timestamp()", "'6 hours'"
    values = ("'twilio'", "''", "'SM25000'", now, again, "'{delivered}'", "now() - interval '28 days'", again, 8)
    assert "message_id > 'SM25000'" in re.split("receipts", await plan(service, filled(reconcile._CLAIM, *values)))[-1]


async def test_who_is_named_as_anybodys_new_number_is_looked_for_in_the_order_of_the_disk(service: Service) -> None:
    await service.sql(MANY)
    assert "Seq Scan on numbers" in await plan(service, filled(erase._HINTED, "'+15555551234'"))


LISTED = """INSERT INTO subscriptions (number, sender, list, facts, consent, at)
    SELECT '+1' || 2012000000 + i, '12345', 'spring', '[]', 'opted_in', now() FROM generate_series(1, 20000) AS i"""


async def test_the_few_subscribers_of_a_state_are_found_without_judging_the_whole_list(service: Service) -> None:
    await service.sql(MANY)
    await service.sql(LISTED)
    wanted = {"state": "porting"}
    given = {**wanted, "sender": "12345", "list": "spring", "after": "", "limit": 101}
    assert "numbers_state" in await plan(service, reading._subscribers(wanted), **given)


TOLD = """INSERT INTO changes (number, kind, cause, occurred_at, committed_at)
    SELECT '+1201200000' || i, 'number.state', '{"kind": "file"}', now(), now()
    FROM unnest(ARRAY[1, 2, 3, 6, 8, 9]) AS i"""
HEARD = """INSERT INTO receipts (received_at, key, gateway, account, number, status)
    SELECT now(), gen_random_uuid(), 'native', '', '+1201200000' || i, 'delivered'
    FROM unnest(ARRAY[0, 4, 5, 6]) AS i"""


async def test_pages_of_receipts_and_of_files_leave_out_nobody_that_either_tells_of(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.sql(TOLD)
    await service.sql(HEARD)
    since = datetime.now(UTC) - timedelta(days=30)
    for size in (1, 2, 3, 20):
        monkeypatch.setattr(past, "AT_ONCE", size)
        async with past.looking(service.app.state.engine) as db:
            pages = [page async for page in past.heard_of(db, since)]
        assert [number for page in pages for number in page] == [f"+1201200000{i}" for i in (0, 1, 2, 3, 4, 5, 6, 8, 9)]
        assert max(map(len, pages)) <= size


async def test_a_report_reads_only_the_edges_of_its_time_in_the_history(service: Service) -> None:
    await service.sql(HISTORY)
    end = datetime.now(UTC)
    parts = reports._parts(reports.Frame(end - timedelta(days=5), end))
    assert "changes_opt_outs" in await plan(service, reports._OPT_OUTS.format(filters=""), **parts)


NOTED = """INSERT INTO numbers (number, state, reason, dead_since, noted_by)
    SELECT '+1' || 2013000000 + i, 'deactivated', 'deactivated', now(), 1 FROM generate_series(1, 60000) AS i"""


async def test_lists_are_sized_without_reading_numbers_or_subscribers_in_the_order_of_their_keys(
    service: Service,
) -> None:
    """On a table whose rows lie in another order, as those of two years do, that takes minutes."""
    for rows in (MANY, LISTED, NOTED):
        await service.sql(rows)
    assert not re.search(
        r"Index Scan using (numbers|subscriptions)_pkey", await plan(service, filled(reports._LISTS, "NULL"))
    )
