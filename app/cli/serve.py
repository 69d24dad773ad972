"""`sendable serve`: uvicorn, with our own order of stopping."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import orjson
import typer
import uvicorn
import uvloop
from fastapi import FastAPI

from app.cli.heads import HeadsInTime
from app.cli.show import Refused
from app.config import Settings, read_settings
from app.main import create_app
from app.routers.access import AccessLog
from app.services import logs

GRACE = 25
"""Seconds for what is under way when we are told to stop: less than the 30 after which a container is killed."""
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than the 60 for which load balancers mean to use it."""
UNTAKEN_MOST = 600
"""Seconds for which a caller may take nothing of what it was sent, which uvicorn keeps for as long as it is there: 50
pages of the feed were 220 MB.
"""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [SENDABLE_HOST, 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for a free one [SENDABLE_PORT, 8000].")] = None,
    auth: Annotated[str | None, typer.Option(help="on or off; off on loopback only [SENDABLE_AUTH, on].")] = None,
    *,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print what to try next.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print in one line of JSON where it listens.")] = False,
) -> None:
    """Run the service. At Ctrl-C, SIGTERM or the end of its terminal it ends when all that it took is committed."""
    settings = read_settings(host=host, port=port, auth=auth)
    logs.configure(settings.log_level)
    app = create_app(settings)
    with bound(settings) as listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, settings, listener, None if quiet else _as_json if json else _try_next))


Address = tuple[str, int]
Words = Callable[[Settings, Address], str]
"""What to print once it listens, and where that is."""


class Server(uvicorn.Server):
    """Ends event streams first, since they would never end by themselves. Signals are `_serve`'s."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, words: Words | None) -> None:
        super().__init__(config)
        self._app = app
        self._words = words

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._words:
            words = self._words(self._app.state.settings, self.servers[0].sockets[0].getsockname())
            with suppress(OSError):  # a full disk, a closed pipe: it serves all the same
                print(words, flush=True)  # noqa: T201

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.feed.stop()
        await super().shutdown(sockets)


async def _serve(app: FastAPI, settings: Settings, listener: socket.socket, words: Words | None) -> None:
    """The lifespan is entered here and not by uvicorn, so that what stops a start comes out as the error it is."""
    config = uvicorn.Config(
        AccessLog(app, verbose=settings.log_level == "debug"), http=HeadsInTime, ws="none", lifespan="off",
        log_config=None, access_log=False, server_header=False, timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE, proxy_headers=False,
    )  # fmt: skip
    server = Server(config, app, words)
    starting = asyncio.create_task(_until_stopped(app, server, listener))
    loop = asyncio.get_running_loop()
    for number in _ends():
        loop.add_signal_handler(number, _stop, server, starting, number)
    await asyncio.wait([starting])
    if not starting.cancelled():
        starting.result()


async def _until_stopped(app: FastAPI, server: Server, listener: socket.socket) -> None:
    async with app.router.lifespan_context(app):
        _settle_memory()
        await server.serve([listener])


def _settle_memory() -> None:
    """What the start has made stays for good: the collector need not look at it again, nor at every group of receipts
    (a twelfth of the time of one under load).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _ends() -> tuple[int, ...]:
    """The signals that end the service: also that its terminal has gone, but where nohup lets it outlive that."""
    told = (signal.SIGINT, signal.SIGTERM)
    return told if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*told, signal.SIGHUP)


def _stop(server: Server, starting: asyncio.Task[None], number: int) -> None:
    """A start is given up: nothing has been taken yet. Later, all that was taken is finished; only a second Ctrl-C does
    not wait for slow clients.
    """
    if server.started:
        server.handle_exit(number, None)
    else:
        starting.cancel()


def bound(settings: Settings, untaken_most: int = UNTAKEN_MOST) -> socket.socket:
    """Bound before anything starts: a port that is taken is the commonest thing to be told."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux; connections have it of their listener
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, untaken_most * 1000)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listener.close()
        why = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise Refused(f"{why}: stop what listens there, or set SENDABLE_HOST and SENDABLE_PORT", 1) from error
    return listener


def _as_json(settings: Settings, address: Address) -> str:
    url = _url(address)
    return orjson.dumps({"url": url, "auth": settings.auth, "docs": f"{url}/docs"}).decode()


def _url(address: Address) -> str:
    host, port = address[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _try_next(settings: Settings, address: Address) -> str:
    url = _url(address)
    key = "" if settings.auth == "off" else " -H 'Authorization: Bearer KEY'"
    secret = "" if settings.auth == "off" else " -H 'X-Sendable-Token: SECRET'"
    keys = "" if settings.auth == "off" else (
        "KEY is made by `sendable keys create NAME --scope numbers:read`, SECRET stands under [gateways.native].\n"
    )  # fmt: skip
    return f"""
Sendable listens on {url}, auth {settings.auth}. Ctrl-C stops all of it.

A carrier says that a number is no longer in service:
  curl {url}/v1/receipts/native{secret} -d \\
    '{{"message_id": "1", "number": "+1-555-555-1234", "sender": "12345", "status": "undeliverable", "code": "3041"}}'
May it be texted?
  curl{key} '{url}/v1/numbers/+1-555-555-1234?sender=12345'
{keys}Every call: {url}/docs
"""
