"""Commands for whoever runs the service: migrate, doctor, keys, db."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.catalogue import CatalogueError
from app.catalogue.policy import PolicyError
from app.cli.attach import a_database, attached, is_refusal, why_not, with_database
from app.cli.show import Json, Refused, as_json, as_table, busy, refusing, say, visible
from app.config import Settings, SettingsError, read_settings
from app.models.database_url import as_role, without_password
from app.models.duration import duration
from app.services import database
from app.services import keys as ring
from app.services import migrate as migrations
from app.services.connection import is_lost
from app.services.doctor.database import READER, of_database
from app.services.doctor.finding import Finding
from app.services.doctor.gateway import of_gateway
from app.services.doctor.settings import of_disk, of_settings
from app.services.embedded.home import ROLE, is_made, locate
from app.services.keys import Key
from app.wiring import every_link, links_of, meaning_of, parts_of, url_of

keys = typer.Typer(no_args_is_help=True, help="Keys of internal services.")
PATIENCE = 30
"""Seconds that the doctor waits for the embedded PostgreSQL."""
db = typer.Typer(no_args_is_help=True, help="The database, for other systems and for a look by hand.")


def migrate(*, json: Json = False) -> None:
    """Bring the database to this code's version. Safe while others do the same; `serve` does it at its start."""
    settings = read_settings()

    async def run() -> str:
        async with url_of(settings) as url:
            with busy("the database is migrated"):
                return await migrations.upgrade(url)

    version = asyncio.run(run())
    as_json({"version": version}) if json else say(f"the database is at version {version}")


# Doctor ------------------------------------------------------------------------------------------------------------


def doctor(
    gateway: Annotated[str | None, typer.Option(help="Post a signed sample to this gateway's public URL.")] = None,
    account: Annotated[str, typer.Option(help="Of this account of the gateway.")] = "",
    *,
    json: Json = False,
) -> None:
    """What is wrong, and how to mend it: one line each. Ends with 1 when something must be mended."""
    if account and gateway is None:
        raise Refused("--account names an account of a gateway: name that with --gateway")
    findings = asyncio.run(_examined() if gateway is None else _tried(gateway, account))
    if json:
        as_json([finding._asdict() for finding in findings])
    else:
        for level, about, says, mend in findings:
            typer.echo(visible(f"{level:5} {about}: {says}" + (f" -> {mend}" if mend else "")))
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)


async def _examined() -> list[Finding]:
    try:
        settings = read_settings()
        parts_of(settings)
    except (SettingsError, PolicyError, CatalogueError) as error:
        return [Finding("wrong", "settings", str(error))]
    fine = Finding("ok", "settings", "as they should be")
    return [fine, *of_settings(settings), *await _of_database(settings)]


async def _tried(gateway: str, account: str) -> list[Finding]:
    settings = read_settings()
    gateways = meaning_of(settings).gateways
    if gateway not in gateways:
        raise Refused(f"{gateway!r} is no gateway; there are {', '.join(gateways)}")
    links_of(settings)
    link = every_link(settings).get((gateway, account))
    if link is None:
        known = [name for of, name in settings.links() if of == gateway and name]
        raise Refused(f"{gateway} has no account {account!r}; there are {', '.join(known) or 'none'}")
    bare = settings.host.strip("[]")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare)  # noqa: S104 - it is compared
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    return [finding async for finding in of_gateway(gateways[gateway], link, address, auth=settings.auth == "on")]


