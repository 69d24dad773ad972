"""A real Jasmin with its RabbitMQ and Redis, all on loopback, with every file in a folder of their own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.real.programs import answers, environment, free_port, installed, running
from tests.running import WITHIN

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's wrapper in /usr/sbin turns to the user rabbitmq; this is the server itself."""

DAEMON = """
import lockfile, pathlib, runpy, sys
class Lock(lockfile.FileLock):
    def __init__(self, _):
        super().__init__(str(pathlib.Path.cwd() / "jasmind"))
lockfile.FileLock = Lock
runpy.run_module("jasmin.bin.jasmind", run_name="__main__", alter_sys=True)
"""
"""jasmind.py with its lock in the folder: at /tmp/jasmind, where it lies else, one that was killed stops the next."""

GROUP = ("group -a", "gid us", "ok")
USER = ("user -a", "uid us", "gid us", "username us", "password secret", "ok")
CONNECTOR = (
    "smppccm -a", "cid smppcA", "host 127.0.0.1", "port {port}", "username us", "password secret", "bind transceiver",
    "submit_throughput 100", "ok",
)  # fmt: skip
ROUTE = ("mtrouter -a", "type defaultroute", "connector smppc(smppcA)", "rate 0.0", "ok")
START = ("smppccm -1 smppcA",)


@asynccontextmanager
async def jasmin(folder: Path, centre: int) -> AsyncIterator[str]:
    """A Jasmin bound to the message centre at that port; the URL of its /send."""
    api, jcli = free_port(), free_port()
    async with _redis(folder) as redis, _rabbitmq(folder) as rabbitmq:
        given = _files(folder) | {
            "REDIS_CLIENT_HOST": "127.0.0.1", "REDIS_CLIENT_PORT": str(redis),
            "AMQP_BROKER_HOST": "127.0.0.1", "AMQP_BROKER_PORT": str(rabbitmq),
            "HTTP_API_BIND": "127.0.0.1", "HTTP_API_PORT": str(api),
            "JCLI_BIND": "127.0.0.1", "JCLI_PORT": str(jcli), "JCLI_AUTHENTICATION": "no",
            "ROUTER_BIND": "127.0.0.1", "ROUTER_PORT": str(free_port()),
            "CLIENT_MANAGEMENT_BIND": "127.0.0.1", "CLIENT_MANAGEMENT_PORT": str(free_port()),
            "SMPP_SERVER_BIND": "127.0.0.1", "SMPP_SERVER_PORT": str(free_port()),
            "SMPP_SERVER_PB_BIND": "127.0.0.1", "SMPP_SERVER_PB_PORT": str(free_port()),
            "DLR_DLR_LOOKUP_RETRY_DELAY": "1",
        }  # fmt: skip
        command = (str(environment("jasmin")), "-c", DAEMON)
        services = ("--enable-dlr-thrower", "--enable-dlr-lookup")
        async with running(folder / "jasmin.log", *command, *services, given=given):
            await answers(api)
            await answers(jcli)
            connector = tuple(line.format(port=centre) for line in CONNECTOR)
            await _told(jcli, *GROUP, *USER, *connector, *ROUTE, *START)
            yield f"http://127.0.0.1:{api}/send"


def _files(folder: Path) -> dict[str, str]:
    """Jasmin's own folders. Its wheel lacks the protocol's description; txAMQP, which reads it, has a copy."""
    config = folder / "jasmin"
    for name in ("resource", "store", "log"):
        (config / name).mkdir(parents=True)
    packages = environment("jasmin").parent.parent / "lib"
    (spec,) = packages.glob("python3.*/site-packages/txamqp/specs/standard/amqp0-9-1.stripped.xml")
    shutil.copy(spec, config / "resource" / "amqp0-9-1.xml")
    return {"ROOT_PATH": str(folder), "CONFIG_PATH": str(config), "LOG_PATH": str(config / "log")}


@asynccontextmanager
async def _redis(folder: Path) -> AsyncIterator[int]:
    port = free_port()
    command = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", "--daemonize", "no")
    async with running(folder / "redis.log", installed("redis-server", "redis-server"), *command):
        await answers(port)
        yield port


@asynccontextmanager
async def _rabbitmq(folder: Path) -> AsyncIterator[int]:
    """With a port mapper of its own, which Erlang would otherwise leave behind."""
    port, mapper, distribution = free_port(), free_port(), free_port()
    home = folder / "rabbitmq"
    home.mkdir()
    (home / "plugins").write_text("[].")
    given = {
        "HOME": str(home), "ERL_EPMD_PORT": str(mapper), "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "sendable@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(home), "RABBITMQ_LOG_BASE": str(home), "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull, "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }  # fmt: skip
    async with running(folder / "epmd.log", installed("epmd", "rabbitmq-server"), given=given):
        await answers(mapper)
        async with running(folder / "rabbitmq.log", installed(RABBITMQ, "rabbitmq-server"), given=given):
            await answers(port)
            yield port


async def _told(port: int, *lines: str) -> None:
    """Say something to the jCli, line by line. Raises AssertionError with all that it said, if it refused any."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = await _until(reader, r"Session ref: \d+\s+")
    for line in lines:
        writer.write(f"{line}\r\n".encode())
        said += await _until(reader, r"\n(jcli : |> )")
    writer.close()
    await writer.wait_closed()
    assert said.count("Successfully") == len((GROUP, USER, CONNECTOR, ROUTE, START)), said


async def _until(reader: asyncio.StreamReader, end: str) -> str:
    """What is said until it ends like this: with a prompt, but no prompt follows the greeting."""
    said = ""
    async with asyncio.timeout(WITHIN):
        while not re.search(f"{end}$", said):
            more = await reader.read(4096)
            assert more, f"it hung up: {said}"
            said += more.decode("latin-1")
    return said
