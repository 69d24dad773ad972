"""`sendable serve` as people and supervisors run it: what it prints, and how it stops."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.cli.serve import bound
from app.config import Settings
from app.services.embedded.home import locate
from tests.running import WITHIN, Served, environment, launched, sendable, serving, until

REPOSITORY = Path(__file__).parents[1]
NUMBER = "+15550003333"
FULL = Path("/dev/full")
HELD = {"message_id": "h1", "number": NUMBER, "sender": "12345", "status": "undeliverable", "code": "345"}


async def test_serve_says_what_to_try_and_it_works(database_url, tmp_path):
    async with serving(tmp_path / "log", auth="off", database_url=database_url) as served:
        words = "\n".join(served.said)
        (receipt,) = [line for line in served.said if line.strip().startswith("'{")]
        async with httpx.AsyncClient(base_url=served.url) as client:
            body = receipt.strip().strip("'")
            posted = await client.post("/v1/receipts/native", content=body)
            asked = await client.get(f"/v1/numbers/{json.loads(body)['number']}?sender=12345")
        assert posted.status_code == 200
        assert "server" not in posted.headers
        assert asked.json()["state"] == "deactivated"
        assert f"{served.url}/docs" in words
        assert await served.end(signal.SIGTERM) == 0


async def test_serve_tells_a_program_in_one_line_of_json_where_it_listens(database_url, tmp_path):
    async with launched(tmp_path / "log", "--json", auth="off", database_url=database_url) as served:
        line = await asyncio.wait_for(served.process.stdout.readline(), WITHIN)
        told = json.loads(line)
        assert told == {"url": told["url"], "auth": "off", "docs": f"{told['url']}/docs"}
        async with httpx.AsyncClient(base_url=told["url"]) as client:
            assert (await client.get("/livez")).status_code == 200
        assert await served.end(signal.SIGTERM) == 0
    assert served.said == []


async def test_a_connection_of_which_nothing_is_taken_ends_with_what_it_was_sent():
    with bound(Settings(port=0), untaken_most=1) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            _, writer = await asyncio.open_connection(sock=listener.accept()[0])
            writer.write(bytes(32 << 20))
            with pytest.raises(TimeoutError, match="Connection timed out"):
                await writer.drain()
            assert writer.transport.get_write_buffer_size() == 0


async def test_the_image_asks_for_its_health_where_it_was_told_to_listen(database_url, tmp_path):
    asks = re.search(r"HEALTHCHECK .*\n +CMD (\[.*\])", (REPOSITORY / "Dockerfile").read_text())
    async with serving(tmp_path / "log", auth="off", database_url=database_url) as served:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *json.loads(asks[1])[1:], env=environment(port=served.url.rpartition(":")[2])
        )
        assert await process.wait() == 0


async def test_quiet_prints_nothing(database_url, tmp_path):
    async with launched(tmp_path / "log", "--quiet", auth="off", database_url=database_url) as served:
        await until(lambda: "Started server process" in served.log.read_text())
        assert await served.end(signal.SIGINT) == 0
    assert served.said == []


async def test_a_port_that_is_taken_ends_with_1_and_says_so(database_url):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = await sendable("serve", "--port", port, auth="off", database_url=database_url)
    assert said.code == 1
    assert said.err == (
        f"sendable: cannot listen on 127.0.0.1:{port}: Address already in use: stop what listens there, or set "
        "SENDABLE_HOST and SENDABLE_PORT\n"
    )


@pytest.fixture
def hangup() -> Iterator[Callable[[Any], Any]]:
    """What becomes of SIGHUP in whatever is started from here on: tests may run under `nohup`."""
    was = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, was)


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGHUP])
async def test_a_stop_under_load_loses_nothing_that_was_answered(service, database_url, tmp_path, hangup, ends):
    hangup(signal.SIG_DFL)
    async with serving(tmp_path / "log", auth="off", database_url=database_url) as served:
        taken: set[str] = set()
        async with httpx.AsyncClient(base_url=served.url, limits=httpx.Limits(max_connections=32)) as client:
            posting = [asyncio.create_task(post_until_gone(client, sender, taken)) for sender in range(32)]
            await until(lambda: len(taken) > 200)
            assert await served.end(ends) == 0
            await asyncio.gather(*posting)
    stored = [row[0] for row in await service.sql("SELECT message_id FROM receipts")]
    assert len(stored) == len(set(stored))
    assert taken <= set(stored)


async def post_until_gone(client: httpx.AsyncClient, sender: int, taken: set[str]) -> None:
    """Post receipts, and remember those that were answered, until the service listens no more."""
    turn = 0
    while True:
        turn += 1
        body = HELD | {"message_id": f"{sender}-{turn}", "number": f"+1555{sender:03}{turn:04}"}
        try:
            answer = await client.post("/v1/receipts/native", json=body)
        except httpx.TransportError:
            return
        if answer.status_code == 200:
            taken.add(body["message_id"])


async def test_under_nohup_it_outlives_its_terminal(database_url, tmp_path, hangup):
    hangup(signal.SIG_IGN)
    async with serving(tmp_path / "log", auth="off", database_url=database_url) as served:
        served.process.send_signal(signal.SIGHUP)
        async with httpx.AsyncClient(base_url=served.url) as client:
            for _ in range(20):
                assert (await client.get("/livez")).status_code == 200
        assert await served.end(signal.SIGTERM) == 0


@pytest.mark.skipif(not FULL.exists(), reason="Linux alone has a device that is always full")
async def test_a_log_that_cannot_be_written_is_lost_and_nothing_else(service, database_url):
    """As on a full disk. A start, a new alarm, a group that is not committed and a stop are lines of log."""
    async with serving(FULL, auth="off", database_url=database_url) as served:
        async with httpx.AsyncClient(base_url=served.url) as client:
            assert await posted(client, "m1") == 200
            await service.sql("ALTER TABLE receipt_keys RENAME TO elsewhere")
            assert await posted(client, "m2") == 503
            await service.sql("ALTER TABLE elsewhere RENAME TO receipt_keys")
            assert await posted(client, "m3") == 200
        assert await served.end(signal.SIGTERM) == 0
    assert await service.sql("SELECT count(*) FROM receipts") == [(2,)]


async def posted(client: httpx.AsyncClient, message: str) -> int:
    """With a code that no table knows, which raises an alarm the first time."""
    body = HELD | {"message_id": message, "code": "unheard of"}
    return (await client.post("/v1/receipts/native", json=body)).status_code


@pytest.mark.skipif(not FULL.exists(), reason="as above")
async def test_words_that_cannot_be_written_keep_nobody_from_serving(database_url, tmp_path):
    log = tmp_path / "log"
    with FULL.open("wb") as full, log.open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "serve", "--port", "0", stdin=asyncio.subprocess.DEVNULL, stdout=full,
            stderr=err, env=environment(auth="off", database_url=database_url),
        )  # fmt: skip
    await until(lambda: "Started server process" in log.read_text())
    own = psutil.Process(process.pid)
    await until(lambda: any(one.status == "LISTEN" for one in own.net_connections()))
    (port,) = {one.laddr.port for one in own.net_connections() if one.status == "LISTEN"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/readyz")).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), WITHIN) in {0, 120}  # Python's own, for output that was left


async def test_an_event_stream_does_not_keep_the_service_from_stopping(database_url, tmp_path):
    async with serving(tmp_path / "log", auth="off", database_url=database_url) as served:
        accept = {"Accept": "text/event-stream"}
        async with (
            httpx.AsyncClient(base_url=served.url) as client,
            client.stream("GET", "/v1/changes", headers=accept, timeout=60) as stream,
        ):
            assert stream.status_code == 200
            ending = asyncio.create_task(served.end(signal.SIGTERM))
            async for _ in stream.aiter_bytes():
                pass
            async with asyncio.timeout(15):
                assert await ending == 0


async def test_a_start_is_given_up_at_ctrl_c(tmp_path):
    """The database takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://u@127.0.0.1:{mute.getsockname()[1]}/d"
        async with launched(tmp_path / "log", auth="off", database_url=url) as served:
            own = psutil.Process(served.process.pid)
            await until(lambda: any(one.status == "ESTABLISHED" for one in own.net_connections()))
            async with asyncio.timeout(20):
                assert await served.end(signal.SIGINT) == 0