async def _of_database(settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    limit = asyncio.timeout(PATIENCE)
    try:
        if settings.database_url is None and is_made(settings.data_dir):
            found.append(of_disk(locate(settings.data_dir).path))
        async with limit, attached(settings) as engine:
            limit.reschedule(None)
            async for finding in of_database(engine, settings):
                found.append(finding)  # noqa: PERF401 - what was found stays though the rest cannot be asked
    except (Refused, database.CannotStart) as error:
        found.append(Finding("wrong", "database", str(error)))
    except Exception as error:
        if limit.expired():
            says = f"PostgreSQL in {settings.data_dir} has not answered for {PATIENCE} s: it recovers, or hangs"
            mend = "wait, see its log in postgres/log there, or stop all of it and start again"
            return [*found, Finding("wrong", "database", says, mend)]
        if not (is_lost(error) or is_refusal(error)):
            raise
        found.append(Finding("wrong", "database", *why_not(error)))
    return found


# Keys --------------------------------------------------------------------------------------------------------------


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    scope: Annotated[list[str], typer.Option(help=f"May be given several times: {', '.join(ring.SCOPES)}.")],
    expires: Annotated[str | None, typer.Option(help="After how long it ends, for example 90d.")] = None,
    *,
    json: Json = False,
) -> None:
    """Make a key. It is printed once, alone on standard output; only its digest is kept."""
    with refusing():
        lasts: timedelta | None = duration(expires) if expires is not None else None
    if not name.strip() or not name.isprintable():
        raise Refused("the key needs a name that can be read: say who will use it")
    if lasts == timedelta(0):
        raise Refused("--expires: a key of no time opens nothing: give for example 90d")
    key, token = with_database(lambda engine, _: ring.create(engine, name, scope, lasts))
    until = f", until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    try:
        if json:
            as_json({**_shown(key), "key": token})
        else:
            say(f"key {key.id} for {name}: {', '.join(sorted(key.scopes))}{until}. It is shown this once:")
            typer.echo(token)
    except OSError as error:
        with_database(lambda engine, _: ring.revoke(engine, key.id))
        raise Refused(f"the key could not be shown, and is revoked: {error.strerror}; make another", 1) from error


@keys.command("list")
def list_keys(*, json: Json = False) -> None:
    """All keys, those that have ended too. The keys themselves are kept nowhere."""
    found = [_shown(key) for key in with_database(lambda engine, _: ring.list_all(engine))]
    columns = ("id", "name", "scopes", "state", "created_at", "expires_at", "revoked_at")
    as_json(found) if json else as_table(columns, found)


@keys.command("revoke")
def revoke_key(id_: Annotated[str, typer.Argument(metavar="ID", help="As `sendable keys list` shows it.")], *,
               json: Json = False) -> None:  # fmt: skip
    """End a key for good. Running services refuse it within five seconds."""
    key = with_database(lambda engine, _: ring.revoke(engine, id_))
    if key is None:
        raise Refused("there is no key of this id; `sendable keys list` shows them", 1)
    as_json(_shown(key)) if json else say(f"key {key.id} ({key.name}) is revoked")


def _shown(key: Key) -> dict[str, object]:
    state = "live" if key.live(datetime.now(UTC)) else "revoked" if key.revoked_at else "expired"
    return asdict(key) | {"scopes": sorted(key.scopes), "state": state}


# The database ------------------------------------------------------------------------------------------------------

Reader = Annotated[bool, typer.Option("--reader", help=f"As {READER}, who reads the published views and nothing else.")]


JsonInstead = Annotated[bool, typer.Option("--json", help="Print as JSON what would be opened, and open nothing.")]


@db.command("url")
def url(*, reader: Reader = False, json: Json = False) -> None:
    """A URL for psql and other programs."""
    address = _address(read_settings(), reader=reader)
    as_json({"url": address}) if json else typer.echo(address)


@db.command("psql")
def psql(*, reader: Reader = False, json: JsonInstead = False) -> None:
    """Open psql on the database, as its owner or as the reader."""
    settings = read_settings()
    address = _address(settings, reader=reader)
    own = None if settings.database_url else locate(settings.data_dir).programs / "psql"
    program = str(own) if own and own.exists() else shutil.which("psql")
    if program is None:
        raise Refused(
            "there is no psql on this machine: install it, or give another program what `sendable db url` prints", 1
        )
    if json:
        as_json({"program": program, "url": address})
        return
    shown, password = without_password(address)
    more = {"PGPASSWORD": password} if password else {}
    os.execve(program, [program, shown], os.environ | more)  # noqa: S606 - no shell: this process becomes psql


def _address(settings: Settings, *, reader: bool) -> str:
    a_database(settings)
    if settings.database_url is None:
        say("it answers while `sendable serve` runs")
        return database.url_for(settings.data_dir, READER if reader else ROLE)
    address = "postgresql" + settings.database_url.get_secret_value().removeprefix("postgresql+asyncpg")
    if reader:
        say(f"no password in it: where the server asks for one, run ALTER ROLE {READER} PASSWORD '…' and add it")
        return as_role(address, READER)
    return address
