"""How one gateway is connected: by its settings, and by a signed sample that goes through its public URL."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from msgspec.structs import replace

from app.models.receipt import Callback, Gateway, Link
from app.services.doctor.finding import Finding
from app.services.sample import HEADER, Sample, covers_url, digest, sample

ORIGIN = "webhook-request-origin"
"""Who asks, by OPTIONS, whether they may post (CloudEvents, web hooks for event delivery)."""
Consent = Callable[[Callback], Mapping[str, str]]
WITHIN = 15.0
"""Seconds that the sample's way may take."""
NOT_FOUND = 404


async def of_gateway(gateway: Gateway, link: Link, own_address: str, *, auth: bool) -> AsyncIterator[Finding]:
    """The settings of one link, then a sample for each of its live secrets."""
    about, wrong = link.table, False
    for finding in _settings(gateway, link, about, auth=auth):
        wrong = wrong or finding.level == "wrong"
        yield finding
    base = link.public_url or own_address
    if wrong and not link.secrets:
        return
    if link.public_url is None:
        mend = "set `public_url` to try the way that the vendor's requests take"
        yield Finding("note", about, f"no public_url: the sample goes to {base} only", mend)
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=WITHIN) as client:
        for place, secret in enumerate(link.secrets or (None,)):
            which = f", secret {place + 1} of {len(link.secrets)}" if len(link.secrets) > 1 else ""
            sent = sample(gateway, link, base, secret, datetime.now(UTC))
            if secret and not sent.signed:
                yield _unsigned(about + which)
            came = await _tried(client, sent, link, about + which)
            yield came
            if gateway.consent and came.level != "wrong":
                yield await _consented(client, sent, gateway.consent, about + which)


def _unsigned(about: str) -> Finding:
    says = "only the vendor has the key that signs: the sample goes without a signature"
    return Finding("note", about, says, "its way is tried all the same; wait for a receipt of theirs")


def _settings(gateway: Gateway, link: Link, about: str, *, auth: bool) -> Iterator[Finding]:
    if not link.secrets:
        says = "has no secret, so it is answered 404" if auth else "has no secret: whoever reaches it may post"
        yield Finding("wrong" if auth else "note", about, says, f"give it `secrets` under [{about}]")
    else:
        yield Finding("ok", about, f"{len(link.secrets)} live secret{'s' if len(link.secrets) > 1 else ''}")
    if link.secrets and link.public_url is None and covers_url(gateway, link, link.secrets[0]):
        mend = 'set `public_url` to the address that the vendor calls, for example "https://dlr.example.com"'
        yield Finding("wrong", about, "its signature covers the address, and `public_url` is not set", mend)
    if link.public_url and urlsplit(link.public_url).scheme != "https":
        yield Finding("note", about, "its public_url is not https: what is posted can be read on the way", "use TLS")
    if link.code_space is None and "code_space" in gateway.hint:
        yield Finding("note", about, "its codes mean nothing yet", "say whose codes they are: `code_space = …`")
    if link.timezone is None:
        yield Finding("note", about, "times that come without a zone are not used", "say whose clock: `timezone = …`")
    if hint := _still(gateway.hint, link):
        yield Finding("note", about, "for its console", hint)


def _still(hint: str, link: Link) -> str:
    """What a hint says but for those settings that the link has."""
    given = {"code_space": link.code_space, "public_url": link.public_url}
    parts = [(part, _SETTING.match(part)) for part in hint.split("; ")]
    return "; ".join(part for part, setting in parts if not (setting and given.get(setting[1])))


_SETTING = re.compile(r"set `?(\w+)")


async def _tried(client: httpx.AsyncClient, sent: Sample, link: Link, about: str) -> Finding:
    headers = {**sent.callback.headers, HEADER: f"{sent.id} {','.join(sent.callback.headers)}"}
    where = sent.url.partition("?")[0]
    try:
        answer = await client.request(sent.callback.method, sent.url, headers=headers, content=sent.callback.body)
    except httpx.TimeoutException:
        return Finding("wrong", about, f"{where} does not answer within {WITHIN:.0f} s", "see what it waits for")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        mend = "its certificate must be one that vendors trust" if "CERTIFICATE" in str(error).upper() else (
            "check the address, the firewall, and that the service runs")  # fmt: skip
        return Finding("wrong", about, f"nothing answers at {where} ({type(error).__name__})", mend)
    said = _read(answer)
    if said is None or said.get("sample") != sent.id:
        return Finding("wrong", about, *_no_answer_of_ours(answer, where))
    return _judged(sent, link, said, about, where)


async def _consented(client: httpx.AsyncClient, sent: Sample, consent: Consent, about: str) -> Finding:
    """Some vendors ask by OPTIONS whether they may post; proxies like to answer that themselves, as for browsers."""
    asks = replace(sent.callback, method="OPTIONS", headers={**sent.callback.headers, ORIGIN: "doctor"}, body=b"")
    where = sent.url.partition("?")[0]
    try:
        answer = await client.request(asks.method, sent.url, headers=asks.headers)
    except httpx.HTTPError as error:
        return Finding("note", about, f"OPTIONS at {where} is not answered ({type(error).__name__})", _ASKED_FIRST)
    wanted = {name: value for name, value in consent(asks).items() if name != "Allow"}
    if answer.is_success and all(answer.headers.get(name) == value for name, value in wanted.items()):
        return Finding("ok", about, f"OPTIONS at {where} is answered with our consent")
    says = f"OPTIONS at {where} is answered {answer.status_code} without our consent"
    return Finding("note", about, says, _ASKED_FIRST)


