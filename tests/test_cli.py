"""The `sendable` command as people run it: in a process of its own, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from typer.main import get_command

from app.cli import app
from app.cli.attach import why_not
from app.cli.waiting import who_decides
from app.services.migrate import head
from tests.running import environment, sendable

NUMBER = "+15550003333"
HELD = {"message_id": "h1", "number": NUMBER, "sender": "12345", "status": "undeliverable", "code": "345"}


@pytest.fixture
def database(database_url: str) -> dict[str, str]:
    return {"database_url": database_url}


# Help and errors ---------------------------------------------------------------------------------------------------


def every_command(group, *path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, *path, name)
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(every_command(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_explains_itself(name):
    command = COMMANDS[name]
    assert command.help
    assert [param.name for param in command.params if not param.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_in_json_too(name):
    assert ["--json"] in [param.opts for param in COMMANDS[name].params]


async def test_the_version_is_that_of_the_package():
    assert await sendable("--version") == (0, f"{version('sendable')}\n", "")


async def test_help_is_printed_by_the_command_itself():
    said = await sendable("keys", "create", "--help")
    assert (said.code, said.err) == (0, "")
    assert "--scope" in said.out


WRONG_INPUT = {
    "serve --port 70000": "SENDABLE_PORT (or `port`) must be less than or equal to 65535",
    "serve --host 0.0.0.0 --auth off": 'SENDABLE_AUTH is "off" but SENDABLE_HOST is 0.0.0.0',
    "codes --space nobody": "'nobody' is no code space; there are ",
    "policy check nowhere.toml": "nowhere.toml: cannot be read as a policy file",
    "numbers show 12": "not a possible phone number",
    "numbers history 12": "not a possible phone number",
    "numbers show +15550003333 --list spring": "--list asks for a list of a sender: name it with --sender",
    "numbers show +15550003333 --sender ": "not a sender: give a short code",
    "numbers show +15550003333 --sender 12345 --list ": "--list names none: say which list",
    "held release": "name a number, --code or --reason: all held numbers at once are never meant",
    "held release --code 345": "a code means something only inside its space",
    "lookup import tests/calm.toml --max-cost 1e30": "--max-cost '1e30' is no amount: write one such as",
    "keys create shop --scope all": "'all' is no scope; there are numbers:read",
    "keys create shop --scope admin --expires never": '"never" is not a duration',
    "keys create shop --scope admin --expires ": '"" is not a duration',
    "replay --since ": '--since: "" is not a duration',
    "replay --number ": "not a phone number",
    "rnd check +15550003333 --date ": "--date '' is no date",
    "keys create shop --scope admin --expires 0s": "--expires: a key of no time opens nothing",
    "keys create \x1b[31m --scope admin": "the key needs a name that can be read",
    "import subscribers tests/calm.toml --sender  --list spring": "--sender: not a sender",
    "rnd export spring x.csv --sender ": "not a sender: give a short code",
    "unread show 99999999999999999999": "an argument is nothing that the database can keep",
}


@pytest.mark.parametrize(("command", "line"), WRONG_INPUT.items(), ids=WRONG_INPUT)
async def test_wrong_input_ends_with_2_and_one_line(command, line, database):
    said = await sendable(*command.split(" "), **database)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"sendable: {line}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("key", ["rules", "ladders"])
async def test_a_line_break_in_a_key_of_a_file_is_spelt(tmp_path, key):
    (tmp_path / "mine.toml").write_text(f'[{key}."a\\nb"]\nalarm = true\n')
    said = await sendable("policy", "check", str(tmp_path / "mine.toml"))
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"[{key}.a\\nb] " in said.err


async def test_an_argument_that_is_not_utf_8_ends_with_2_and_one_line(database):
    said = await sendable("held", "list", "--code", "\udcff", **database)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("sendable: an argument is nothing that the database can keep: give text in UTF-8")


@pytest.mark.parametrize("command", ["nothing", "keys create"])
async def test_what_is_no_command_ends_with_2(command):
    said = await sendable(*command.split())
    assert (said.code, said.out) == (2, "")
    assert "Error" in said.err


@pytest.mark.parametrize("command", ["serve --port 0", "keys list"])
async def test_a_database_that_is_not_there_ends_with_1_and_one_line(command):
    said = await sendable(*command.split(), database_url="postgresql://u:swordfish@127.0.0.1:1/d", auth="off")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1].startswith("sendable: the database does not answer")
    assert "swordfish" not in said.err


async def test_a_command_that_only_looks_starts_no_database(tmp_path):
    said = await sendable("held", "list", data_dir=str(tmp_path / "none"))
    assert said.code == 1
    assert said.err.startswith("sendable: there is no data in ")
    assert not (tmp_path / "none").exists()


async def test_a_command_that_only_looks_makes_none_in_an_empty_folder_either(tmp_path):
    why = f"there is no data in {tmp_path}: run `sendable serve`"
    for command in ("held list", "db url", "db psql --json"):
        said = await sendable(*command.split(), data_dir=str(tmp_path))
        assert (said.code, said.out, [*tmp_path.iterdir()]) == (1, "", [])
        assert said.err.startswith(f"sendable: {why}")
    said = await sendable("doctor", data_dir=str(tmp_path))
    assert (said.code, [*tmp_path.iterdir()]) == (1, [])
    assert why in said.out


async def test_a_file_that_cannot_be_written_is_named_and_no_database_blamed(service, database, tmp_path):
    await service.client.put("/v1/senders/12345/lists/spring/subscribers/+14155550001",
                             json={"consented_at": "2025-03-01T15:00:00Z", "source": "web form"})  # fmt: skip
    people = tmp_path / "people.csv"
    people.write_text("number,consented_at,source\n+14155550002,2025-03-01T15:00:00Z,web form\n")
    nowhere = str(tmp_path / "nowhere" / "x.csv")
    into = ("import", "subscribers", str(people), "--sender", "12345", "--list", "spring", "--errors")
    for command, why in (
        ((*into, nowhere), f"{nowhere} cannot be used (No such file or directory)"),
        ((*into, str(tmp_path)), f"{tmp_path} cannot be used (Is a directory)"),
        (("rnd", "export", "spring", nowhere), f"{nowhere} cannot be used (No such file or directory)"),
    ):
        said = await sendable(*command, **database)
        assert (said.code, said.err) == (1, f"sendable: {why}: mend it, or name another\n")
    assert (await service.client.get("/v1/numbers/+14155550002")).json()["state"] == "unseen"


@pytest.mark.parametrize("what", ["subscribers", "deactivations"])
async def test_what_cannot_be_read_twice_or_holds_nothing_is_no_file_and_no_database_is_blamed(
    what, database, tmp_path
):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name, why in (("pipe", f"{tmp_path / 'pipe'} can be read but once"), ("empty", "empty: the file is empty")):
        said = await sendable("import", what, str(tmp_path / name), **database)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert said.err.startswith(f"sendable: {why}")


async def test_a_database_of_another_version_is_named(service, database):
    await service.sql("UPDATE alembic_version SET version_num = '9999' RETURNING 1")
    said = await sendable("keys", "list", **database)
    assert said.code == 1
    assert said.err.startswith("sendable: the database is at version 9999, this code at ")
    newer = await sendable("serve", "--port", "0", auth="off", **database)
    assert newer.code == 1
    assert newer.err.splitlines()[-1].startswith("sendable: the database is at version 9999, newer than this code")


# What commands answer ----------------------------------------------------------------------------------------------


async def answered(*args: str, **settings: str):
    said = await sendable(*args, "--json", **settings)
    assert said.code == 0, said.err
    return json.loads(said.out)


async def test_codes_say_what_a_code_means_and_what_follows():
    (code,) = await answered("codes", "3041", "--space", "openmarket")
    assert (code["reason"], code["level"]) == ("deactivated", "number")
    assert code["does"].startswith("deactivated, ")
    table = await sendable("codes", "--space", "openmarket")
    assert "3041" in table.out
    assert "deactivated" in table.out


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("", {"3041": "deactivated, opts out of every sender's lists", "345": "held, waits for a provider or a person",
              "341": "held for 1d, raises an alarm", "573": "blocks the sender, opts out of the sender's lists",
              "592": "blocks the sender"}),
        ("[lookup]\n", {
            "3041": "deactivated, asks a lookup, opts out of every sender's lists if no carrier was named when sending",
            "345": "held, asks a lookup", "341": "held, asks a lookup, raises an alarm",
            "592": "blocks the sender, asks a lookup"}),
        ('[lookup]\n[policy]\nmode = "strict"\nrevocation_scope = "all"\n', {
            "345": "held, opts out of the sender's lists, asks a lookup",
            "573": "blocks the sender, opts out of every sender's lists"}),
    ],
)  # fmt: skip
async def test_what_follows_from_a_code_is_said_as_these_settings_have_it(tmp_path, settings, told):
    (tmp_path / "own.toml").write_text(settings)
    config = {"config": str(tmp_path / "own.toml")}
    shown = {code["code"]: code["does"] for code in await answered("codes", "--space", "openmarket", **config)}
    assert {code: shown[code] for code in told} == told
    table = (await sendable("policy", "show", **config)).out
    assert re.search(rf"carrier_unknown +{re.escape(told['345'])} *$", table, re.MULTILINE)
    assert re.search(r"absent_subscriber +a strike on the ladder soft *$", table, re.MULTILINE)
    assert re.search(r"suspended +suspended for 30d *$", table, re.MULTILINE)


async def test_the_policy_in_force_is_shown_with_the_override_on_top(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text("mode = 'strict'\n[rules.suspended]\nlapse = '7d'\n")
    shown = await answered("policy", "show", policy=str(file))
    assert shown["mode"] == "strict"
    assert shown["rules"]["suspended"]["lapse"] == "7d"
    checked = await answered("policy", "check", str(file))
    assert checked["changes"] == {"suspended": {"lapse": ["30d", "7d"]}}


async def test_a_policy_file_is_checked_as_the_start_would_read_it_with_these_settings(tmp_path):
    mine, config = tmp_path / "mine.toml", tmp_path / "sendable.toml"
    mine.write_text('mode = "strict"\nrevocation_scope = "sender"\n')
    alone = await answered("policy", "check", str(mine))
    assert (alone["mode"], alone["revocation_scope"]) == ("strict", "sender")
    config.write_text('[policy]\nmode = "lookup_first"\nrevocation_scope = "all"\n')
    beside = await answered("policy", "check", str(mine), config=str(config))
    assert (beside["mode"], beside["revocation_scope"]) == ("lookup_first", "all")
    told = await sendable("policy", "check", str(mine), config=str(config))
    assert told.err == f"{mine} is fine: mode lookup_first, 0 rules changed\na revocation reaches as far as: all\n"


async def test_a_number_is_shown_as_the_api_answers_it(service, database):
    await service.client.post("/v1/receipts/native", json=HELD)
    shown = await answered("numbers", "show", "555-000-3333", "--sender", "12345", **database)
    api = (await service.client.get(f"/v1/numbers/{NUMBER}?sender=12345")).json()
    assert shown == api
    table = await sendable("numbers", "show", NUMBER, **database)
    assert "no: number, carrier_unknown" in table.out


async def test_a_numbers_history_is_shown_as_the_api_answers_it(service, database):
    people = f"/v1/senders/12345/lists/spring/subscribers/{NUMBER}"
    await service.client.put(people, json={"consented_at": "2025-03-01T15:00:00Z", "source": "web form"})
    await service.client.post("/v1/receipts/native", json=HELD)
    api = (await service.client.get(f"/v1/numbers/{NUMBER}/history")).json()
    assert await answered("numbers", "history", "555-000-3333", **database) == api
    table = await sendable("numbers", "history", NUMBER, **database)
    assert [line.split()[2] for line in table.out.splitlines()[1:]] == [row["kind"] for row in api["items"]]
    assert re.search(r"number\.state +active +held +carrier_unknown +receipt native 345 ", table.out)
    assert re.search(r"list\.opted_in +12345/spring +opted_in +call web form", table.out)
    newest = await sendable("numbers", "history", NUMBER, "--limit", "1", **database)
    assert len(newest.out.splitlines()) == 2
    assert newest.err == "these are the newest 1: --limit shows more\n"


@pytest.mark.parametrize("output", ["PYTHONIOENCODING=ascii", ">&-"])
@pytest.mark.parametrize("json_", ["", "--json"])
async def test_no_encoding_and_no_closed_output_is_a_fault(service, database, output, json_):
    await service.client.put(f"/v1/senders/12345/lists/frühling/subscribers/{NUMBER}",
                             json={"consented_at": "2025-03-01T15:00:00Z", "source": "web form"})  # fmt: skip
    before, behind = (output, "") if "=" in output else ("", output)
    process = await asyncio.create_subprocess_shell(
        f"{before} {sys.executable} -m app.cli numbers show {NUMBER} {json_} {behind}", env=environment(**database),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    if before:
        assert ("frühling" if json_ else "fr\\xfchling") in out.decode()


async def test_closed_input_and_a_closed_place_for_words_are_no_fault(database):
    say = {"keys create shop --scope numbers:read 2>&-": (0, "sendable_"), "keys revoke nobody 2>&-": (1, ""),
           f"erase {NUMBER} --json <&-": (0, "{"), "held release --reason nobody --json <&-": (0, "{")}  # fmt: skip
    for command, (code, out) in say.items():
        process = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m app.cli {command}", env=environment(**database),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, err = await process.communicate()
        assert (process.returncode, said.decode()[: len(out)], err.decode()) == (code, out, ""), command


async def test_held_numbers_are_listed_and_released(service, database):
    await service.client.post("/v1/receipts/native", json=HELD)
    (row,) = await answered("held", "list", **database)
    assert (row["number"], row["code"], row["waiting_for"]) == (NUMBER, "345", "no_lookup_provider")
    table = await sendable("held", "list", **database)
    assert re.search(rf"{row['since'][:10]} {row['since'][11:19]}Z\s", table.out)
    assert await answered("held", "release", "--code", "345", "--space", "openmarket", **database) == {"numbers": 1}
    assert await answered("held", "list", **database) == []
    assert (await service.client.get(f"/v1/numbers/{NUMBER}")).json()["state"] == "active"


async def test_a_held_number_is_opted_out(service, database):
    path = f"/v1/senders/12345/lists/spring/subscribers/{NUMBER}"
    await service.client.put(path, json={"consented_at": "2026-01-01T00:00:00Z", "source": "web"})
    await service.client.post("/v1/receipts/native", json=HELD)
    assert (await sendable("held", "opt-out", NUMBER, **database)).code == 0
    (one,) = (await service.client.get(f"/v1/numbers/{NUMBER}")).json()["lists"]
    assert one["consent"] == "opted_out"
    again = await sendable("held", "opt-out", NUMBER, **database)
    assert (again.code, again.err) == (1, "sendable: this number is not held\n")
    for_programs = await sendable("held", "opt-out", NUMBER, "--json", **database)
    assert (for_programs.code, json.loads(for_programs.out), for_programs.err) == (1, {"numbers": 0}, again.err)


def test_a_decision_by_a_user_without_a_name_is_kept_under_the_number(monkeypatch):
    """As a container may run."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54_321_987)
    assert who_decides() == "54321987"


