"""The published views: they say what HTTP says, and their reader reads nothing else."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from tests.conftest import Service, Start
from tests.number_steps import WHO, opt_in, post, receipt, status

PAGE = (Path(__file__).parents[1] / "docs" / "views.md").read_text()


async def every_state(service: Service) -> list[str]:
    """A number in each state there is, each opted in to two lists of one sender and one of another."""
    codes = {
        "active": "560", "held": "345", "porting": None, "suspended": None, "not_sms_capable": "629", "invalid": None,
        "deactivated": "3041", "reassigned": "3041", "stale": "341",
    }  # fmt: skip
    spaces = await reasons(service)
    numbers = {state: f"+1415555{place:04}" for place, state in enumerate(codes)}
    for state, number in numbers.items():
        await opt_in(service, number)
        await opt_in(service, number, name="summer")
        await opt_in(service, number, sender="67890", name="news")
        space, code = spaces.get(state, ("openmarket", codes[state]))
        await post(service, receipt(number, code=code, code_space=space))
    later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    await post(service, receipt(numbers["reassigned"], message_id="later", status="delivered", code=None, sent_at=later,
                                occurred_at=later))  # fmt: skip
    await opt_in(service, numbers["held"], name="autumn", days=-0.001)
    await service.client.delete(f"/v1/senders/12345/lists/summer/subscribers/{numbers['active']}")
    lapsed, almost_over = "+14155559999", datetime.now(UTC) - timedelta(days=29, hours=23)
    await opt_in(service, lapsed, days=60)
    space, code = spaces["suspended"]
    await post(service, receipt(lapsed, code=code, code_space=space,
                                occurred_at=almost_over.isoformat()))  # fmt: skip
    return [*numbers.values(), lapsed]


async def reasons(service: Service) -> dict[str, tuple[str, str]]:
    """A code for those states that the OpenMarket space has none for."""
    wanted = {"porting": "porting_in_progress", "suspended": "suspended", "invalid": "invalid_number"}
    found = {}
    for state, reason in wanted.items():
        rows = await service.sql(
            "SELECT space, code FROM published.codes WHERE reason = :reason LIMIT 1", reason=reason
        )
        found[state] = (rows[0][0], rows[0][1])
    return found


async def test_the_views_say_what_http_says_in_every_state(start: Start) -> None:
    async with start(lookup={}) as service:
        numbers = await every_state(service)
        told = {number: await status(service, number) for number in numbers}
        assert {one["state"] for one in told.values()} >= {
            "active", "held", "porting", "suspended", "not_sms_capable", "invalid", "deactivated", "reassigned",
        }  # fmt: skip
        await agree(service, told)
        # The suspension lapses: nothing ran, only time went by.
        await service.sql(
            "WITH moved AS (UPDATE numbers SET until = until - interval '2 days', steps = jsonb_set(steps, '{0,until}',"
            " to_jsonb((steps #>> '{0,until}')::timestamptz - interval '2 days')) WHERE number = '+14155559999'"
            " RETURNING 1) SELECT count(*) FROM moved"
        )
        after = await status(service, "+14155559999", sender="12345", list="spring")
        assert (after["state"], after["decision"]["sendable"], after["until"]) == ("active", True, None)
        assert after["changed_at"] < told["+14155559999"]["until"]
        await agree(service, told | {"+14155559999": await status(service, "+14155559999")})


async def agree(service: Service, told: dict[str, Any]) -> None:
    shown = await service.sql(
        "SELECT number, state, sendable, reason, waiting_for, until, carrier, mcc, mnc, line_type, ported, changed_at"
        " FROM published.number_status"
    )
    for number, state, sendable, reason, waiting_for, until, carrier, mcc, mnc, line_type, ported, changed_at in shown:
        one = told[number]
        assert (state, sendable, reason, waiting_for) == (
            one["state"], one["sendable"], one["reason"], one["waiting_for"],
        )  # fmt: skip
        assert [until, changed_at] == [time(one["until"]), time(one["changed_at"])]
        network = one["carrier"] or {}
        assert (carrier, mcc, mnc, line_type, ported) == tuple(
            network.get(name) for name in ("name", "mcc", "mnc", "line_type", "ported")
        )
    assert {row[0] for row in shown} == set(told)
    lists = [(number, one) for number, answer in told.items() for one in answer["lists"]]
    may = {(number, one["sender"], one["list"]) for number, one in lists if one["sendable"]}
    assert may == set(await service.sql("SELECT number, sender, list FROM published.sendable"))
    out = {
        (number, one["sender"], one["list"], time(one["at"])) for number, one in lists if one["consent"] == "opted_out"
    }
    assert out == set(await service.sql("SELECT number, sender, list, at FROM published.opt_outs"))
    for sender in ("12345", "67890"):
        asked = {number: await status(service, number, sender=sender) for number in told}
        blocks = {number for number, one in asked.items() if one["sender"]["blocked"]}
        view = await service.sql("SELECT number FROM published.sender_blocks WHERE sender = :sender", sender=sender)
        assert blocks == {number for (number,) in view}


def time(text_: str | None) -> datetime | None:
    return None if text_ is None else datetime.fromisoformat(text_)


@pytest.mark.skipif("SENDABLE_TEST_DATABASE_URL" in os.environ, reason="another server asks the reader for a password")
async def test_the_reader_reads_the_views_and_nothing_else(service: Service, database_url: str) -> None:
    await post(service, receipt())
    tables = await service.sql(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'S')"
    )
    views = await service.sql("SELECT 'published.' || viewname FROM pg_views WHERE schemaname = 'published'")
    assert {name.partition(".")[2] for (name,) in views} == {
        "number_status", "sendable", "sender_blocks", "opt_outs", "changes", "codes",
    }  # fmt: skip
    reader = create_async_engine(make_url(database_url).set(username="sendable_reader"), isolation_level="AUTOCOMMIT")
    async with reader.connect() as db:
        for (view,) in views:
            await db.execute(text(f"SELECT * FROM {view}"))  # noqa: S608 - named by PostgreSQL
        for statement in [f"TABLE {table}" for (table,) in tables] + [
            "CREATE TABLE public.mine (a int)", "DELETE FROM published.codes", "SELECT * FROM pg_authid",
        ]:  # fmt: skip
            with pytest.raises(ProgrammingError, match="permission denied"):
                await db.execute(text(statement))
    await reader.dispose()


_LAPSES = """
DO $$ DECLARE lapse timestamptz = clock_timestamp(); BEGIN
    UPDATE numbers SET until = lapse, steps = jsonb_set(steps, '{0,until}', to_jsonb(lapse));
    ASSERT (SELECT array_agg(state) FROM published.number_status) = ARRAY['suspended'];
    ASSERT NOT EXISTS (SELECT FROM published.sendable);
