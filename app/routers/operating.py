"""`/livez`, `/readyz`, `/metrics`: what a container platform and Prometheus ask for."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Security
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.responses import Response

from app.routers.auth import scope
from app.routers.problems import Problem
from app.services import migrate
from app.services.connection import RETRY_AFTER, is_lost
from app.services.intake import WAITING_MOST
from app.services.standing import Standing, standing

router = APIRouter(tags=["operating"])
ANSWERS_WITHIN = 2.0
"""Seconds that the database has to answer a probe."""
NO_STORE = {"Cache-Control": "no-store"}
_PROBLEM = {"description": "Not ready: what is missing", "content": {"application/problem+json": {}}}
_head = cache(migrate.head)


@router.get("/livez", operation_id="livez", summary="Is the process alive?")
async def livez() -> Response:
    """Asks nobody else: a process whose database is away must not be restarted for it. Open without a key."""
    return _json({"alive": True})


@router.get("/readyz", operation_id="readyz", summary="May requests be sent here?", responses={503: _PROBLEM})
async def readyz(request: Request) -> Response:
    """The database answers and takes writes, its schema is this code's, and there is room for receipts. Open without a
    key."""
    state = request.app.state
    missing = await _database(state.reads)
    if state.intake.depth >= WAITING_MOST:
        missing.append(f"intake: {state.intake.depth} receipts wait for their commit, and no more may")
    if missing:
        raise Problem(503, "; ".join(missing), headers=NO_STORE | {"Retry-After": str(RETRY_AFTER)})
    return _json({"ready": True, "schema": _head()})


_ASK = text("SELECT version_num AS schema, current_setting('transaction_read_only') = 'on' AS closed FROM alembic_version")


async def _database(engine: AsyncEngine) -> list[str]:
    try:
        async with asyncio.timeout(ANSWERS_WITHIN), engine.connect() as db:
            row = (await db.execute(_ASK)).one()
    except Exception as error:
        if is_lost(error):
            return ["database: it does not answer"]
        raise
    wrong = []
    if row.closed:
        wrong.append("database: it takes no writes (a standby, or a demoted primary)")
    if row.schema != _head():
        wrong.append(f"schema: the database is at version {row.schema}, this code at {_head()}")
    return wrong


@router.get("/metrics", operation_id="metrics", summary="For Prometheus", response_class=Response,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})  # fmt: skip
async def metrics(request: Request, _: Annotated[None, Security(scope("metrics:read"))] = None) -> Response:
    """Counts and times; never a phone number. While the database is away, those that this process keeps itself."""
    state = request.app.state
    registry = CollectorRegistry()
    _process(registry, state)
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            now = await standing(state.reads)
    except Exception as error:
        if not is_lost(error):
            raise
        now = None
    Gauge("sendable_database_up", "Whether the database answered this scrape", registry=registry).set(now is not None)
    if now:
        _waiting(registry, now)
    return Response(generate_latest(REGISTRY) + generate_latest(registry), headers=NO_STORE, media_type=CONTENT_TYPE_LATEST)


def _process(registry: CollectorRegistry, state: Any) -> None:  # noqa: ANN401 - Starlette's State
    pool: Any = state.engine.pool
    Gauge("sendable_queue_receipts", "Receipts that wait for their commit", registry=registry).set(state.intake.depth)
    Gauge("sendable_pool_size", "Connections that the pool may hold", registry=registry).set(pool.size())
    Gauge("sendable_pool_in_use", "Connections in use", registry=registry).set(pool.checkedout())


def _waiting(registry: CollectorRegistry, now: Standing) -> None:
    """What waits, and since when: a gauge of how many and one of the oldest's age, by what tells them apart."""
    held = [((row.waiting_for,), row.total, row.oldest) for row in now.held]
    unread = [((row.gateway,), row.total, row.oldest) for row in now.unread]
    lookups, unnamed = ([((), row.total, row.oldest)] for row in (now.lookups, now.unnamed))
    _pair(registry, "held_numbers", "Held numbers", "held_oldest", ["waiting_for"], held)
    _pair(registry, "lookups_due", "Carrier lookups that are due", "lookups_oldest", [], lookups)
    _pair(registry, "unread_waiting", "Callbacks kept because nobody could read them", "unread_oldest", ["gateway"], unread)
    _pair(registry, "unnamed_receipts", "Receipts that wait for the register to name their number or sender",
          "unnamed_oldest", [], unnamed)  # fmt: skip
    alarms = Gauge("sendable_alarms", "Alarms standing", ["kind"], registry=registry)
    for row in now.alarms:
        alarms.labels(row.kind).inc()


Counted = tuple[tuple[str, ...], int, float | None]


def _pair(registry: CollectorRegistry, name: str, what: str, age: str, labels: list[str], rows: list[Counted]) -> None:
    totals = Gauge(f"sendable_{name}", what, labels, registry=registry)
    ages = Gauge(f"sendable_{age}_seconds", f"{what}: the age of the oldest", labels, registry=registry)
    for values, total, oldest in rows:
        (totals.labels(*values) if labels else totals).set(total)
        (ages.labels(*values) if labels else ages).set(oldest or 0)


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), headers=NO_STORE, media_type="application/json")
