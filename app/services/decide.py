"""Decides, purely: from one event to a verdict, from a number's facts to what is shown of it.

policy.md in code. Nothing here reads a clock, a database or a setting: values in, values out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from app.models.catalogue import Code
from app.models.feed import SPACE, Event
from app.models.number import (
    PRECEDENCE,
    Carrier,
    Cause,
    Change,
    Consent,
    Fact,
    Number,
    Reach,
    State,
    Step,
    Subscription,
    Verdict,
    Waiting,
)
from app.models.policy import Ends, Policy, Rule
from app.models.receipt import FAILED, Receipt, Status
from app.services import aside, ladders
from app.services.merge import UNNAMED, cause_key, fact_key, later, latest, merge, merge_list

NOW = "now "
"""Before the number that a subscriber has changed to, at the end of a record's evidence."""
AHEAD = timedelta(minutes=5)
"""How far a vendor's clock may run ahead of ours and still be believed."""
OLDEST = datetime(2000, 1, 1, tzinfo=UTC)

DEAD: frozenset[State] = frozenset({"deactivated", "disconnected", "reassigned"})
LIFTED_BY_DELIVERY: frozenset[State] = frozenset(
    {"held", "porting", "suspended", "unreachable", "not_sms_capable", "invalid"}
)
LIFTED_BY_OPT_IN: frozenset[State] = DEAD | {"not_sms_capable", "invalid"}
_RANK = {state: rank for rank, state in enumerate(PRECEDENCE)}
TO_UNREACHABLE = frozenset({"soft", "no_detail"})
"""Ladders whose top makes a number unreachable: until then its failures are kept, and not in force."""
_NO_FAILURE = frozenset({"accepted", "in_progress", "delivered"})
_BY_STATUS = {Status.EXPIRED: "expired", Status.REJECTED: "rejected_unspecified"}


class Registered(NamedTuple):
    """What the sent-message register tells of a receipt's message; `routed`: we named a carrier when sending."""

    number: str
    sender: str
    sent_at: datetime
    routed: bool


class Shown(Struct, frozen=True, gc=False):
    """What readers see of a number and one of its lists; `steps` holds what follows when a condition lapses. `lookup`
    is the oldest that a lookup is to decide, `asked` the keys of all its questions.
    """

    steps: tuple[Step, ...]
    blocks: dict[str, Fact]
    carrier: Carrier | None
    dead_since: datetime | None
    lookup: Fact | None
    asked: frozenset[str] = frozenset()


# From one receipt to a verdict -------------------------------------------------------------------------------------


def reason_of(receipt: Receipt, code: Code | None) -> str:
    """The reason of a final failure. A code nobody knows, or one that names no failure, leaves what the status says."""
    if code and code.reason not in _NO_FAILURE and code.reason != "unknown":
        return code.reason
    return _BY_STATUS.get(receipt.status, "unknown")


def believed(time: datetime | None, arrived: datetime) -> datetime | None:
    """A vendor's time, if it can be true: with a zone, after 2000, at most five minutes ahead of its arrival."""
    return time if time and time.tzinfo and OLDEST < time <= arrived + AHEAD else None


def decide(receipt: Receipt, reason: str | None, arrived: datetime, policy: Policy, known: Registered | None = None,
           *, brand: str | None = None) -> Verdict:  # fmt: skip
    """What one receipt with a number says about it. `reason` is None unless the receipt is a final failure.

    `brand` is the canonical name of the receipt's carrier. Total: a reason without a rule, a status without effect, a
    missing sender, a missing register entry all have answers.
    """
    at = believed(receipt.occurred_at, arrived) or arrived
    sent = believed(receipt.sent_at, arrived) or (known and believed(known.sent_at, arrived)) or at
    cause = Cause("receipt", receipt.gateway, receipt.account or None, receipt.code_space, receipt.code,
                  receipt.message_id)  # fmt: skip
    number = receipt.number or (known.number if known else "")
    seen = Verdict(
        number=number,
        at=at,
        cause=cause,
        sender=receipt.sender or (known.sender if known else None),
        carrier=_carrier(receipt, brand, at),
        delivered=Fact(at, sent, "delivered", cause) if receipt.status is Status.DELIVERED else None,
        received_at=arrived,
        rungs=_rungs(policy),
    )
    if receipt.status not in FAILED or reason is None:
        return seen
    rule = policy.rule(reason)
    if receipt.malformed and rule.malformed_spares:
        return seen
    return _failed(seen, Fact(at, sent, reason, cause), rule, _consent(rule, policy, seen.sender, known))


