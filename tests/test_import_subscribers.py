"""Whole lists of opt-ins: as a file or a call, by the rules of a single one, and however often they are stopped."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import database, subscribers, upkeep
from app.services.migrate import upgrade
from app.services.roster import Given, NotARoster, Roster, Usual, Wrong
from tests.conftest import Service
from tests.running import environment, sendable

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SPRING = "/v1/senders/12345/lists/spring/subscribers"
HEADING = "number,consented_at,source,evidence\n"
CSV = {"content-type": "text/csv"}


def number(place: int) -> str:
    return f"+1415{place:07}"


def lines(*places: int, at: str = "2026-03-02T09:15:00Z") -> str:
    return "".join(f"{number(place)},{at},web form,form {place}\n" for place in places)


async def upload(service: Service, body: str | bytes, **more: Any) -> Any:
    answer = await service.client.post(SPRING, content=body, headers=CSV | more.pop("headers", {}), params=more)
    assert answer.status_code == 200, answer.text
    return answer.json()


# Reading, purely ---------------------------------------------------------------------------------------------------


def read(text: str | bytes, usual: Usual | None = None, *, parts: int = 1_000_000) -> list[Given | Wrong]:
    roster = Roster(usual or Usual("12345", "spring"), NOW)
    raw = text.encode() if isinstance(text, str) else text
    told = [one for start in range(0, len(raw), parts) for one in roster.read(raw[start : start + parts])]
    return [*told, *roster.end()]


def test_a_csv_and_ndjson_say_the_same_whatever_the_order_of_columns() -> None:
    table = "Source; Consented_At;number;evidence;more\nweb form;2026-03-02T09:15:00Z;(415) 555-0001;form 7;x\n"
    objects = '{"number": 4155550001, "consented_at": "2026-03-02T10:15:00+01:00", "source": "web form",'
    objects += ' "evidence": "form 7"}'
    (from_table,), (from_object,) = read("\ufeff" + table), read(objects)
    assert isinstance(from_table, Given)
    assert isinstance(from_object, Given)
    assert from_table[1:] == from_object[1:]
    assert from_table.place == ("+14155550001", "12345", "spring")
    assert (from_table.line, from_object.line) == (2, 1)


def test_a_line_names_its_own_sender_and_list_where_they_are_not_given() -> None:
    text = "number,consented_at,source,sender,list\n+14155550001,2026-03-02T09:15:00Z,x,AcmeCo,fall\n"
    for usual in (Usual(), Usual("12345", "spring")):
        (one,) = read(text, usual)
        assert isinstance(one, Given)
        assert one.place[1:] == ("acmeco", "fall")
    (wrong,) = read(text, Usual("12345", "spring", only=True))
    assert isinstance(wrong, Wrong)
    assert wrong.detail.startswith("sender: another one")


@pytest.mark.parametrize(("line", "mend"), [
    ("12,2026-03-02T09:15:00Z,x,", "not a possible phone number: give it as E.164"),
    (",2026-03-02T09:15:00Z,x,", "number: missing"),
    ("+14155550001,2026-03-02,x,", "consented_at: give a time with its zone, for example"),
    ("+14155550001,2026-03-02T09:15:00,x,", "consented_at: give a time with its zone, for example"),
    ("+14155550001,1767225600,x,", "consented_at: give a time with its zone, for example"),
    ("+14155550001,2026-11-22T09:15:00Z,x,", "consented_at: lies ahead"),
    ("+14155550001,2026-03-02T09:15:00Z,,", "source: missing"),
    ("+14155550001,2026-03-02T09:15:00Z,x", "3 cells where the heading has 4"),
    ('+14155550001,2026-03-02T09:15:00Z,"x,', "a quote is not closed"),
    ("+14155550001,2026-03-02T09:15:00Z,x," + "y" * 9_000, "longer than 8192 bytes"),
    ("+14155550001,2026-03-02T09:15:00Z,x," + "y" * 2_000, "evidence:"),
])  # fmt: skip
def test_a_wrong_line_is_told_with_its_number_and_how_to_mend_it(line: str, mend: str) -> None:
    text = HEADING + lines(1) + line + "\n\n" + lines(2)
    for parts in (7, 1_000_000):
        first, wrong, last = read(text, parts=parts)
        assert isinstance(wrong, Wrong)
        assert wrong.line == 3
        assert wrong.detail.startswith(mend) or mend in wrong.detail
        assert "4155550001" not in wrong.detail
        assert (first.line, last.line) == (2, 5)


def test_bytes_that_are_no_text_and_lines_that_are_no_json_are_wrong_lines() -> None:
    (wrong,) = read(HEADING.encode() + b"+14155550001,2026-03-02T09:15:00Z,caf\xe9,\n")
    assert wrong == (2, "not UTF-8: save the file as UTF-8")
    good = '{"number": "+14155550001", "consented_at": "2026-03-02T09:15:00Z", "source": "x"}\n'
    assert [one for one in read(good + "{broken\n[1]\n" + good) if isinstance(one, Wrong)] == [
        (2, "not JSON: write one object a line"), (3, "not a JSON object: write one a line"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["+14155550001,2026-03-02T09:15:00Z\n", "number,source\n", "number,consented_at,number\n"]
)
def test_a_heading_that_is_none_ends_it_at_once(text: str) -> None:
    with pytest.raises(NotARoster, match="the first line names"):
        read(text)


# By call -----------------------------------------------------------------------------------------------------------


async def test_a_list_is_uploaded_and_each_line_acts_as_an_opt_in_of_its_own(service: Service) -> None:
    single = {"consented_at": "2026-03-02T09:15:00Z", "source": "web form", "evidence": "form 1"}
    await service.client.put(f"{SPRING}/{number(1)}", json=single)
    told = await upload(service, HEADING + lines(2, 3) + "12,,,\n" + lines(4))
    assert told == {"lines": 3, "opted_in": 3, "already": 0, "refused": 0, "reasons": {}, "wrong": 1,
                    "errors": [{"line": 4, "detail": told["errors"][0]["detail"]}]}  # fmt: skip
    items = (await service.client.get(SPRING)).json()["items"]
    assert [(one["number"], one["sendable"], one["at"]) for one in items] == [
        (number(place), True, "2026-03-02T09:15:00Z") for place in (1, 2, 3, 4)
    ]
    by_number: dict[str, list[Any]] = {}
    for change in (await service.client.get("/v1/changes")).json()["items"]:
        told_of = {k: change[k] for k in ("kind", "from", "to", "reason", "occurred_at", "cause")}
        told_of["cause"]["evidence"] = told_of["cause"]["evidence"].split()[0]
        by_number.setdefault(change["number"], []).append(told_of)
    assert by_number[number(2)] == by_number[number(3)] == by_number[number(1)]


async def test_the_same_file_twice_changes_nothing(service: Service) -> None:
    body = HEADING + lines(*range(1, 50))
    await upload(service, body)
    before = await service.sql("SELECT number, facts::text, xmin::text FROM subscriptions ORDER BY 1")
    told = await upload(service, gzip.compress(body.encode()), headers={"content-encoding": "gzip"})
    assert (told["opted_in"], told["already"]) == (0, 49)
    assert await service.sql("SELECT number, facts::text, xmin::text FROM subscriptions ORDER BY 1") == before
    assert await service.sql("SELECT count(*) FROM changes WHERE kind = 'list.opted_in'") == [(49,)]
    assert await service.sql("SELECT (SELECT count(*) FROM imports), (SELECT count(*) FROM import_lines)") == [(0, 0)]


async def test_nobody_who_opted_out_later_is_subscribed_again(service: Service) -> None:
    await upload(service, HEADING + lines(1, 2, 3))
    await service.client.delete(f"{SPRING}/{number(1)}", params={"at": "2026-04-01T00:00:00Z"})
    gone = {"message_id": "g", "number": number(2), "sender": "12345", "status": "undeliverable", "code": "3041"}
    await service.client.post("/v1/receipts/native", json=gone | {"occurred_at": "2026-04-01T00:00:00Z"})
    told = await upload(service, HEADING + lines(1, 2, 3))
    assert (told["already"], told["refused"], told["reasons"]) == (1, 2, {"deactivated": 1, "unsubscribed": 1})
    assert await service.sql("SELECT number FROM published.sendable") == [(number(3),)]
    told = await upload(service, HEADING + lines(1, at="2026-04-02T00:00:00Z"))
    assert (told["opted_in"], told["refused"]) == (1, 0)


async def test_a_recycled_number_comes_back_for_the_list_of_the_file_alone(service: Service) -> None:
    await upload(service, HEADING + lines(1))
    single = {"consented_at": "2026-03-02T09:15:00Z", "source": "web form"}
    await service.client.put(f"/v1/senders/12345/lists/fall/subscribers/{number(1)}", json=single)
    gone = {"message_id": "g", "number": number(1), "sender": "12345", "status": "undeliverable", "code": "3041"}
    await service.client.post("/v1/receipts/native", json=gone | {"occurred_at": "2026-04-01T00:00:00Z"})
    await upload(service, HEADING + lines(1, at="2026-06-01T00:00:00Z"))
    told = (await service.client.get(f"/v1/numbers/{number(1)}")).json()
    assert {one["list"]: one["sendable"] for one in told["lists"]} == {"spring": True, "fall": False}
    assert await service.sql("SELECT list FROM published.sendable") == [("spring",)]


async def test_a_dry_run_says_the_same_and_leaves_no_trace(service: Service) -> None:
    await upload(service, HEADING + lines(1, 2))
    await service.client.delete(f"{SPRING}/{number(1)}", params={"at": "2026-04-01T00:00:00Z"})
    before = await service.sql("SELECT (SELECT count(*) FROM numbers), (SELECT max(seq) FROM changes)")
    body = HEADING + lines(1, 2, 3) + "nonsense,,,\n"
    dry = await upload(service, body, dry_run="true")
    assert (dry["opted_in"], dry["already"], dry["refused"], dry["wrong"]) == (1, 1, 1, 1)
    assert await service.sql("SELECT (SELECT count(*) FROM numbers), (SELECT max(seq) FROM changes)") == before
    assert await upload(service, body) == dry


@pytest.mark.parametrize(("body", "headers", "status", "says"), [
    (b"", {}, 422, "the body is empty"),
    (b"number,consented_at\n12,x\n", {}, 422, "no line is an opt-in"),
    (b"a,b\n1,2\n", {}, 422, "the first line names no column"),
    (b"no gzip", {"content-encoding": "gzip"}, 400, "Content-Encoding"),
    (gzip.compress(HEADING.encode() + lines(*range(9_000)).encode())[:-50], {"content-encoding": "gzip"}, 400,
     "Content-Encoding"),
])  # fmt: skip
async def test_a_body_that_cannot_be_taken_acts_on_nobody_and_leaves_nothing(
    service: Service, body: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    answer = await service.client.post(SPRING, content=body, headers=CSV | headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]
    assert await service.sql("SELECT id::text FROM imports UNION SELECT number FROM import_lines") == []
    assert await service.sql("SELECT number FROM subscriptions") == []


async def test_of_endless_wrong_lines_all_are_counted_and_the_first_are_named(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers, "ERRORS_TOLD", 3)
    told = await upload(service, HEADING + "12,,,\n" * 10 + lines(1))
    assert (told["lines"], told["wrong"]) == (1, 10)
    assert [error["line"] for error in told["errors"]] == [2, 3, 4]


async def test_a_body_beyond_the_limit_is_413(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.routers.subscribers.MOST", 1_000)
    answer = await service.client.post(SPRING, content=HEADING + lines(*range(100)), headers=CSV)
    assert answer.status_code == 413
    assert await service.sql("SELECT count(*) FROM subscriptions") == [(0,)]


# However often it is stopped ---------------------------------------------------------------------------------------


async def parts_of(body: str, size: int, fail_after: int | None = None) -> AsyncIterator[bytes]:
    raw = body.encode()
    for place, start in enumerate(range(0, len(raw), size)):
        if place == fail_after:
            raise KeyboardInterrupt
        yield raw[start : start + size]


def roster() -> Roster:
    return Roster(Usual("12345", "spring"), datetime.now(UTC))


async def test_what_was_read_before_a_stop_is_not_read_into_the_database_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while reading, then while applying: every line acts once, and the whole is counted."""
    monkeypatch.setattr(subscribers, "AT_ONCE", 100)
    engine: AsyncEngine = service.app.state.engine
    policy, name, body = service.app.state.meaning.policy, uuid4(), HEADING + lines(*range(1_000))
    with pytest.raises(KeyboardInterrupt):
        await subscribers.take(engine, name, parts_of(body, 4_000, 6), roster(), policy=policy)
    ((staged,),) = await service.sql("SELECT count(*) FROM import_lines")
    assert 0 < staged < 1_000
    applied = 0

    def stop(_: int) -> None:
        nonlocal applied
        applied += 1
        if applied == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await subscribers.take(engine, name, parts_of(body, 4_000), roster(), policy=policy,
                               watch=subscribers.Watch(applied=stop))  # fmt: skip
    assert await service.sql("SELECT count(*) FROM import_lines") == [(700,)]
    told = await subscribers.take(engine, name, parts_of(body, 4_000), roster(), policy=policy)
    assert (told.lines, told.outcomes) == (1_000, {"opted_in": 1_000})
    assert await service.sql("SELECT count(*), count(DISTINCT number) FROM changes WHERE kind = 'list.opted_in'") == [
        (1_000, 1_000)
    ]


