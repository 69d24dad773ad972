"""What the embedded PostgreSQL is made of: the first `initdb`, settings, who may log in, what an earlier run left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from app.services.embedded.home import ROLE, CannotStart, Home

LOGS_KEPT = 8
"""Files, of about 10 MB each."""

_SETTINGS = Path(__file__).with_name("postgresql.conf")

# The C.UTF-8 of PostgreSQL's own: sorted by code point, the same on every machine and after every upgrade of its libc.
_INITDB = ("--username=postgres", "--auth=peer", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
           "--builtin-locale=C.UTF-8", "--data-checksums", "--no-instructions", "--no-sync")  # fmt: skip
_SYNC = ("--sync-method=syncfs",) if sys.platform == "linux" else ()
"""Once, at the end, and in one call: on a busy disk a thousand calls of fsync took 4 s, this 1 s."""

# A terse message may still quote what was sent (`syntax error at or near "+1555…"`), so sessions log no errors: those
# the client is told. The server's own processes log warnings and errors as ever.
_BIRTH = f"""\
CREATE ROLE {ROLE} LOGIN CREATEDB CREATEROLE
GRANT pg_monitor TO {ROLE}
CREATE DATABASE {ROLE} OWNER {ROLE}
ALTER ROLE ALL SET log_min_messages = 'log'
"""

# The kernel says who is at the other end of the socket. Root and the server's own user may be any role (sendable_reader
# too, which the migrations make); nobody else can so much as reach the socket.
_LOGINS = """\
local all         all      peer map=sendable
local replication postgres peer map=sendable
"""


def furnish(home: Home, lock: int) -> None:
    """Everything that a start needs. The cluster is made aside and moved in whole, so a kill leaves no half of one."""
    names = sorted({"root", home.user})
    _refuse_another_major(home)
    home.own(home.log)
    home.own(home.socket)
    if not home.data.exists():
        _create(home, lock)
    _write(home, "pg_hba.conf", _LOGINS)
    _write(home, "pg_ident.conf", "".join(f'sendable "{name}" all\n' for name in names))
    _write(home, "postgresql.conf", _SETTINGS.read_text() + _paths(home))


def command(home: Home) -> list[str]:
    return [str(home.programs / "postgres"), "-D", str(home.data), "-c", f"config_file={home.path / 'postgresql.conf'}"]


def environment(home: Home) -> dict[str, str]:
    """Nothing of ours (PGPORT, LD_PRELOAD …) but the pid that an earlier server left in its lock files.

    It may be a zombie's or a stranger's by now, and then PostgreSQL would refuse to start. PG_GRANDPARENT_PID makes it
    look past that one pid; its other guard, the shared memory of surviving backends, stays in force.
    """
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "PG_GRANDPARENT_PID": str(_left_pid(home))}


def survivors(home: Home) -> list[psutil.Process]:
    """Processes of an earlier server which are still in this cluster. A zombie is in no folder."""
    return [process for process in psutil.process_iter() if _folder(process) == str(home.data)]


def dismiss(home: Home) -> None:
    """Tell survivors to go: a postmaster to stop fast, with its children; children who have lost theirs to end."""
    found = survivors(home)
    postmaster = [process for process in found if process.pid == _left_pid(home)]
    for process in postmaster or found:
        with suppress(psutil.NoSuchProcess):  # it has gone since we looked
            process.send_signal(signal.SIGINT if postmaster else signal.SIGTERM)


def prune_logs(home: Home) -> None:
    stamps = sorted({file.stem for file in home.log.glob("postgres-*")})
    for stamp in stamps[:-LOGS_KEPT]:
        for file in home.log.glob(f"{stamp}.*"):
            file.unlink(missing_ok=True)


def _refuse_another_major(home: Home) -> None:
    held = home.data / "PG_VERSION"
    if not held.exists():
        return
    old = held.read_text().strip()
    new = _run(home, "postgres", "--version").split()[2]
    if old != new.partition(".")[0]:
        at = f"-h {home.socket} -U {ROLE}"
        raise CannotStart(
            f"{home.data} was written by PostgreSQL {old} and this is PostgreSQL {new}: start the Sendable that wrote "
            f"it and run `pg_dump -Fc {at} -f sendable.dump {ROLE}`, stop it, move {home.path} away, start this one, "
            f"run `{home.programs / 'dropdb'} --force {at} {ROLE}` (what is there is newer than the dump), "
            f"`{home.programs / 'createdb'} {at} {ROLE}` and "
            f"`{home.programs / 'pg_restore'} --single-transaction {at} -d {ROLE} sendable.dump`, and start it again"
        )


def _create(home: Home, lock: int) -> None:
    """What makes it inherits the lock: when we are killed it is free only once nothing writes there any more."""
    aside = home.path / "data.new"
    shutil.rmtree(aside, ignore_errors=True)
    _run(home, "initdb", f"--pgdata={aside}", *_INITDB, kept=[lock])
    _run(home, "postgres", "--single", "-D", str(aside), "-c", "exit_on_error=on", "-F", "postgres", told=_BIRTH,
         kept=[lock])  # fmt: skip
    _run(home, "initdb", f"--pgdata={aside}", "--sync-only", *_SYNC, kept=[lock])
    for unread in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):  # ours are beside the data, and renewed
        (aside / unread).unlink()
    aside.rename(home.data)


def _run(home: Home, program: str, *args: str, told: str = "", kept: Sequence[int] = ()) -> str:
    done = subprocess.run(
        [str(home.programs / program), *args], **home.identity, pass_fds=kept,
        input=told, capture_output=True, text=True, check=False, cwd=home.path, env={"PATH": os.defpath, "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode:
        raise CannotStart(f"{program} failed in {home.path}: {complaint(done.stderr or done.stdout)}")
    return done.stdout


def complaint(said: str) -> str:
    """The first line that says what failed; behind it stands what failed in turn, and what was cleaned up."""
    lines = said.strip().splitlines() or ["no message"]
    return next((line for line in lines if re.search("error:|ERROR:|FATAL:|PANIC:", line)), lines[-1]).strip()


def _paths(home: Home) -> str:
    paths = {
        "unix_socket_directories": home.socket,
        "log_directory": home.log,
        "hba_file": home.path / "pg_hba.conf",
        "ident_file": home.path / "pg_ident.conf",
    }
    return "\n" + "".join("{} = '{}'\n".format(name, str(path).replace("'", "''")) for name, path in paths.items())


def _write(home: Home, name: str, text: str) -> None:
    """Replaced, never opened: under root a link that stands there must not lead us out of the home."""
    with tempfile.NamedTemporaryFile("w", dir=home.path, delete=False) as file:
        os.fchown(file.fileno(), home.uid, home.gid)
        file.write(text)
    Path(file.name).rename(home.path / name)


def _left_pid(home: Home) -> int:
    """From postmaster.pid; 0 if no server left one."""
    try:
        return int((home.data / "postmaster.pid").read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return 0


def _folder(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except (psutil.Error, OSError):
        return ""
