"""The URL of a database, as PostgreSQL's own programs write it: `sslmode`, certificates, several hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_PORT = r"([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = re.compile(rf"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@]*)(:{_PORT})?")
_PORTS = re.compile(rf"{_PORT}(,{_PORT})*")
KNOWN = (
    "host", "port", "dbname", "user", "password", "passfile", "sslmode", "sslrootcert", "sslcert", "sslkey",
    "target_session_attrs", "application_name", "options",
)  # fmt: skip
"""What may stand behind the question mark: what the driver passes on or does itself."""
_SESSIONS = ("any", "read-write", "primary", "read-only", "standby", "prefer-standby")
_SSL = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FORM = "postgresql://user:password@host:port/database"


def database_url(text: str) -> str:
    """The URL under SQLAlchemy's name of our driver. Raises ValueError, which quotes nothing that may be a password."""
    scheme, _, rest = text.partition("://")
    if scheme not in _SCHEMES or not rest:
        raise ValueError("must be a PostgreSQL URL, for example postgresql://user:password@host/database")
    try:
        parts = urlsplit(f"postgresql://{rest}")
    except ValueError:
        raise ValueError(_unreadable()) from None
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if parts.netloc.count("@") > 1 or "@" in parts.path or parts.fragment or not all(map(_HOST.fullmatch, hosts)):
        raise ValueError(_unreadable())
    options = {_named(key): value for key, value in parse_qsl(parts.query, keep_blank_values=True)}
    if "port" in options and not _PORTS.fullmatch(options["port"]):
        raise ValueError("has no valid port: write a number up to 65535")
    if options.get("sslmode", "prefer") not in _SSL:
        raise ValueError(f"has an unknown sslmode; there are {', '.join(_SSL)}")
    if options.get("target_session_attrs", "any") not in _SESSIONS:
        raise ValueError(f"has unknown target_session_attrs; there are {', '.join(_SESSIONS)}")
    if "ssl" in dict(parse_qsl(parts.query)):
        rest = f"{parts.netloc}{parts.path}?{_written(options.items())}"
    return f"postgresql+asyncpg://{rest}"


def hosts(url: str) -> list[tuple[str, int | None]]:
    """The hosts that a URL names, each with its port if it has one; none: those of the environment."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    named = (parts.netloc.rpartition("@")[2] or options.get("host", "")).split(",")
    ports = options["port"].split(",") if "port" in options else [""]
    ports *= len(named) if len(ports) == 1 else 1
    found = [(_HOST.fullmatch(one), port) for one, port in zip(named, ports, strict=False)]
    return [
        (unquote(host[1]).strip("[]"), int(host[3] or port) if host[3] or port else None)
        for host, port in found
        if host and host[1]
    ]


def as_role(url: str, role: str) -> str:
    """The same database for somebody else, whose password we do not know."""
    parts = urlsplit(url)
    options = [pair for pair in parse_qsl(parts.query) if pair[0] not in {"user", "password", "passfile"}]
    hosts = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}@{hosts}", query=_written(options)).geturl()


def without_password(url: str) -> tuple[str, str]:
    """The URL and its password, apart: what stands on a command line can be read by everybody on the machine."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query)
    who, at, hosts = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    bare = _written([pair for pair in options if pair[0] != "password"])
    behind = parts._replace(scheme="", netloc="", query=bare).geturl()
    return (
        f"{parts.scheme}://{user}{at}{hosts}{behind}",  # of no host and no user `geturl` leaves the slashes away
        dict(options).get("password") or unquote(password),
    )


def _written(options: Iterable[tuple[str, str]]) -> str:
    """With %20 for a blank: PostgreSQL's own programs read a plus sign as itself."""
    return urlencode([*options], safe="/", quote_via=quote)


def _named(key: str) -> str:
    """`ssl` is SQLAlchemy's word for it. What is no word may be the rest of a password, and is not told."""
    if key == "ssl":
        return "sslmode"
    if key in KNOWN:
        return key
    if re.fullmatch("[a-z_]{3,40}", key) is None:
        raise ValueError(_unreadable())
    raise ValueError(f"has `{key}` behind the question mark: remove it; there may be {', '.join(KNOWN)}")


def _unreadable() -> str:
    return f"cannot be read: write it as {_FORM}, and @ : / ? # % of a password as %40 %3A %2F %3F %23 %25"
