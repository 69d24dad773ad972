"""What would have been answered at a moment of the past: held against what was answered then."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service, Start
from tests.events import PEOPLE, some_event
from tests.number_steps import WHO, status
from tests.passing import passes
from tests.provider import Reply, answering, telnyx, today

SENDER = "12345"
HOUR = timedelta(hours=1)
UNKNOWN = ("waiting_for", "until", "evidence", "changed_at", "last_receipt_at")


async def now(service: Service) -> datetime:
    """By the clock of the database, which dates the commits."""
    ((at,),) = await service.sql("SELECT clock_timestamp()")
    assert isinstance(at, datetime)
    return at


def comparable(told: Any) -> Any:
    """Without what no change tells of. Which of several events is the evidence, neither."""
    known = {key: value for key, value in told.items() if key not in UNKNOWN}
    return known | {"carrier": told["carrier"] and told["carrier"]["name"]}


async def opt_in(service: Service, at: str, name: str = "spring", number: str = WHO) -> None:
    path = f"/v1/senders/{SENDER}/lists/{name}/subscribers/{number}"
    assert (await service.client.put(path, json={"consented_at": at, "source": "form"})).status_code == 200


async def hear(service: Service, code: str | None, **said: Any) -> None:
    body = {"message_id": f"m{code}{len(said)}", "number": WHO, "sender": SENDER, "status": "undeliverable",
            "code": code} | said  # fmt: skip
    assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200


class Diary:
    """What was answered after each step, and when."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pages: list[tuple[datetime, dict[str, Any]]] = []

    async def note(self) -> None:
        told = {"": await status(self.service), "with": await status(self.service, sender=SENDER, list="spring")}
        self.pages.append((await now(self.service), told))

    async def holds(self) -> None:
        for at, told in self.pages:
            for key, query in (("", {}), ("with", {"sender": SENDER, "list": "spring"})):
                then = await status(self.service, as_of=at.isoformat(), **query)
                assert comparable(then) == comparable(told[key])
                assert (then["waiting_for"], then["until"]) == (None, None)


async def test_each_step_of_a_life_is_told_as_it_was_answered_then(service: Service) -> None:
    diary = Diary(service)
    before = await now(service)
    await opt_in(service, "2026-01-01T00:00:00Z")
    await diary.note()
    await opt_in(service, "2026-01-02T00:00:00Z", "summer")
    await diary.note()
    steps: list[tuple[str | None, dict[str, Any]]] = [
        ("569", {"carrier": "T-Mobile"}), ("560", {}),
        (None, {"status": "delivered", "carrier": "AT&T"}), ("345", {}), ("3041", {}),
        (None, {"status": "delivered", "message_id": "stranger"}),
    ]  # fmt: skip
    for code, said in steps:
        await hear(service, code, **said)
        await diary.note()
    agreed = (await now(service)).isoformat()
    await opt_in(service, agreed)
    await diary.note()
    await service.client.delete(f"/v1/senders/{SENDER}/lists/spring/subscribers/{WHO}")
    await diary.note()
    states = [told[""]["state"] for _, told in diary.pages]
    assert states == ["active", "active", "suspended", "suspended", "active", "held", "deactivated", "reassigned",
                      "active", "active"]  # fmt: skip
    await diary.holds()
    unseen = await status(service, as_of=before.isoformat())
    assert (unseen["state"], unseen["sendable"], unseen["lists"], unseen["carrier"]) == ("unseen", True, [], None)


async def test_why_a_number_could_not_be_texted_is_told_too(service: Service) -> None:
    await hear(service, "3041", message_id="gone")
    then = await now(service)
    await opt_in(service, (await now(service)).isoformat())
    told = await status(service, as_of=then.isoformat())
    assert told["evidence"].items() >= {"gateway": "native", "code": "3041", "message_id": "gone"}.items()
    assert told["decision"] == {"sendable": False, "axis": "number", "reason": "deactivated"}
    assert datetime.fromisoformat(told["changed_at"]) <= then
    assert datetime.fromisoformat(told["last_receipt_at"]) <= then
    assert (await status(service))["state"] == "active"


