"""The demo: its day is what it says, it checks what came of it, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from app.catalogue import load
from app.cli.demo import wire as wires
from app.cli.demo.command import SETTINGS
from app.cli.demo.day import FATES, GATEWAYS, Day, make
from app.cli.demo.outcome import Outcome, mismatches
from app.cli.demo.wire import Post, Wire
from app.config import read_settings
from app.gateways import GATEWAYS as VENDORS
from app.gateways import prove, read
from app.models.receipt import FAILED, Broken, Callback, Link, Receipt, Status
from app.services.embedded.home import locate
from tests.running import WITHIN, environment, sendable, serving

NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)
TWELVE = {"341", "345", "349", "560", "561", "565", "568", "573", "592", "603", "629", "3041"}
BASE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def day() -> Day:
    return make(20_000, seed=1, now=NOW)


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    (tmp_path / "demo.toml").write_text(SETTINGS)
    links = read_settings({"SENDABLE_CONFIG": str(tmp_path / "demo.toml")}).links()
    return Wire(BASE, {name: link for (name, _), link in links.items()})


# The day -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_and_the_same_now_make_the_same_day(day):
    assert make(20_000, seed=1, now=NOW) == day
    assert make(20_000, seed=2, now=NOW) != day


def test_a_day_brings_as_many_receipts_as_asked_for_and_some_of_them_twice(day):
    story = [step for step in day.story if step in day.told]
    assert len(day.due) + len(story) == 20_000
    assert len(day.told) == len(set(day.told)) == 19_800
    assert set(day.told) == {*day.due, *story}


def test_nine_of_ten_messages_arrive_and_all_twelve_codes_come(day):
    final = [told for told in day.told if told.status is not Status.SENT]
    assert 0.91 < sum(told.status is Status.DELIVERED for told in final) / len(final) < 0.93
    assert {told.code for told in day.told} >= TWELVE
    assert {told.gateway for told in day.told} == GATEWAYS.keys() <= VENDORS.keys()


def test_most_receipts_come_in_order_and_some_do_not(day):
    moments = [told.at for told in day.due]
    out_of_order = sum(later < earlier for earlier, later in pairwise(moments))
    assert 0.02 < out_of_order / len(moments) < 0.12


def test_every_number_is_one_of_those_kept_for_fiction(day):
    assert len({person.number for person in day.subscribers}) == 4_000
    assert all(person.number[5:10] == "55501" for person in day.subscribers)


def test_nights_are_quiet(day):
    hours = Counter(told.sent_at.hour for told in day.told)
    assert sum(hours[hour] for hour in range(7, 12)) < sum(hours[hour] for hour in range(15, 20)) / 10


@pytest.mark.parametrize(
    ("gateway", "space"), [("openmarket", "openmarket"), ("infobip", "infobip_error"), ("twilio", "twilio")]
)
def test_codes_are_the_vendors_own_and_one_is_in_no_table(gateway, space):
    codes = {getattr(fate, gateway) for fate in FATES if fate.status in FAILED} - {None}
    unknown = {code for code in codes if load().find(space, code) is None}
    assert len(unknown) == 1


# How it is written -------------------------------------------------------------------------------------------------


def callback(post: Post) -> Callback:
    url = urlsplit(BASE + post.path)
    return Callback(post.method, BASE + post.path, post.headers, url.query, post.content)


def test_what_gateways_write_is_read_as_what_was_told(day, wire):
    said: Counter[object] = Counter()
    for post in wires.receipts(day, wire):
        name = urlsplit(post.path).path.rsplit("/", 1)[1]
        found = read(VENDORS[name], callback(post), wire.link(name))
        assert sum(type(one) is Broken for one in found) == post.unread, post
        said.update((name, one.message_id, one.status, one.code) for one in found if type(one) is Receipt)
    assert said == Counter((told.gateway, told.message_id, told.status, wire.code(told)) for told in day.due)


def test_twilios_receipts_are_really_signed(day, wire):
    posts = [post for post in wires.receipts(day, wire) if post.path.endswith("/twilio")]
    assert all(prove(VENDORS["twilio"], callback(post), wire.link("twilio")) for post in posts)
    altered = posts[0]._replace(content=posts[0].content + b"&Body=x")
    assert not prove(VENDORS["twilio"], callback(altered), wire.link("twilio"))


def test_other_gateways_bring_the_token_that_the_settings_name(day):
    told = next(told for told in day.told if told.gateway == "infobip")
    link = Link("infobip", secrets=("a-secret",))
    post = wires.written([told], Wire(BASE, {"infobip": link}))
    assert prove(VENDORS["infobip"], callback(post), link)


# What came of it ---------------------------------------------------------------------------------------------------


def as_sent(day: Day, wire: Wire) -> Outcome:
    """All that a faultless service would say of a day on which everything arrived."""
    receipts = Counter(
        {(t.gateway, t.message_id, t.number, t.sender, t.status.value, wire.code(t)): 1 for t in day.told}
    )
    answers = [
        {"number": person.number, "state": "active", "lists": [
            {"sender": sender, "list": name, "consent": "opted_in", "sendable": True} for sender, name in person.lists
        ]}
        for person in day.subscribers
    ]  # fmt: skip
    return Outcome(receipts, answers, [], [], [{}] * 7, [], [])


@pytest.fixture
def quiet() -> Day:
    """A day on which nothing failed."""
    one = make(100, seed=1, now=NOW)
    return one._replace(told=[told for told in one.told if told.status in {Status.DELIVERED, Status.SENT}])


def test_a_day_that_is_told_as_it_was_sent_has_no_mismatch(quiet, wire):
    assert [*mismatches(quiet, wire, as_sent(quiet, wire))] == []


def test_a_lost_receipt_one_stored_twice_and_one_altered_are_told(quiet, wire):
    came = as_sent(quiet, wire)
    first, second, *_ = came.receipts
    (lost,) = mismatches(quiet, wire, replace(came, receipts=came.receipts - Counter([first])))
    assert lost.startswith("1 receipts that were answered are not stored")
    (twice,) = mismatches(quiet, wire, replace(came, receipts=came.receipts + Counter([first])))
    assert twice.startswith("1 receipts are stored that were not sent, or twice")
    altered = came.receipts - Counter([second]) + Counter([(*second[:5], "999")])
    assert len([*mismatches(quiet, wire, replace(came, receipts=altered))]) == 2


def test_what_was_unreadable_and_is_not_kept_is_told(quiet, wire):
    came = replace(as_sent(quiet, wire), unread=[])
    assert [*mismatches(quiet, wire, came)] == ["7 things could not be read and 0 are kept"]


def test_a_person_who_left_and_is_sendable_is_told(quiet, wire):
    told = next(told for told in quiet.told if told.number != quiet.subscribers[0].number)
    left = replace(told, message_id="stop", status=Status.UNDELIVERABLE, code="603")
    stopped = quiet._replace(told=[*quiet.told, left])
    assert [*mismatches(stopped, wire, as_sent(stopped, wire))] == [f"{told.number} has left, and is sendable"]


def test_a_feed_that_ends_otherwise_than_the_answers_is_told(quiet, wire):
    number = quiet.subscribers[1].number
    came = replace(as_sent(quiet, wire), changes=[{"number": number, "kind": "number.state", "to": "held"}])
    assert [*mismatches(quiet, wire, came)] == [f"the feed ends with something else of {number} than is answered"]


# The command -------------------------------------------------------------------------------------------------------


async def test_a_small_day_end_to_end():
    said = await sendable("demo", "--receipts", "300", "--json")
    assert (said.code, said.err) == (0, ""), "no progress bar where there is no terminal"
    told = json.loads(said.out)
    assert (told["stored"], told["repeats"], told["mismatches"]) == (297, 3, [])
    assert told["gateways"].keys() == GATEWAYS.keys()
    assert sum(told["unread"].values()) == 7
    states, lists, _ = (one["rows"] for one in told["reader"])
    assert {state: count for state, _, count in states} == told["states"]
    assert sum(count for *_, count in lists) <= told["lists"]["opted_in"]


async def test_people_get_the_figures_one_numbers_whole_day_and_what_to_try():
    said = await sendable("demo", "--receipts", "100")
    assert said.code == 0, said.err
    for words in (
        "100 receipts in ", "99 are stored exactly as they were sent, 1 were repeats.", "numbers by state",
        "sender.unblocked", "deactivated  reassigned", "FROM published.sendable", "/docs\n", "db url --reader)",
    ):  # fmt: skip
        assert words in said.out


async def test_a_running_service_takes_one_day_after_another(database_url, tmp_path):
    async with serving(tmp_path / "log", auth="off", database_url=database_url) as served:
        for seed in ("7", "8"):
            said = await sendable("demo", "--url", served.url, "--receipts", "100", "--seed", seed, "--json")
            assert (said.code, json.loads(said.out)["mismatches"]) == (0, []), said.err


async def test_a_service_that_asks_for_a_key_is_told_with_the_option_that_gives_one(database_url, tmp_path):
    async with serving(tmp_path / "log", auth="on", database_url=database_url) as served:
        said = await sendable("demo", "--url", served.url, "--receipts", "100", "--key", "wrong")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        f"sendable: {served.url} cannot be asked: it asks for a key with the scope admin: give it one with --key\n"
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:port", "localhost"])
async def test_a_service_that_is_not_there_ends_with_1_and_one_line(url):
    said = await sendable("demo", "--url", url, "--receipts", "100")
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert said.err.startswith(f"sendable: {url} cannot be asked: ")


@pytest.fixture
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sendable-test-"))
    folder.chmod(0o711)
    yield folder
    for left in folder.glob("sendable-demo-*"):
        shutil.rmtree(locate(left).path, ignore_errors=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_however_it_ends_nothing_of_it_goes_on_running(number, temporary):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "demo", env=environment() | {"TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    family = await asyncio.wait_for(with_its_database(process.pid), WITHIN)
    process.send_signal(number)
    await process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, timeout=WITHIN)
    assert alive == []
    assert number == signal.SIGKILL or not any(temporary.iterdir())


async def with_its_database(pid: int) -> list[psutil.Process]:
    """The demo's processes, as soon as PostgreSQL is among them."""
    while True:
        family = psutil.Process(pid).children(recursive=True)
        with suppress(psutil.NoSuchProcess):  # those that make the database come and go
            if any(one.name() == "postgres" for one in family):
                return family
        await asyncio.sleep(0.02)
