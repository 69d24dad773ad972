"""The only place where parts are joined: `create_app(settings)` and its lifespan."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from sqlalchemy.ext.asyncio import AsyncEngine

from app.catalogue import carriers, shipped, spaces
from app.catalogue.policy import load_policy
from app.config import Settings, SettingsError, is_absolute
from app.feeds import FEEDS
from app.gateways import GATEWAYS, custom, not_a_secret
from app.lookups import PROVIDERS
from app.models.duration import duration
from app.models.lookup import Call
from app.models.receipt import Gateway, Link
from app.routers import (
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
from app.services import database, keys, migrate, upkeep
from app.services.connection import connect
from app.services.deactivations.fetching import Fetcher, Subscription
from app.services.deactivations.importing import Guard
from app.services.deactivations.transport import Transport
from app.services.errands import Errands
from app.services.feed import Feed
from app.services.intake import Intake
from app.services.lookup import stops
from app.services.lookup.ask import Source
from app.services.lookup.outcome import TIMETABLE, Plan
from app.services.lookup.service import Lookups
from app.services.meaning import Meaning
from app.services.reconcile import Inquirer
from app.services.refused import Refusals
from app.services.status import Reader

log = structlog.get_logger(__name__)
LOOKUP_POOL = 4
ANY_PROVIDER = ("price", "base_url", "per_second", "timeout")
DESCRIPTION = "May I text this number now, from this sender, through which carrier, and if not, why not?"

_NO_TRACES: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own would carry paths, and so phone numbers; asking whether they are wanted costs 5 % of a status query."""


