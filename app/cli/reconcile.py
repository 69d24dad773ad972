"""`sendable reconcile`: ask gateways for receipts that never came."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.attach import a_gateway, with_database
from app.cli.show import Json, Refused, as_json, as_table, progress, refusing, say
from app.config import Settings
from app.gateways import GATEWAYS
from app.models.duration import duration
from app.services import reconcile as missed
from app.services.intake import Intake
from app.services.reconcile import Inquirer, Reconciled
from app.wiring import inquirers_of, meaning_of


def reconcile(
    gateway: Annotated[str | None, typer.Option(help="This gateway alone.")] = None,
    older_than: Annotated[str, typer.Option(help="How long ago they were sent, at least.")] = "24h",
    limit: Annotated[int, typer.Option(min=1, help="How many messages of each gateway at most.")] = 10_000,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many would be asked for.")] = False,
    json: Json = False,
) -> None:
    """Ask gateways what became of registered messages that have no final receipt, and apply what they say.

    It keeps to a pace, may be stopped at any time and goes on where it was. Ends with 1 when a gateway refuses.
    """
    a_gateway(gateway)
    with refusing():
        older = duration(older_than)

    async def act(engine: AsyncEngine, settings: Settings) -> list[dict[str, Any]]:
        inquirers = [one for (name, _), one in inquirers_of(settings).items() if gateway in {None, name}]
        if not inquirers:
            able = ", ".join(name for name, one in GATEWAYS.items() if one.inquiry)
            which = gateway or "no gateway"
            keys = f"give {'it' if gateway in able.split(', ') else 'one'} its keys under [gateways.NAME.reconcile]"
            raise Refused(f"{which} can{'not' if gateway else ''} be asked: {keys} ({able})")
        if dry_run:
            return [{**_name(one), "due": await missed.waiting(engine, one.link, older)} for one in inquirers]
        return [_name(one) | (await _ask(engine, settings, one, older, limit))._asdict() for one in inquirers]

    rows = with_database(act)
    if json:
        as_json(rows)
    else:
        as_table([*rows[0]], [[*row.values()] for row in rows])
    stopped = [row for row in rows if row.get("stopped")]
    for row in stopped:
        say(f"sendable: {row['gateway']} was given up: {row['stopped']}")
    if stopped:
        raise typer.Exit(1)


def _name(one: Inquirer) -> dict[str, Any]:
    return {"gateway": one.link.gateway, "account": one.link.account or None}


async def _ask(engine: AsyncEngine, settings: Settings, one: Inquirer, older: timedelta, most: int) -> Reconciled:
    intake = Intake(engine, meaning_of(settings))
    committing = asyncio.create_task(intake.run())
    due = min(most, await missed.waiting(engine, one.link, older))
    try:
        with progress(f"messages asked for at {one.link.gateway}", due) as told:
            return await missed.reconcile(engine, intake, one, older, most, told=told)
    finally:
        intake.stop()
        await committing
