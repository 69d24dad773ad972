"""What waits for a person or for time, and what ends each of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from sqlalchemy.ext.asyncio import AsyncEngine

from app.config import Settings
from app.models.catalogue import REASONS
from app.services.connection import Rows
from app.services.doctor import half_done, lookups
from app.services.doctor.finding import Finding, age
from app.services.lookup import stops
from app.services.standing import ALARMS_TOLD, standing


async def of_what_waits(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Finding]:
    now = await standing(engine)
    for finding in lookups.of_database(now, settings.lookup, await lookups.seen(engine)):
        yield finding
    for finding in _alarms(now.alarms):
        yield finding
    if now.quarantines.total:
        events = "mass event waits" if now.quarantines.total == 1 else "mass events wait"
        says = f"{now.quarantines.total} {events}, with {now.quarantines.numbers} numbers"
        says += f", the oldest for {age(now.quarantines.oldest)}"
        yield Finding("wrong", "quarantine", says, "see `sendable quarantine list`; release or discard each of them")
    async for finding in half_done.findings(engine):
        yield finding
    for held in now.held:
        if held.waiting_for != "time":
            what, mend = _WAITS[held.waiting_for]
            says = f"{held.total} wait for {what}, the oldest for {age(held.oldest)}"
            yield Finding("note", "held numbers", says, mend)
    for unread in now.unread:
        says = f"{unread.total} callbacks of {unread.gateway} could not be read, the oldest {age(unread.oldest)} ago"
        yield Finding("note", "unread", says, "see `sendable unread list`; after a fix `sendable unread replay`")
    for refused in now.refused:
        name, newest = refused.gateway, f"{refused.newest:%Y-%m-%d %H:%M} UTC"
        says = f"{refused.total} requests to {name} proved nothing, the newest at {newest}"
        mend = f"if they are its own: mend its secret or `public_url`, then `sendable unread reverify --gateway {name}`"
        yield Finding("note", "refused", says, mend)
    if now.unnamed.total:
        oldest = age(now.unnamed.oldest)
        says = f"{now.unnamed.total} wait for the register to name their number or sender, the oldest for {oldest}"
        mend = "post what is sent to /v1/messages, or set `sender` for a gateway that names none"
        yield Finding("note", "receipts", says, mend)


def _alarms(alarms: Rows) -> Iterator[Finding]:
    more = {}
    for alarm in alarms:
        if alarm.kind == stops.ALARM:
            continue  # told above
        says = f"{alarm.kind} {alarm.key}: {alarm.count} times since {alarm.since:%Y-%m-%d %H:%M} UTC"
        mend = _MENDS.get(alarm.kind, "look into it")
        if alarm.kind in REASONS:
            mend += f"; then run `sendable alarms clear {alarm.kind}`"
        yield Finding("wrong", "alarm", says, mend)
        more[alarm.kind] = alarm.standing - ALARMS_TOLD
    for kind, many in more.items():
        if many > 0:
            mend = "see `GET /v1/alarms`; where each receipt brings one, its code is read from the wrong place"
            yield Finding("wrong", "alarm", f"{many} more of the kind {kind} stand", mend)


_BY_HAND = "see `sendable held list`; release them or opt them out"
_WAITS = {
    "no_lookup_provider": ("a lookup provider", f"name a provider under [lookup], or {_BY_HAND}"),
    "lookup": ("a lookup", "the timetable goes on by itself; `lookups` above says when it does not"),
    "budget": ("the budget of lookups", "raise the budget under [lookup] and restart"),
    "person": ("a person", _BY_HAND),
    "sender": ("a sender's name", f"post what is sent to /v1/messages, set `sender` for the gateway, or {_BY_HAND}"),
}
"""What a number waits for, in words, and what ends that."""
_MENDS = {
    "lookup_outage": "ask the providers that it names, or name another one behind them; it ends when one answers",
    "lookup_budget": "raise the budget under [lookup] and restart, or wait for the next day",
    "lookup_undecided": _BY_HAND,
    "same_code_again": "these numbers are in service and not reached: ask the gateway why",
    "unknown_code": "find out what it means; `sendable codes suggest` says where to add it",
    "feed_failed": "look at what `sendable fetch deactivations` says, and at the feed's keys in the settings",
    "feed_guard": "look at what `sendable fetch deactivations` says, and add `--yes` if it is meant",
    "quarantine": "see `sendable quarantine list`; if the receipts are right release it, else discard it",
    "network_not_covered": "ask for this network to be added to the account, or send by another gateway",
    "no_route": "ask the gateway for a route to these numbers, or send by another one",
    "account_error": "mend the login, the rights or the limits of the account at this gateway",
    "billing": "pay this gateway's bill, or mend what is charged to the person",
    "request_error": "mend what the sending system asks of this gateway",
    "invalid_sender": "mend the sender that the sending system names, or have the gateway take it",
    "sender_not_registered": "have the sender registered or verified, as its network asks",
    "stale_carrier": "let the sending system ask anew for the carriers that it names: these are out of date",
}
