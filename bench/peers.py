"""Routes that do nothing but read what they are given and answer: what the frameworks cost by themselves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import cycle
from typing import Literal

import orjson
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class ReceiptIn(BaseModel):
    message_id: str
    number: str
    sender: str | None = None
    status: Literal["accepted", "sent", "delivered", "undeliverable", "rejected", "expired", "unknown"]
    code: str | None = None
    carrier: str | None = None
    occurred_at: datetime | None = None


def create_fastapi() -> FastAPI:
    """`/receipts` reads a receipt; `/numbers/{number}` answers the same bytes each time, those of `/answer`."""
    app = FastAPI()
    app.state.answer = b"{}"

    @app.post("/receipts")
    async def receive(said: ReceiptIn) -> Response:  # noqa: ARG001 - it is read, and that is all
        return Response()

    @app.put("/answer")
    async def learn(request: Request) -> Response:
        app.state.answer = await request.body()
        return Response()

    @app.get("/numbers/{number}")
    async def status(number: str) -> Response:  # noqa: ARG001 - as above
        return Response(app.state.answer, media_type="application/json")

    return app


def create_starlette() -> Starlette:
    async def receive(request: Request) -> Response:
        orjson.loads(await request.body())
        return Response()

    return Starlette(routes=[Route("/receipts", receive, methods=["POST"])])


def create_provider() -> Starlette:
    """A lookup provider as Telnyx answers: every number is ported to T-Mobile today."""

    async def look_up(request: Request) -> Response:
        said = {
            "phone_number": request.path_params["number"],
            "carrier": {"name": "T-Mobile USA, Inc.", "type": "mobile"},
            "portability": {
                "ported_status": "Y",
                "ported_date": f"{datetime.now(UTC):%Y-%m-%d}",
                "line_type": "mobile",
                "spid_carrier_name": "T-Mobile USA, Inc.",
            },
        }
        return Response(orjson.dumps({"data": said}), media_type="application/json")

    return Starlette(routes=[Route("/v2/number_lookup/{number}", look_up)])


def create_bad_provider() -> Starlette:
    """Telnyx on a bad day: slow, down, limiting its rate, answering HTML as if it were JSON; and Plivo, who is well."""
    days = cycle(("slow", "down", "slow", "lying", "slow", "limiting"))

    async def fail(_: Request) -> Response:
        day = next(days)
        if day == "slow":
            await asyncio.sleep(5)
        if day == "limiting":
            return Response(b"{}", 429, {"retry-after": "2"}, media_type="application/json")
        return Response(b"<html>one moment</html>", 200 if day == "lying" else 503, media_type="application/json")

    async def look_up(request: Request) -> Response:
        carrier = {"name": "T-Mobile USA, Inc.", "type": "mobile", "ported": "yes",
                   "mobile_country_code": "310", "mobile_network_code": "260"}  # fmt: skip
        said = {"api_id": "x", "phone_number": request.path_params["number"], "carrier": carrier}
        return Response(orjson.dumps(said), media_type="application/json")

    return Starlette(routes=[Route("/v2/number_lookup/{number}", fail), Route("/v1/Number/{number}", look_up)])