_ASKED_FIRST = "where the vendor asks first (CloudEvents), let the proxy pass OPTIONS on and its answer back, unchanged"


def _read(answer: httpx.Response) -> Mapping[str, Any] | None:
    try:
        said = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return None
    return said if isinstance(said, dict) else None


def _no_answer_of_ours(answer: httpx.Response, where: str) -> tuple[str, str]:
    status = answer.status_code
    if answer.is_redirect:
        to = answer.headers.get("location", "").partition("?")[0]
        return (f"{where} redirects to {to}: vendors do not follow, or sign the first address",
                "set `public_url` to the last address, and give that one to the vendor")  # fmt: skip
    if "application/problem+json" in answer.headers.get("content-type", ""):
        said = (_read(answer) or {}).get("detail", "")
        if status == NOT_FOUND:
            mend = "restart the service with these settings; let the proxy strip what `public_url` has before /v1/"
            return f"Sendable answers 404 there: {said}", mend
        return f"Sendable answers {status}: {said}", "see its log"
    if status in {401, 403}:
        return (f"something before Sendable answers {status}",
                "let POST and GET on /v1/receipts/ pass without a login, a filter or a challenge")  # fmt: skip
    if status >= 500:  # noqa: PLR2004
        return f"the proxy answers {status}: it does not reach Sendable", "check the address that it passes requests to"
    return (f"something else than Sendable answers {status} there, or an older one",
            "let the proxy pass /v1/receipts/ on, unchanged")  # fmt: skip


def _judged(sent: Sample, link: Link, said: Mapping[str, Any], about: str, where: str) -> Finding:
    changed = next(_changes(sent, link, said), None)
    if not sent.signed and said["proven"] is not None:
        return _judged_unsigned(sent, said, changed, about, where)
    if said["proven"] and changed is None:
        return Finding("ok", about, f"a signed sample came through {where} as it was sent, and proves its origin")
    if said["proven"] is not False and changed:
        return Finding("note", about, f"{changed[0]}; what this vendor signs is not touched by it", changed[1])
    if said["proven"] is None:
        return Finding(
            "note", about, f"a sample came through {where} as it was sent; no secret is set", "set `secrets`"
        )
    if changed:
        return Finding("wrong", about, f"{changed[0]}, which breaks the signature", changed[1])
    return Finding("wrong", about, "the sample arrived as it was sent, and does not prove its origin there",
                   "restart the service: its secret is another one than that of these settings")  # fmt: skip


def _judged_unsigned(sent: Sample, said: Mapping[str, Any], changed: tuple[str, str] | None, about: str,
                     where: str) -> Finding:  # fmt: skip
    """Whatever a vendor signs, it signs the body."""
    if changed is None:
        return Finding("ok", about, f"an unsigned sample came through {where} as it was sent; it proves nothing there")
    if said["body"] != sha256(sent.callback.body).hexdigest():
        return Finding("wrong", about, f"{changed[0]}, which breaks a signature", changed[1])
    return Finding("note", about, f"{changed[0]}, which breaks a signature that covers it", changed[1])


def _changes(sent: Sample, link: Link, said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was changed on the way, and how to mend it; what breaks most first."""
    callback = sent.callback
    if said["method"] != callback.method:
        yield (f"{callback.method} arrives as {said['method']}",
               "let the proxy pass requests on instead of redirecting them")  # fmt: skip
    if said["body"] != sha256(callback.body).hexdigest():
        yield (f"the proxy changes the body ({len(callback.body)} bytes sent, {said['size']} arrived)",
               "turn off what rewrites or decodes bodies (a filter, a form parser) for /v1/receipts/")  # fmt: skip
    yield from _query(callback.query.split("&"), said["query"])
    lost = [name for name in callback.headers if name not in said["headers"]]
    if lost:
        yield f"the proxy drops the header {lost[0]}", f"let it pass {', '.join(lost)} on"
    other = [name for name, value in callback.headers.items() if said["headers"].get(name) != digest(value)]
    if other:
        yield f"the proxy changes the header {other[0]}", f"let it pass {', '.join(other)} on as it is"
    if said["url"] != digest(callback.url.partition("?")[0]):
        yield _another_address(link)


def _another_address(link: Link) -> tuple[str, str]:
    if link.public_url is None:
        return "the proxy changes host, scheme or path", "set `public_url` to the address that the vendor calls"
    path = urlsplit(link.public_url).path
    says = "the service takes the address for another one: the proxy changes the path, or `public_url` was changed"
    return says, f"let the proxy pass {path}/v1/receipts/… on as /v1/receipts/…, and restart the service"


def _query(sent: list[str], came: list[str]) -> Iterator[tuple[str, str]]:
    was = [*map(digest, sent)]
    if was == came:
        return
    if sorted(was) == sorted(came):
        yield "the proxy changes the order of the query", "turn off the sorting of query strings (a cache's key, a CDN)"
    elif not came:
        yield "the proxy drops the query", "let it pass the query string on"
    elif len(came) > len(was):
        yield "the proxy adds to the query", "let it pass the query string on as it is"
    elif len(came) < len(was):
        yield "the proxy drops a part of the query", "let it pass the query string on as it is"
    else:
        yield "the proxy writes the query anew, with other escapes", "let it pass the raw query string on, not decoded"