async def test_a_mass_event_is_listed_and_released_or_discarded(service, database):
    many = [HELD | {"message_id": f"m{n}", "number": f"+1555000{n:04}", "code": "560"} for n in range(51)]
    await service.client.post("/v1/receipts/native", json=many)
    (row,) = await answered("quarantine", "list", **database)
    assert (row["code"], row["waiting"], row["seen"], row["allowed"]) == ("560", 51, 51, 50)
    ill = await sendable("doctor", auth="off", **database)
    assert ill.code == 1
    assert "1 mass event waits, with 51 numbers" in ill.out
    discarded = await sendable("quarantine", "discard", str(row["id"]), **database)
    assert (discarded.code, discarded.err) == (0, f"quarantine {row['id']} is discarded: 51 numbers\n")
    assert await answered("quarantine", "list", **database) == []
    (decided,) = await answered("quarantine", "list", "--all", **database)
    assert decided["decision"] == "discard"
    await service.client.post("/v1/receipts/native", json=[one | {"message_id": f"n{one['number']}"} for one in many])
    (row,) = await answered("quarantine", "list", **database)
    assert await answered("quarantine", "release", str(row["id"]), **database) == {"numbers": 51}
    again = await sendable("quarantine", "release", str(row["id"]), **database)
    assert again.code == 1
    assert "`sendable quarantine list` shows them" in again.err


