"""Random lives, as a service lives them: receipts, files, calls and imports in any order and again, with lookups, mass
events and decisions on the way.

What must hold whatever happens: first purely, then in a smaller way against the database, by HTTP and by the views.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from app.catalogue import carriers
from app.catalogue.policy import load_policy
from app.models.catalogue import REASONS
from app.models.feed import Event as Record
from app.models.feed import Kind
from app.models.lookup import Failed, Found
from app.models.number import Cause, Change, Fact, Number, OptIn, Scope, Step, Verdict
from app.models.opt_in import Place
from app.models.policy import Policy
from app.models.receipt import FAILED, Receipt, Status
from app.services import aside, breaker
from app.services.consent import agreed
from app.services.deactivations.events import when
from app.services.decide import decide, reported
from app.services.heard import Said
from app.services.merge import merge
from app.services.resolve import Moment, resolve
from app.services.settle import Held, catch_up, hold, settle
from app.services.shown import consent, questions
from app.services.store import Arrival
from tests.conftest import Service, Start
from tests.events import CODES, LISTS, PEOPLE, SENDERS, some_decision

NUMBER = "+15555551234"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
CARRIERS = carriers()
POLICIES = [load_policy(mode=mode, lookups=asked) for mode in ("lookup_first", "strict") for asked in (True, False)]
KEY = "native/openmarket/code/12345/"

OWN_WILL = {"opted_out", "sender_blocked_by_subscriber", "unsubscribed"}
PASSING = {
    "barred", "absent_subscriber", "handset_full", "handset_busy", "handset_error", "prepaid_no_credit", "expired",
    "roaming_not_allowed", "not_acknowledged", "suspended", "resumed", "porting_in_progress", "unknown", "cancelled",
    "rejected_unspecified", "deleted", "network_error", "gateway_error", "throughput_exceeded", "quota_exceeded",
    "content_blocked", "sender_blocked", "request_error", "account_error", "billing", "no_route", "flood_control",
    "sender_not_registered", "invalid_message", "invalid_sender", "partial_failure", "mms_not_supported",
}  # fmt: skip
"""What never opts anyone out."""
LOUD = ("deactivated", "unknown_subscriber", "opted_out", "content_blocked_for_subscriber", "carrier_unknown",
        "suspended", "absent_subscriber", "not_sms_capable", "network_not_covered", "reassigned")  # fmt: skip


# What happens ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """A receipt: `ago` before it is heard of; its message was sent `before` that."""

    reason: str
    ago: timedelta
    before: timedelta
    sender: str | None
    message: int
    delivered: bool = False


@dataclass(frozen=True)
class Called:
    """An opt-in or an opt-out by call, given so long before."""

    key: tuple[str, str]
    ago: timedelta
    scope: Scope | None


@dataclass(frozen=True)
class Listed:
    """A line of an import: what an old list says of somebody's consent."""

    key: tuple[str, str]
    ago: timedelta


@dataclass(frozen=True)
class Filed:
    """A record of a deactivation file: of a moment, or of its whole day."""

    kind: Kind
    ago: timedelta
    whole_day: bool
    new_carrier: str | None


@dataclass(frozen=True)
class Again:
    """The same record, line or call once more: what was said so many events ago."""

    back: int


@dataclass(frozen=True)
class Answered:
    """A lookup is made now, if one is asked for."""

    answer: Found | Failed
    last: bool


Event = Heard | Called | Listed | Filed | Again | Answered | timedelta | str
"""And time that passes; and what the breaker does: trip, release, discard."""

spans = st.sampled_from([0, 0, 1, 20, 30, 200, 1000]).map(lambda hours: timedelta(hours=hours))
reasons = st.sampled_from(LOUD) | st.sampled_from(sorted(REASONS - {"disconnected", "delivered"}))
heard = st.builds(Heard, reasons, spans, spans, st.sampled_from([*SENDERS, SENDERS[0], None]), st.integers(1, 9),
                  st.sampled_from([False, False, True]))  # fmt: skip