def create_app(settings: Settings) -> FastAPI:
    """The service. Raises SettingsError, CatalogueError or PolicyError, each with one line that says how to mend it."""
    meaning, links, plan = meaning_of(settings), links_of(settings), plan_of(settings)
    gateways = gateways_of(settings)
    inquirers_of(settings)
    subscriptions_of(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with url_of(settings) as url:
            await migrate.upgrade(url)
            async with _running(app, url, settings, meaning, plan):
                yield

    app = FrontedApp(title="Sendable", description=DESCRIPTION, version="0.1.0", lifespan=lifespan, docs_url=None,
                     redoc_url=None, redirect_slashes=False, telemetry=_NO_TRACES)  # fmt: skip
    app.state.settings, app.state.meaning, app.state.links = settings, meaning, links
    app.state.gateways, app.state.errands = gateways, Errands()
    problems.install(app)
    app.router.routes[:0] = [*receipts.routes, *numbers.routes]
    for router in (
        messages, numbers, lookups, deactivations, consent, subscribers, held, quarantine, feed, reading, reports,
        unread, operating,
    ):  # fmt: skip
        app.include_router(router.router)
    openapi.install(app)
    return app


def meaning_of(settings: Settings) -> Meaning:
    policy = load_policy(
        settings.policy_file,
        settings.policy.mode,
        settings.sender_modes(),
        lookups=settings.lookup is not None,
        revocation=settings.policy.revocation_scope,
        sender_revocations=settings.sender_revocations(),
    )
    return Meaning(shipped(), carriers(), policy, gateways_of(settings))


def gateways_of(settings: Settings) -> Mapping[str, Gateway]:
    """Every gateway that can post here, by name: those of the folder, and those that the settings describe."""
    described = [custom.described(name, table) for name, table in settings.gateways.custom.items()]
    vendors = {name: gateway for name, gateway in GATEWAYS.items() if gateway is not custom.gateway}
    return {**vendors, **{gateway.name: gateway for gateway in described}}


def every_link(settings: Settings) -> Mapping[tuple[str, str], Link]:
    """Every gateway, connected as the settings say where they speak of it: to read what was proven long ago."""
    return {(name, ""): Link(name, region=settings.region) for name in gateways_of(settings)} | settings.links()


def links_of(settings: Settings) -> Mapping[tuple[str, str], Link]:
    """Whom we listen to: with auth on, those with a secret; with auth off, every gateway there is."""
    links, gateways = settings.links(), gateways_of(settings)
    if unknown := sorted({gateway for gateway, _ in links} - gateways.keys()):
        raise SettingsError(f"`gateways.{unknown[0]}` is no gateway of Sendable; there are {', '.join(GATEWAYS)}")
    there = spaces()
    for name, table in settings.gateways.custom.items():
        for place, code in enumerate(table.fields.code):
            if code.space and code.space not in there:
                key = f"gateways.custom.{name}.fields.code.{place}.space"
                raise SettingsError(f"`{key}` is no code space; there are {', '.join(there)}")
    for (gateway, account), link in links.items():
        key = f"gateways.{gateway.replace('/', '.')}" + (f".accounts.{account}" if account else "")
        if link.code_space and link.code_space not in there:
            raise SettingsError(f"`{key}.code_space` is no code space; there are {', '.join(there)}")
        if (wrong := not_a_secret(gateways[gateway], link)) is not None:
            about = f"`{key}.secrets.{wrong}` is not written as the secrets of {gateway} are"
            raise SettingsError(f"{about}: {gateways[gateway].hint}")
    if settings.auth == "on":
        return {key: link for key, link in links.items() if link.secrets}
    return every_link(settings)


def inquirers_of(settings: Settings) -> Mapping[tuple[str, str], Inquirer]:
    """Which gateways can be asked for missed receipts, as `[gateways.NAME.reconcile]` says. Raises SettingsError."""
    return {key: _inquirer(*key, options, settings) for key, options in settings.inquiries().items()}


def _inquirer(name: str, account: str, options: Mapping[str, Any], settings: Settings) -> Inquirer:
    key = f"gateways.{name}" + (f".accounts.{account}" if account else "") + ".reconcile"
    inquiry, given = GATEWAYS[name].inquiry if name in GATEWAYS else None, dict(options)
    if inquiry is None:
        able = ", ".join(name for name, gateway in GATEWAYS.items() if gateway.inquiry)
        raise SettingsError(f"`{key}`: this gateway cannot be asked for receipts; these can: {able}")
    if unknown := sorted(given.keys() - {*inquiry.needs, *inquiry.may, "base_url", "per_second"}):
        raise SettingsError(f"`{key}.{unknown[0]}` is no setting of it; there are {', '.join(inquiry.needs)}")
    if missing := [need for need in inquiry.needs if not given.get(need)]:
        raise SettingsError(f"`{key}.{missing[0]}` is missing: {name} needs {', '.join(inquiry.needs)}")
    _check_base_url(key, given)
    pace = given.pop("per_second", inquiry.per_second)
    if isinstance(pace, bool) or not isinstance(pace, int | float) or not 0 < pace < math.inf:
        raise SettingsError(f"`{key}.per_second` must be a number above 0: how many requests a second it may be asked")
    return Inquirer(GATEWAYS[name], settings.links()[name, account], given, float(pace))


def plan_of(settings: Settings) -> Plan:
    """Whom to ask for lookups, as their tables say. Raises SettingsError for what no call could be made with."""
    table = settings.lookup
    if table is None:
        return Plan(home=settings.region)
    for name in (*table.providers, *table.tables()):
        if name not in PROVIDERS:
            raise SettingsError(f"`lookup.{name}` is no lookup provider of Sendable; there are {', '.join(PROVIDERS)}")
    if len({*table.providers}) < len(table.providers):
        raise SettingsError("`lookup.providers` names a provider twice: name each once, the one you trust most first")
    for name, own in table.tables().items():
        _check_keys(name, own)
    sources = tuple(_source(name, table.tables().get(name, {})) for name in table.providers)
    return Plan(sources, table.budget_per_day, table.budget_per_number, table.timetable or TIMETABLE, settings.region)


def subscriptions_of(settings: Settings) -> Sequence[Subscription]:
    """Whose deactivation files are fetched. Raises SettingsError."""
    found = []
    there = [name for name, feed in FEEDS.items() if feed.source]
    for name, table in settings.feeds.tables().items():
        source = FEEDS[name].source if name in FEEDS else None
        if source is None:
            raise SettingsError(f"`feeds.{name}` is no feed that Sendable can fetch; there are {', '.join(there)}")
        if not isinstance(table, dict):
            raise SettingsError(f"`feeds.{name}` must be a table: write [feeds.{name}] and its keys below it")
        if unknown := sorted(table.keys() - {*source.secrets, "base_url", "days"}):
            raise SettingsError(f"`feeds.{name}.{unknown[0]}` is no setting of Sendable: remove it, or see the README")
        if missing := [key for key in source.secrets if not table.get(key)]:
            raise SettingsError(f"`feeds.{name}.{missing[0]}` is missing: {name} needs {', '.join(source.secrets)}")
        _check_base_url(f"feeds.{name}", table)
        if not isinstance(table.get("days", 1), int) or not 1 <= table.get("days", 1) <= source.kept:
            raise SettingsError(f"`feeds.{name}.days` must be a whole number from 1 to {source.kept}")
        if first := next(source.listing(datetime.now(UTC).date(), table), None):
            _check_headers(f"feeds.{name}", table, first.call)
        found.append(Subscription(FEEDS[name], table))
    return found


def guard_of(settings: Settings) -> Guard:
    return Guard(settings.feeds.guard, settings.feeds.guard_at_least)


def _check_keys(name: str, table: object) -> None:
    known = (*PROVIDERS[name].needs, *PROVIDERS[name].may, *ANY_PROVIDER)
    if not isinstance(table, dict):
        raise SettingsError(f"`lookup.{name}` must be a table: write [lookup.{name}] and its keys below it")
    if unknown := sorted(table.keys() - {*known}):
        raise SettingsError(f"`lookup.{name}.{unknown[0]}` is no setting of it; there are {', '.join(known)}")


def _source(name: str, table: Mapping[str, Any]) -> Source:
    provider = PROVIDERS[name]
    given, agreed = dict(table), "price" in table
    if missing := [key for key in provider.needs if not given.get(key)]:
        raise SettingsError(f"`lookup.{name}.{missing[0]}` is missing: {name} needs {', '.join(provider.needs)}")
    try:
        price, pace = (
            Decimal(str(given.pop("price", provider.price))),
            float(given.pop("per_second", provider.per_second)),
        )
        within = duration(str(given.pop("timeout", "8s"))).total_seconds()
    except (ArithmeticError, ValueError) as error:
        raise SettingsError(
            f"`lookup.{name}` has a price, per_second or timeout that is none: {_plainly(error)}"
        ) from None
    if not price.is_finite() or price < 0 or not 0 < pace < math.inf or within <= 0:
        why = "price must be 0 or more, per_second and timeout more than 0"
        raise SettingsError(f"`lookup.{name}` has a price, per_second or timeout that is none: {why}")
    _check_base_url(f"lookup.{name}", given)
    try:
        call = provider.build(["+15555551234"], {**given, "now": datetime.now(UTC)})
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        why = str(error) if name == "http" and isinstance(error, ValueError) else type(error).__name__
        raise SettingsError(f"`lookup.{name}` makes no request ({why}): see docs/lookups.md for its keys") from None
    _check_headers(f"lookup.{name}", given, call)
    return Source(provider, given, price, pace, within, agreed)


def _check_base_url(key: str, table: Mapping[str, Any]) -> None:
    if (url := table.get("base_url")) and not is_absolute(url):
        raise SettingsError(f'`{key}.base_url` must be an absolute URL, for example "https://api.example.com"')


def _check_headers(key: str, table: Mapping[str, Any], call: Call) -> None:
    """What no header can carry would fail only once it is sent, each time anew, as if the other side were away."""
    if not all(_is_carried(value) for value in call.headers.values()):
        name = next((f".{name}" for name, value in table.items() if not _is_carried(value)), "")
        raise SettingsError(f"`{key}{name}` is nothing that a request can carry: write it in ASCII, in one line")


def _is_carried(value: object) -> bool:
    return (written := str(value)).isascii() and written.isprintable() and written == written.strip()


def _plainly(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else "write a number, such as 0.0015"


@asynccontextmanager
async def url_of(settings: Settings) -> AsyncIterator[str]:
    """A URL that answers; the embedded server is started if nobody runs it."""
    if settings.database_url:
        yield settings.database_url.get_secret_value()
    else:
        async with database.serving(settings.data_dir) as url:
            yield url


@asynccontextmanager
async def _running(app: FastAPI, url: str, settings: Settings, meaning: Meaning,
                   plan: Plan) -> AsyncIterator[None]:  # fmt: skip
    engine = connect(url)
    reads = engine.execution_options(isolation_level="AUTOCOMMIT")
    intake_engine = connect(url, pool=1)  # its own: receipts never wait for a connection that a reader has
    intake, feed_ = Intake(intake_engine, meaning), Feed(url, reads)
    app.state.engine, app.state.reads, app.state.intake, app.state.feed = engine, reads, intake, feed_
    app.state.reader = Reader(reads)
    lookup_engine = connect(url, pool=LOOKUP_POOL)  # nor does a reader wait for those that lookups have
    looking_up = app.state.lookups = Lookups(lookup_engine, meaning, plan)
    refused_engine = connect(url, pool=1)  # its own as well: whoever floods us with forgeries takes none from receipts
    refusals = app.state.refusals = Refusals(refused_engine)
    await upkeep.prepare(engine, settings, meaning)
    await stops.lift(lookup_engine, *(source.provider.name for source in plan.sources))
    if settings.first_key:
        await keys.keep_first(engine, settings.first_key.get_secret_value())
    committing = asyncio.create_task(intake.run())
    looking = asyncio.create_task(looking_up.run())
    others = [asyncio.create_task(feed_.run()), asyncio.create_task(upkeep.run(engine, settings, meaning)),
              asyncio.create_task(refusals.run())]  # fmt: skip
    fetches = _fetcher(engine, settings, meaning)
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
        await engine.dispose()


def _fetcher(engine: AsyncEngine, settings: Settings, meaning: Meaning) -> Fetcher | None:
    """Who fetches deactivation files, where a feed is configured."""
    subscriptions = subscriptions_of(settings)
    return Fetcher(engine, meaning, subscriptions, guard_of(settings), Transport()) if subscriptions else None
