"""Settles, purely: a verdict joined to what is held of a number, and what has truly changed by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from app.models.number import Cause, Change, ChangeKind, Number, Step, Subscription, Verdict
from app.models.policy import Policy
from app.services import aside
from app.services.merge import merge, merge_list
from app.services.shown import DEAD, Shown, consent, network_of, show


class Held(Struct, frozen=True, gc=False):
    """All of one number that a verdict may touch. `acting`: the number with what is aside merged; `told`: the step that
    the feed was last told of; `lists`: its subscriptions, as far as the verdict concerns them (all of them for an
    opt-out of every sender).
    """

    number: Number
    acting: Number
    shown: Shown
    told: Step
    lists: Mapping[tuple[str, str], Subscription]


def settle(held: Held, verdict: Verdict, policy: Policy, now: datetime) -> tuple[Held, list[Change]]:
    """One event applied: what is held afterwards, and what truly changed, in order."""
    changes = [] if held.told == held.shown.steps[0] else [*catch_up(held, policy, now)]
    merged = merge(held.number, verdict)
    acting = aside.acting_since(held.acting, merged, verdict, merge)
    after = show(acting, policy, now)
    changes += _changes(acting, held.shown, after, verdict)
    lists = dict(held.lists)
    if verdict.list and verdict.sender:
        key = (verdict.sender, verdict.list)
        lists[key] = merge_list(lists.get(key) or Subscription(merged.number, *key), verdict)
    if lists:
        changes += _consent_changes(held, acting, after, lists, verdict)
    return Held(merged, acting, after, after.steps[0], lists), changes


def hold(number: Number, told: Step, lists: Mapping[tuple[str, str], Subscription], policy: Policy,
         now: datetime) -> Held:  # fmt: skip
    """A number as it was loaded, with what is to be shown of it now."""
    number = aside.settled(number, now - policy.breaker.window, merge)
    acting = aside.acting(number, merge)
    return Held(number, acting, show(acting, policy, now), told, lists)


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
        yield from _moved(held.number.number, step, following, _LAPSE, step.until)
        step = following
    yield from _moved(held.number.number, step, held.shown.steps[0], _POLICY, now)


_LAPSE, _POLICY = Cause("lapse"), Cause("policy")


def _moved(number: str, old: Step, new: Step, cause: Cause, at: datetime) -> Iterator[Change]:
    if (old.state, old.reason) != (new.state, new.reason):
        yield Change(number, "number.state", old.state, new.state, new.reason or old.reason, cause, at)


def _changes(number: Number, before: Shown, after: Shown, verdict: Verdict) -> Iterator[Change]:
    if (before.steps, before.dead_since) != (after.steps, after.dead_since):
        moved = [*_moved(number.number, before.steps[0], after.steps[0], verdict.cause, verdict.at)]
        yield from moved or _outlived(number, before, after, verdict)
    was, now = network_of(before.carrier), network_of(after.carrier)
    if was != now:
        yield _change(number, "number.carrier", verdict, (was, now), None)
    if before.blocks == after.blocks:
        return
    for sender in sorted(before.blocks.keys() ^ after.blocks.keys()):
        if come := after.blocks.get(sender):
            yield _change(number, "sender.blocked", verdict, ("open", "blocked"), come.reason, sender=sender)
        else:
            gone = before.blocks[sender]
            yield _change(number, "sender.unblocked", verdict, ("blocked", "open"), gone.reason, sender=sender)


def _outlived(number: Number, before: Shown, after: Shown, verdict: Verdict) -> Iterator[Change]:
    """A death heard of late, which a newer opt-in has ended already: no list older than it may be texted any more. If a
    port disproves it later, they may again, and the state has stayed what it was.
    """
    if after.steps[0].state != "active" or before.dead_since == after.dead_since:
        return
    if after.dead_since and (before.dead_since is None or after.dead_since > before.dead_since):
        died = {key.split("/", 1)[0]: fact for key, fact in number.conditions.items() if fact.at == after.dead_since}
        state = min(DEAD & died.keys())
        yield _change(number, "number.state", verdict, ("active", state), died[state].reason)
        yield _change(number, "number.state", verdict, (state, "active"), died[state].reason)
    else:
        yield _change(number, "number.state", verdict, ("active", "active"), "deactivated")


def _consent_changes(held: Held, acting: Number, after: Shown, lists: Mapping[tuple[str, str], Subscription],
                     verdict: Verdict) -> Iterator[Change]:  # fmt: skip
    """An opt-out that the breaker takes back is told with its own reason and date: who counts can undo it. One that was
    remembered and stands against an older opt-in is told with its own cause and date: the opt-in ended nothing. Where
    the number stays what it is, an opt-in is told also if a death had outlived the consent before it.
    """
    stays = held.shown.steps[0].state == after.steps[0].state
    for key, subscription in sorted(lists.items()):
        known = held.lists.get(key)
        was, had = consent(held.acting, known) if known else (None, None)
        now, out = consent(acting, subscription)
        again = stays and was == now == "opted_in" and not outlives(known, held.shown) and outlives(subscription, after)
        if was != now or (verdict.opted_in and again):
            kind: ChangeKind = "list.opted_in" if now == "opted_in" else "list.opted_out"
            about = out.reason if out else None
            change = _change(acting, kind, verdict, (was, now), about, sender=key[0], list=key[1])
            if had and verdict.apart and now == "opted_in":
                change = replace(change, reason=had.reason, occurred_at=had.at)
            if out and verdict.opted_in:
                change = replace(change, cause=out.cause, occurred_at=out.at)
            yield change


def outlives(held: Subscription | None, shown: Shown) -> bool:
    """Whether the newest opt-in to a list is newer than the number's last death."""
    given = held.opted_in if held else None
    return given is not None and (shown.dead_since is None or given.at > shown.dead_since)


def _change(number: Number, kind: ChangeKind, verdict: Verdict, step: tuple[str | None, str | None],
            reason: str | None, **of: str) -> Change:  # fmt: skip
    return Change(number.number, kind, *step, reason, verdict.cause, verdict.at, **of)