async def test_of_two_that_import_the_same_file_at_once_the_last_tells_all_that_came_of_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers, "AT_ONCE", 100)
    engine: AsyncEngine = service.app.state.engine
    policy, name, body = service.app.state.meaning.policy, uuid4(), HEADING + lines(*range(1_000))

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await subscribers.take(engine, name, parts_of(body, 4_000), roster(), policy=policy,
                               watch=subscribers.Watch(applied=stop))  # fmt: skip

    async def go_on() -> tuple[subscribers.Told | subscribers.Elsewhere, int]:
        try:
            told: Any = await subscribers.take(engine, name, parts_of(body, 4_000), roster(), policy=policy)
        except subscribers.Elsewhere as error:
            told = error
        ((waiting,),) = await service.sql("SELECT count(*) FROM import_lines")
        return told, waiting

    ended = await asyncio.gather(go_on(), go_on())
    assert [waiting for _, waiting in ended] == [0, 0]
    (other,) = [one for one, _ in ended if isinstance(one, subscribers.Elsewhere)]
    assert "tells" in str(other)
    assert [one.outcomes for one, _ in ended if isinstance(one, subscribers.Told)] == [{"opted_in": 1_000}]


def written(path: Path, body: Iterable[str]) -> Path:
    path.write_text(HEADING + "".join(body))
    return path