def _rungs(policy: Policy) -> int:
    ladder = policy.ladders.get("unknown_subscriber")
    return ladder.strikes if ladder else 2


def _failed(seen: Verdict, fact: Fact, rule: Rule, consent: Ends) -> Verdict:
    rung = replace(_out(fact), sender=seen.sender) if rule.ladder else None
    if rule.lookup and consent != "everyone":
        fact = replace(fact, lookup=True, sender=seen.sender)
    conditions = [(f"{rule.state}/{fact.reason}", fact)] if rule.state else []
    if rule.ladder in TO_UNREACHABLE and rule.state is None:
        conditions.append((f"unreachable/{fact.reason}", replace(fact, lookup=False, sender=None)))
    if not seen.sender and (rule.block or consent == "sender"):
        conditions.append(
            (f"held/{fact.reason}/{fact.cause.message_id or ''}", replace(fact, lookup=False, sender=None))
        )
    ends_sender = consent == "sender" and seen.sender
    return replace(
        seen,
        conditions=tuple(conditions),
        cleared=((rule.ends, fact.at),) if rule.ends else (),
        strike=fact.reason if rule.repeats else None,
        block=fact if rule.block and seen.sender else None,
        out=_out(fact) if consent == "everyone" or ends_sender else None,
        scope="all" if consent == "everyone" else "sender",
        ladder=rule.ladder,
        rung=rung,
    )


def reported(event: Event, policy: Policy) -> Verdict:
    """What a record of a deactivation file says about a number: no sender, no message, so whose lists it ends is the
    same for all of them; without a lookup provider the file itself decides.
    """
    cause = Cause("file", source=event.feed, code_space=SPACE, code=event.kind, evidence=_told_by(event))
    carrier = Carrier(event.at, event.feed, event.carrier, event.carrier) if event.carrier else None
    if event.kind == "PORT" and event.new_carrier:
        moved = Carrier(event.at, event.feed, event.new_carrier, event.new_carrier, ported=True, ported_at=event.at)
        cleared = tuple((state, event.at) for state in ("port", "held", "porting"))
        return Verdict(event.number, event.at, cause, cleared=cleared, carrier=moved)
    rule = policy.rule(event.reason)
    consent = rule.alone_consent if rule.alone_consent and not policy.lookups else rule.consent
    fact = Fact(event.at, event.guard, event.reason, cause)
    return _failed(Verdict(event.number, event.at, cause, carrier=carrier), fact, rule, consent)


def _told_by(event: Event) -> str | None:
    """The file's day, and the number that a subscriber has now: a hint, never an opt-in."""
    told = [f"file of {event.day}" if event.day else None, event.new_number and f"{NOW}{event.new_number}"]
    return "; ".join(filter(None, told)) or None


def _out(fact: Fact) -> Fact:
    """The end of consent that a failure brings: it ends only opt-ins older than both its send and its event time."""
    return replace(fact, guard=min(fact.guard, fact.at), lookup=False, sender=None)


def _consent(rule: Rule, policy: Policy, sender: str | None, known: Registered | None) -> Ends:
    """Whose lists end at once. Strict mode changes only this column. A receipt names no list: a revocation of one list
    reaches the sender's, as without a setting.
    """
    ends = _ends(rule, policy, sender, known)
    return "everyone" if ends == "sender" and rule.revocation and policy.revoked(sender) == "all" else ends


def _ends(rule: Rule, policy: Policy, sender: str | None, known: Registered | None) -> Ends:
    if rule.unrouted_consent and known and not known.routed:
        return rule.unrouted_consent
    if rule.strict_consent and policy.strict(sender):
        return rule.strict_consent
    if rule.alone_consent and not policy.lookups:
        return rule.alone_consent
    return rule.consent