async def test_the_policy_is_shown_with_its_ladders_and_its_breaker():
    shown = await answered("policy", "show")
    assert shown["ladders"]["soft"] == {"strikes": 7, "lookup": 3, "over": "14d", "within": None}
    assert shown["breaker"]["window"] == "15m"
    assert (shown["breaker"]["least"], shown["breaker"]["times"]) == (50, 5)
    table = await sendable("policy", "show")
    assert "ladder no_detail: strikes 5, within 90d" in table.err


async def test_what_could_not_be_read_is_shown_as_it_came(service, database):
    await service.client.post(
        "/v1/receipts/native?x=1", content=b'{"half": ', headers={"Authorization": "Bearer secret"}
    )
    (row,) = await answered("unread", "list", **database)
    shown = await answered("unread", "show", str(row["id"]), **database)
    assert shown["body"] == '{"half": '
    assert "authorization" not in shown["headers"]
    assert (await sendable("unread", "show", "99", **database)).code == 1


HOSTILE = "\x1b]0;mine\x07\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}\nok    all: well"


async def test_nothing_that_others_wrote_commands_the_terminal(service, database):
    receipt = {"message_id": "1", "number": NUMBER, "sender": "12345", "status": "undeliverable"}
    told = receipt | {"message_id": HOSTILE, "code": f"9{HOSTILE}", "carrier": f"Their{HOSTILE}"}
    await service.client.post("/v1/receipts/native", json=told)
    await service.client.post("/v1/receipts/native", content=HOSTILE.encode())
    (row,) = await answered("unread", "list", **database)
    for command in ("codes unknown", "codes suggest", f"numbers show {NUMBER}", f"unread show {row['id']}", "doctor"):
        said = await sendable(*command.split(), auth="off", **database)
        shown = said.out + said.err
        assert shown.replace("\n", "").isprintable(), command
        assert r"\x1b[2J" in shown, command
        assert ("\nok    all: well" in shown) == command.startswith("unread show"), command
    assert (await answered("codes", "unknown", **database))[0]["word"] == f"9{HOSTILE}"


