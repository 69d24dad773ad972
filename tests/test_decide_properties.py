"""What holds for every life of a number: in any order, with any repetition, at any moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalogue.policy import load_policy
from app.models.catalogue import REASONS
from app.models.feed import GONE, Event, Kind
from app.models.number import Cause, Change, Consent, Fact, Number, OptIn, Scope, Step, Subscription, Verdict
from app.models.policy import Mode, Policy
from app.models.receipt import FAILED, Receipt, Status
from app.services.decide import Registered, decide, reported
from app.services.merge import merge, merge_list
from app.services.settle import Held, catch_up, hold, settle
from app.services.shown import Shown, consent, network_of, show

NUMBER, SENDERS = "+15555551234", ("12345", "67890")
LISTS = tuple((sender, name) for sender in SENDERS for name in ("spring", "summer"))
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=200)

MODES: tuple[tuple[Mode, dict[str, Mode]], ...] = (
    ("lookup_first", {}),
    ("strict", {}),
    ("lookup_first", {SENDERS[1]: "strict"}),
)
POLICIES = [load_policy(mode=mode, sender_modes=own, lookups=asked) for mode, own in MODES for asked in (True, False)]

ENDS_THIS_SENDER = {
    "carrier_blocked_subscriber", "content_blocked_for_subscriber", "mvno_not_supported", "sms_not_provisioned",
    "sender_blocked_by_subscriber", "opted_out", "not_sms_capable",
}  # fmt: skip
OF_THE_TWELVE = ENDS_THIS_SENDER | {"stale_carrier", "carrier_unknown", "network_not_covered", "deactivated"}
OWN_WILL = {"opted_out", "sender_blocked_by_subscriber"}
ACTING = OF_THE_TWELVE | {
    "suspended", "resumed", "porting_in_progress", "reassigned", "number_changed", "invalid_number", "wrong_carrier",
    "unknown_subscriber", "dnd_registry",
}  # fmt: skip


# Lives --------------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """A receipt as it came: the policy in force makes a verdict of it."""

    receipt: Receipt
    reason: str | None
    arrived: datetime
    known: Registered | None

    @property
    def at(self) -> datetime:
        return self.receipt.occurred_at or self.arrived

    @property
    def sent(self) -> datetime:
        return self.receipt.sent_at or (self.known.sent_at if self.known else self.at)


Told = Said | Event | Verdict
Life = list[Told]

# Few half days and full weeks, so that two events at one moment and a lapse between two events are common.
moments = st.one_of(
    st.integers(1, 3).map(lambda n: BEGIN + timedelta(hours=12 * n)),
    st.integers(0, 10).map(lambda n: BEGIN + timedelta(hours=12 * n)),
    st.integers(0, 12).map(lambda n: BEGIN + timedelta(days=7 * n)),
    st.integers(0, 90 * 24 * 60).map(lambda n: BEGIN + timedelta(minutes=n)),
)
reasons = st.sampled_from(sorted(ACTING)) | st.sampled_from(sorted(REASONS - {"disconnected"}))
statuses = st.sampled_from([Status.UNDELIVERABLE, Status.UNDELIVERABLE, Status.DELIVERED, *Status])


@st.composite
def receipts(draw: st.DrawFn, when: st.SearchStrategy[datetime]) -> Said:
    status, at = draw(statuses), draw(when)
    sender = draw(st.sampled_from([*SENDERS, *SENDERS, None]))
    sent = at - timedelta(hours=draw(st.sampled_from([0, 0, 1, 30, 200, -20])))
    known = draw(st.none() | st.sampled_from([None, "Oak"]).map(lambda by: Registered(NUMBER, sender or "", sent, by)))
    receipt = Receipt(
        draw(st.sampled_from(["m1", "m2", "m3", None])), status, NUMBER, sender,
        carrier=draw(st.sampled_from([None, "Oak", "Elm"])), gateway=draw(st.sampled_from(["native", "kannel"])),
        occurred_at=draw(st.sampled_from([at, at, None])), sent_at=draw(st.sampled_from([sent, None])),
        malformed=draw(st.sampled_from([False, False, True])),
    )  # fmt: skip
    soon = st.sampled_from([timedelta(minutes=-5), timedelta(), timedelta(seconds=2)])
    late = draw(soon) if sent <= at else timedelta(days=3)
    return Said(receipt, draw(reasons) if status in FAILED else None, at + late, known if sender else None)


MEANS: dict[Kind, str] = {
    "DEACT": "deactivated", "TRANSFER": "number_changed", "ACTIVATION": "reassigned", "SUSPEND": "suspended",
    "RESUME": "resumed", "PORT": "wrong_carrier",
}  # fmt: skip


@st.composite
def records(draw: st.DrawFn, when: st.SearchStrategy[datetime]) -> Event:
    """A record of a deactivation file, of a moment or of a whole day."""
    kind, at = draw(st.sampled_from([*MEANS])), draw(when)
    end = at + timedelta(hours=23) if kind in GONE and draw(st.booleans()) else at
    new = draw(st.sampled_from([None, "Ash"])) if kind == "PORT" else None
    return Event(NUMBER, kind, MEANS[kind], end, at, "records", carrier=draw(st.sampled_from([None, "Oak"])),
                 new_carrier=new)  # fmt: skip


def opt_in(at: datetime, key: tuple[str, str], source: str) -> Verdict:
    return Verdict(NUMBER, at, Cause("call", source=source), sender=key[0], list=key[1], opted_in=OptIn(at, source))


def opt_out(at: datetime, key: tuple[str, str], scope: Scope) -> Verdict:
    out = Fact(at, at, "unsubscribed", Cause("call"))
    return Verdict(NUMBER, at, out.cause, sender=key[0], list=key[1], out=out, scope=scope)


def ended(at: datetime, states: Iterable[str]) -> Verdict:
    return Verdict(NUMBER, at, Cause("lookup"), cleared=tuple((state, at) for state in states))


def events(when: st.SearchStrategy[datetime]) -> st.SearchStrategy[Told]:
    lists = st.sampled_from(LISTS)
    came = st.builds(opt_in, when, lists, st.sampled_from(["form", "keyword"]))
    left = st.builds(opt_out, when, lists, st.sampled_from(["list", "sender", "all"]))
    answered = st.builds(ended, when, st.sampled_from([("held",), ("port",), ("port", "deactivated"), ("porting",)]))
    return receipts(when) | receipts(when) | receipts(when) | records(when) | came | came | left | answered


lives = st.lists(events(moments), max_size=10)
of_one_moment = st.lists(events(st.just(BEGIN)), max_size=8)
policies = st.sampled_from(POLICIES)


@st.composite
def retold(draw: st.DrawFn, living: st.SearchStrategy[Life]) -> tuple[Life, Life]:
    """A life, and the same with repetitions and in another order."""
    life = draw(living)
    again = draw(st.lists(st.sampled_from(life), max_size=4)) if life else []
    return life, draw(st.permutations([*life, *again]))


# Living them --------------------------------------------------------------------------------------------------------


def verdict(event: Told, policy: Policy) -> Verdict:
    if isinstance(event, Verdict):
        return event
    if isinstance(event, Event):
        return reported(event, policy)
    return decide(event.receipt, event.reason, event.arrived, policy, event.known, brand=event.receipt.carrier)


class Known(NamedTuple):
    number: Number
    lists: dict[tuple[str, str], Subscription]

    def consents(self) -> dict[tuple[str, str], tuple[Consent, Fact | None]]:
        return {key: consent(self.number, one) for key, one in self.lists.items()}


def learn(known: Known, told: Verdict) -> Known:
    number, lists = merge(known.number, told), known.lists
    if told.list and told.sender:
        key = (told.sender, told.list)
        lists = lists | {key: merge_list(lists[key], told)}
    return Known(number, lists)


def lived(life: Life, policy: Policy) -> Known:
    unknown = Known(Number(NUMBER), {key: Subscription(NUMBER, *key) for key in LISTS})
    return reduce(learn, (verdict(event, policy) for event in life), unknown)


def at_moment(steps: Sequence[Step], now: datetime) -> Step:
    """The step of a forecast that is in force at a moment."""
    return next(step for step in steps if step.until is None or step.until > now)


serious = settings(max_examples=300, deadline=None)


# Any order, any repetition ------------------------------------------------------------------------------------------


@serious
@given(policies, retold(lives) | retold(of_one_moment), moments)
def test_any_order_and_any_repetition_of_the_same_events_ends_the_same(
    policy: Policy, told: tuple[Life, Life], now: datetime
) -> None:
    one, other = (lived(life, policy) for life in told)
    assert one == other
    assert show(one.number, policy, now) == show(other.number, policy, now)
    assert one.consents() == other.consents()


def test_two_senders_blocked_by_one_moment_of_one_message_ask_for_the_same_lookup_in_either_order() -> None:
    policy = load_policy(lookups=True)
    said = [
        Said(Receipt("m2", Status.UNDELIVERABLE, NUMBER, sender, gateway="native", occurred_at=BEGIN),
             "network_not_covered", BEGIN, None)
        for sender in SENDERS
    ]  # fmt: skip
    one, other = (show(lived(life, policy).number, policy, BEGIN) for life in (said, said[::-1]))
    assert one == other
    assert one.lookup


@serious
@given(policies, lives, st.integers(0, 10))
def test_what_is_known_before_a_crash_and_told_again_after_it_changes_nothing(
    policy: Policy, life: Life, crash: int
) -> None:
    assert lived(life[:crash] + life, policy) == lived(life, policy)


@settings(max_examples=150, deadline=None)
@given(policies, st.lists(moments, min_size=17, max_size=60), st.randoms(use_true_random=False))
def test_however_many_strikes_there_were_their_order_does_not_matter(
    policy: Policy, times: list[datetime], chance: object
) -> None:
    said: Life = [
        Said(Receipt(f"m{n}", Status.REJECTED, NUMBER, SENDERS[0], occurred_at=at), "stale_carrier", at, None)
        for n, at in enumerate(times)
    ]
    other = said[:]
    chance.shuffle(other)  # type: ignore[attr-defined]
    assert lived(said, policy) == lived(other, policy)


# Consent ------------------------------------------------------------------------------------------------------------


def ends(event: Told, key: tuple[str, str], policy: Policy) -> datetime | None:
    """What ends consent, told once more: the moment that an opt-in to this list must be newer than."""
    if isinstance(event, Verdict):
        return event.at if event.out and _within(event, key) else None
    if isinstance(event, Event):
        everyone = event.kind == "ACTIVATION" or (event.kind in GONE and not policy.lookups)
        return event.guard if everyone else None
    if event.reason is None or (event.reason == "invalid_number" and event.receipt.malformed):
        return None
    whose = _whose(event, policy)
    if whose == "everyone" or (whose == "sender" and event.receipt.sender == key[0]):
        return min(event.sent, event.at)
    return None


def _within(call: Verdict, key: tuple[str, str]) -> bool:
    return call.scope == "all" or (call.sender == key[0] and call.scope == "sender") or (call.sender, call.list) == key


def _whose(event: Said, policy: Policy) -> str:
    if policy.strict(event.receipt.sender) and event.reason in OF_THE_TWELVE:
        return "sender"
    if event.reason in {"deactivated", "number_changed"}:
        unrouted = event.known is not None and event.known.carrier is None
        return "everyone" if unrouted or not policy.lookups else "nobody"
    if event.reason == "reassigned":
        return "everyone"
    return "sender" if event.reason in ENDS_THIS_SENDER | {"invalid_number"} else "nobody"


def struck(life: Life, sender: str) -> list[datetime]:
    """The ladder of unknown subscribers, told once more: the strikes of this sender with another one before them, on an
    earlier UTC day and of another message, and no message sent and delivered between the two.
    """
    said = [e for e in life if isinstance(e, Said)]
    strikes = [e for e in said if e.reason == "unknown_subscriber" and e.receipt.status in FAILED]
    sent = [verdict(e, POLICIES[0]).delivered for e in said if e.receipt.status is Status.DELIVERED]

    def second(first: Said, then: Said) -> bool:
        between = any(d and at(first) < d.guard < at(then) for d in sent)
        return at(first).date() < at(then).date() and message(first) != message(then) and not between

    own = [e for e in strikes if e.receipt.sender == sender]
    return [min(e.sent, at(e)) for e in own if any(second(one, e) for one in strikes)]


def at(event: Said) -> datetime:
    return verdict(event, POLICIES[0]).at


def message(event: Said) -> object:
    """Whose strike it is; a receipt without a message id is its own."""
    return (event.receipt.gateway, event.receipt.message_id) if event.receipt.message_id else object()


def _unsaid(event: Told, policy: Policy) -> bool:
    """Where the policy leaves open whose lists end: a deactivation in strict mode that would otherwise be final."""
    return (
        isinstance(event, Said)
        and policy.strict(event.receipt.sender)
        and event.reason in {"deactivated", "number_changed"}
    )


@serious
@given(policies, lives)
def test_a_list_is_opted_in_exactly_when_its_newest_opt_in_is_newer_than_all_that_ends_it(
    policy: Policy, life: Life
) -> None:
    life = [event for event in life if not _unsaid(event, policy)]
    for key, (now, out) in lived(life, policy).consents().items():
        came = max(
            (e.at for e in life if isinstance(e, Verdict) and e.opted_in and (e.sender, e.list) == key), default=None
        )
        went = max([at for e in life if (at := ends(e, key, policy))] + struck(life, key[0]), default=None)
        assert now == ("opted_in" if came and (went is None or came > went) else "opted_out")
        assert (out.guard if out else None) == (went if now == "opted_out" else None)


@serious
@given(policies, lives)
def test_nobody_who_left_by_their_own_will_is_opted_in_without_a_newer_opt_in(policy: Policy, life: Life) -> None:
    for key, (now, _) in lived(life, policy).consents().items():
        left = [
            event.at if isinstance(event, Verdict) else min(event.sent, event.at)
            for event in life
            if (isinstance(event, Verdict) and event.out and _within(event, key))
            or (isinstance(event, Said) and event.reason in OWN_WILL and event.receipt.sender == key[0])
        ]
        came = [e.at for e in life if isinstance(e, Verdict) and e.opted_in and (e.sender, e.list) == key]
        assert now == "opted_out" or not left or max(came) > max(left)


@serious
@given(policies, lives)
def test_receipts_and_files_never_opt_anyone_in(policy: Policy, life: Life) -> None:
    told = [event for event in life if isinstance(event, Said | Event)]
    assert {now for now, _ in lived([*told], policy).consents().values()} == {"opted_out"}


# Time ---------------------------------------------------------------------------------------------------------------


@serious
@given(policies, lives, moments)
def test_the_steps_ahead_end_and_follow_each_other(policy: Policy, life: Life, now: datetime) -> None:
    *lapsing, last = show(lived(life, policy).number, policy, now).steps
    untils = [step.until for step in lapsing]
    assert last.until is None
    assert all(until and until > now for until in untils)
    assert all(a < b for a, b in pairwise(untils) if a and b)
    assert len(lapsing) <= 3  # a suspension, a port, a stale carrier


@serious
@given(policies, lives, moments, st.integers(0, 40 * 24 * 60))
def test_what_is_foretold_now_for_a_moment_is_what_is_shown_at_that_moment(
    policy: Policy, life: Life, now: datetime, minutes: int
) -> None:
    number = lived(life, policy).number
    later = now + timedelta(minutes=minutes)
    foretold = show(number, policy, now).steps
    for moment in (later, *(step.until for step in foretold if step.until)):
        assert at_moment(foretold, moment) == show(number, policy, moment).steps[0]


@serious
@given(policies, lives, moments, moments)
def test_a_feed_caught_up_in_two_goes_tells_what_one_go_tells(
    policy: Policy, life: Life, one: datetime, two: datetime
) -> None:
    number = lived(life, policy).number
    begin = show(number, policy, BEGIN).steps[0]
    first, then = sorted((one, two))
    at_once = [*_caught_up(number, begin, policy, then)]
    paused = show(number, policy, first).steps[0]
    assert [*_caught_up(number, begin, policy, first), *_caught_up(number, paused, policy, then)] == at_once
    assert all(change.cause.kind == "lapse" for change in at_once)
    assert all(a.occurred_at < b.occurred_at for a, b in pairwise(at_once))


def _caught_up(number: Number, told: Step, policy: Policy, now: datetime) -> Iterator[Change]:
    return catch_up(hold(number, told, {}, policy, now), policy, now)


# The feed -----------------------------------------------------------------------------------------------------------


@serious
@given(policies, lives)
def test_who_reads_the_feed_from_the_start_knows_what_is_shown(policy: Policy, life: Life) -> None:
    held = hold(Number(NUMBER), Step("unseen"), {}, policy, BEGIN)
    feed: list[Change] = []
    for now, event in sorted(((_came(event), event) for event in life), key=lambda pair: pair[0]):
        held = hold(held.number, held.told, held.lists, policy, now)
        held, changes = settle(held, verdict(event, policy), policy, now)
        held = hold(held.number, held.shown.steps[0], held.lists, policy, now)
        feed += changes
    feed += catch_up(hold(held.number, held.told, held.lists, policy, END), policy, END)
    _expect(feed, held, show(held.number, policy, END))


def _came(event: Told) -> datetime:
    return event.arrived if isinstance(event, Said) else event.at


def _expect(feed: list[Change], held: Held, shown: Shown) -> None:
    assert _read(feed, "number.state", "unseen") == shown.steps[0].state
    assert _read(feed, "number.carrier", None) == network_of(shown.carrier)
    for sender in SENDERS:
        about = [c for c in feed if c.sender == sender and not c.list]
        assert _read(about, "sender", "open") == ("blocked" if sender in shown.blocks else "open")
    for key, one in held.lists.items():
        about = [c for c in feed if (c.sender, c.list) == key]
        assert _read(about, "list", None) == consent(held.number, one)[0]


def _read(feed: list[Change], kind: str, value: str | None) -> str | None:
    """The last value of a kind of change, each of which begins where the one before ended."""
    for change in feed:
        if change.kind.startswith(kind):
            assert change.before == value
            value = change.after
    return value