async def test_a_lapse_counts_from_its_instant_whenever_the_feed_tells_it(service: Service) -> None:
    lapse = datetime.now(UTC)
    await hear(service, "569", occurred_at=(lapse + HOUR - timedelta(days=30)).isoformat())
    assert (await status(service))["state"] == "suspended"
    await passes(service, HOUR)

    async def before_and_at() -> tuple[str, str]:
        before, at = lapse - timedelta(microseconds=1), lapse
        return ((await status(service, as_of=before.isoformat()))["state"],
                (await status(service, as_of=at.isoformat()))["state"])  # fmt: skip

    assert await service.sql("SELECT after FROM changes WHERE kind = 'number.state'") == [("suspended",)]
    assert await before_and_at() == ("suspended", "active")
    await hear(service, None, status="sent")  # the feed hears of the lapse with the next event
    assert await service.sql("SELECT after FROM changes WHERE kind = 'number.state' ORDER BY seq") == [
        ("suspended",), ("active",)]  # fmt: skip
    assert await before_and_at() == ("suspended", "active")


async def test_a_consent_older_than_a_proven_death_is_told_so_also_of_then(start: Start) -> None:
    """With a lookup provider consent is kept; a new opt-in to one list does not bring the other back."""
    async with start(lookup={}) as service:
        diary = Diary(service)
        await opt_in(service, "2026-01-01T00:00:00Z", "spring")
        await opt_in(service, "2026-01-01T00:00:00Z", "summer")
        await hear(service, "3041")
        await diary.note()
        await opt_in(service, (await now(service)).isoformat(), "summer")
        await diary.note()
        lists = {one["list"]: one["sendable"] for one in diary.pages[-1][1][""]["lists"]}
        assert lists == {"spring": False, "summer": True}
        await diary.holds()


async def test_consent_that_is_given_again_counts_from_when_it_was_told_and_not_from_its_date(start: Start) -> None:
    async with start(lookup={}) as service:
        diary = Diary(service)
        await opt_in(service, "2026-01-01T00:00:00Z", "spring")
        await opt_in(service, "2026-03-01T00:00:00Z", "summer")
        await hear(service, "3041", occurred_at="2026-02-01T00:00:00Z")
        await diary.note()
        await opt_in(service, "2026-02-02T00:00:00Z", "spring")
        await diary.note()
        assert [told["with"]["decision"]["sendable"] for _, told in diary.pages] == [False, True]
        await diary.holds()


@pytest.mark.parametrize("link", ["native", "native/eu"])
async def test_a_second_opt_out_counts_from_when_its_receipt_came_and_not_from_its_date(
    start: Start, link: str
) -> None:
    async with start(gateways={"native": {"accounts": {"eu": {}}}}) as service:
        diary = Diary(service)
        await opt_in(service, "2026-01-01T00:00:00Z")
        for month, code in ((2, "568"), (3, "603")):
            body = {"message_id": code, "number": WHO, "sender": SENDER, "status": "undeliverable", "code": code,
                    "occurred_at": f"2026-0{month}-01T00:00:00Z"}  # fmt: skip
            assert (await service.client.post(f"/v1/receipts/{link}", json=body)).status_code == 200
            await diary.note()
        outs = [told["with"]["lists"][0]["at"][:7] for _, told in diary.pages]
        assert outs == ["2026-02", "2026-03"]
        await diary.holds()


@asynccontextmanager
async def told_moving() -> AsyncIterator[dict[str, Any]]:
    async with answering(lambda number: Reply(telnyx(number, "Verizon Wireless", on=today()))) as provider:
        yield provider.settings()


async def test_a_port_that_a_lookup_proves_is_told_of_then(start: Start) -> None:
    async with told_moving() as lookup, start(lookup=lookup) as service:
        diary = Diary(service)
        await opt_in(service, "2026-01-01T00:00:00Z")
        await hear(service, "3041", carrier="T-Mobile")
        await service.client.post(f"/v1/numbers/{WHO}/lookup")
        await diary.note()
        assert diary.pages[-1][1][""]["state"] == "active"
        assert diary.pages[-1][1][""]["lists"][0]["sendable"]
        await diary.holds()


