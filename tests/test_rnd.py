"""The Reassigned Numbers Database: asked by its API or its files, each question kept, and a yes acted on."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import text

from app.config import Settings, SettingsError, read_settings
from app.lookups import rnd
from app.models.http import HttpAnswer
from tests.conftest import Service
from tests.locks import waiting
from tests.running import environment, sendable, until

WHO, OTHER = "+14155550001", "+14155550002"
OPTIONS = {"refresh_token": "a-refresh-token-for-tests", "company_id": "ACME"}
ASKED = rnd.Asked(WHO, date(2025, 3, 1))


# Reading, purely ---------------------------------------------------------------------------------------------------


def test_a_question_is_put_as_ten_digits_a_date_and_the_company() -> None:
    call = rnd.build([ASKED], "a-token", OPTIONS | {"base_url": "http://127.0.0.1:1/"})
    assert (call.url, call.headers) == ("http://127.0.0.1:1/api/tn", {"Authorization": "a-token"})
    assert call.json == {"tnList": [{"tn": "4155550001", "date": "2025-03-01", "companyId": "ACME"}]}
    assert rnd.sign_in(OPTIONS).url == "https://api.reassigned.us/b/public/api/idToken"


def reply(word: Any, tn: str = "4155550001", **more: str) -> HttpAnswer:
    said = {"tn": tn, "disconnected": word, "companyId": "ACME", "dateProvided": "2025-03-01"} | more
    return HttpAnswer(200, {}, json.dumps({"replies": [said]}).encode())


@pytest.mark.parametrize(
    ("word", "told"), [("yes", "yes"), ("No", "no"), ("no_data", "no_data"), ("No Data", "no_data")]
)
def test_an_answer_is_yes_no_or_no_data(word: str, told: str) -> None:
    assert rnd.read(reply(word), [ASKED]) == {ASKED: told}


@pytest.mark.parametrize("answer", [reply("maybe"), reply(None), reply("yes", "4155550009"),
                                    reply("yes", dateProvided="2024-01-01")])  # fmt: skip
def test_what_is_unclear_or_of_another_question_is_no_answer(answer: HttpAnswer) -> None:
    assert rnd.read(answer, [ASKED]) == {}


@pytest.mark.parametrize("answer", [HttpAnswer(401, {}, b"{}"), HttpAnswer(200, {}, b"<html>"),
                                    HttpAnswer(200, {}, b"[]"),
                                    HttpAnswer(200, {}, b"{}"), HttpAnswer(200, {}, b"{}", cut=True)])  # fmt: skip
def test_an_answer_that_cannot_be_used_says_why(answer: HttpAnswer) -> None:
    with pytest.raises(rnd.Unclear, match="asking: "):
        rnd.read(answer, [ASKED])


def test_one_number_with_two_dates_has_two_answers() -> None:
    later = rnd.Asked(WHO, date(2026, 3, 1))
    replies = [{"tn": "4155550001", "disconnected": word, "dateProvided": on}
               for word, on in (("yes", "2025-03-01"), ("no", "2026-03-01"))]  # fmt: skip
    answer = HttpAnswer(200, {}, json.dumps({"replies": replies}).encode())
    assert rnd.read(answer, [ASKED, later]) == {ASKED: "yes", later: "no"}


@pytest.mark.parametrize("line", ["4155550001,2025-03-01,yes", "2025-03-01,yes,(415) 555-0001",
                                  "14155550001,03/01/2025,YES,x",
                                  '"4155550001","20250301","Yes"'])  # fmt: skip
def test_a_line_that_came_back_is_known_by_its_looks(line: str) -> None:
    assert [*rnd.answers(["phone,date,answer\n", line + "\n"])] == [(2, ASKED, "yes")]
    assert [*rnd.answers([line])] == [(1, ASKED, "yes")]


def test_lines_that_say_nothing_are_told_with_what_they_lack() -> None:
    lines = ["4155550001,2025-03-01\n", "\n", "2025-03-01,yes\n", "4155550001,yes\n"]
    assert [(one.line, one.detail) for one in rnd.answers(lines)] == [
        (1, "the line has no answer (yes, no, no_data)"), (3, "the line has no number of ten digits"),
        (4, "the line has no date"),
    ]  # fmt: skip


@pytest.mark.parametrize("broken", ['"4155550009,2025-03-01,yes\n', '"' + "x" * 200_000 + "\n"])
def test_a_line_whose_quotation_marks_never_end_swallows_none_behind_it(broken: str) -> None:
    said = [*rnd.answers(["phone,date,answer\n", broken, "4155550001,2025-03-01,yes\n"])]
    assert said == [(2, "the line has no number of ten digits"), (3, ASKED, "yes")]


# Against a server --------------------------------------------------------------------------------------------------


class Database(ThreadingHTTPServer):
    """An HTTP server on loopback that answers as the database does. `words`: by ten digits and date. `go`: when."""

    def __init__(self, words: dict[tuple[str, str], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.words, self.asked, self.status = words, [], 200
        self.go = Event()
        self.go.set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    asked: list[tuple[str, str]]


class _Handler(BaseHTTPRequestHandler):
    server: Database

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/b/public/api/idToken":
            assert said == {"refreshToken": OPTIONS["refresh_token"]}
            self._answer(200, {"idToken": "an-id-token"})
            return
        assert (self.path, self.headers["authorization"]) == ("/api/tn", "an-id-token")
        pairs = [(one["tn"], one["date"]) for one in said["tnList"]]
        self.server.asked += pairs
        self.server.go.wait()
        self._answer(self.server.status, {"replies": [
            {"tn": tn, "dateProvided": on, "disconnected": self.server.words.get((tn, on), "no_data")}
            for tn, on in pairs]})  # fmt: skip

    def _answer(self, status: int, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def database() -> Any:
    server = Database({})
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def opt_in(service: Service, number: str, list_: str, at: str, sender: str = "12345") -> Any:
    path = f"/v1/senders/{sender}/lists/{list_}/subscribers/{number}"
    return await service.client.put(path, json={"consented_at": at, "source": "web form"})


def configured(folder: Path, database: Database) -> str:
    config = folder / "sendable.toml"
    config.write_text(f'[rnd]\nrefresh_token = "{OPTIONS["refresh_token"]}"\ncompany_id = "ACME"\n'
                      f'base_url = "{database.url}"\n')  # fmt: skip
    return str(config)


async def consents(service: Service, number: str = WHO) -> dict[str, tuple[str, bool, str | None]]:
    told = (await service.client.get(f"/v1/numbers/{number}")).json()
    assert {(one["sender"], one["list"]) for one in told["lists"] if one["sendable"]} == {
        *await service.sql("SELECT sender, list FROM published.sendable WHERE number = :n", n=number)
    }
    return {one["list"]: (one["consent"], one["sendable"], one["reason"]) for one in told["lists"]}


async def test_a_yes_makes_the_number_reassigned_and_ends_every_older_opt_in(
    tmp_path: Path, service: Service, database: Database, database_url: str
) -> None:
    await opt_in(service, WHO, "spring", "2025-03-01T15:00:00Z")
    await opt_in(service, WHO, "older", "2024-06-01T00:00:00Z", sender="67890")
    database.words["4155550001", "2025-03-01"] = "yes"
    said = await sendable("rnd", "check", WHO, "--list", "spring", "--json", database_url=database_url,
                          config=configured(tmp_path, database))  # fmt: skip
    assert said.code == 0, said.err
    (told,) = json.loads(said.out)
    assert (told["number"], told["consented_on"], told["answer"]) == (WHO, "2025-03-01", "yes")
    assert database.asked == [("4155550001", "2025-03-01")]
    shown = (await service.client.get(f"/v1/numbers/{WHO}")).json()
    assert (shown["state"], shown["sendable"], shown["reason"]) == ("reassigned", False, "reassigned")
    out = ("opted_out", False, "reassigned")
    assert await consents(service) == {"spring": out, "older": out}
    history = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()
    (check,) = history["checks"]
    assert (check["consented_on"], check["via"], check["answer"], check["detail"]) == ("2025-03-01", "api", "yes", None)
    assert abs(datetime.fromisoformat(check["asked_at"]) - datetime.now(UTC)) < timedelta(minutes=2)
    ended = [change for change in history["items"] if change["kind"] == "list.opted_out"]
    assert {change["cause"]["source"] for change in ended} == {"rnd"}
    assert "about 2025-03-01" in ended[0]["cause"]["evidence"]
    assert (await opt_in(service, WHO, "spring", "2025-03-01T23:00:00Z")).status_code == 409
    await opt_in(service, WHO, "spring", "2025-03-02T00:00:00Z")
    assert await consents(service) == {"spring": ("opted_in", True, None), "older": out}


async def test_a_yes_says_nothing_of_a_later_opt_in(
    tmp_path: Path, service: Service, database: Database, database_url: str
) -> None:
    await opt_in(service, WHO, "spring", "2025-03-01T15:00:00Z")
    await opt_in(service, WHO, "later", "2026-06-01T00:00:00Z")
    database.words = {("4155550001", "2025-03-01"): "yes", ("4155550001", "2026-06-01"): "no"}
    said = await sendable("rnd", "check", WHO, database_url=database_url, config=configured(tmp_path, database))
    assert said.code == 0, said.err
    assert await consents(service) == {"spring": ("opted_out", False, "reassigned"), "later": ("opted_in", True, None)}
    rows = await service.sql("SELECT consented_on::text, answer FROM rnd_checks ORDER BY 1")
    assert rows == [("2025-03-01", "yes"), ("2026-06-01", "no")]


@pytest.mark.parametrize("word", ["no", "no_data"])
async def test_another_answer_is_kept_and_changes_nothing(
    tmp_path: Path, service: Service, database: Database, database_url: str, word: str
) -> None:
    await opt_in(service, WHO, "spring", "2025-03-01T15:00:00Z")
    database.words["4155550001", "2025-03-01"] = word
    before = await service.sql("SELECT count(*) FROM changes")
    for _ in range(2):
        await sendable("rnd", "check", WHO, "--list", "spring", database_url=database_url,
                       config=configured(tmp_path, database))  # fmt: skip
    assert await service.sql("SELECT answer, via FROM rnd_checks") == [(word, "api")] * 2
    assert await service.sql("SELECT count(*) FROM changes") == before
    assert await consents(service) == {"spring": ("opted_in", True, None)}


async def test_a_call_that_fails_is_kept_too_and_opts_nobody_out(
    tmp_path: Path, service: Service, database: Database, database_url: str
) -> None:
    await opt_in(service, WHO, "spring", "2025-03-01T15:00:00Z")
    database.words["4155550001", "2025-03-01"] = "yes"
    database.status = 500
    said = await sendable("rnd", "check", WHO, database_url=database_url, config=configured(tmp_path, database))
    assert (said.code, "no answer" in said.err) == (1, True)
    assert await service.sql("SELECT answer, answered_at, detail FROM rnd_checks") == [(None, None, "asking: HTTP 500")]
    assert await consents(service) == {"spring": ("opted_in", True, None)}
    assert OPTIONS["refresh_token"] not in said.out + said.err


@pytest.mark.parametrize("ends", ["killed", "erased"])
async def test_a_question_whose_answer_is_not_kept_stays_as_one_and_a_number_that_is_erased_stays_away(
    tmp_path: Path, service: Service, database: Database, database_url: str, ends: str
) -> None:
    await opt_in(service, WHO, "spring", "2025-03-01T15:00:00Z")
    database.words["4155550001", "2025-03-01"] = "yes"
    how = {"database_url": database_url, "config": configured(tmp_path, database)}
    database.go.clear()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "rnd", "check", WHO, env=environment(**how), stdout=asyncio.subprocess.PIPE
    )
    await until(lambda: database.asked)
    if ends == "killed":
        process.kill()
        database.go.set()
        await process.wait()
        (check,) = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["checks"]
        assert (check["answer"], check["detail"]) == (None, "asked, and no answer was kept")
        assert (await sendable("rnd", "check", WHO, **how)).code == 0
        assert await consents(service) == {"spring": ("opted_out", False, "reassigned")}
        rows = await service.sql("SELECT answer FROM rnd_checks ORDER BY asked_at")
        assert rows == [(None,), ("yes",)]
    else:
        assert (await service.client.delete(f"/v1/numbers/{WHO}")).json()["erased"]["rnd_checks"] == 1
        database.go.set()
        out, _ = await process.communicate()
        assert (process.returncode, b"yes" in out) == (0, True)
        assert await service.sql("SELECT number FROM rnd_checks UNION SELECT number FROM numbers") == []


async def test_a_date_may_be_named_for_a_number_that_is_on_no_list(
    tmp_path: Path, service: Service, database: Database, database_url: str
) -> None:
    database.words["4155550001", "2025-03-01"] = "yes"
    said = await sendable("rnd", "check", "(415) 555-0001", "--date", "2025-03-01", database_url=database_url,
                          config=configured(tmp_path, database))  # fmt: skip
    assert said.code == 0, said.err
    assert (await opt_in(service, WHO, "spring", "2024-03-01T00:00:00Z")).status_code == 409


@pytest.mark.parametrize(("given", "says"), [
    ("check +447700900123", "numbers of the North American plan only"), ("check 12", "not a possible phone number"),
    (f"check {WHO} --date 2999-01-01", "must lie in the past"), (f"check {WHO} --date soon", "is no date"),
    (f"check {WHO} --list nowhere", "there is no list of this name"), (f"check {WHO}", "no consent from before today"),
    ("export nowhere x.csv", "there is no list of this name"),
    ("export twice x.csv", "name one with --sender, of 1234, 5678"),
])  # fmt: skip
async def test_what_cannot_be_asked_is_told_in_one_line(
    tmp_path: Path, service: Service, database: Database, database_url: str, *, given: str, says: str
) -> None:
    for sender in ("1234", "5678"):
        await opt_in(service, OTHER, "twice", "2025-03-01T00:00:00Z", sender)
    args = [str(tmp_path / word) if word == "x.csv" else word for word in given.split()]
    said = await sendable("rnd", *args, database_url=database_url, config=configured(tmp_path, database))
    assert (said.code in {1, 2}, said.err.count("\n")) == (True, 1)
    assert says in said.err
    assert database.asked == []


async def test_without_an_account_nothing_is_asked(database_url: str) -> None:
    said = await sendable("rnd", "check", WHO, database_url=database_url)
    assert (said.code, "under [rnd] in the settings file" in said.err) == (2, True)


# By file -----------------------------------------------------------------------------------------------------------


async def test_a_list_is_written_handed_in_and_its_answers_are_taken(
    tmp_path: Path, service: Service, database_url: str
) -> None:
    await opt_in(service, WHO, "spring", "2025-03-01T15:00:00Z")
    await opt_in(service, OTHER, "spring", "2025-04-01T15:00:00Z")
    await opt_in(service, "+14155550003", "spring", "2025-05-01T15:00:00Z")
    await opt_in(service, "+447700900123", "spring", "2025-03-01T15:00:00Z")
    await service.client.delete("/v1/senders/12345/lists/spring/subscribers/+14155550003")
    out = tmp_path / "rnd.csv"
    said = await sendable("rnd", "export", "spring", str(out), "--json", database_url=database_url)
    assert said.code == 0, said.err
    assert json.loads(said.out) == {"lines": 2, "files": [str(out)]}
    assert out.read_text() == "4155550001,2025-03-01\n4155550002,2025-04-01\n"
    assert await service.sql("SELECT number, via, answer, detail FROM rnd_checks ORDER BY 1") == [
        (WHO, "file", None, "exported"), (OTHER, "file", None, "exported"),
    ]  # fmt: skip
    back = tmp_path / "back.csv"
    back.write_text("TN,Date,Disconnected\n4155550001,2025-03-01,yes\n4155550002,2025-04-01,no\n"
                    "4155550009,2025-04-01,yes\nbroken\n")  # fmt: skip
    for taken in (2, 0):
        said = await sendable("rnd", "import", str(back), "--json", database_url=database_url)
        assert said.code == 0, said.err
        assert json.loads(said.out) == {
            "yes": 2,
            "no": 1,
            "no_data": 0,
            "taken": taken,
            "never_asked": 1,
            "wrong_lines": 1,
        }
        assert "line 5: the line has no number of ten digits" in said.err
    assert await consents(service) == {"spring": ("opted_out", False, "reassigned")}
    assert await consents(service, OTHER) == {"spring": ("opted_in", True, None)}
    assert (await service.client.get("/v1/numbers/+14155550009")).json()["state"] == "unseen"
    (check,) = (await service.client.get(f"/v1/numbers/{OTHER}/history")).json()["checks"]
    assert (check["via"], check["answer"], check["detail"]) == ("file", "no", None)
    assert check["asked_at"] < check["answered_at"]
    again = await sendable("rnd", "export", "spring", str(out), database_url=database_url)
    assert (again.code, "is there already" in again.err) == (2, True)


async def test_of_an_export_that_breaks_no_file_is_left(tmp_path: Path, service: Service, database_url: str) -> None:
    for place in range(100):
        await opt_in(service, f"+141555501{place:02}", "spring", "2025-03-01T15:00:00Z")
    out = tmp_path / "rnd.csv"
    process = await asyncio.create_subprocess_shell(
        f"ulimit -f 1; {sys.executable} -m app.cli rnd export spring {out}", env=environment(database_url=database_url),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    err = (await process.communicate())[1].decode()
    assert (process.returncode, "File too large" in err, out.exists()) == (1, True, False)
    assert (await sendable("rnd", "export", "spring", str(out), database_url=database_url)).code == 0


async def test_an_export_that_is_killed_leaves_no_file_that_looks_whole(
    tmp_path: Path, service: Service, database_url: str
) -> None:
    await opt_in(service, WHO, "spring", "2025-03-01T15:00:00Z")
    out = tmp_path / "rnd.csv"
    async with service.app.state.engine.begin() as db:
        await db.execute(text("LOCK TABLE rnd_checks"))  # the first lines are written by then
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "rnd", "export", "spring", str(out),
            env=environment(database_url=database_url),
        )  # fmt: skip
        await waiting(service, 1)
        process.kill()
        await process.wait()
    assert not out.exists()
    assert (await sendable("rnd", "export", "spring", str(out), database_url=database_url)).code == 0
    assert out.read_text() == "4155550001,2025-03-01\n"


async def test_a_file_without_an_answer_ends_with_1(tmp_path: Path, database_url: str) -> None:
    """Most likely the one that was handed in; or one that is packed, of which all is one line, or empty."""
    handed_in = b"4155550001,2025-03-01\n4155550002,2025-04-01\n"
    for content in (handed_in, gzip.compress(handed_in), b""):
        (tmp_path / "rnd.csv").write_bytes(content)
        said = await sendable("rnd", "import", str(tmp_path / "rnd.csv"), database_url=database_url)
        assert said.code == 1
        assert said.err.splitlines()[-1].startswith("sendable: rnd.csv: no line is an answer; give the file that came")


# Settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "says"), [
    ('refresh_token = "x"', "rnd.company_id"), ('company_id = "x"', "rnd.refresh_token"),
    ('refresh_token = "x"\ncompany_id = "y"\nbase_url = "reassigned.us"', "must be an absolute URL"),
    ('refresh_token = "x"\ncompany_id = "y"\nmore = 1', "is no setting of Sendable"),
])  # fmt: skip
def test_an_account_that_is_none_stops_the_start(tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "s.toml").write_text(f"[rnd]\n{table}\n")
    with pytest.raises(SettingsError, match=says):
        read_settings({"SENDABLE_CONFIG": str(tmp_path / "s.toml")})


def test_the_token_is_shown_nowhere() -> None:
    assert OPTIONS["refresh_token"] not in repr(Settings(rnd=OPTIONS))