called = st.builds(Called, st.sampled_from(LISTS), spans, st.sampled_from([None, None, "list", "sender", "all"]))
listed = st.builds(Listed, st.sampled_from(LISTS), spans)
MEANS: dict[Kind, str] = {
    "DEACT": "deactivated", "TRANSFER": "number_changed", "ACTIVATION": "reassigned", "SUSPEND": "suspended",
    "RESUME": "resumed", "PORT": "wrong_carrier",
}  # fmt: skip
filed = st.builds(Filed, st.sampled_from([*MEANS]), spans, st.booleans(), st.sampled_from([None, "T-Mobile"]))
again = st.builds(Again, st.integers(1, 9))
answers = st.sampled_from([
    Found(NUMBER, carrier="T-Mobile USA, Inc.", line_type="mobile"), Found(NUMBER, carrier="AT&T", line_type="mobile"),
    Found(NUMBER, carrier="AT&T", line_type="mobile", active=True), Found(NUMBER, active=False),
    Found(NUMBER, carrier="AT&T", line_type="mobile", ported=True), Found(NUMBER, carrier="AT&T", line_type="landline"),
    Found(NUMBER, carrier="AT&T", porting=True), Failed(NUMBER, "not_found"), Failed(NUMBER, "no_coverage"),
])  # fmt: skip
answered = st.builds(Answered, answers, st.booleans())
days = st.sampled_from([0, 1, 1, 3, 15, 31, 100]).map(lambda n: timedelta(days=n, minutes=n))
minutes = st.just(timedelta(minutes=16))
mass = st.sampled_from(["trip", "release", "discard"])
events: st.SearchStrategy[Event] = st.one_of(
    heard, heard, heard, called, called, listed, filed, filed, again, answered, days, minutes, mass
)


