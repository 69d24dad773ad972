"""Reads the policy: the rules that ship, and an owner's override file on top of them."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

from app.models.catalogue import REASONS
from app.models.duration import LONGEST, duration, written
from app.models.number import PRECEDENCE, LadderName, Scope
from app.models.policy import Breaker, Ladder, Mode, Policy, Rule

STRIKES_MOST = 30
"""What a ladder may ask for: facts keep the strikes of not many more days."""
OVER_MOST = timedelta(days=30)
"""And how far apart they may have to be: of those of every day not many more are kept."""
COUNTED_MOST = 10**9
"""What the breaker may."""
DAY_AT_MOST = timedelta(days=1)
"""Its window: what is usual is each day's busiest one."""
PAST_MOST = timedelta(days=90)
"""How far back it may look: older windows are not kept."""
NO_FAILURES = frozenset({"accepted", "in_progress", "delivered", "unsubscribed"})
"""Reasons that no receipt of a failure has, nor a file: what a rule says of them would never act."""


class PolicyError(ValueError):
    """One line that names the file, the rule and the mend."""


def load_policy(override: Path | None = None, mode: Mode | None = None, sender_modes: Mapping[str, Mode] | None = None,
                *, lookups: bool = False, revocation: Scope | None = None,
                sender_revocations: Mapping[str, Scope] | None = None) -> Policy:  # fmt: skip
    """The rules in force. An override names only what it changes; its `mode` and `revocation_scope` yield to those
    given here.

    Raises PolicyError for a file that cannot be read, an unknown reason or key, or a value of the wrong kind.
    """
    shipped = tomllib.loads((files("app.catalogue") / "policy.toml").read_text("utf-8"))
    own = _read(override) if override else {}
    if extra := own.keys() - {"mode", "revocation_scope", "rules", "ladders", "breaker"}:
        raise PolicyError(
            f"{override}: unknown key {min(extra)!r}; a policy file has `mode`, `revocation_scope`, `[rules.REASON]`, "
            "`[ladders.NAME]` and `[breaker]` tables"
        )
    rules = dict(shipped["rules"])
    for reason, table in _tables(override, own.get("rules", {})).items():
        rules[reason] = rules.get(reason, {}) | table
    named = own.get("mode", "lookup_first")
    if named not in get_args(Mode):
        raise PolicyError(f'{override}: mode = "{named}" is neither "lookup_first" nor "strict"')
    reach = own.get("revocation_scope")
    if reach is not None and reach not in get_args(Scope):
        raise PolicyError(f'{override}: revocation_scope = "{reach}" is none of "list", "sender" and "all"')
    where = str(override or "policy.toml")
    read = {reason: _rule(where, reason, table) for reason, table in rules.items()}
    for reason, table in own.get("rules", {}).items():
        for key, needs in _idle(read[reason], table):
            raise PolicyError(f"{where}: [rules.{reason}] {key} does nothing without {needs}: add that, or delete it")
    ladders = {name: _ladder(where, name, shipped, own) for name in shipped["ladders"]}
    if extra := _named(where, own, "ladders").keys() - ladders.keys():
        raise PolicyError(f"{where}: [ladders.{min(extra)}] is no ladder; there are {', '.join(ladders)}")
    breaker = _breaker(where, shipped["breaker"] | _named(where, own, "breaker"))
    modes, reaches = dict(sender_modes or {}), dict(sender_revocations or {})
    return Policy(read, mode or named, modes, lookups, revocation or reach, reaches, ladders, breaker)


def _ladder(where: str, name: LadderName, shipped: Mapping[str, Any], own: Mapping[str, Any]) -> Ladder:
    table = shipped["ladders"][name] | _named(where, own, "ladders", name)
    ladder = Ladder(**_numbers(where, f"ladders.{name}", Ladder, table))
    if name == "unknown_subscriber" and table.keys() - {"strikes"}:
        raise PolicyError(f"{where}: [ladders.{name}] has only `strikes`: after so many consent ends")
    if ladder.over and ladder.over > OVER_MOST:
        raise PolicyError(f'{where}: [ladders.{name}] over must be "{written(OVER_MOST)}" at most')
    if ladder.within is not None and ladder.within <= timedelta(days=ladder.strikes - 2):
        raise PolicyError(
            f"{where}: [ladders.{name}] within: {ladder.strikes} strikes, one a day, never lie in so short a time; "
            "lengthen it, or ask for fewer `strikes`"
        )
    return ladder