async def test_a_stranger_whose_message_arrived_dies_at_the_death_and_not_at_the_delivery(start: Start) -> None:
    async with start(lookup={}) as service:
        diary = Diary(service)
        await opt_in(service, "2026-01-01T00:00:00Z")
        await hear(service, "3041", occurred_at="2026-02-01T00:00:00Z")
        await hear(service, None, status="delivered", occurred_at="2026-04-01T00:00:00Z")
        await diary.note()
        await opt_in(service, "2026-03-01T00:00:00Z")
        await diary.note()
        assert [told[""]["state"] for _, told in diary.pages] == ["reassigned", "active"]
        assert diary.pages[-1][1]["with"]["decision"]["sendable"]
        await diary.holds()


@pytest.mark.parametrize("seed", range(3))
async def test_the_states_of_random_lives_are_told_as_they_were_answered(service: Service, seed: int) -> None:
    """States, blocks and consent; which of two reasons of one kind is shown may move without a change."""
    chance = random.Random(seed)  # noqa: S311 - a test
    pages = []
    for _ in range(12):
        for _ in range(12):
            await some_event(service, chance, chance.choice(PEOPLE[:3]))
        told = {number: await status(service, number) for number in PEOPLE[:3]}
        pages.append((await now(service), told))
    for at, told in pages:
        for number, one in told.items():
            then = await status(service, number, as_of=at.isoformat())
            assert then["state"] == one["state"]
            assert [(two["sender"], two["list"], two["consent"]) for two in then["lists"]] == [
                (two["sender"], two["list"], two["consent"]) for two in one["lists"]]  # fmt: skip


async def a_life(service: Service) -> AsyncIterator[tuple[datetime, Any]]:
    """What is answered after each step, and when."""
    for name in ("spring", "summer"):
        await opt_in(service, "2026-01-01T00:00:00Z", name)
    for code in ("569", None, "592", "560", "345", "3041", "again"):
        if code == "again":
            await opt_in(service, (await now(service)).isoformat())
        else:
            await hear(service, code, carrier="T-Mobile", **({} if code else {"status": "delivered"}))
        yield await now(service), await status(service, sender=SENDER)


@pytest.mark.parametrize("dropped", range(7))
async def test_what_is_dropped_of_the_history_still_stands_at_the_moments_that_are_kept(
    service: Service, dropped: int
) -> None:
    pages = [page async for page in a_life(service)]
    assert [told["state"] for _, told in pages] == ["suspended", "active", "active", "active", "held", "deactivated",
                                                    "held"]  # fmt: skip
    await service.sql("DELETE FROM changes WHERE committed_at <= :horizon", horizon=pages[dropped][0])
    for at, told in pages[dropped:]:
        then = await status(service, as_of=at.isoformat(), sender=SENDER)
        assert (then["state"], then["sendable"]) == (told["state"], told["sendable"])
        assert then["sender"]["blocked"] == told["sender"]["blocked"]
        assert agreed(then) <= agreed(told)
    assert comparable(await status(service, as_of=pages[-1][0].isoformat(), sender=SENDER)) == comparable(pages[-1][1])


async def test_what_is_told_by_no_change_any_more_stands_as_it_is_now_or_as_it_was_before_the_next_one(
    service: Service,
) -> None:
    diary = Diary(service)
    await opt_in(service, "2026-01-01T00:00:00Z")
    await diary.note()
    await service.client.delete(f"/v1/senders/{SENDER}/lists/spring/subscribers/{WHO}")
    await diary.note()
    await service.sql("DELETE FROM changes WHERE committed_at <= :horizon", horizon=diary.pages[0][0])
    await diary.holds()
    await hear(service, "560")
    diary.pages.clear()
    await diary.note()
    await service.sql("DELETE FROM changes")
    await diary.holds()


def agreed(told: Any) -> set[str]:
    return {one["list"] for one in told["lists"] if one["consent"] == "opted_in"}


WRONG = {
    "": "not a time",
    "yesterday": "not a time",
    "2026-11-21T18:42:00": "not a time with its zone",
    "2026-02-30T18:42:00Z": "not a time",
    "2126-11-21T18:42:00Z": "it lies ahead",
    "1999-11-21T18:42:00Z": "the history is kept for",
}


@pytest.mark.parametrize("moment", WRONG)
async def test_a_moment_that_is_none_or_not_known_is_refused(service: Service, moment: str) -> None:
    answer = await service.client.get(f"/v1/numbers/{WHO}", params={"as_of": moment})
    assert answer.status_code == 422
    assert WRONG[moment] in answer.json()["detail"]
    assert answer.json()["errors"][0]["parameter"] == "as_of"


