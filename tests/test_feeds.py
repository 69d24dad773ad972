"""Every deactivation feed against its recorded files and answers, and against bytes that nobody meant to send.

The cases are data, `tests/feeds/<name>.toml`, and this is the one driver for all of them.
"""

from __future__ import annotations

import gzip
import io
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.feeds import FEEDS, known_by, read, refused
from app.models.feed import Ask, Deactivated, Feed, Layout, NotYet, Refused, Save, Source, TooOld, Wanted, Write
from app.models.http import HttpAnswer
from app.services.deactivations.unpack import NotAFile, Unpacked

RECORDED = Path(__file__).parent / "feeds"
DOCS = Path(__file__).parents[1] / "docs" / "deactivations.md"


def cases(kind: str) -> Iterator[Any]:
    for name, feed in FEEDS.items():
        path = RECORDED / f"{name}.toml"
        for one in tomllib.loads(path.read_text()).get(kind, []) if path.exists() else ():
            yield pytest.param(feed, one, id=f"{name}: {one['name']}")


def bytes_of(case: dict[str, Any]) -> bytes:
    if "zip" in case:
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in case["zip"].items():
                archive.writestr(name, text)
        return raw.getvalue()
    return gzip.compress(case["gzip"].encode()) if "gzip" in case else case["file"].encode()


def lines_of(raw: bytes) -> list[str | None]:
    return [*Unpacked(io.BytesIO(raw)).lines()]


# What files say ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("feed", "case"), [*cases("case")])
def test_a_recorded_file_reads_as_its_case_says(feed: Feed, case: dict[str, Any]) -> None:
    known = known_by(case["known_as"]) if "known_as" in case else None
    layout = Layout(case.get("columns", {}), known.carrier if known else None, case.get("region", "US"))
    said = [*read(feed, lines_of(bytes_of(case)), layout)]
    records = [(line, one) for line, one in said if isinstance(one, Deactivated)]
    broken = [(line, one) for line, one in said if isinstance(one, str)]
    wanted = [
        (one["line"], Deactivated(**{k: v for k, v in one.items() if k != "line"})) for one in case.get("record", [])
    ]
    assert [(line, _plain(one)) for line, one in records] == [(line, _plain(one)) for line, one in wanted]
    assert [line for line, _ in broken] == [one["line"] for one in case.get("broken", [])]
    assert all(one["error"] in why for one, (_, why) in zip(case.get("broken", []), broken, strict=True))
    if known:
        assert known.day == case.get("day")


def _plain(one: Deactivated) -> Deactivated:
    return one._replace(at=one.at.astimezone(UTC)) if isinstance(one.at, datetime) else one


def test_every_feed_is_recorded_and_told() -> None:
    assert {path.stem for path in RECORDED.glob("*.toml")} == FEEDS.keys()
    page = DOCS.read_text()
    assert [name for name in FEEDS if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("name", FEEDS)
@given(
    raw=st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"5555551234", b"number,type", b'{"results":['])))
)
@settings(max_examples=60, deadline=None)
def test_bytes_that_nobody_meant_to_send_are_broken_lines_and_never_an_error(name: str, raw: list[bytes]) -> None:
    unpacked = Unpacked(io.BytesIO(b"\n".join(raw)))
    try:
        said = [*read(FEEDS[name], unpacked.lines(), Layout())]
    except NotAFile:
        return
    assert all(isinstance(one, str) or one.number.startswith("+") for _, one in said)


# How they are packed -------------------------------------------------------------------------------------------------

TEXT = "".join(f"1555555{place:04}\n" for place in range(2_000))


def test_a_file_is_unpacked_by_what_it_is_and_not_by_what_it_is_called() -> None:
    expected = TEXT.splitlines()
    assert lines_of(TEXT.encode()) == expected
    assert lines_of(b"\xef\xbb\xbf" + TEXT.encode()) == expected
    for utf_16 in ("utf-16-le", "utf-16-be"):
        assert [line for line in lines_of(f"\ufeff{TEXT}".encode(utf_16)) if line] == expected
    assert lines_of(TEXT.replace("\n", "\r\n").encode()) == expected
    assert lines_of(gzip.compress(TEXT.encode())) == expected
    assert [
        line for line in lines_of(bytes_of({"zip": {"a.txt": TEXT[:9_000], "b.txt": f"\ufeff{TEXT[9_000:]}"}})) if line
    ] == expected


def test_a_cut_gzip_gives_its_whole_lines_and_never_half_a_number() -> None:
    unpacked = Unpacked(io.BytesIO(gzip.compress(TEXT.encode(), 0)[:7_000]))
    lines = [*unpacked.lines()]
    assert unpacked.cut
    assert lines
    assert lines == TEXT.splitlines()[: len(lines)]