async def test_a_key_is_printed_once_alone_and_works_until_it_is_revoked(database):
    made = await sendable("keys", "create", "shop", "--scope", "numbers:read", "--expires", "90d", **database)
    token = made.out.strip()
    assert made.out == f"{token}\n"
    (key,) = await answered("keys", "list", **database)
    assert (key["name"], key["scopes"], key["state"]) == ("shop", ["numbers:read"], "live")
    assert token not in json.dumps(key)
    revoked = await sendable("keys", "revoke", key["id"], **database)
    assert (revoked.code, revoked.err) == (0, f"key {key['id']} (shop) is revoked\n")
    assert (await answered("keys", "list", **database))[0]["state"] == "revoked"
    assert (await sendable("keys", "revoke", "none", **database)).code == 1


async def test_migrate_tells_the_version_that_the_database_now_has(database):
    assert await answered("migrate", **database) == {"version": head()}


async def test_the_doctor_ends_with_0_when_all_is_well_and_1_when_not(service, database):
    well = await sendable("doctor", auth="off", **database)
    assert well.code == 0, well.out
    await service.sql("UPDATE alembic_version SET version_num = '9999' RETURNING 1")
    ill = await sendable("doctor", "--json", auth="off", **database)
    assert ill.code == 1
    assert [f["about"] for f in json.loads(ill.out) if f["level"] == "wrong"] == ["schema"]