# With the embedded PostgreSQL --------------------------------------------------------------------------------------


async def test_ctrl_c_leaves_no_process_and_commands_join_the_server_that_runs(own_dir, tmp_path):
    async with serving(tmp_path / "log", auth="off", data_dir=str(own_dir)) as served:
        family = served.family()
        assert len(family) > 2, "the embedded server is a child of ours"
        await try_the_commands(served, own_dir)
        assert await served.end(signal.SIGINT) == 0
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert len(gone) == len(family)


async def try_the_commands(served: Served, own_dir: Path) -> None:
    settings = {"data_dir": str(own_dir), "auth": "off"}
    async with httpx.AsyncClient(base_url=served.url) as client:
        await client.post("/v1/receipts/native", json=HELD)
    doctor, url, shown = await asyncio.gather(
        sendable("doctor", **settings),
        sendable("db", "url", "--reader", **settings),
        sendable("numbers", "show", NUMBER, "--json", **settings),
    )
    assert doctor.code == 0, doctor.out
    assert json.loads(shown.out)["state"] == "held"
    psql = locate(own_dir).programs / "psql"
    reading = await asyncio.create_subprocess_exec(
        psql, url.out.strip(), "-Atc", "SELECT state FROM published.number_status", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await reading.communicate()
    assert out == b"held\n"
    denied = await asyncio.create_subprocess_exec(
        psql, url.out.strip(), "-Atc", "SELECT state FROM numbers", stderr=asyncio.subprocess.PIPE
    )
    _, err = await denied.communicate()
    assert b"permission denied" in err