async def imported(file: Path, *more: str, url: str) -> Any:
    said = await sendable("import", "subscribers", str(file), "--sender", "12345", "--list", "spring", "--json", *more,
                          database_url=url)  # fmt: skip
    assert said.code == 0, said.err
    return json.loads(said.out), said.err


async def test_a_file_is_imported_by_command_and_its_wrong_lines_are_told(
    tmp_path: Path, service: Service, database_url: str
) -> None:
    packed = tmp_path / "people.csv.gz"
    packed.write_bytes(gzip.compress((HEADING + lines(1, 2) + "12,,,\n" * 30).encode()))
    dry, _ = await imported(packed, "--dry-run", url=database_url)
    assert await service.sql("SELECT count(*) FROM subscriptions") == [(0,)]
    told, err = await imported(packed, "--errors", str(tmp_path / "wrong.csv"), url=database_url)
    assert told == dry
    assert (told["opted_in"], told["wrong"]) == (2, 30)
    assert err.splitlines()[0].startswith("line 4: ")
    assert "10 wrong lines more" in err
    rows = [*csv.reader((tmp_path / "wrong.csv").read_text().splitlines())]
    assert (rows[0], rows[-1][0], len(rows)) == (["line", "detail"], "33", 31)


async def test_a_file_that_is_none_ends_with_one_line_that_says_why(tmp_path: Path, database_url: str) -> None:
    for name, content, says in (("a.csv", b"a,b\n", "names no column `number`"),
                                ("b.gz", gzip.compress(lines(*range(99)).encode())[:-20], "b.gz: ")):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        said = await sendable("import", "subscribers", str(tmp_path / name), "--sender", "1234", "--list", "x",
                              database_url=database_url)  # fmt: skip
        assert said.code in {1, 2}
        assert says in said.err
        assert said.err.count("\n") == 1


