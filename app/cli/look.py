"""Commands that look and change nothing: policy, numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from app.catalogue.policy import load_policy
from app.cli.attach import with_database
from app.cli.codes import does
from app.cli.show import Json, Refused, as_json, as_table, refusing, say
from app.config import Settings, read_settings
from app.models.duration import written
from app.models.phone import e164, sender_id
from app.models.policy import Breaker, Ladder, Policy, Rule
from app.services import history
from app.services.reading import NEWEST
from app.services.status import Asked, read_many, told
from app.wiring import meaning_of

policy = typer.Typer(no_args_is_help=True, help="What each reason does.")
numbers = typer.Typer(no_args_is_help=True, help="What is known of a number.")

# Policy ------------------------------------------------------------------------------------------------------------


@policy.command("show")
def show_policy(*, json: Json = False) -> None:
    """The rules in force: those that ship, with the override file of SENDABLE_POLICY on top."""
    rules = meaning_of(read_settings()).policy
    if json:
        as_json({"mode": rules.mode, "senders": dict(rules.sender_modes),
                 "revocation_scope": rules.revocation, "sender_revocation_scopes": dict(rules.sender_revocations),
                 "lookups": rules.lookups,
                 "ladders": {name: _rule(ladder) for name, ladder in rules.ladders.items()},
                 "breaker": _rule(rules.breaker),
                 "rules": {reason: _rule(rule) for reason, rule in sorted(rules.rules.items())}})  # fmt: skip
        return
    say(f"mode {rules.mode}; {'a' if rules.lookups else 'no'} lookup provider is configured")
    _say_reach(rules)
    as_table(("reason", "does"), ((reason, does(rule, rules)) for reason, rule in sorted(rules.rules.items())))
    for name, ladder in rules.ladders.items():
        say(f"ladder {name}: {_told(ladder)}")
    say(f"breaker: {_told(rules.breaker)}")


def _say_reach(rules: Policy) -> None:
    if rules.revocation:
        say(f"a revocation reaches as far as: {rules.revocation}")


@policy.command("check")
def check_policy(file: Annotated[Path, typer.Argument(help="An override file.")], *, json: Json = False) -> None:
    """Read an override file as the start would, with these settings, and tell what it changes."""
    ours, theirs = load_policy(), meaning_of(read_settings().model_copy(update={"policy_file": file})).policy
    changes = {
        reason: {key: [was, now] for key, (was, now) in _differences(ours.rule(reason), rule).items()}
        for reason, rule in theirs.rules.items()
        if rule != ours.rule(reason)
    }
    limits = _limits(ours, theirs)
    if json:
        as_json({"file": str(file), "mode": theirs.mode, "revocation_scope": theirs.revocation, "changes": changes,
                 "limits": limits})  # fmt: skip
        return
    say(f"{file} is fine: mode {theirs.mode}, {len(changes)} rules changed")
    _say_reach(theirs)
    for name, words in limits.items():
        say(f"{name}: {words}")
    as_table(("reason", "key", "from", "to"), _rows(changes))


def _differences(old: Rule, new: Rule) -> dict[str, tuple[Any, Any]]:
    was, now = _rule(old), _rule(new)
    return {key: (was[key], now[key]) for key in was if was[key] != now[key]}


def _limits(ours: Policy, theirs: Policy) -> dict[str, str]:
    """The ladders, and the breaker, that a file has changed, as they are then."""
    changed = {f"ladder {name}": _told(one) for name, one in theirs.ladders.items() if one != ours.ladders[name]}
    return changed | ({"breaker": _told(theirs.breaker)} if theirs.breaker != ours.breaker else {})


def _told(limits: Ladder | Breaker) -> str:
    return ", ".join(f"{key} {value}" for key, value in _rule(limits).items() if value is not None)


def _rule(rule: Rule | Ladder | Breaker) -> dict[str, Any]:
    """As a policy file writes it."""
    told = {key: value for key, value in asdict(rule).items() if key != "reason"}
    return {key: written(value) if isinstance(value, timedelta) else value for key, value in told.items()}


def _rows(changes: dict[str, dict[str, list[Any]]]) -> Iterable[tuple[Any, ...]]:
    return ((reason, key, *map(str, pair)) for reason, keys in changes.items() for key, pair in keys.items())


# Numbers -----------------------------------------------------------------------------------------------------------

Number = Annotated[str, typer.Argument(help="E.164, or a national number of SENDABLE_REGION.")]


@numbers.command("show")
def show_number(
    number: Number,
    sender: Annotated[str | None, typer.Option(help="Ask for this sender.")] = None,
    list_: Annotated[str | None, typer.Option("--list", help="Ask for this list of the sender.")] = None,
    *,
    json: Json = False,
) -> None:
    """May this number be texted, and if not, why not? With its lists."""
    if list_ is not None and sender is None:
        raise Refused("--list asks for a list of a sender: name it with --sender")
    if list_ is not None and not list_.strip():
        raise Refused("--list names none: say which list, or leave it out to ask for the sender alone")
    region = read_settings().region
    with refusing():
        asked = Asked(None if sender is None else sender_id(sender, region), list_)
        wanted = e164(number, region)

    async def look(engine: AsyncEngine, _: Settings) -> dict[str, Any]:
        return told((await read_many(engine, [wanted]))[wanted], asked)

    found = with_database(look)
    if json:
        as_json(found)
    else:
        _print_number(found)


def _print_number(found: dict[str, Any]) -> None:
    decision, carrier, evidence = found["decision"], found["carrier"] or {}, found["evidence"] or {}
    as_table(("number", found["number"]), [
        ("sendable", "yes" if decision["sendable"] else f"no: {decision['axis']}, {decision['reason']}"),
        *((key, found[key]) for key in ("state", "reason", "waiting_for", "until", "changed_at") if found[key]),
        *([("carrier", f"{carrier['name']} ({carrier['source']})")] if carrier else []),
        *([("evidence", " ".join(str(value) for value in evidence.values() if value))] if evidence else []),
    ])  # fmt: skip
    if found["lists"]:
        as_table(("sender", "list", "consent", "sendable", "reason", "at"), found["lists"])


@numbers.command("history")
def show_history(
    number: Number,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many changes at most.")] = 100,
    *,
    json: Json = False,
) -> None:
    """How did it come to be so? Every change, newest first, and the receipt, lookup, file or call behind it."""
    with refusing():
        wanted = e164(number, read_settings().region)
    page = with_database(lambda engine, _: history.page(engine, wanted, NEWEST, limit))
    if json:
        as_json(page)
        return
    as_table(("at", "what", "of", "from", "to", "reason", "by"), map(_change, page["items"]))
    if page["next"]:
        say(f"these are the newest {limit}: --limit shows more")


def _change(told: dict[str, Any]) -> tuple[Any, ...]:
    cause = orjson.loads(orjson.dumps(told["cause"]))  # as the database holds it
    by = (cause.get(key) for key in ("kind", "source", "gateway", "code", "message_id"))
    of = filter(None, (told.get("sender"), told.get("list")))
    where, why = "/".join(of), " ".join(filter(None, by))
    return told["occurred_at"], told["kind"], where, told["from"], told["to"], told["reason"], why