async def test_the_doctor_tells_wrong_settings_and_a_lost_database_as_findings():
    settings = await sendable("doctor", "--json", port="http")
    assert settings.code == 1
    assert [f["about"] for f in json.loads(settings.out)] == ["settings"]
    lost = await sendable("doctor", "--json", auth="off", database_url="postgresql://u@127.0.0.1:1/d")
    assert lost.code == 1
    assert [f["about"] for f in json.loads(lost.out) if f["level"] == "wrong"] == ["database"]


UNREACHED = {
    "postgresql://u@nowhere.invalid/d": "the host of the database has no address: mend SENDABLE_DATABASE_URL",
    "postgresql://u@127.0.0.1:{web}/d?sslmode=require": "what listens there takes no SSL, or is no PostgreSQL: mend",
    "postgresql://u@127.0.0.1:{web}/d?sslmode=verify-full&sslrootcert=": "SENDABLE_DATABASE_URL cannot be used: root",
    "postgresql://u@127.0.0.1:{web}/d?sslmode=verify-full&sslrootcert=/nowhere.pem": "the socket of the database,",
    f"postgresql://u@127.0.0.1:{{web}}/d?sslmode=require&sslcert={__file__}": "no TLS comes about with the database (",
    "postgresql://u@/d?host=/nowhere": "the socket of the database, or a file that its sslrootcert, sslcert or sslkey",
}