async def test_wrong_lines_are_not_written_over_the_file_itself(tmp_path: Path, database_url: str) -> None:
    file, same = written(tmp_path / "people.csv", lines(1)), tmp_path / "same.csv"
    same.symlink_to(file)
    for errors in (file, same):
        said = await sendable("import", "subscribers", str(file), "--errors", str(errors), database_url=database_url)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("sendable: --errors names the very file that is to be read: name another one")
    assert file.read_text() == HEADING + lines(1)


async def test_an_import_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, service: Service, database_url: str
) -> None:
    many = 30_000
    file = written(tmp_path / "people.csv", (lines(place) for place in range(many)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "import", "subscribers", str(file), "--sender", "12345", "--list", "spring",
        env=environment(database_url=database_url), stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    while await service.sql("SELECT count(*) FROM changes") == [(0,)]:
        assert process.returncode is None
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    ((done,),) = await service.sql("SELECT count(*) FROM subscriptions")
    assert 0 < done < many
    told, _ = await imported(file, url=database_url)
    assert (told["lines"], told["opted_in"], told["already"]) == (many, many, 0)
    assert await service.sql("SELECT count(*) FROM changes WHERE kind = 'list.opted_in'") == [(many,)]
    again, _ = await imported(file, url=database_url)
    assert (again["opted_in"], again["already"]) == (0, many)
    assert await service.sql("SELECT count(*) FROM changes WHERE kind = 'list.opted_in'") == [(many,)]


async def test_an_import_that_loses_the_embedded_server_with_its_owner_is_told_to_run_again(
    tmp_path: Path, own_dir: Path
) -> None:
    file, data = written(tmp_path / "people.csv", map(lines, range(10))), str(own_dir)
    command = "import", "subscribers", str(file), "--sender", "12345", "--list", "spring"
    async with database.serving(own_dir) as url:
        await upgrade(url)
        holder = await asyncpg.connect(url.replace("+asyncpg", ""))
        await holder.execute("BEGIN; LOCK TABLE imports")
        importing = asyncio.create_task(sendable(*command, data_dir=data))
        while not await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not importing.done()
    holder.terminate()
    said = await importing
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith("the embedded PostgreSQL ends with the process that started it: run the command again\n")
    assert (await sendable(*command, data_dir=data)).code == 0


async def test_what_a_file_costs_in_memory_does_not_grow_with_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one group of lines is ever held: a reader that is asked for more has given the others away."""
    monkeypatch.setattr(subscribers, "AT_ONCE", 500)
    held: list[int] = []
    stage = subscribers._stage

    async def staging(engine: AsyncEngine, import_: Any, group: Any, staged: int) -> int:
        held.append(len(group))
        return await stage(engine, import_, group, staged)

    monkeypatch.setattr(subscribers, "_stage", staging)
    policy, body = service.app.state.meaning.policy, HEADING + lines(*range(5_000))
    await subscribers.take(service.app.state.engine, uuid4(), parts_of(body, 10_000), roster(), policy=policy)
    assert (sum(held), max(held)) == (5_000, 500)


async def test_imports_that_nobody_goes_on_with_are_forgotten(service: Service) -> None:
    old = datetime.now(UTC) - timedelta(days=8)
    await service.sql("INSERT INTO imports (id, touched_at) VALUES (gen_random_uuid(), :old) RETURNING 1", old=old)
    await service.sql(
        "INSERT INTO import_lines SELECT id, 2, '+14155550001', '1', 'x', now(), 'x' FROM imports RETURNING 1"
    )
    await upkeep.keep_house(service.app.state.engine, service.app.state.settings, datetime.now(UTC))
    assert await service.sql("SELECT (SELECT count(*) FROM imports), (SELECT count(*) FROM import_lines)") == [(0, 0)]


async def test_an_import_that_goes_on_later_reads_every_line_as_it_did_when_it_began(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that lay ahead of the clock was left out then, and would be missing in silence now."""
    monkeypatch.setattr(subscribers, "AT_ONCE", 10)
    engine, policy, name = service.app.state.engine, service.app.state.meaning.policy, uuid4()
    begun = datetime.now(UTC) - timedelta(hours=1)
    ahead = lines(0, at=(begun + timedelta(minutes=30)).isoformat())
    body, first = HEADING + ahead + lines(*range(1, 100)), Roster(Usual("12345", "spring"), begun)
    with pytest.raises(KeyboardInterrupt):
        await subscribers.take(engine, name, parts_of(body, 1_000, 4), first, policy=policy)
    told = await subscribers.take(engine, name, parts_of(body, 1_000), roster(), policy=policy)
    assert (told.lines, told.outcomes, [one.line for one in told.errors]) == (99, {"opted_in": 99}, [2])


async def test_an_import_of_which_a_kill_left_the_lines_alone_begins_anew(service: Service) -> None:
    """As when it had been forgotten, and its lines not yet."""
    engine, policy, name = service.app.state.engine, service.app.state.meaning.policy, uuid4()
    await service.sql(
        "INSERT INTO import_lines SELECT :name, 2, :who, '12345', 'old', now(), 'x'", name=name, who=number(1)
    )
    told = await subscribers.take(engine, name, parts_of(HEADING + lines(1), 1_000), roster(), policy=policy)
    assert (told.lines, told.outcomes) == (1, {"opted_in": 1})
    assert await service.sql("SELECT list FROM subscriptions") == [("spring",)]


async def test_an_import_that_somebody_goes_on_with_is_not_forgotten_however_long_ago_it_began(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers, "AT_ONCE", 10)
    engine, policy, name = service.app.state.engine, service.app.state.meaning.policy, uuid4()
    body = HEADING + lines(*range(100))
    for stopped_after in (4, 1):  # the second time before there is any new line
        with pytest.raises(KeyboardInterrupt):
            await subscribers.take(engine, name, parts_of(body, 1_000, stopped_after), roster(), policy=policy)
        if stopped_after == 4:
            ((staged,),) = await service.sql("SELECT count(*) FROM import_lines")
            assert 0 < staged < 100
            await service.sql("UPDATE imports SET touched_at = now() - interval '8 days' RETURNING 1")
    await upkeep.keep_house(engine, service.app.state.settings, datetime.now(UTC))
    assert await service.sql("SELECT count(*) FROM import_lines") == [(staged,)]
    told = await subscribers.take(engine, name, parts_of(body, 1_000), roster(), policy=policy)
    assert told.outcomes == {"opted_in": 100}
