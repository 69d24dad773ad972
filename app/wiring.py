"""What the settings say, as the values that the services are made of. What no service could work with stops the start
here, with one line that says which key, and how to mend it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from app.catalogue import carriers, shipped, spaces
from app.catalogue.policy import load_policy
from app.config import Settings, SettingsError
from app.feeds import FEEDS
from app.gateways import GATEWAYS, custom, not_a_secret
from app.lookups import PROVIDERS
from app.models.duration import duration
from app.models.http import Call, Options
from app.models.receipt import Gateway, Link, Links
from app.models.settings import is_absolute
from app.services import database
from app.services.deactivations.fetching import Subscription
from app.services.deactivations.importing import Guard
from app.services.lookup.ask import Source
from app.services.lookup.outcome import TIMETABLE, Plan
from app.services.meaning import Meaning
from app.services.reconcile import Inquirer

ANY_PROVIDER = ("price", "base_url", "per_second", "timeout")
PLACES_MOST = 9
"""Between the first digit of a price and its point, on either side: no currency has more."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a start makes of its settings."""

    meaning: Meaning
    links: Links
    plan: Plan
    inquirers: Mapping[tuple[str, str], Inquirer]
    subscriptions: Sequence[Subscription]


def parts_of(settings: Settings) -> Parts:
    """Raises SettingsError, CatalogueError or PolicyError, each with one line that says how to mend it."""
    return Parts(
        meaning_of(settings), links_of(settings), plan_of(settings), inquirers_of(settings), subscriptions_of(settings)
    )


@asynccontextmanager
async def url_of(settings: Settings) -> AsyncIterator[str]:
    """A URL that answers; the embedded server is started if nobody runs it."""
    if settings.database_url:
        yield settings.database_url.get_secret_value()
    else:
        async with database.serving(settings.data_dir) as url:
            yield url + database.OUR_WAY


# Gateways ----------------------------------------------------------------------------------------------------------


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


def every_link(settings: Settings) -> Links:
    """Every gateway, connected as the settings say where they speak of it: to read what was proven long ago."""
    return {(name, ""): Link(name, region=settings.region) for name in gateways_of(settings)} | settings.links()


def links_of(settings: Settings) -> Links:
    """Whom we listen to: with auth on, those with a secret; with auth off, every gateway there is."""
    links, gateways = settings.links(), gateways_of(settings)
    if unknown := sorted({gateway for gateway, _ in links} - gateways.keys()):
        raise SettingsError(f"`gateways.{unknown[0]}` is no gateway of Sendable; there are {', '.join(GATEWAYS)}")
    there = spaces()
    for name, table in settings.gateways.custom.items():
        for place, code in enumerate(table.fields.code):
            _check_space(f"gateways.custom.{name}.fields.code.{place}.space", code.space, there)
    for link in links.values():
        _check_space(f"{link.table}.code_space", link.code_space, there)
        if (wrong := not_a_secret(gateways[link.gateway], link)) is not None:
            about = f"`{link.table}.secrets.{wrong}` is not written as the secrets of {link.gateway} are"
            raise SettingsError(f"{about}: {gateways[link.gateway].hint}")
    if settings.auth == "on":
        return {key: link for key, link in links.items() if link.secrets}
    return every_link(settings)


def _check_space(key: str, space: str | None, there: Collection[str]) -> None:
    if space and space not in there:
        raise SettingsError(f"`{key}` is no code space; there are {', '.join(there)}")


def inquirers_of(settings: Settings) -> Mapping[tuple[str, str], Inquirer]:
    """Which gateways can be asked for missed receipts, as `[gateways.NAME.reconcile]` says. Raises SettingsError."""
    links = settings.links()
    return {key: _inquirer(links[key], options) for key, options in settings.inquiries().items()}


def _inquirer(link: Link, options: Options) -> Inquirer:
    key, gateway = f"{link.table}.reconcile", GATEWAYS.get(link.gateway)
    if gateway is None or gateway.inquiry is None:
        able = ", ".join(name for name, one in GATEWAYS.items() if one.inquiry)
        raise SettingsError(f"`{key}`: this gateway cannot be asked for receipts; these can: {able}")
    inquiry, given = gateway.inquiry, dict(options)
    _check_keys(key, given, (*inquiry.needs, *inquiry.may, "base_url", "per_second"))
    _check_needs(key, given, gateway.name, inquiry.needs)
    pace = _pace(key, given.pop("per_second", inquiry.per_second))
    return Inquirer(gateway, link, given, pace)


