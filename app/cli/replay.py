"""`sendable replay`: what is kept, derived once more; any difference is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.attach import with_database
from app.cli.show import Json, Refused, as_json, progress, refusing, say
from app.cli.simulate import span
from app.config import Settings, read_settings
from app.models.phone import e164
from app.services.replay import Difference, Which
from app.services.replay import replay as derived
from app.wiring import meaning_of


def replay(
    number: Annotated[str | None, typer.Option(help="This number alone.")] = None,
    since: Annotated[str | None, typer.Option(help="Numbers with receipts since then, for example 7d.")] = None,
    *,
    json: Json = False,
) -> None:
    """Derive all states again from the receipts and facts that are kept, and show what differs: nothing, in health.

    Nothing is touched. It ends with 1 where anything differs.
    """
    which = _which(number, since)

    async def run(engine: AsyncEngine, settings: Settings) -> list[Difference]:
        kept = datetime.now(UTC) - settings.changes_kept + timedelta(days=1)
        with progress("numbers derived", 0) as tell:
            found = []
            async for one in derived(engine, meaning_of(settings), which, kept, tell):
                found.append(one)
                if not json:
                    who = f" {_masked(one.number)}" if one.number else ""
                    say(f"{one.what}{who}: stands as {one.stands}, should be {one.should}")
            return found

    found = with_database(run)
    if json:
        as_json({"differences": [one._asdict() for one in found]})
    if found:
        raise Refused(f"{len(found)} differences: docs/policy.md says what they may mean", 1)
    if not json:
        say("no difference")


def _which(number: str | None, since: str | None) -> Which:
    if number is not None and since is not None:
        raise Refused("say --number or --since, not both: of one number everything is derived")
    with refusing():
        who = None if number is None else e164(number, read_settings().region)
    return Which(who, None if since is None else datetime.now(UTC) - span(since))


def _masked(number: str) -> str:
    return f"{number[:5]}***{number[-4:]}"