def test_a_cut_zip_is_refused_in_words() -> None:
    with pytest.raises(NotAFile, match="get the file again"):
        lines_of(bytes_of({"zip": {"a.txt": TEXT}})[:500])


def test_a_file_whose_bytes_were_changed_on_the_way_is_refused_in_words() -> None:
    """A wrong digit is another person's number: only the checksum, at the very end, tells that there is one."""
    for whole in (gzip.compress(TEXT.encode(), 0), gzip.compress(TEXT.encode(), 0) * 2, stored(TEXT)):
        at = whole.rindex(b"15555550042")
        with pytest.raises(NotAFile, match="broken: get the file again"):
            lines_of(whole[:at] + b"15555559942" + whole[at + 11 :])


def test_what_stands_behind_a_whole_gzip_and_is_none_is_left_out() -> None:
    unpacked = Unpacked(io.BytesIO(gzip.compress(TEXT.encode()) + b"\0" * 512))
    assert [*unpacked.lines()] == TEXT.splitlines()
    assert unpacked.cut


def stored(text: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("a.txt", text)
    return raw.getvalue()


def test_a_line_without_an_end_is_not_kept() -> None:
    lines = lines_of(b"15555551234\n" + b"x" * (3 << 20) + b"\n15555550142\n")
    assert lines == ["15555551234", None, "15555550142"]
    said = [*read(FEEDS["twilio"], lines, Layout())]
    assert [line for line, one in said if isinstance(one, str)] == [2]


@pytest.mark.parametrize(("name", "feed"), [
    ("att-deacts_20261120.zip", "carrier"), ("tmobile_deacts_20261120.csv.gz", "carrier"),
    ("disconnect_2026_11_20.tsv.gz", "vibes"), ("2026-11-20-deact-report.csv", "aws"),
])  # fmt: skip
def test_a_file_is_known_by_its_name(name: str, feed: str) -> None:
    known = known_by(name)
    assert known is not None
    assert (known.feed.name, str(known.day)) == (feed, "2026-11-20")


def test_a_name_that_tells_nothing_is_nobodys() -> None:
    assert known_by("numbers.txt") is None


# How they are fetched ------------------------------------------------------------------------------------------------

_ENDS = {"NotYet": NotYet, "TooOld": TooOld, "Refused": Refused}


@pytest.mark.parametrize(("feed", "case"), [*cases("fetch")])
def test_a_file_is_asked_for_as_its_case_says(feed: Feed, case: dict[str, Any]) -> None:
    assert feed.source is not None
    with pytest.raises(_ENDS[case["raises"]], match=case.get("says")) if "raises" in case else nullcontext():
        fetch(feed.source, case)


def fetch(source: Source, case: dict[str, Any]) -> None:
    wanted = play(source.listing(case["day"], case["options"]), case.get("listing", []))
    assert [one.key for one in wanted] == [one["key"] for one in case["wanted"]]
    for told, one in zip(case["wanted"], wanted, strict=True):
        assert (told.get("name", one.name), told.get("carrier")) == (one.name, one.carrier)
    if not wanted:
        return
    play(source.download(wanted[0], case["options"]), case["download"])


def play(steps: Any, told: list[dict[str, Any]]) -> Any:
    """What the generator asks for must be what the case tells, in order; the answers are the case's."""
    left, answer = [*told], None
    while True:
        try:
            step = next(steps) if answer is None else steps.send(answer)
        except StopIteration as end:
            assert left == []
            return end.value
        now, answer = left.pop(0), None
        if isinstance(step, Write):
            assert step.body == now["write"].encode() + b"\n"
            continue
        assert isinstance(step, Save if "save" in now else Ask)
        assert step.call.url == now.get("save", now.get("url"))
        assert [[*pair] for pair in step.call.params] == now.get("params", [[*pair] for pair in step.call.params])
        assert step.call.basic == (tuple(now["basic"]) if "basic" in now else step.call.basic)
        if isinstance(step, Save):
            assert "save" in now
        else:
            answer = HttpAnswer(now["status"], now.get("headers", {}), now["body"].encode())


def test_an_answer_that_is_too_long_is_told_as_that() -> None:
    with pytest.raises(Refused, match="longer than an answer may be"):
        refused(HttpAnswer(200, {}, b"[", cut=True))


def test_what_is_saved_from_elsewhere_carries_no_credentials() -> None:
    source = FEEDS["twilio"].source
    assert source is not None
    options = {"account_sid": "AC1", "auth_token": "token"}
    steps = source.download(Wanted("2026-11-20", date(2026, 11, 20)), options)
    next(steps)
    saved = steps.send(HttpAnswer(307, {"location": "https://files.example/d"}, b""))
    assert isinstance(saved, Save)
    assert (saved.call.basic, saved.call.headers) == (None, {})
