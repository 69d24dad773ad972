"""`/livez`, `/readyz`, `/metrics`: what a container platform and Prometheus ask for."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Security
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import State
from starlette.responses import Response

from app.models import api
from app.routers.auth import scope
from app.routers.problems import Problem
from app.services import ready
from app.services.connection import RETRY_AFTER, is_lost
from app.services.standing import Standing, standing

router = APIRouter(tags=["operating"])
COUNTS_WITHIN = 5.0
"""Seconds that the database has to count what waits among millions. Prometheus gives up after 10, and where it hangs, a
key takes one of them and the end of a connection two.
"""
NO_STORE = {"Cache-Control": "no-store"}
_PROBLEM = {"description": "Not ready: what is missing", "content": {"application/problem+json": {}}}


@router.head("/livez", include_in_schema=False)
@router.get("/livez", operation_id="livez", summary="Is the process alive?", response_model=api.Alive)
async def livez() -> Response:
    """Asks nobody else: a process whose database is away must not be restarted for it. Open without a key."""
    return _json({"alive": True})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", operation_id="readyz", summary="May requests be sent here?", response_model=api.Ready,
            responses={503: _PROBLEM})  # fmt: skip
async def readyz(request: Request) -> Response:
    """Whether the database answers and takes writes, its schema is this code's, and receipts have room. Open, too."""
    state = request.app.state
    missing = await ready.missing(state.quick)
    if not state.intake.has_room(1):
        missing.append(f"intake: {state.intake.depth} receipts wait for their commit, and no more are let in")
    if missing:
        raise Problem(503, "; ".join(missing), headers=NO_STORE | {"Retry-After": str(RETRY_AFTER)})
    return _json({"ready": True, "schema": ready.head()})


@router.get("/metrics", operation_id="metrics", summary="For Prometheus", response_class=Response,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})  # fmt: skip
async def metrics(request: Request, _: Annotated[None, Security(scope("metrics:read"))] = None) -> Response:
    """Counts and times; never a phone number. While the database is away, those that this process keeps itself."""
    state = request.app.state
    registry = CollectorRegistry()
    _process(registry, state)
    counted, missing = await asyncio.gather(_counted(state), ready.missing(state.quick))
    up = counted is not None or ready.AWAY not in missing
    Gauge("sendable_database_up", "Whether the database answered this scrape", registry=registry).set(up)
    if counted:
        now, left = counted
        _waiting(registry, now)
        _providers(registry, state)
        if left is not None:
            Gauge("sendable_lookup_budget_left", "What lookups may still cost today", registry=registry).set(
                max(float(left), 0)
            )
    body = generate_latest(REGISTRY) + generate_latest(registry)
    return Response(body, headers=NO_STORE, media_type=CONTENT_TYPE_LATEST)


async def _counted(state: State) -> tuple[Standing, Decimal | None] | None:
    """What waits and stands, and what is left of the day's budget; None where the database does not tell in time."""
    try:
        async with asyncio.timeout(COUNTS_WITHIN):
            return await standing(state.reads), await state.lookups.budget.left()
    except Exception as error:
        if is_lost(error) or isinstance(error, SQLAlchemyError):
            return None
        raise


def _process(registry: CollectorRegistry, state: State) -> None:
    pool = state.engine.pool
    Gauge("sendable_queue_receipts", "Receipts that wait for their commit", registry=registry).set(state.intake.depth)
    Gauge("sendable_pool_size", "Connections that the pool may hold", registry=registry).set(pool.size())
    Gauge("sendable_pool_in_use", "Connections in use", registry=registry).set(pool.checkedout())


def _providers(registry: CollectorRegistry, state: State) -> None:
    stops = Gauge("sendable_lookup_stopped", "Whether a provider refuses our account, and is asked no more",
                  ["provider"], registry=registry)  # fmt: skip
    rests = Gauge("sendable_lookup_resting", "Whether this process leaves a provider alone that fails", ["provider"],
                  registry=registry)  # fmt: skip
    for asker in state.lookups.panel.askers:
        stops.labels(asker.name).set(asker.breaker.stopped is not None)
        rests.labels(asker.name).set(asker.breaker.rests_now())


def _waiting(registry: CollectorRegistry, now: Standing) -> None:
    """What waits, and since when: how many, and the age of the oldest, by what tells them apart."""
    for name, what, label, rows in (
        ("held", "Held numbers", "waiting_for", now.held),
        ("lookups_due", "Carrier lookups that are due", None, [now.lookups]),
        ("unread_waiting", "Callbacks kept because nobody could read them", "gateway", now.unread),
        ("unnamed_receipts", "Receipts that wait for the register to name their number or sender", None, [now.unnamed]),
        ("quarantines", "Mass events that wait for a person", None, [now.quarantines]),
    ):
        labels = [label] if label else []
        totals = Gauge(f"sendable_{name}", what, labels, registry=registry)
        ages = Gauge(f"sendable_{name}_oldest_seconds", f"{what}: the age of the oldest", labels, registry=registry)
        for row in rows:
            (totals.labels(row[0]) if label else totals).set(row.total)
            (ages.labels(row[0]) if label else ages).set(row.oldest or 0)
    Gauge("sendable_quarantined_numbers", "Numbers that wait in quarantine", registry=registry).set(
        now.quarantines.numbers
    )
    alarms = Gauge("sendable_alarms", "Alarms standing", ["kind"], registry=registry)
    for row in now.alarms:
        alarms.labels(row.kind).set(row.standing)


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), headers=NO_STORE, media_type="application/json")
