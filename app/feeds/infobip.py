"""Infobip's Number Activation State: reports by network and day, their records in pages of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

import orjson

from app.feeds._fetch import refused
from app.feeds._fields import CANNOT_READ, Unreadable, kind_of, moment, why
from app.models.feed import Ask, Deactivated, Download, Feed, Layout, Listing, RowReader, Source, Wanted, Write
from app.models.http import Call, Options, address

BASE = "https://api.infobip.com"
PATH = "/number-activation-state/1/network-reports"
MOST = 1_000_000
"""Characters of a page that is written over several lines."""
PAGES = 10_000


def reader(layout: Layout) -> RowReader:
    """A page or a record a line; or one page over several lines, which is read when it is whole."""
    begun: list[str] = []

    def read(line: str | None) -> Sequence[Deactivated | str]:
        if line is None:
            return ["a page that does not end"] if begun else ()
        if not line or line.isspace():
            return ()
        said = _json("".join([*begun, line])) if not begun or _may_end(line) else None
        if said is not None:
            begun.clear()
            return [_record(one, layout) for one in _records(said)]
        if not begun and not line.lstrip().startswith(("{", "[")):
            raise Unreadable("no JSON")
        begun.append(line)
        if sum(map(len, begun)) > MOST:
            begun.clear()
            raise Unreadable("a page that does not end")
        return ()

    return read


def _may_end(line: str) -> bool:
    """A page that is written over several lines ends with brackets alone: only there is it worth a try."""
    return not line.strip().strip("]}")


def _json(text: str) -> Any:  # noqa: ANN401 - whatever came
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _records(said: object) -> Sequence[object]:
    """The records of a page: under `results` or `records`, a bare list, or one by itself."""
    if isinstance(said, dict):
        if "destination" in said:
            return [said]
        said = next((said[name] for name in ("results", "records") if name in said), None)
    if not isinstance(said, list):
        raise Unreadable("no records in it")
    return said


def _record(one: object, layout: Layout) -> Deactivated | str:
    """One record of a page; a broken one does not take the others with it."""
    try:
        return _read(one, layout)
    except CANNOT_READ as error:
        return why(error)


def _read(one: Any, layout: Layout) -> Deactivated:  # noqa: ANN401 - whatever came
    new = one.get("newDestination")
    return Deactivated(
        str(one["destination"]), kind_of(one["type"]), _at(one.get("date")), layout.carrier, str(new) if new else None
    )


def _at(value: object) -> date | datetime | None:
    """In UTC, whether it is written as a time or as milliseconds."""
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC)
    if not isinstance(value, str):
        return None
    at_ = moment(value)
    if not isinstance(at_, datetime) and len(value) > len("2026-11-20"):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return at_


def listing(day: date, options: Options) -> Listing:
    """The list is in pages too, and goes back two months: it is asked for the day alone."""
    wanted: list[Wanted] = []
    for page in range(PAGES):
        answer = yield Ask(_call(options, PATH, (("dateFrom", day.isoformat()), *_part(page))))
        refused(answer)
        said = orjson.loads(answer.body)
        reports = _reports(said)
        wanted += [_wanted(report, day) for report in reports if _day_of(report) == day.isoformat()]
        if not reports or _is_last(said, page):
            break
    return sorted(wanted, key=lambda one: one.key)


def _reports(said: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 - whatever came
    found = said if isinstance(said, list) else next((said[n] for n in ("results", "reports") if n in said), None)
    if not isinstance(found, list):
        raise Unreadable("no list of reports")
    return found


def _day_of(report: Mapping[str, Any]) -> str:
    return str(report.get("dateFrom") or report.get("generatedDate"))[:10]


def _wanted(report: Mapping[str, Any], day: date) -> Wanted:
    return Wanted(str(report["reportId"]), day, carrier=str(report.get("networkName") or "") or None)


def download(wanted: Wanted, options: Options) -> Download:
    """Page after page, each on a line of its own, until one is empty or the last one is told."""
    for page in range(PAGES):
        path = f"{PATH}/{quote(wanted.key, safe='')}/records"
        answer = yield Ask(_call(options, path, _part(page)))
        refused(answer)
        said = orjson.loads(answer.body)
        if not _records(said):
            return
        yield Write(orjson.dumps(said) + b"\n")
        if _is_last(said, page):
            return


def _part(page: int) -> tuple[tuple[str, str], ...]:
    return ("page", str(page)), ("size", "1000")


def _is_last(said: object, page: int) -> bool:
    paging = said.get("paging") if isinstance(said, dict) else None
    return not isinstance(paging, dict) or page + 1 >= int(paging.get("totalPages", 0))


def _call(options: Options, path: str, params: Sequence[tuple[str, str]] = ()) -> Call:
    headers = {"authorization": f"App {options['api_key']}", "accept": "application/json"}
    return Call("GET", address(options, BASE, path), params=params, headers=headers)


feed = Feed(
    name="infobip",
    docs="https://www.infobip.com/docs/number-activation-state",
    reader=reader,
    source=Source(BASE, ("api_key",), kept=60, listing=listing, download=download),
)
