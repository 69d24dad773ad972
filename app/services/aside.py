"""What may still be undone, purely. A failure that ends consent or holds is kept aside for as long as it may turn out
to be one of a mass event, and an end of consent while the register may still tell when its message was sent; it acts
meanwhile as if it were merged. When the breaker trips, it waits in quarantine, and its number is held, until a person
says whether it ever happened.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from msgspec.structs import replace

from app.models.number import Aside, Fact, Number, Verdict

ACTS_KEPT = 4
"""Of one key at one number; a number that is failed more often than this in a quarter of an hour is no mass event."""
UNDATED = "undated"
"""The key of what ends consent and is no matter of the breaker's, while the register may still tell its send date."""
QUARANTINE = "quarantine/"
"""How the key of a condition begins that stands for what waits."""


class Merge(Protocol):
    def __call__(self, number: Number, verdict: Verdict, /) -> Number: ...


def acting(number: Number, merge: Merge) -> Number:
    """The number as it stands now: what is aside merged, what is in quarantine a hold."""
    if not number.aside:
        return number
    held = {
        f"{QUARANTINE}{key}": max(map(_fact, one.acts), key=lambda fact: fact.at)
        for key, one in number.aside.items()
        if one.case is not None and one.acts
    }
    acts = [act for one in number.aside.values() if one.case is None for act in one.acts]
    number = replace(number, aside={}, conditions=number.conditions | held)
    for act in acts:
        number = merge(number, act)
    return number


def acting_since(before: Number, number: Number, verdict: Verdict, merge: Merge) -> Number:
    """The same of a number that has just heard a verdict, by what acted `before` it. What was aside already is merged
    once more only where the verdict may have changed that: two thousand failures of one number, each by another sender,
    took 30 s.
    """
    if not number.aside or verdict.named or verdict.dated:
        return acting(number, merge)
    if verdict.apart is None:
        return merge(before, verdict)
    one = number.aside.get(verdict.apart)
    if one is None or one.case is not None:
        return acting(number, merge)
    return merge(merge(before, harmless(verdict)), _harmful(verdict))


def _fact(act: Verdict) -> Fact:
    """What a verdict rests on, to show while it waits."""
    told = [fact for _, fact in act.conditions] + [fact for fact in (act.block, act.out, act.rung) if fact]
    fact = told[0]
    return replace(fact, lookup=False, sender=None)


def settled(number: Number, before: datetime, merge: Merge) -> Number:
    """A number in which what arrived before that is merged for good."""
    if not number.aside:
        return number
    kept, old = {}, []
    for key, one in number.aside.items():
        late = tuple(act for act in one.acts if one.case is not None or _arrived(act) >= before)
        old += [act for act in one.acts if act not in late]
        if late:
            kept[key] = replace(one, acts=late)
    if not old:
        return number
    number = replace(number, aside=kept)
    for act in old:
        number = merge(number, act)
    return number


def without(number: Number, verdict: Verdict) -> Number:
    """A number in which nothing is aside of the event that is heard again."""
    kept = {
        key: replace(one, acts=tuple(act for act in one.acts if (act.at, act.cause) != (verdict.at, verdict.cause)))
        for key, one in number.aside.items()
    }
    return replace(number, aside={key: one for key, one in kept.items() if one.acts})


def _arrived(act: Verdict) -> datetime:
    return act.apart_at or act.received_at or act.at


def kept(number: Number, verdict: Verdict, merge: Merge) -> Number:
    """A verdict taken aside, or what is aside put into quarantine, or a quarantine closed and what waited dropped."""
    key = verdict.apart or ""
    number = merge(number, harmless(verdict))
    one = number.aside.get(key, Aside())
    if verdict.closed:
        gone = one.case == verdict.case
        return replace(number, aside={k: v for k, v in number.aside.items() if k != key}) if gone else number
    acts = one.acts
    if _told(verdict) and (act := _harmful(verdict)) not in acts:
        acts = tuple(sorted((*acts, act), key=lambda v: (v.at, repr(v.cause))))
    case = one.case if verdict.case is None else verdict.case
    if case is None and len(acts) > ACTS_KEPT:
        number, acts = merge(number, acts[0]), acts[1:]
    elif len(acts) > ACTS_KEPT:
        acts = (acts[0], *acts[2:])
    return replace(number, aside=number.aside | {key: Aside(acts, case)}) if acts else number


def released(number: Number, verdict: Verdict) -> tuple[Verdict, ...]:
    """What has waited for a verdict, and happens after it."""
    one = number.aside.get(verdict.apart or "", Aside())
    return one.acts if verdict.closed == "release" and one.case == verdict.case else ()


def _told(verdict: Verdict) -> bool:
    return bool(verdict.conditions or verdict.block or verdict.out or verdict.rung)


def _harmful(verdict: Verdict) -> Verdict:
    """What could be undone of a verdict."""
    return replace(verdict, apart=None, case=None, carrier=None, delivered=None, named=None, dated=False)


def harmless(verdict: Verdict) -> Verdict:
    """What is known whatever becomes of it: who served the number, that a receipt came."""
    return replace(verdict, conditions=(), cleared=(), strike=None, block=None, out=None, ladder=None, rung=None,
                   apart=None, case=None, closed=None, dated=False)  # fmt: skip