def _carrier(receipt: Receipt, brand: str | None, at: datetime) -> Carrier | None:
    if not (receipt.carrier or (receipt.mcc and receipt.mnc)):
        return None
    return Carrier(
        at, receipt.gateway, brand, receipt.carrier, receipt.mcc, receipt.mnc, receipt.line_type, receipt.ported
    )


# What is shown -----------------------------------------------------------------------------------------------------


def show(number: Number, policy: Policy, now: datetime) -> Shown:
    """What readers see, a pure function of the facts and of now."""
    number = aside.acting(number, merge)
    if not number.conditions and not [reach for reach in number.senders.values() if reach.blocks]:
        return Shown(_SEEN if number.seen else _UNSEEN, {}, number.carrier, None, None)
    standing = [*_standing(number, policy, now)]
    blocks = {sender: fact for sender, reach in number.senders.items() if (fact := block(number, reach, policy))}
    wanted = [c.fact for c in standing if c.fact.lookup and c.waiting != "person"]
    wanted += [f for reach in number.senders.values() for f in _blocks(number, reach, policy) if _asks(number, f)]
    wanted += [asked.fact for asked in _of_ladders(number, policy)]
    wanted = wanted if policy.lookups else []
    return Shown(
        steps=tuple(_steps(standing, seen=number.seen)),
        blocks=blocks,
        carrier=known_carrier(number, policy),
        dead_since=_dead_since(number),
        lookup=min(wanted, key=fact_key, default=None),
        asked=frozenset(question.key for question in questions(number, policy, now)) if wanted else frozenset(),
    )


_SEEN, _UNSEEN = (Step("active"),), (Step("unseen"),)


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
    ladder = policy.rule(reason).ladder
    if state == "unreachable" and ladder in TO_UNREACHABLE and not ladders.unreachable(number, ladder, policy):
        return None
    if state in DEAD and number.delivered and number.delivered.guard > fact.at:
        stranger = replace(number.delivered, reason="reassigned", lookup=fact.lookup)
        return _Standing("reassigned", stranger, _waiting(number, stranger, policy), None)
    until, waiting = _lapse(number, policy.rule(reason), fact, policy)
    return _Standing(state, fact, waiting, until)


class Question(NamedTuple):
    """What a lookup is to decide: a condition of the number in force, (`state` None) the block of one sender, or
    (`active`) whether anything is wrong with a number that fails again and again.
    """

    key: str
    state: State | None
    fact: Fact
    sender: str | None


def questions(number: Number, policy: Policy, now: datetime) -> list[Question]:
    """Everything that waits for a lookup. A death that a delivery has made a stranger's stays its own question."""
    number = aside.acting(number, merge)
    asked = _of_ladders(number, policy)
    for key, fact in number.conditions.items():
        standing = _in_force(number, key, fact, policy) if fact.lookup and key.count("/") == 1 else None
        if standing and (standing.until is None or standing.until > now):
            state: State = key.split("/", 1)[0]  # type: ignore[assignment]
            asked.append(Question(key, state, fact, fact.sender))
    for sender, reach in number.senders.items():
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
    return number.stalled.waiting_for if number.stalled and fact.at <= number.stalled.at else "lookup"


def _asks(number: Number, fact: Fact) -> bool:
    """Whether a lookup is to be made for this: after the last one a person decides, until something newer is said."""
    given_up = number.stalled is not None and number.stalled.waiting_for == "person" and fact.at <= number.stalled.at
    return fact.lookup and not given_up


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
    return max(_blocks(number, reach, policy), key=lambda f: (f.at, f.reason), default=None)


def known_carrier(number: Number, policy: Policy) -> Carrier | None:
    number = aside.acting(number, merge)
    carrier = number.carrier
    forgotten = [f.at for key, f in number.conditions.items()
                 if policy.rule(f.reason).forgets_carrier and not key.startswith(aside.QUARANTINE)]  # fmt: skip
    return carrier if carrier and all(carrier.at > at for at in forgotten) else None


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


# Settling ----------------------------------------------------------------------------------------------------------


class Held(Struct, frozen=True, gc=False):
    """All of one number that a verdict may touch. `told`: the step that the feed was last told of; `lists`: its
    subscriptions, as far as the verdict concerns them (all of them for an opt-out of every sender).
    """

    number: Number
    shown: Shown
    told: Step
    lists: Mapping[tuple[str, str], Subscription]


