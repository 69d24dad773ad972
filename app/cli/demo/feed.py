"""Posts requests as gateways do: many at a time, each answered before its lane sends the next."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import httpx

from app.cli.demo.wire import Post
from app.cli.show import Refused

LANES = 64
PATIENCE = httpx.Timeout(30.0)
VERIFY = ssl.create_default_context()
"""Made once: it takes longer than ten requests."""
TRIES = 5
"""How often a request is sent while the service says that it is busy, as gateways would."""


Done = Callable[[Post, httpx.Response], None]


@dataclass(frozen=True, slots=True)
class Service:
    """Where to post, and the key for the calls that are not a gateway's."""

    base: str
    key: str | None = None

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.AsyncClient(base_url=self.base, headers=headers, timeout=PATIENCE, trust_env=False, verify=VERIFY)


async def feed(service: Service, posts: Iterable[Post], done: Done, lanes: int = LANES) -> None:
    """All of them, begun in their order. Refused for the first answer that no gateway would take for success."""
    waiting = iter(posts)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(_lane(service, waiting, done))
    except* Refused as errors:
        raise errors.exceptions[0] from None


async def _lane(service: Service, waiting: Iterator[Post], done: Done) -> None:
    """A client of its own each: the pool of a shared one looks at all its connections for every request."""
    async with service.client() as http:
        for post in waiting:
            done(post, await _posted(http, post))


async def _posted(http: httpx.AsyncClient, post: Post) -> httpx.Response:
    for _ in range(TRIES):
        try:
            answer = await http.request(post.method, post.path, headers=post.headers, content=post.content)
        except httpx.HTTPError as error:
            raise Refused(f"{http.base_url} does not answer ({type(error).__name__})", 1) from error
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
    if not answer.is_success:
        raise Refused(f"{post.path.partition('?')[0]} was answered {answer.status_code}: {answer.text[:300]}", 1)
    if ("sendable-unread" in answer.headers) != bool(post.unread):
        raise Refused(f"{post.path.partition('?')[0]}: what was sent was {'' if post.unread else 'not '}read", 1)
    return answer