@pytest.mark.parametrize(("url", "line"), UNREACHED.items(), ids=UNREACHED)
async def test_what_keeps_us_from_the_database_is_told_in_words(url, line):
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as web:
        address = url.format(web=web.sockets[0].getsockname()[1])
        said = await sendable("migrate", database_url=address)
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith(f"sendable: {line}")


def test_what_may_not_be_opened_is_told_as_that():
    """A socket, or certificates: whoever runs the tests may open everything."""
    says, _ = why_not(PermissionError(errno.EACCES, "Permission denied"))
    assert says.endswith(" names or ~/.postgresql holds, may not be opened by us")


async def test_hosts_of_which_none_takes_writes_are_told_as_such(database):
    url = f"{database['database_url']}&target_session_attrs=standby"
    said = await sendable("migrate", database_url=url)
    assert said.code == 1
    assert said.err.startswith("sendable: of the hosts that answer none is as target_session_attrs asks: mend SENDABLE")


READY = b"Z\0\0\0\x05I"
WELCOME = b"R\0\0\0\x08\0\0\0\0" + b"S\0\0\0\x18server_version\x0018.6\0" + READY
POOLERS = {
    "08P01 unsupported startup parameter: jit": "the database refuses us: unsupported startup parameter: jit: mend",
    "08P01 transaction blocks not allowed in statement pooling mode": "the database refuses us: transaction blocks not",
    "42P05 prepared statement already exists": "a pooler of transactions stands before the database: let it pool",
    "26000 prepared statement does not exist": "a pooler of transactions stands before the database: let it pool",
}