@dataclass
class Life:
    """A number as the service has it, and everything that was told of it."""

    policy: Policy
    now: datetime = BEGIN + timedelta(days=60)
    held: Held = field(init=False)
    said: list[tuple[Verdict, list[Change]]] = field(default_factory=list)
    case: int | None = None
    cases: int = 0

    def __post_init__(self) -> None:
        self.held = hold(Number(NUMBER), Step("unseen"), {}, self.policy, self.now)

    def live(self, event: Event) -> None:
        if isinstance(event, timedelta):
            self.now += event
        for verdict in self.verdicts(event):
            self.held = hold(self.held.number, self.held.told, self.held.lists, self.policy, self.now)
            self.held, changes = settle(self.held, verdict, self.policy, self.now)
            self.said.append((verdict, changes))

    def verdicts(self, event: Event) -> list[Verdict]:
        if isinstance(event, Heard):
            return [self.receipt(event)]
        if isinstance(event, Called | Listed):
            return [self.call(event)]
        if isinstance(event, Filed):
            return [reported(self.record(event), self.policy)]
        if isinstance(event, Again):
            return [verdict for verdict, _ in self.said[-event.back :][:1] if verdict.apart is None]
        if isinstance(event, Answered):
            said, moment = Said("telnyx", event.answer), Moment(self.now, event.last)
            wanted = self.held.shown.lookup
            return resolve(self.held.number, said, moment, self.policy, CARRIERS).verdicts if wanted else []
        return [*self.mass(event)] if isinstance(event, str) else [Verdict(NUMBER, self.now, Cause("lapse"))]

    def receipt(self, event: Heard) -> Verdict:
        """As the intake takes it: a failure that may be part of a mass event is put aside."""
        at = self.now - event.ago
        status = Status.DELIVERED if event.delivered else Status.UNDELIVERABLE
        receipt = Receipt(f"m{event.message}", status, NUMBER, event.sender, "code", "openmarket", gateway="native",
                          occurred_at=at, sent_at=at - event.before)  # fmt: skip
        reason = event.reason if status in FAILED else None
        verdict = decide(receipt, reason, self.now, self.policy)
        arrival = Arrival(receipt, None, self.now, reason)  # type: ignore[arg-type]
        if key := breaker.key_of(arrival, "", verdict, self.policy):
            return structs.replace(verdict, apart=str(key), case=self.case if str(key) == KEY else None)
        return verdict

    def record(self, event: Filed) -> Record:
        told = self.now - event.ago
        at, guard = when(told.date() if event.whole_day else told, event.kind, self.now)
        return Record(NUMBER, event.kind, MEANS[event.kind], at, guard, "records", new_carrier=event.new_carrier)

    def call(self, event: Called | Listed) -> Verdict:
        at, (sender, name) = self.now - event.ago, event.key
        if isinstance(event, Listed) or event.scope is None:
            source = "form" if isinstance(event, Called) else "old export"
            return agreed(Place(NUMBER, sender, name), OptIn(at, source))
        out = Fact(at, at, "unsubscribed", Cause("call"))
        return Verdict(NUMBER, at, out.cause, sender=sender, list=name, out=out, scope=event.scope)

    def mass(self, what: str) -> Iterator[Verdict]:
        if what == "trip" and self.case is None:
            self.cases += 1
            self.case = self.cases
            yield Verdict(NUMBER, self.now, Cause("policy"), apart=KEY, case=self.case)
        elif what != "trip" and self.case is not None:
            waited = self.held.number.aside.get(KEY)
            yield Verdict(NUMBER, self.now, Cause("person"), apart=KEY, case=self.case, closed=True)
            if what == "release" and waited and waited.case == self.case:
                yield from waited.acts
            self.case = None

    def may_text(self) -> set[tuple[str, str]]:
        """The lists that are sendable, as the views work it out."""
        shown = hold(self.held.number, self.held.told, self.held.lists, self.policy, self.now).shown
        if shown.steps[0].state not in {"active", "unseen"}:
            return set()
        return {
            key for key, one in self.held.lists.items()
            if consent(self.held.number, one)[0] == "opted_in" and key[0] not in shown.blocks
            and (shown.dead_since is None or (one.opted_in and one.opted_in.at > shown.dead_since))
        }  # fmt: skip


def lived(policy: Policy, life: list[Event]) -> Iterator[Life]:
    """The life after each of its events."""
    one = Life(policy)
    for event in life:
        one.live(event)
        yield one


serious = settings(max_examples=400, deadline=None)
policies = st.sampled_from(POLICIES)
lives = st.lists(events, min_size=1, max_size=20)


# What must hold ----------------------------------------------------------------------------------------------------


def own_will(said: list[Verdict], key: tuple[str, str]) -> list[datetime]:
    """When the person left this list by a STOP or by a call."""
    return [
        v.out.guard for v in said
        if v.out and v.out.reason in OWN_WILL
        and (v.scope == "all" or (v.sender == key[0] and (v.scope == "sender" or v.list == key[1])))
    ]  # fmt: skip


@serious
@given(policies, lives)
def test_nobody_who_left_by_their_own_will_is_ever_sendable_without_a_newer_opt_in(
    policy: Policy, life: list[Event]
) -> None:
    for one in lived(policy, life):
        said = [verdict for verdict, _ in one.said]
        for key in one.may_text():
            came = [v.opted_in.at for v in said if v.opted_in and (v.sender, v.list) == key]
            assert max(came) > max([BEGIN - timedelta(days=9_999), *own_will(said, key)])


@serious
@given(policies, lives)
def test_nobody_is_opted_out_by_a_passing_condition(policy: Policy, life: list[Event]) -> None:
    for one in lived(policy, life):
        for key, held in one.held.lists.items():
            _, out = consent(one.held.number, held)
            assert out is None or out.reason not in PASSING, (key, out)