# Lookups -----------------------------------------------------------------------------------------------------------


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
        _check_keys(f"lookup.{name}", own, (*PROVIDERS[name].needs, *PROVIDERS[name].may, *ANY_PROVIDER))
    sources = tuple(_source(name, table.tables().get(name, {})) for name in table.providers)
    return Plan(sources, table.budget_per_day, table.budget_per_number, table.timetable or TIMETABLE, settings.region)


def _source(name: str, table: Options) -> Source:
    key, provider, given = f"lookup.{name}", PROVIDERS[name], dict(table)
    _check_needs(key, given, name, provider.needs)
    price = _price(key, given.pop("price", provider.price))
    pace = _pace(key, given.pop("per_second", provider.per_second))
    within = _timeout(key, given.pop("timeout", "8s"))
    try:
        call = provider.build(["+15555551234"], {**given, "now": datetime.now(UTC)})
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        why = str(error) if name == "http" and isinstance(error, ValueError) else type(error).__name__
        raise SettingsError(f"`{key}` makes no request ({why}): see docs/lookups.md for its keys") from None
    _check_headers(key, given, call)
    return Source(provider, given, price, pace, within, "price" in table)


def _price(key: str, value: object) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price < 0 or (price and abs(price.adjusted()) > PLACES_MOST):
        raise SettingsError(f'`{key}.price` must be a number of 0 or more, for example "0.0015"')
    return price


def _timeout(key: str, value: object) -> float:
    try:
        within = duration(str(value)).total_seconds()
    except ValueError as error:
        raise SettingsError(f"`{key}.timeout` {error}") from None
    if not within:
        raise SettingsError(f'`{key}.timeout` must be more than 0s, for example "8s"')
    return within


# Feeds -------------------------------------------------------------------------------------------------------------


def subscriptions_of(settings: Settings) -> Sequence[Subscription]:
    """Whose deactivation files are fetched. Raises SettingsError."""
    return [_subscription(name, table) for name, table in settings.feeds.tables().items()]


def _subscription(name: str, table: Any) -> Subscription:  # noqa: ANN401 - whatever the file holds
    key, source = f"feeds.{name}", FEEDS[name].source if name in FEEDS else None
    if source is None:
        there = ", ".join(name for name, feed in FEEDS.items() if feed.source)
        raise SettingsError(f"`{key}` is no feed that Sendable can fetch; there are {there}")
    _check_keys(key, table, (*source.secrets, "base_url", "days"))
    _check_needs(key, table, name, source.secrets)
    if not isinstance(table.get("days", 1), int) or not 1 <= table.get("days", 1) <= source.kept:
        raise SettingsError(f"`{key}.days` must be a whole number from 1 to {source.kept}")
    if first := next(source.listing(datetime.now(UTC).date(), table), None):
        _check_headers(key, table, first.call)
    return Subscription(FEEDS[name], table)


def guard_of(settings: Settings) -> Guard:
    return Guard(settings.feeds.guard, settings.feeds.guard_at_least)


# A vendor's own table ----------------------------------------------------------------------------------------------


def _check_keys(key: str, table: object, known: Sequence[str]) -> None:
    if not isinstance(table, dict):
        raise SettingsError(f"`{key}` must be a table: write [{key}] and its keys below it")
    if unknown := sorted(table.keys() - {*known}):
        raise SettingsError(f"`{key}.{unknown[0]}` is no setting of it; there are {', '.join(known)}")


def _check_needs(key: str, table: Options, name: str, needs: Sequence[str]) -> None:
    if missing := [need for need in needs if not table.get(need)]:
        raise SettingsError(f"`{key}.{missing[0]}` is missing: {name} needs {', '.join(needs)}")
    if (url := table.get("base_url")) and not is_absolute(url):
        raise SettingsError(f'`{key}.base_url` must be an absolute URL, for example "https://api.example.com"')


def _pace(key: str, value: object) -> float:
    try:
        pace = float(str(value))
    except ValueError:
        pace = math.nan
    if not 0 < pace < math.inf:
        raise SettingsError(f"`{key}.per_second` must be a number above 0: how many requests a second it may be asked")
    return pace


def _check_headers(key: str, table: Options, call: Call) -> None:
    """What no header can carry would fail only once it is sent, each time anew, as if the other side were away."""
    if not all(_is_carried(value) for value in call.headers.values()):
        name = next((f".{name}" for name, value in table.items() if not _is_carried(value)), "")
        raise SettingsError(f"`{key}{name}` cannot stand in a request: write it in ASCII, in one line")


def _is_carried(value: object) -> bool:
    return (written := str(value)).isascii() and written.isprintable() and written == written.strip()