def _breaker(where: str, table: Mapping[str, Any]) -> Breaker:
    breaker = Breaker(**_numbers(where, "breaker", Breaker, table))
    if not timedelta() < breaker.window <= DAY_AT_MOST:
        raise PolicyError(f'{where}: [breaker] window must be more than 0s and "{written(DAY_AT_MOST)}" at most')
    if breaker.past > PAST_MOST:
        raise PolicyError(f'{where}: [breaker] past must be "{written(PAST_MOST)}" at most: what is older is not kept')
    return breaker


def _named(where: str, own: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """A table of an owner's file, empty where it has none."""
    table: Any = dict(own)
    for name in path:
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise PolicyError(f"{where}: `{name}` must be a table: write [{'.'.join(path)}] and its keys below it")
    return dict(table)


def _numbers(where: str, name: str, kind: type[Ladder | Breaker], table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table whose keys are all counts or times."""
    kinds, most = get_type_hints(kind), STRIKES_MOST if kind is Ladder else COUNTED_MOST
    if extra := table.keys() - kinds.keys():
        raise PolicyError(f"{where}: [{name}] has the unknown key {min(extra)!r}; use {', '.join(kinds)}")
    return {key: _count_or_time(where, f"[{name}] {key}", kinds[key], value, most) for key, value in table.items()}


def _count_or_time(where: str, what: str, kind: object, value: object, most: int) -> int | timedelta:
    if timedelta in (kind, *get_args(kind)):
        try:
            return duration(str(value))
        except ValueError as error:
            raise PolicyError(f"{where}: {what}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise PolicyError(f"{where}: {what} must be a whole number from 1 to {most}")
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read as a policy file: {error}") from error


def _tables(path: Path | None, rules: object) -> dict[str, dict[str, Any]]:
    if not isinstance(rules, dict) or not all(isinstance(table, dict) for table in rules.values()):
        raise PolicyError(f"{path}: `rules` must hold tables: write [rules.REASON] and its keys below it")
    return rules


_KINDS = get_type_hints(Rule)


def _rule(where: str, reason: str, table: Mapping[str, Any]) -> Rule:
    if reason not in REASONS:
        raise PolicyError(f"{where}: [rules.{reason}] names an unknown reason; `sendable policy show` lists them all")
    if reason in NO_FAILURES:
        raise PolicyError(f"{where}: [rules.{reason}] would never act: no failure has this reason; delete it")
    known = {field.name for field in fields(Rule)} - {"reason"}
    if extra := table.keys() - known:
        raise PolicyError(
            f"{where}: [rules.{reason}] has the unknown key {min(extra)!r}; use {', '.join(sorted(known))}"
        )
    return Rule(reason, **{key: _value(where, reason, key, value) for key, value in table.items()})


def _idle(rule: Rule, named: Collection[str]) -> Iterator[tuple[str, str]]:
    """The keys, of those that an owner has named, that would never act, and what they lack."""
    for key, needs in _lacks(rule).items():
        if needs and key in named and getattr(rule, key):
            yield key, needs


def _lacks(rule: Rule) -> dict[str, str | None]:
    keeps = rule.state or rule.ladder in {"soft", "no_detail"} or rule.reason == "permanent_failure"
    condition = None if keeps else "`state`"
    return {
        "lapse": condition,
        "alone_lapse": condition,
        "forgets_carrier": condition,
        "repeats": None if rule.alone_lapse else "`alone_lapse`",
        "lookup": None if rule.state or rule.block else "`state` or `block`",
        "lifted_by_port": None if rule.block else "`block`",
    }


def _value(where: str, reason: str, key: str, value: Any) -> Any:  # noqa: ANN401 - what TOML gave
    allowed = _allowed(key)
    if timedelta in allowed:
        try:
            length = duration(str(value))
        except ValueError as error:
            raise PolicyError(f"{where}: [rules.{reason}] {key}: {error}") from error
        if not length:
            raise PolicyError(f'{where}: [rules.{reason}] {key} must be more than 0s; "{written(LONGEST)}" is for ever')
        return length
    if bool in allowed and isinstance(value, bool):
        return value
    if isinstance(value, str) and value in allowed:
        return value
    words = "true or false" if bool in allowed else " or ".join(f'"{c}"' for c in allowed if isinstance(c, str))
    raise PolicyError(f"{where}: [rules.{reason}] {key} must be {words}")


def _allowed(key: str) -> list[object]:
    """What may stand there: words, or a type. No rule makes a number active or unseen: that is what is left."""
    kind = _KINDS[key]
    choices = [choice for part in get_args(kind) or (kind,) for choice in get_args(part) or (part,)]
    return [c for c in choices if c in PRECEDENCE] if key in {"state", "ends"} else choices