@serious
@given(policies, lives)
def test_a_life_of_passing_conditions_alone_ends_nobodys_consent(policy: Policy, life: list[Event]) -> None:
    soft = [replace(e, reason=sorted(PASSING)[e.message]) if isinstance(e, Heard) else e for e in life]
    calm = [e for e in soft if isinstance(e, Heard | Listed | Again | timedelta | str)
            or (isinstance(e, Called) and e.scope is None)
            or (isinstance(e, Filed) and e.kind in {"SUSPEND", "RESUME", "PORT"})]  # fmt: skip
    for one in lived(policy, calm):
        assert {consent(one.held.number, held)[0] for held in one.held.lists.values()} <= {"opted_in"}


@serious
@given(policies, lives)
def test_consent_comes_back_by_an_opt_in_or_because_a_person_or_the_breaker_takes_its_end_back(
    policy: Policy, life: list[Event]
) -> None:
    """Or because a message that was sent between two strikes turns out to have been delivered."""
    for one in lived(policy, life):
        verdict, changes = one.said[-1] if one.said else (None, [])
        if verdict and any(change.kind == "list.opted_in" for change in changes):
            late = verdict.delivered is not None or verdict.rung is not None
            assert verdict.opted_in or (verdict.apart and (verdict.closed or verdict.case)) or late


@serious
@given(policies, lives)
def test_who_is_deactivated_is_sendable_only_by_a_newer_opt_in_or_a_port(policy: Policy, life: list[Event]) -> None:
    for one in lived(policy, life):
        dead = [
            f.at for key, f in one.held.number.conditions.items() if key.startswith(("deactivated/", "reassigned/"))
        ]
        ported = one.held.number.cleared.get("deactivated")
        for key in one.may_text():
            given_ = one.held.lists[key].opted_in
            assert given_
            assert all(at < given_.at or (ported and at <= ported) for at in dead)


@serious
@given(policies, lives)
def test_what_acts_is_everything_that_is_aside_merged_though_not_all_of_it_is_merged_again(
    policy: Policy, life: list[Event]
) -> None:
    for one in lived(policy, life):
        assert one.held.acting == aside.acting(one.held.number, merge)


@serious
@given(policies, lives)
def test_what_waits_in_quarantine_neither_acts_nor_asks_and_is_not_texted(policy: Policy, life: list[Event]) -> None:
    for one in lived(policy, life):
        waits = one.held.number.aside.get(KEY)
        if waits is None or waits.case is None:
            continue
        outs = {consent(one.held.number, held)[1] for held in one.held.lists.values()}
        assert not outs & {act.out for act in waits.acts if act.out}
        asked = {question.fact for question in questions(one.held.number, policy, one.now)}
        assert not asked & {fact for act in waits.acts for _, fact in act.conditions}
        newest = max(act.at for act in waits.acts)
        freed = [v for v, _ in one.said if (v.delivered and v.delivered.guard > newest)]
        ended = one.held.number.cleared.get("held")
        if not freed and (ended is None or ended < newest):
            assert one.may_text() == set()


@serious
@given(policies, lives)
def test_who_follows_the_feed_knows_what_is_shown(policy: Policy, life: list[Event]) -> None:
    one = Life(policy)
    for event in life:
        one.live(event)
    end = one.now + timedelta(days=400)
    last = hold(one.held.number, one.held.told, one.held.lists, policy, end)
    feed = [change for _, changes in one.said for change in changes] + [*catch_up(last, policy, end)]
    state = "unseen"
    for change in (change for change in feed if change.kind == "number.state"):
        assert change.before == state
        state = str(change.after)
    assert state == last.shown.steps[0].state
    for key, held in one.held.lists.items():
        told = [c.after for c in feed if (c.sender, c.list) == key]
        assert told[-1] == consent(last.number, held)[0]


# Against the database ----------------------------------------------------------------------------------------------