@pytest.mark.parametrize("midnight", ["T00:00:00+00:00", "t00:00:00z"])
async def test_an_offset_may_come_with_its_plus_decoded_and_letters_small(service: Service, midnight: str) -> None:
    answer = await service.client.get(f"/v1/numbers/{WHO}?as_of={datetime.now(UTC).date()}{midnight}")
    assert answer.json()["state"] == "unseen"


async def test_a_number_that_only_a_file_has_spoken_of_is_told_from_then_on(service: Service) -> None:
    before = await now(service)
    posted = await service.client.post("/v1/deactivations/twilio", content=WHO, params={"date": "2026-11-20"})
    assert posted.json()["remembered"] == 1
    told = await status(service)
    assert (told["state"], told["evidence"]["code"]) == ("deactivated", "DEACT")
    then = await status(service, as_of=(await now(service)).isoformat())
    assert (comparable(then), then["evidence"]) == (comparable(told), told["evidence"])
    assert (await status(service, as_of=before.isoformat()))["state"] == "unseen"


@pytest.mark.parametrize("reassigned", [False, True], ids=["deactivated", "reassigned"])
async def test_a_deactivation_of_a_number_that_is_dead_already_counts_from_no_moment_at_which_it_was_alive(
    start: Start, *, reassigned: bool
) -> None:
    """A file tells late that it was gone while it still could be texted: no change tells when the file came."""
    async with start(lookup={}) as service:
        diary = Diary(service)
        await opt_in(service, "2026-01-01T00:00:00Z")
        await diary.note()
        await hear(service, "3041", occurred_at="2026-02-01T00:00:00Z")
        if reassigned:
            await hear(service, None, status="delivered", message_id="stranger")
        await diary.note()
        await service.client.post("/v1/deactivations/twilio", content=WHO, params={"date": "2026-03-01"})
        await diary.note()
        assert [told["with"]["decision"]["sendable"] for _, told in diary.pages] == [True, False, False]
        await diary.holds()


@pytest.mark.parametrize("outlived", [False, True], ids=["its end", "one that a newer opt-in had outlived"])
async def test_a_mass_event_that_was_discarded_is_told_as_having_killed_nobody_since(
    start: Start, tmp_path: Path, *, outlived: bool
) -> None:
    file = tmp_path / "small.toml"
    file.write_text("[breaker]\nleast = 3\n")
    async with start(lookup={}, policy_file=str(file)) as service:
        diary = Diary(service)
        await opt_in(service, "2026-01-01T00:00:00Z")
        if outlived:
            await opt_in(service, "2026-03-01T00:00:00Z", "summer")
        await hear(service, "3041", occurred_at="2026-02-01T00:00:00Z")
        await diary.note()
        for place in range(3):
            await hear(service, "3041", number=f"+1415555000{place}", message_id=str(place))
        await diary.note()
        ((case,),) = await service.sql("SELECT id FROM quarantines")
        await service.client.post(f"/v1/quarantine/{case}/discard")
        await diary.note()
        states = [told[""]["state"] for _, told in diary.pages]
        assert states == ["active" if outlived else "deactivated", "held", "active"]
        assert [told["with"]["lists"][0]["sendable"] for _, told in diary.pages] == [False, False, True]
        await diary.holds()


async def test_a_second_death_takes_nothing_away_from_the_first(start: Start) -> None:
    """Of which nothing is known any more but the changes, since it came again for another subscriber."""
    async with start(lookup={}) as service:
        diary = Diary(service)
        for name in ("spring", "summer"):
            await opt_in(service, "2026-01-01T00:00:00Z", name)
        for month, other in ((2, "summer"), (5, "autumn")):
            for day, kind in enumerate(("DEACT", "TRANSFER"), 10):
                told = f"number,type,date\n{WHO},{kind},2026-0{month}-{day}\n"
                await service.client.post("/v1/deactivations/records", content=told)
                await diary.note()
            await opt_in(service, f"2026-0{month}-20T00:00:00Z", other)
            await diary.note()
        assert [[one["sendable"] for one in told[""]["lists"]] for _, told in diary.pages[2::3]] == [
            [False, True], [True, False, False]]  # fmt: skip
        await diary.holds()