@pytest.mark.parametrize(("refusal", "line"), POOLERS.items(), ids=POOLERS)
@pytest.mark.parametrize("command", [("migrate",), ("doctor", "--json"), ("serve", "--quiet")], ids=" ".join)
async def test_a_pooler_that_does_not_do_is_told_in_words(command, refusal, line):
    """As PgBouncer 1.18 says them: of our settings at once, of what its mode does not do at the first statement."""
    code, words = refusal.split(" ", 1)
    said = f"SERROR\0VERROR\0C{code}\0M{words}\0\0".encode()

    async def pool(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        if "parameter" not in words:
            writer.write(WELCOME)
            await reader.read(4096)
        writer.write(b"E" + (len(said) + 4).to_bytes(4) + said + READY)
        await reader.read(4096)
        writer.close()

    async with await asyncio.start_server(pool, "127.0.0.1", 0) as pooler:
        url = f"postgresql://u@127.0.0.1:{pooler.sockets[0].getsockname()[1]}/d?sslmode=disable"
        told = await sendable(*command, database_url=url)
    assert told.code == 1
    if "--json" in command:
        (ill,) = [f for f in json.loads(told.out) if f["about"] == "database"]
        assert f"{ill['says']}: {ill['mend']}".startswith(line)
    else:
        assert told.err.splitlines()[-1].startswith(f"sendable: {line}")


async def test_a_role_without_the_rights_is_told_whose_they_are(service, database):
    await service.sql("CREATE ROLE guest_of_cli LOGIN")
    try:
        guest = database["database_url"].replace("//sendable@", "//guest_of_cli@")
        said = await sendable("keys", "list", database_url=guest)
        migrated = await sendable("migrate", database_url=guest)
        ill = await sendable("doctor", "--json", auth="off", database_url=guest)
    finally:
        await service.sql("DROP ROLE guest_of_cli")
    assert said.code == 1
    assert said.err.startswith("sendable: the database refuses us: permission denied for table alembic_version: start")
    assert (migrated.code, migrated.err.splitlines()[-1:]) == (1, said.err.splitlines())
    assert "permission denied" in [f["says"] for f in json.loads(ill.out) if f["level"] == "wrong"][-1]


async def test_the_doctor_finds_a_feed_that_would_stop_the_start(tmp_path):
    (tmp_path / "s.toml").write_text("[feeds.twilio]\n")
    said = await sendable("doctor", "--json", config=str(tmp_path / "s.toml"))
    assert json.loads(said.out)[0]["says"].startswith("`feeds.twilio.")


async def test_the_readers_url_names_the_reader_and_no_password():
    said = await sendable("db", "url", "--reader", database_url="postgresql://owner:swordfish@db.example.com:5433/shop")
    assert said.out == "postgresql://sendable_reader@db.example.com:5433/shop\n"
    owner = await sendable("db", "url", database_url="postgresql://owner:swordfish@db.example.com:5433/shop")
    assert owner.out == "postgresql://owner:swordfish@db.example.com:5433/shop\n"


async def test_the_url_for_psql_says_sslmode_as_psql_does():
    for mode in ("sslmode", "ssl"):
        said = await sendable(
            "db", "url", "--reader", database_url=f"postgresql://owner@db.example.com/shop?{mode}=require"
        )
        assert said.out == "postgresql://sendable_reader@db.example.com/shop?sslmode=require\n"


async def test_a_url_is_handed_on_as_psql_reads_it():
    ours = "postgresql://owner:swordfish@one:5432,two:5432/shop?sslmode=require&target_session_attrs=read-write"
    assert (await sendable("db", "url", database_url=ours)).out == f"{ours}\n"
    said = await sendable("db", "url", "--reader", database_url=ours)
    assert said.out == f"{ours.replace('owner:swordfish', 'sendable_reader')}\n"


@pytest.fixture
def psql(tmp_path):
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "opened $*; $PGPASSWORD"\n')
    program.chmod(0o755)
    return program


async def test_db_psql_opens_a_socket_that_stands_behind_the_question_mark(psql):
    url = "postgresql:///shop?host=/run/postgresql&user=owner&password=swordfish"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "db", "psql", env=environment(database_url=url) | {"PATH": str(psql.parent)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert said == "opened postgresql:///shop?host=/run/postgresql&user=owner; swordfish\n"


async def test_without_psql_no_password_is_told(tmp_path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "db", "psql", stderr=asyncio.subprocess.PIPE,
        env=environment(database_url="postgresql://u:swordfish@h/d") | {"PATH": str(tmp_path)},
    )  # fmt: skip
    err = (await process.communicate())[1].decode()
    assert process.returncode == 1
    assert err.startswith(
        "sendable: there is no psql on this machine: install it, or give another program what `sendable"
    )
    assert "swordfish" not in err


async def test_db_psql_tells_a_program_what_it_would_open(tmp_path, psql):
    url = "postgresql://owner:sword%2Ffish@db.example.com:5433/shop?options=-c%20jit%3Doff"
    command = [sys.executable, "-m", "app.cli", "db", "psql"]
    said = {}
    for more in ([], ["--json"], ["--json", "--reader"]):
        process = await asyncio.create_subprocess_exec(
            *command, *more, env=environment(database_url=url) | {"PATH": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        said[" ".join(more)] = (await process.communicate())[0].decode()
    bare = url.replace(":sword%2Ffish", "")  # what stands on a command line is no secret
    assert said[""] == f"opened {bare}; sword/fish\n"
    assert json.loads(said["--json"]) == {"program": str(psql), "url": url}
    assert json.loads(said["--json --reader"])["url"] == bare.replace("owner", "sendable_reader")