@dataclass
class World:
    """The service, chance, and what was told of everybody's own will: opt-ins by list, and whatever ended them."""

    service: Service
    chance: random.Random
    came: dict[tuple[str, str, str], datetime] = field(default_factory=dict)
    left: list[tuple[str, str | None, str | None, datetime]] = field(default_factory=list)
    told: set[tuple[str, str, str | None]] = field(default_factory=set)
    file: bytes = b""

    def moment(self) -> datetime:
        ago = timedelta(days=self.chance.choice([0, 1, 2, 5, 29, 31, 60]), hours=self.chance.randrange(24))
        return datetime.now(UTC) - ago

    def agrees(self, number: str, key: tuple[str, str], at: datetime) -> None:
        self.came[number, *key] = max(at, self.came.get((number, *key), at))

    async def happens(self) -> None:
        number, what = self.chance.choice(PEOPLE), self.chance.random()
        if what < 0.3:
            await self.agreed(number)
        elif what < 0.36:
            await self.leaves(number)
        elif what < 0.45:
            await self.filed()
        elif what < 0.5:
            await self.imported()
        else:
            await self.heard(number)

    async def agreed(self, number: str) -> None:
        (sender, name), at = self.chance.choice(LISTS), self.moment()
        path = f"/v1/senders/{sender}/lists/{name}/subscribers/{number}"
        answer = await self.service.client.put(path, json={"consented_at": at.isoformat(), "source": "form"})
        assert answer.status_code in {200, 409}
        self.agrees(number, (sender, name), at)

    async def leaves(self, number: str) -> None:
        (sender, name), at, scope = self.chance.choice(LISTS), self.moment(), self.chance.choice([*get_args(Scope)])
        path = f"/v1/senders/{sender}/lists/{name}/subscribers/{number}"
        answer = await self.service.client.delete(path, params={"scope": scope, "at": at.isoformat()})
        assert answer.status_code == 200
        self.left.append((number, None if scope == "all" else sender, name if scope == "list" else None, at))

    async def filed(self) -> None:
        """Some records about some of them; now and then the file before once more."""
        if not self.file or self.chance.random() < 0.8:
            lines = [f"{self.chance.choice(PEOPLE)},{self.chance.choice([*MEANS])},"
                     f"{at.isoformat() if self.chance.random() < 0.5 else at.date()}"
                     for at in (self.moment() for _ in range(self.chance.randrange(1, 5)))]  # fmt: skip
            self.file = "\n".join(["number,type,date", *lines, ""]).encode()
        answer = await self.service.client.post("/v1/deactivations/records", content=self.file, params={"yes": True})
        assert (answer.status_code, answer.json()["broken"]) == (200, 0)

    async def imported(self) -> None:
        """An old list of half of them."""
        (sender, name), at = self.chance.choice(LISTS), self.moment()
        some = self.chance.sample(PEOPLE, 6)
        rows = "".join(f"{number},{at.isoformat()},old export\n" for number in some)
        path = f"/v1/senders/{sender}/lists/{name}/subscribers"
        answer = await self.service.client.post(path, content=f"number,consented_at,source\n{rows}")
        assert (answer.status_code, answer.json()["lines"]) == (200, 6)
        for number in some:
            self.agrees(number, (sender, name), at)

    async def heard(self, number: str) -> None:
        (sender, _), at, code = self.chance.choice(LISTS), self.moment(), self.chance.choice(CODES)
        sent = at - timedelta(hours=self.chance.choice([0, 1, 50]))
        body = {"message_id": f"m{self.chance.randrange(40)}", "number": number, "status": "undeliverable",
                "code": code, "occurred_at": at.isoformat(), "sent_at": sent.isoformat()}  # fmt: skip
        if self.chance.random() < 0.9:
            body["sender"] = sender
        if self.chance.random() < 0.25:
            body |= {"status": "delivered", "code": None}
        for _ in range(self.chance.choice([1, 1, 2])):
            assert (await self.service.client.post("/v1/receipts/native", json=body)).status_code == 200
        key = (number, str(body["message_id"]), body["code"])
        if body["code"] in {"573", "603"} and "sender" in body and key not in self.told:
            self.left.append((number, sender, None, sent))
        self.told.add(key)


