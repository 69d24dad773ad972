"""Commands about what waits for a person: held numbers, mass events, callbacks that nobody could read."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.attach import a_gateway, with_database
from app.cli.show import Json, Refused, as_json, as_table, busy, progress, refusing, say, visible
from app.config import Settings, read_settings
from app.models.number import Decision as Word
from app.models.phone import e164
from app.models.policy import Policy
from app.services import held as holds
from app.services import quarantine as events
from app.services import reading, refused
from app.services import unread as kept
from app.services.errands import Errands
from app.services.held import Which
from app.wiring import every_link, links_of, meaning_of

held = typer.Typer(no_args_is_help=True, help="Numbers that are held, and what they wait for.")
quarantine = typer.Typer(no_args_is_help=True, help="Mass events that the breaker holds for a person.")
unread = typer.Typer(no_args_is_help=True, help="Callbacks that could not be read.")

Number = Annotated[str | None, typer.Argument(help="One number.")]
Code = Annotated[str | None, typer.Option(help="All that this code holds.")]
Space = Annotated[str | None, typer.Option(help="The code's space, for example openmarket.")]
Reason = Annotated[str | None, typer.Option(help="All that this reason holds.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]

# Held --------------------------------------------------------------------------------------------------------------


@held.command("list")
def list_held(
    code: Code = None,
    space: Space = None,
    reason: Reason = None,
    waiting_for: Annotated[str | None, typer.Option(help="lookup, no_lookup_provider, budget, person, sender.")] = None,
    limit: Limit = 100,
    *,
    json: Json = False,
) -> None:
    """Held numbers, in order of number."""
    which = Which(None, code, space, reason, waiting_for)
    rows = with_database(lambda engine, _: holds.held(engine, which, limit=limit))
    columns = ("number", "reason", "waiting_for", "code_space", "code", "since", "until")
    as_json(rows) if json else as_table(columns, rows)


@held.command("release")
def release(number: Number = None, code: Code = None, space: Space = None, reason: Reason = None, *, yes: Yes = False,
            json: Json = False) -> None:  # fmt: skip
    """Let held numbers be texted again: one, or all that a code or a reason holds. Consent is untouched."""
    _decide(holds.release, "released", _which(number, code, space, reason), yes=yes, json=json)


@held.command("opt-out")
def opt_out(number: Number = None, code: Code = None, space: Space = None, reason: Reason = None, *, yes: Yes = False,
            json: Json = False) -> None:  # fmt: skip
    """Give held numbers up: the hold ends, and with it consent on every list. Only a new opt-in brings it back."""
    _decide(holds.opt_out, "opted out", _which(number, code, space, reason), yes=yes, json=json)


Decision = Callable[[AsyncEngine, Which, Policy, str], Awaitable[int]]


def _decide(decide: Decision, done: str, which: Which, *, yes: bool, json: bool) -> None:
    if not yes and which.number is None and sys.stdin.isatty():
        typer.confirm(f"All numbers that {_words(which)} holds will be {done}. Go on?", abort=True, err=True)

    async def act(engine: AsyncEngine, settings: Settings) -> int:
        with busy(f"numbers are {done}"):
            return await decide(engine, which, meaning_of(settings).policy, who_decides())

    total = with_database(act)
    if json:
        as_json({"numbers": total})
    if total == 0 and which.number is not None:
        raise Refused("this number is not held", 1)
    if not json:
        say(f"{total} {'number' if total == 1 else 'numbers'} {done}")


def who_decides() -> str:
    """Who decides, for the history. A container may run as a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _which(number: str | None, code: str | None, space: str | None, reason: str | None) -> Which:
    if not (number or code or reason):
        raise Refused("name a number, --code or --reason: all held numbers at once are never meant")
    if code and not space:
        raise Refused("a code means something only inside its space: name it too, for example --space openmarket")
    with refusing():
        return Which(number and e164(number, read_settings().region), code, space, reason)


def _words(which: Which) -> str:
    return " and ".join(f"{name} {value}" for name, value in which._asdict().items() if value)


# Quarantine --------------------------------------------------------------------------------------------------------

Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="As `sendable quarantine list` shows it.")]


@quarantine.command("list")
def list_quarantines(
    limit: Limit = 100,
    *,
    every: Annotated[bool, typer.Option("--all", help="Also those that are decided.")] = False,
    json: Json = False,
) -> None:
    """Mass events, newest first: what came, for how many numbers, and how many wait."""
    found = with_database(lambda engine, _: events.quarantines(engine, is_open=None if every else True, limit=limit))
    rows = [row._asdict() for row in found]
    columns = ("id", "gateway", "code_space", "code", "reason", "sender", "carrier", "opened_at", "seen", "allowed",
               "waiting", "decision")  # fmt: skip
    as_json(rows) if json else as_table(columns, rows)


@quarantine.command("release")
def release_quarantine(id_: Id, *, yes: Yes = False, json: Json = False) -> None:
    """The receipts were right: what they do happens, with their own dates. Consent may end."""
    _settle(id_, "release", "released", yes=yes, json=json)


