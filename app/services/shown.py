"""What is shown of a number, purely: of its facts, of the policy and of now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from app.models.number import PRECEDENCE, Carrier, Consent, Fact, Number, Reach, State, Step, Subscription, Waiting
from app.models.policy import Policy, Rule
from app.services import aside, ladders
from app.services.decide import OLDEST
from app.services.merge import UNNAMED, cause_key, fact_key, later, latest, merge

DEAD: frozenset[State] = frozenset({"deactivated", "disconnected", "reassigned"})
LIFTED_BY_DELIVERY: frozenset[State] = frozenset(
    {"held", "porting", "suspended", "unreachable", "not_sms_capable", "invalid"}
)
LIFTED_BY_OPT_IN: frozenset[State] = DEAD | {"not_sms_capable", "invalid"}
_RANK = {state: rank for rank, state in enumerate(PRECEDENCE)}


class Shown(Struct, frozen=True, gc=False):
    """What readers see of a number; `steps` holds what follows when a condition lapses. `lookup` is the oldest fact
    that a lookup is to decide, `asked` the keys of all its questions.
    """

    steps: tuple[Step, ...]
    blocks: dict[str, Fact]
    carrier: Carrier | None
    dead_since: datetime | None
    lookup: Fact | None
    asked: frozenset[str] = frozenset()


def show(number: Number, policy: Policy, now: datetime) -> Shown:
    """What readers see, a pure function of the facts and of now."""
    number = aside.acting(number, merge)
    blocked = _blocked(number)
    if not number.conditions and not blocked:
        return Shown(_SEEN if number.seen else _UNSEEN, {}, number.carrier, None, None)
    standing = [*_standing(number, policy, now)]
    blocks = {sender: fact for sender, reach in blocked if (fact := block(number, reach, policy))}
    wanted = [*_wanted(number, standing, policy)] if policy.lookups else []
    return Shown(
        steps=tuple(_steps(standing, seen=number.seen)),
        blocks=blocks,
        carrier=known_carrier(number, policy),
        dead_since=_dead_since(number),
        lookup=min(wanted, key=fact_key, default=None),
        asked=frozenset(question.key for question in questions(number, policy, now)) if wanted else frozenset(),
    )


_SEEN, _UNSEEN = (Step("active"),), (Step("unseen"),)


def _wanted(number: Number, standing: list[_Standing], policy: Policy) -> Iterator[Fact]:
    """What a lookup is to decide."""
    yield from (c.fact for c in standing if c.fact.lookup and c.waiting != "person")
    for _, reach in _blocked(number):
        yield from (fact for fact in _blocks(number, reach, policy) if _asks(number, fact))
    yield from (asked.fact for asked in _of_ladders(number, policy))


class _Standing(NamedTuple):
    state: State
    fact: Fact
    waiting: Waiting | None
    until: datetime | None


def _standing(number: Number, policy: Policy, now: datetime) -> Iterator[_Standing]:
    """The conditions in force now, each with the moment at which it lapses by itself."""
    for key, fact in number.conditions.items():
        if key.startswith(aside.QUARANTINE):
            standing = _quarantined(number, fact)
        else:
            standing = _unnamed(number, fact) if key.count("/") > 1 else _in_force(number, key, fact, policy)
        if standing and (standing.until is None or standing.until > now):
            yield standing


def _unnamed(number: Number, fact: Fact) -> _Standing | None:
    """A hold until its sender has a name. No delivery lifts it: who refused which sender is not known yet."""
    released = number.cleared.get(UNNAMED)
    return None if released and fact.at <= released else _Standing("held", fact, UNNAMED, None)


def _quarantined(number: Number, fact: Fact) -> _Standing | None:
    """A hold until a person decides on the mass event that this was part of."""
    return None if _over(number, "held", fact) else _Standing("held", fact, "person", None)


def _in_force(number: Number, key: str, fact: Fact, policy: Policy) -> _Standing | None:
    state: State
    state, reason = key.split("/")  # type: ignore[assignment]
    if _over(number, state, fact):
        return None
    rule = policy.rule(reason)
    if state == "unreachable" and not _reached(number, rule, fact, policy):
        return None
    if state in DEAD and number.delivered and number.delivered.guard > fact.at:
        stranger = replace(number.delivered, reason=fact.reason, lookup=fact.lookup)
        waiting = _waiting(number, stranger, policy)
        return _Standing("reassigned", replace(stranger, reason="reassigned"), waiting, None)
    until, waiting = _lapse(number, rule, fact, policy)
    return _Standing(state, fact, waiting, until)


def _reached(number: Number, rule: Rule, fact: Fact, policy: Policy) -> bool:
    """Whether a failure makes a number unreachable, by itself or with the others on its ladder. One whose reason climbs
    none any more, by another policy, still counts on the one that it came to.
    """
    if rule.state == "unreachable" or fact.cause.kind == "lookup":
        return True
    climbs = rule.ladder if rule.state is None and rule.ladder in ladders.TO_UNREACHABLE else None
    names = [climbs] if climbs else ladders.counted(number, fact)
    return not names or any(ladders.unreachable(number, name, policy) for name in names)


class Question(NamedTuple):
    """What a lookup is to decide: a condition of the number in force, (`state` None) the block of one sender, or
    (`active`) whether anything is wrong with a number that fails again and again.
    """

    key: str
    state: State | None
    fact: Fact
    sender: str | None


def questions(number: Number, policy: Policy, now: datetime) -> list[Question]:
    """Everything that waits for a lookup. A death stays a question also when a delivery made it `reassigned` since."""
    number = aside.acting(number, merge)
    asked = _of_ladders(number, policy)
    for key, fact in number.conditions.items():
        standing = _in_force(number, key, fact, policy) if fact.lookup and key.count("/") == 1 else None
        if standing and (standing.until is None or standing.until > now):
            state: State = key.split("/", 1)[0]  # type: ignore[assignment]
            asked.append(Question(key, state, fact, fact.sender))
    for sender, reach in _blocked(number):
        asked += [Question(f.reason, None, f, sender) for f in _blocks(number, reach, policy) if f.lookup]
    return asked


def _of_ladders(number: Number, policy: Policy) -> list[Question]:
    asked = []
    for name in ladders.asks(number, policy) if number.ladders else ():
        told = [f for key, f in number.conditions.items()
                if key.startswith("unreachable/") and policy.rule(f.reason).ladder == name]  # fmt: skip
        if told:
            asked.append(Question(ladders.asked(name), "active", max(told, key=fact_key), None))
    return asked


def _over(number: Number, state: State, fact: Fact) -> bool:
    cleared = number.cleared.get(state)
    if cleared and fact.at <= cleared:
        return True
    if state in LIFTED_BY_DELIVERY and number.delivered and number.delivered.guard > fact.at:
        return True
    return state in LIFTED_BY_OPT_IN and number.opted_in is not None and number.opted_in > fact.at


def _lapse(number: Number, rule: Rule, fact: Fact, policy: Policy) -> tuple[datetime | None, Waiting | None]:
    if rule.alone_lapse and not policy.lookups:
        if rule.repeats and _repeated(number, rule):
            return None, "person"
        return fact.at + rule.alone_lapse, None
    waiting = _waiting(number, fact, policy)
    if rule.lapse:
        return fact.at + rule.lapse, waiting if policy.lookups else None
    return None, waiting


def _waiting(number: Number, fact: Fact, policy: Policy) -> Waiting | None:
    if not fact.lookup:
        return None
    if not policy.lookups:
        return "no_lookup_provider"
    return _stalled(number, fact) or "lookup"


def _asks(number: Number, fact: Fact) -> bool:
    """Whether a lookup is to be made for this: after the last one a person decides, until something else is said."""
    return fact.lookup and _stalled(number, fact) != "person"


def _stalled(number: Number, fact: Fact) -> Waiting | None:
    """What it waits for, unless for its lookup."""
    stalled = number.stalled
    if stalled is None or fact.at > stalled.at or (stalled.reasons and fact.reason not in stalled.reasons):
        return None
    return stalled.waiting_for


def _repeated(number: Number, rule: Rule) -> bool:
    """Whether the reason came again within `repeats` after a lapse, and no person and no delivery ended it since. What
    comes before the lapse only moves it.
    """
    lapse, again = rule.alone_lapse or timedelta(), rule.repeats or timedelta()
    delivered = number.delivered.guard if number.delivered else None
    over = latest(number.cleared.get(rule.state or ""), delivered) or OLDEST
    times = [t for t in number.strikes.get(rule.reason, ()) if t > over]
    return any(lapse <= later - earlier <= lapse + again for later, earlier in pairwise(times))


def _steps(standing: list[_Standing], *, seen: bool) -> Iterator[Step]:
    """The shown state now and after every lapse, until nothing changes by itself any more."""
    while True:
        if not standing:
            yield Step("active" if seen else "unseen")
            return
        top = min(standing, key=_shown_first)
        yield Step(top.state, top.fact.reason, top.waiting, top.until, top.fact)
        if top.until is None:
            return
        standing = [c for c in standing if c.until is None or c.until > top.until]


def _shown_first(condition: _Standing) -> tuple[int, float, str, str, tuple[str, ...]]:
    """By precedence, then the newest; of two at the same moment always the same one, whichever came first."""
    state, fact, waiting, _ = condition
    return (_RANK[state], -fact.at.timestamp(), fact.reason, waiting or "", cause_key(fact.cause))


def _blocked(number: Number) -> list[tuple[str, Reach]]:
    """The senders that something was to block. A number may have thousands that nothing was: where a gateway's `number`
    and `sender` are interchanged, to look closely at each of 5,000 took 20 ms a receipt.
    """
    return [(sender, reach) for sender, reach in number.senders.items() if reach.blocks]


def _blocks(number: Number, reach: Reach, policy: Policy) -> Iterator[Fact]:
    lifted = latest(reach.delivered, reach.opted_in)
    ported = number.cleared.get("port")
    for reason, fact in reach.blocks.items():
        if lifted and lifted > fact.at:
            continue
        if ported and ported >= fact.at and policy.rule(reason).lifted_by_port:
            continue
        yield fact


def block(number: Number, reach: Reach, policy: Policy) -> Fact | None:
    """The block that stands between a sender and a number: the newest of those that nothing has lifted."""
    standing = [*_blocks(number, reach, policy)]
    return standing[0] if len(standing) == 1 else max(standing, key=lambda f: (f.at, f.reason), default=None)


def known_carrier(number: Number, policy: Policy) -> Carrier | None:
    number = aside.acting(number, merge)
    carrier = number.carrier
    if carrier is None:
        return None
    forgotten = [f.at for key, f in number.conditions.items()
                 if policy.rule(f.reason).forgets_carrier and not key.startswith(aside.QUARANTINE)]  # fmt: skip
    return carrier if all(carrier.at > at for at in forgotten) else None


def _dead_since(number: Number) -> datetime | None:
    """The newest death of the number that no port has disproved: a list needs a consent newer than this."""
    times = [
        fact.at
        for key, fact in number.conditions.items()
        if (state := key.split("/", 1)[0]) in DEAD and not _disproved(number, state, fact)
    ]
    return max(times, default=None)


def _disproved(number: Number, state: str, fact: Fact) -> bool:
    cleared = number.cleared.get(state)
    return cleared is not None and fact.at <= cleared


def consent(number: Number, held: Subscription) -> tuple[Consent, Fact | None]:
    """Consent on one list, and the opt-out that stands, if one does: an opt-in must be newer than all of them."""
    number = aside.acting(number, merge)
    reach = number.senders.get(held.sender)
    own = later(reach.out, reach.struck) if reach else None
    out = later(later(held.out, own), number.out)
    if held.opted_in and (out is None or held.opted_in.at > out.guard):
        return "opted_in", None
    return "opted_out", out


def network_of(carrier: Carrier | None) -> str | None:
    """A carrier as the feed names it: the canonical name, else the raw one, else its network code."""
    if carrier is None:
        return None
    return carrier.name or carrier.name_raw or "-".join(filter(None, (carrier.mcc, carrier.mnc))) or None