END $$
"""


async def test_a_question_sees_one_moment_also_while_a_state_lapses(service: Service) -> None:
    """With a clock that runs on between two looks at one row, a number stood there twice: suspended, and active."""
    space, code = (await reasons(service))["suspended"]
    await opt_in(service)
    await post(service, receipt(code=code, code_space=space))
    await service.sql(_LAPSES)


# The page ----------------------------------------------------------------------------------------------------------


async def test_the_page_tells_every_column_of_every_view(service: Service) -> None:
    views = await service.sql(
        "SELECT table_name, array_agg(column_name::text ORDER BY column_name) FROM information_schema.columns"
        " WHERE table_schema = 'published' GROUP BY 1"
    )
    told = {}
    for name, table in re.findall(r"^`published\.(\w+)`:.*?\n\n\|.*?\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        cells = [line.split("|")[1] for line in table.splitlines()]
        told[name] = sorted(column for cell in cells for column in re.findall(r"`(\w+)`", cell))
    assert told == dict(views)


async def test_a_copy_by_the_statements_of_the_page_is_what_the_view_says(service: Service) -> None:
    whom, start, named, again = re.findall(r"```sql\n([^`]+published[^`]+)```", PAGE)
    await service.sql("CREATE TABLE people AS SELECT CAST(:phone AS text) AS phone", phone=WHO)
    await opt_in(service)
    begin, newest, everybody, _ = start.strip().split(";\n")
    assert begin.startswith("BEGIN")
    ((seq,),) = await service.sql(newest)
    copy = {*await service.sql(everybody)}
    assert copy == {(WHO, "12345", "spring")}
    await opt_in(service, name="summer")
    await service.client.delete(f"/v1/senders/12345/lists/spring/subscribers/{WHO}")
    numbers = [number for _, number in await service.sql(named, seq=seq)]
    assert numbers == [WHO] * 2
    copy = {row for row in copy if row[0] not in numbers} | {*await service.sql(again, numbers=numbers)}
    assert copy == {(WHO, "12345", "summer")}
    assert await service.sql(whom) == []