def settle(held: Held, verdict: Verdict, policy: Policy, now: datetime) -> tuple[Held, list[Change]]:
    """One event applied: what is held afterwards, and what truly changed, in order."""
    changes = [*catch_up(held, policy, now)]
    merged = merge(held.number, verdict)
    after = show(merged, policy, now)
    changes += _changes(merged, held.shown, after, verdict)
    lists = dict(held.lists)
    if verdict.list and verdict.sender:
        key = (verdict.sender, verdict.list)
        lists[key] = merge_list(lists.get(key) or Subscription(merged.number, *key), verdict)
    changes += _consent_changes(held, merged, lists, verdict)
    return Held(merged, after, after.steps[0], lists), changes


def hold(number: Number, told: Step, lists: Mapping[tuple[str, str], Subscription], policy: Policy,
         now: datetime) -> Held:  # fmt: skip
    """A number as it was loaded, with what is to be shown of it now."""
    number = aside.settled(number, now - policy.breaker.window, merge)
    return Held(number, show(number, policy, now), told, lists)


def catch_up(held: Held, policy: Policy, now: datetime) -> Iterator[Change]:
    """What time, or a change of policy, has altered since the feed was told: each lapse is dated at its moment. What a
    file had said of a number before anybody spoke of it is told now, dated as it was.
    """
    step = held.told
    if step.state == "unseen" and (noted := held.shown.steps[0].fact):
        yield from _moved(held.number.number, step, held.shown.steps[0], noted.cause, noted.at)
        return
    while step.until and step.until <= now:
        following = show(held.number, policy, step.until).steps[0]
        yield from _moved(held.number.number, step, following, Cause("lapse"), step.until)
        step = following
    yield from _moved(held.number.number, step, held.shown.steps[0], Cause("policy"), now)


def _moved(number: str, old: Step, new: Step, cause: Cause, at: datetime) -> Iterator[Change]:
    if (old.state, old.reason) != (new.state, new.reason):
        yield Change(number, "number.state", old.state, new.state, new.reason or old.reason, cause, at)


def _changes(number: Number, before: Shown, after: Shown, verdict: Verdict) -> Iterator[Change]:
    yield from _moved(number.number, before.steps[0], after.steps[0], verdict.cause, verdict.at)
    was, now = network_of(before.carrier), network_of(after.carrier)
    if was != now:
        yield _change(number, "number.carrier", verdict, (was, now), None)
    for sender in sorted(before.blocks.keys() | after.blocks.keys()):
        gone, come = before.blocks.get(sender), after.blocks.get(sender)
        if come and not gone:
            yield _change(number, "sender.blocked", verdict, ("open", "blocked"), come.reason, sender=sender)
        if gone and not come:
            yield _change(number, "sender.unblocked", verdict, ("blocked", "open"), gone.reason, sender=sender)


def _consent_changes(held: Held, merged: Number, lists: Mapping[tuple[str, str], Subscription],
                     verdict: Verdict) -> Iterator[Change]:  # fmt: skip
    """An opt-out that the breaker takes back is told with its own reason and date: who counts can undo it."""
    for key, subscription in sorted(lists.items()):
        known = held.lists.get(key)
        was, had = consent(held.number, known) if known else (None, None)
        now, out = consent(merged, subscription)
        if was != now:
            kind = "list.opted_in" if now == "opted_in" else "list.opted_out"
            about = out.reason if out else None
            change = _change(merged, kind, verdict, (was, now), about, sender=key[0], list=key[1])
            undone = had if verdict.apart and now == "opted_in" else None
            yield replace(change, reason=undone.reason, occurred_at=undone.at) if undone else change


def _change(number: Number, kind: str, verdict: Verdict, step: tuple[str | None, str | None], reason: str | None,
            **of: str) -> Change:  # fmt: skip
    return Change(number.number, kind, *step, reason, verdict.cause, verdict.at, **of)  # type: ignore[arg-type]


def network_of(carrier: Carrier | None) -> str | None:
    """A carrier as the feed names it: the canonical name, else the raw one, else its network code."""
    if carrier is None:
        return None
    return carrier.name or carrier.name_raw or "-".join(filter(None, (carrier.mcc, carrier.mnc))) or None