async def by_http(service: Service) -> list[Any]:
    asked: list[Any] = (await service.client.post("/v1/numbers/status", json={"numbers": PEOPLE})).json()["items"]
    return asked


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("provider", [True, False])
async def test_the_views_say_what_http_says_at_every_turn_of_random_lives(
    start: Start, tmp_path: Path, seed: int, *, provider: bool
) -> None:
    chance = random.Random(seed)  # noqa: S311 - any lives will do
    (tmp_path / "mine.toml").write_text("[breaker]\nleast = 3\n")  # so that quarantines are common
    told = {"policy_file": str(tmp_path / "mine.toml")} | ({"lookup": {}} if provider else {})
    quarantined = 0
    async with start(**told) as service:
        world, copy = World(service, chance), Copy(service)
        for turn in range(8):
            for _ in range(30):
                await world.happens()
                await copy.follow()
            await agree(service)
            await nobody_is_wronged(world)
            quarantined += (await service.sql("SELECT count(*) FROM breaker_hits WHERE quarantine IS NOT NULL"))[0][0]
            if turn % 3 == 2:
                await some_decision(service, chance)
                await copy.follow()
                await agree(service)
    assert quarantined


@dataclass
class Copy:
    """What a reader keeps elsewhere: whom the feed names it looks at again, and nobody else."""

    service: Service
    seq: int = 0
    rows: set[tuple[str, str, str]] = field(default_factory=set)

    async def follow(self) -> None:
        for seq, number in await self.service.sql("SELECT seq, number FROM published.changes WHERE seq > :seq "
                                                  "ORDER BY seq", seq=self.seq):  # fmt: skip
            now = await self.service.sql("SELECT * FROM published.sendable WHERE number = :number", number=number)
            self.rows = {row for row in self.rows if row[0] != number} | {(who, *of) for who, *of in now}
            self.seq = seq
        assert self.rows == {*await self.service.sql("SELECT * FROM published.sendable")}


async def agree(service: Service) -> None:
    http = [one for one in await by_http(service) if one["state"] != "unseen"]
    rows = await service.sql("SELECT number, state, sendable, reason, waiting_for, until FROM published.number_status "
                             "WHERE state <> 'unseen' ORDER BY number")  # fmt: skip
    assert rows == [
        (one["number"], one["state"], one["sendable"], one["reason"], one["waiting_for"],
         one["until"] and datetime.fromisoformat(one["until"])) for one in http
    ]  # fmt: skip
    lists = [(one["number"], two["sender"], two["list"], two) for one in http for two in one["lists"]]
    assert await service.sql("SELECT * FROM published.sendable ORDER BY 1, 2, 3") == [
        key for *key_, two in lists if two["sendable"] and (key := tuple(key_))
    ]
    outs = await service.sql("SELECT number, sender, list, reason FROM published.opt_outs ORDER BY 1, 2, 3")
    assert [row[:3] for row in outs] == [tuple(key) for *key, two in lists if two["consent"] == "opted_out"]
    blocks = await service.sql("SELECT number, sender FROM published.sender_blocks ORDER BY 1, 2")
    for number, sender in blocks:
        one = (await service.client.get(f"/v1/numbers/{number}", params={"sender": sender})).json()
        assert (one["sender"]["blocked"], one["sender"]["sendable"]) == (True, False)


async def nobody_is_wronged(world: World) -> None:
    """Whoever left by their own will has agreed again since, or is not texted; nothing that passes opts anyone out."""
    for number, sender, name in await world.service.sql("SELECT number, sender, list FROM published.sendable"):
        ends = [at for who, whose, what, at in world.left
                if who == number and whose in {None, sender} and what in {None, name}]  # fmt: skip
        assert all(world.came[number, sender, name] > at for at in ends)
    reasons = await world.service.sql("SELECT DISTINCT reason FROM published.opt_outs")
    assert not PASSING & {reason for (reason,) in reasons}
    assert world.left