@quarantine.command("discard")
def discard_quarantine(id_: Id, *, yes: Yes = False, json: Json = False) -> None:
    """The receipts were wrong: it is as if they had not acted, and their numbers are free."""
    _settle(id_, "discard", "discarded", yes=yes, json=json)


def _settle(id_: int, word: Word, done: str, *, yes: bool, json: bool) -> None:
    if not yes and sys.stdin.isatty():
        typer.confirm(f"What waits in quarantine {id_} will be {done}. Go on?", abort=True, err=True)

    async def act(engine: AsyncEngine, settings: Settings) -> int | None:
        with busy(f"quarantine {id_} is {done}"):
            return await events.decide(engine, id_, word, meaning_of(settings).policy, who_decides())

    total = with_database(act)
    if total is None:
        raise Refused(f"no quarantine {id_} is open; `sendable quarantine list` shows them", 1)
    if json:
        as_json({"numbers": total})
    else:
        say(f"quarantine {id_} is {done}: {total} {'number' if total == 1 else 'numbers'}")


# Unread ------------------------------------------------------------------------------------------------------------


@unread.command("list")
def list_unread(limit: Limit = 100, *, json: Json = False) -> None:
    """Callbacks, or elements of them, that could not be read: newest first, without their bodies."""
    rows = [row._asdict() for row in with_database(lambda engine, _: reading.unread(engine, reading.NEWEST, limit))]
    columns = ("id", "gateway", "account", "reason", "method", "size", "times", "first_at", "last_at")
    as_json(rows) if json else as_table(columns, rows)


@unread.command("show")
def show_unread(
    id_: Annotated[int, typer.Argument(metavar="ID", min=1, help="As `sendable unread list` shows it.")],
    *,
    json: Json = False,
) -> None:
    """One of them as it came, but for what proved its origin."""
    row = with_database(lambda engine, _: reading.one_unread(engine, id_))
    if row is None:
        raise Refused(f"nothing unread has the id {id_}; `sendable unread list` shows what there is", 1)
    found: dict[str, Any] = row._asdict() | {"headers": orjson.loads(row.headers)}
    body = found.pop("body").decode("utf-8", "backslashreplace")
    if json:
        as_json(found | {"body": body})
        return
    head = found.pop("headers").items()
    as_table(("id", str(found.pop("id"))), [*found.items(), *((f"header {name}", value) for name, value in head)])
    sys.stdout.write("\n" + visible(body, kept="\n\t") + "\n")


Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="As `sendable unread list` shows them.")
]
Gateway = Annotated[str | None, typer.Option(help="Those of this gateway.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@unread.command("replay")
def replay(ids: Ids = None, gateway: Gateway = None, *, all_: All = False, json: Json = False) -> None:
    """Read them again, after a fix: they are applied as if they had been read when they came, once. The rest stays."""
    which = _some(ids, gateway, all_=all_)
    a_gateway(gateway)

    async def act(engine: AsyncEngine, settings: Settings) -> kept.Replayed:
        with progress("callbacks read again", await kept.waiting(engine, which)) as told:
            return await kept.replay(engine, meaning_of(settings), every_link(settings), which, told)

    done = with_database(act)
    if json:
        as_json(done._asdict())
    else:
        say(f"{done.read} read now, {done.receipts} new receipts in them; {done.left} left")


@unread.command("reverify")
def reverify(gateway: Gateway = None, *, json: Json = False) -> None:
    """After a secret was mended: apply the refused requests that are authentic by it, once.

    The newest 10,000 of each gateway are kept for this, as long as receipts are.
    """
    a_gateway(gateway)

    async def act(engine: AsyncEngine, settings: Settings) -> refused.Reverified:
        errands = Errands()
        try:
            with progress("requests proven again", await refused.waiting(engine, gateway)) as told:
                return await refused.reverify(
                    engine, meaning_of(settings), links_of(settings), gateway, errands=errands, told=told
                )
        finally:
            await errands.close()

    done = with_database(act)
    if json:
        as_json(done._asdict())
    else:
        say(f"{done.proven} are authentic, {done.receipts} new receipts in them; {done.left} still prove nothing")


@unread.command("drop")
def drop(ids: Ids = None, gateway: Gateway = None, *, all_: All = False, yes: Yes = False, json: Json = False) -> None:
    """Forget them unread, for good."""
    which = _some(ids, gateway, all_=all_)
    if not yes and which.ids is None and sys.stdin.isatty():
        of = f" of {gateway}" if gateway else ""
        typer.confirm(f"All unread callbacks{of} will be forgotten. Go on?", abort=True, err=True)
    total = with_database(lambda engine, _: kept.drop(engine, which))
    as_json({"dropped": total}) if json else say(f"{total} dropped")


def _some(ids: list[int] | None, gateway: str | None, *, all_: bool) -> kept.Which:
    if bool(ids) + (gateway is not None) + all_ != 1:
        raise Refused("say which in one way: by ids, with --gateway, or with --all")
    return kept.Which(ids or None, gateway)
