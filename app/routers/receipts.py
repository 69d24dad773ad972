"""`/v1/receipts/{gateway}`: the hot path. A thin endpoint without a dependency graph: prove, read, put, answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import lru_cache

import orjson
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.gateways import certificate_at, confirmation_at, once, prove, read
from app.models.receipt import Broken, Callback, Gateway, Inbound, Link, Receipt, Reply
from app.routers.answers import JSON
from app.routers.body import MIB, RECEIPTS_MOST, SMALL, NotCompressed, read_body
from app.routers.problems import Problem
from app.services import metrics, sample
from app.services.connection import Busy
from app.services.intake import GROUP_MOST
from app.services.unread import as_kept

UNREAD = {"Sendable-Unread": "1"}
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


async def receive(request: Request) -> Response:
    """Answer what this vendor counts as success, once all of the callback is committed."""
    gateway, link = _link(request)
    try:
        body, broken = await read_body(request, RECEIPTS_MOST), None
    except NotCompressed as error:
        body, broken = error.raw, Broken(error.raw, str(error))
    callback = _callback(request, link, body)
    if gateway.certificate and (address := certificate_at(gateway, callback, link)):
        callback = replace(callback, certificate=await request.app.state.errands.certificate(address))
    forged = bool(link.secrets) and not prove(gateway, callback, link)
    if forged:
        _ask(gateway, callback, link)
        metrics.FORGED.labels(gateway.name).inc()
    if sample.HEADER in callback.headers:
        return _arrived(callback, proven=not forged if link.secrets else None)
    if forged:
        request.app.state.refusals.keep(link, callback, gateway.presents)
        raise _unproven()
    if gateway.confirmation and (address := confirmation_at(gateway, callback)):
        await request.app.state.errands.confirm(address)
    said = [broken] if broken else await _said(request, gateway, callback, link)
    receipts = [one for one in said if type(one) is Receipt]
    unread = (
        [as_kept(callback, link, one, gateway) for one in said if type(one) is Broken]
        if len(receipts) < len(said)
        else []
    )
    if receipts or unread:
        nonce = once(gateway, callback, link) if gateway.nonce and link.secrets else None
        await request.app.state.intake.put(receipts, unread, nonce)
    if unread:
        metrics.UNREAD.labels(gateway.name).inc(len(unread))
    if inbound := len(said) - len(receipts) - len(unread):
        metrics.INBOUND.labels(gateway.name).inc(inbound)
    return _answer(gateway.reply(callback), unread=bool(unread))


async def _said(request: Request, gateway: Gateway, callback: Callback, link: Link) -> list[Receipt | Broken | Inbound]:
    """What a callback says. Of large ones one is read at a time, and others are answered between two: to read 8 MiB
    takes half a second, and thirty at once kept everybody waiting for 17, `/livez` too. Raises Busy where it would find
    no room.
    """
    if len(callback.body) <= SMALL:
        return read(gateway, callback, link)
    state = request.app.state
    async with state.large:
        await asyncio.sleep(0)
        if len(callback.body) > MIB and not state.intake.has_room(GROUP_MOST + 1):
            raise Busy
        return read(gateway, callback, link)


@lru_cache(maxsize=64)
def _answer(reply: Reply, *, unread: bool) -> Response:
    """One object for each of the few answers there are: it holds nothing of a request, and may be sent again."""
    return Response(reply.body, reply.status, headers=UNREAD if unread else None, media_type=reply.content_type)


def _arrived(callback: Callback, *, proven: bool | None) -> Response:
    """For `sendable doctor --gateway`: nothing of a sample is kept, or answered as to a vendor. One that proves nothing
    has been counted as forged: whoever tries secrets out in this way is seen.
    """
    return Response(orjson.dumps(sample.arrived(callback, proven=proven)), media_type=JSON, headers=NO_STORE)


async def consent(request: Request) -> Response:
    """Answer a vendor that asks by OPTIONS whether it may post: yes, if it proves that we gave it the address."""
    gateway, link = _link(request)
    if gateway.consent is None:
        raise Problem(405, "this gateway does not ask: it posts, or calls by GET", headers={"Allow": "GET, POST"})
    callback = _callback(request, link, b"")
    if link.secrets and not prove(gateway, callback, link):
        metrics.FORGED.labels(gateway.name).inc()
        raise _unproven()
    return Response(headers=gateway.consent(callback), media_type="text/plain")


def _ask(gateway: Gateway, callback: Callback, link: Link) -> None:
    """Raises Problem 401 for a vendor that shows its credentials only when asked for them, and has shown none."""
    if gateway.challenge and (challenge := gateway.challenge(callback, link)):
        detail = "the request shows no credentials: send it again with them"
        raise Problem(401, detail, headers={"WWW-Authenticate": challenge})


def _unproven() -> Problem:
    return Problem(403, "the request does not prove that it comes from this gateway: check the secret in its settings")


def _link(request: Request) -> tuple[Gateway, Link]:
    path, state = request.path_params, request.app.state
    name, account = path["gateway"], path.get("account", "")
    gateways, links = state.gateways, state.links
    gateway, link = gateways.get(name), links.get((name, account))
    if gateway is None:  # described ones are called `custom/NAME`, and have no accounts
        gateway, link = gateways.get(f"{name}/{account}"), links.get((f"{name}/{account}", ""))
    if gateway is None:
        raise Problem(404, f"there is no gateway of this name; there are {', '.join(gateways)}")
    if link is None:
        raise Problem(
            404, "this gateway or account is not configured: give it a secret under [gateways] in the settings"
        )
    return gateway, link


def _callback(request: Request, link: Link, body: bytes) -> Callback:
    scope = request.scope
    query = scope["query_string"].decode("latin-1")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    base = link.public_url or f"{scope['scheme']}://{headers.get('host', '')}"
    path = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
    url = f"{base}{path}?{query}" if query else f"{base}{path}"
    return Callback(scope["method"], url, headers, query, body, datetime.now(UTC))


async def there(request: Request) -> Response:
    """HEAD: whether somebody listens here. It brings nothing, so nothing is kept."""
    _link(request)
    return Response()


routes = [
    Route("/v1/receipts/{gateway}", there, methods=["HEAD"]),
    Route("/v1/receipts/{gateway}/{account}", there, methods=["HEAD"]),
    Route("/v1/receipts/{gateway}", receive, methods=["GET", "POST"]),
    Route("/v1/receipts/{gateway}/{account}", receive, methods=["GET", "POST"]),
    Route("/v1/receipts/{gateway}", consent, methods=["OPTIONS"]),
    Route("/v1/receipts/{gateway}/{account}", consent, methods=["OPTIONS"]),
]
