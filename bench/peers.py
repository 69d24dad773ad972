"""Routes that do nothing but read what they are given and answer: what the frameworks cost by themselves."""

from __future__ import annotations

from datetime import UTC, datetime
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
