"""The only place where parts are joined: `create_app(settings)` and its lifespan. `wiring.py` makes the parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from sqlalchemy.ext.asyncio import AsyncEngine

from app.config import Settings
from app.lookups import PROVIDERS
from app.routers import (
    codes,
    consent,
    deactivations,
    feed,
    held,
    lookups,
    messages,
    numbers,
    openapi,
    operating,
    problems,
    quarantine,
    reading,
    receipts,
    reports,
    subscribers,
    unread,
)
from app.routers.front import FrontedApp
from app.services import keys, metrics, migrate, upkeep
from app.services.connection import connect
from app.services.deactivations.fetching import Fetcher
from app.services.deactivations.transport import Transport
from app.services.errands import Errands
from app.services.feed import Feed
from app.services.intake import Intake
from app.services.lookup import stops
from app.services.lookup.service import Lookups
from app.services.refused import Refusals
from app.services.status import Reader
from app.wiring import Parts, guard_of, parts_of, url_of

LOOKUP_POOL = 4
QUICK_POOL = 2
"""For questions about one number, which gather, for keys and probes: those wait for nobody who reads or writes much."""
REPORTS_AT_ONCE = 2
"""The others wait: among millions a report takes seconds, and whoever asks about a number needs a connection too."""
FILES_AT_ONCE = 2
"""Deactivation files; each has a connection to its end, and needs a second one now and then. Of eight at once none got
one, and nobody else either.
"""
DESCRIPTION = """May I text this number now, from this sender, through which carrier, and if not, why not?

Gateways post to `/v1/receipts/…`; all other calls are for your own services. Numbers are E.164 in every answer, times
RFC 3339 in UTC. An error is `application/problem+json`, and its `detail` says how to mend it. Each answer has an
`X-Request-Id`, which the log has too.
"""

_NO_TRACES: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own would carry paths, and so phone numbers; asking whether they are wanted costs 5 % of a status query."""


def create_app(settings: Settings) -> FastAPI:
    """The service. Raises SettingsError, CatalogueError or PolicyError, each with one line that says how to mend it."""
    parts = parts_of(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with url_of(settings) as url:
            await migrate.upgrade(url)
            async with _running(app, url, settings, parts):
                yield

    app = FrontedApp(title="Sendable", description=DESCRIPTION, version=version("sendable"), lifespan=lifespan,
                     docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=_NO_TRACES)  # fmt: skip
    app.state.settings, app.state.meaning, app.state.links = settings, parts.meaning, parts.links
    app.state.gateways, app.state.guard, app.state.errands = parts.meaning.gateways, guard_of(settings), Errands()
    metrics.begin(gateway for gateway, _ in parts.links)
    problems.install(app)
    app.router.routes[:0] = [*receipts.routes, *numbers.routes]
    for router in (
        messages, numbers, lookups, deactivations, consent, subscribers, held, quarantine, feed, reading, codes,
        reports, unread, operating,
    ):  # fmt: skip
        app.router.routes += router.router.routes  # `include_router` would build all anew, at the first request: 40 ms
    openapi.install(app)
    return app


@asynccontextmanager
async def _running(app: FastAPI, url: str, settings: Settings, parts: Parts) -> AsyncIterator[None]:
    meaning, plan = parts.meaning, parts.plan
    engine = connect(url)
    reads = engine.execution_options(isolation_level="AUTOCOMMIT")
    intake_engine = connect(url, pool=1)  # its own: receipts never wait for a connection that a reader has
    intake, feed_ = Intake(intake_engine, meaning), Feed(url, reads)
    app.state.engine, app.state.reads, app.state.intake, app.state.feed = engine, reads, intake, feed_
    quick_engine = connect(url, pool=QUICK_POOL)
    app.state.quick = quick_engine.execution_options(isolation_level="AUTOCOMMIT")
    app.state.reader = Reader(app.state.quick)
    app.state.reports = asyncio.Semaphore(REPORTS_AT_ONCE)
    app.state.files = asyncio.Semaphore(FILES_AT_ONCE)
    app.state.large = asyncio.Lock()  # whose turn it is to read a large body
    lookup_engine = connect(url, pool=LOOKUP_POOL)  # nor does a reader wait for those that lookups have
    looking_up = app.state.lookups = Lookups(lookup_engine, meaning, plan)
    refused_engine = connect(url, pool=1)  # its own as well: whoever floods us with forgeries takes none from receipts
    refusals = app.state.refusals = Refusals(refused_engine)
    await upkeep.prepare(engine, settings, meaning)
    await stops.lift(lookup_engine, *PROVIDERS)  # of those too that the settings name no more
    if settings.first_key:
        await keys.keep_first(engine, settings.first_key.get_secret_value())
    committing = asyncio.create_task(intake.run())
    looking = asyncio.create_task(looking_up.run())
    others = [asyncio.create_task(feed_.run()), asyncio.create_task(upkeep.run(engine, settings, meaning)),
              asyncio.create_task(refusals.run())]  # fmt: skip
    fetches = _fetcher(engine, settings, parts)
    if fetches:
        others.append(asyncio.create_task(fetches.run()))
    try:
        yield
    finally:
        intake.stop()
        looking_up.stop()
        await committing
        await looking
        for task in others:
            task.cancel()
        for task in others:
            with suppress(asyncio.CancelledError):
                await task
        await app.state.errands.close()
        await refusals.close()
        await refused_engine.dispose()
        if fetches:
            await fetches.transport.close()
        await lookup_engine.dispose()
        await intake_engine.dispose()
        await quick_engine.dispose()
        await engine.dispose()


def _fetcher(engine: AsyncEngine, settings: Settings, parts: Parts) -> Fetcher | None:
    """Who fetches deactivation files, where a feed is configured."""
    wanted = parts.subscriptions
    return Fetcher(engine, parts.meaning, wanted, guard_of(settings), Transport()) if wanted else None
