"""A feed on loopback: a real HTTP server that keeps deactivation files, and misbehaves as it is told."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.loopback import Reply, Request, listening


@dataclass
class Keeper:
    """`says` answers a request; `asked` are all there were."""

    says: Callable[[Request], Reply]
    url: str = ""
    asked: list[Request] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [request.path for request in self.asked]


@asynccontextmanager
async def keeping(says: Callable[[Request], Reply]) -> AsyncIterator[Keeper]:
    keeper = Keeper(says)

    async def answer(request: Request) -> Reply:
        keeper.asked.append(request)
        return keeper.says(request)

    async with listening(answer) as keeper.url:
        yield keeper


def zipped(text: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("list.txt", text)
    return raw.getvalue()


Files = dict[str, str]
"""Lines by day."""


def twilio(files: Files) -> Callable[[Request], Reply]:
    """Behind a redirect, whose link asks for no credentials and must not be sent any."""

    def says(request: Request) -> Reply:
        if request.path == "/v1/Deactivations":
            day = request.query["Date"]
            if request.user != "AC1":
                return Reply(b'{"code": 20003}', 401)
            if day not in files:
                return Reply(b'{"code": 30114}', 404)
            return Reply(b"", 307, {"location": f"/file/{day}?signed=1"})
        if "authorization" in request.headers or request.query.get("signed") != "1":
            return Reply(b"", 403)
        return Reply(files[request.path.rpartition("/")[2]].encode(), headers={"content-type": "text/plain"})

    return says


def vonage(files: Files) -> Callable[[Request], Reply]:
    def says(request: Request) -> Reply:
        if request.user != "key":
            return Reply(b"", 401)
        day = request.query["date"]
        return (
            Reply(zipped(files[day]), headers={"content-type": "application/zip"}) if day in files else Reply(b"", 404)
        )

    return says


def telesign(att: Files, verizon: Files | None = None) -> Callable[[Request], Reply]:
    """A file a carrier and day."""

    def says(request: Request) -> Reply:
        if request.user != "id":
            return Reply(b"", 401)
        names = {
            f"{carrier}-deacts_{day.replace('-', '')}.zip": text
            for carrier, files in (("att", att), ("verizon", verizon or {}))
            for day, text in files.items()
        }
        if request.path == "/files":
            return Reply(json.dumps({"list_of_files": [*names], "code": 2200}).encode())
        return Reply(zipped(names[request.path.rpartition("/")[2]]))

    return says


def infobip(files: Files) -> Callable[[Request], Reply]:
    """A page a report, a page a record."""

    def says(request: Request) -> Reply:
        if request.headers.get("authorization") != "App k":
            return Reply(b"", 401)
        if request.path.endswith("/network-reports"):
            reports = [{"reportId": f"r-{day}", "networkName": "AT&T Mobility", "dateFrom": f"{day}T00:00:00Z"}
                       for day in files if day == request.query.get("dateFrom", day)]  # fmt: skip
            page = int(request.query.get("page", 0))
            paging = {"page": page, "totalPages": len(reports)}
            return Reply(json.dumps({"results": reports[page : page + 1], "paging": paging}).encode())
        day, page = request.path.split("/")[-2].removeprefix("r-"), int(request.query["page"])
        numbers = files[day].split()
        record = {"destination": numbers[page], "type": "DEACTIVATION", "date": f"{day}T10:00:00.000+0000"}
        return Reply(json.dumps({"results": [record], "paging": {"page": page, "totalPages": len(numbers)}}).encode())

    return says
