"""Logs: what stands in them, and what never does."""

from __future__ import annotations

import json
import logging
import re
import signal
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import structlog
from sqlalchemy.ext.asyncio import create_async_engine

from app.models.duration import duration
from app.services import logs
from app.services.embedded.home import locate
from tests.running import sendable, serving

NUMBERS = [f"1555000{number}" for number in range(7001, 7020)]
"""Without the `+`, so that any way of writing it is found."""
TOKEN = "a-token-that-a-gateway-proves-itself-by"  # noqa: S105
BODY = "words-of-a-body-that-nobody-may-read"
QUERY = "words-of-a-query"


# One line ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written() -> Iterator:
    """What is logged from here on, parsed; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = BytesIO()
    logs.configure("info", stream)

    def lines() -> list[dict]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield lines
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level


def test_a_line_is_json_and_begins_with_time_level_and_event(written):
    structlog.get_logger().info("postgres starts", user="postgres")
    (line,) = written()
    assert [*line] == ["timestamp", "level", "event", "user"]
    assert line["timestamp"].endswith("Z")


def test_lines_of_other_libraries_are_json_too(written):
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 17)
    (line,) = written()
    assert (line["event"], line["logger"]) == ("Started server process [17]", "uvicorn.error")


def test_of_anothers_words_only_the_first_line_is_taken_and_numbers_in_it_are_masked(written):
    logging.getLogger("asyncio").error("Task of +%s failed\nfuture: <Task exception=%s>", *NUMBERS[:2])
    (line,) = written()
    assert line["event"] == "Task of +*** failed"


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("chatty", ["httpcore.http11", "httpx", "sqlalchemy.engine", "asyncio"])
def test_what_libraries_send_and_hear_is_not_written_at_the_most_talkative_level_either(chatty):
    logs.configure("debug", stream := BytesIO())
    logging.getLogger(chatty).debug("receive_response_headers.complete return_value=(b'set-cookie', b'%s')", TOKEN)
    assert not stream.getvalue()


@pytest.mark.parametrize(
    "written_so",
    [
        "5555550123",
        "+1 (555) 555-0123",
        "(555) 555-0123",
        "555-0123",
        "+44 20 7946 0018",
        "555.555.0123",
        "+1.555.555.0123",
    ],
)
def test_a_number_in_anothers_words_is_masked_however_it_is_written(written_so):
    assert not re.search(r"\d{3}", logs.masked(f"native/openmarket/{written_so}"))


@pytest.mark.parametrize(
    "words", ["Started server process [174]", "http://192.168.100.12:8000", "kannel/smpp-3.4/0x00b"]
)
def test_what_is_no_number_is_not_masked(words):
    assert logs.masked(words) == words


def fail(number: str) -> None:
    try:
        {}[number]
    except LookupError as error:
        raise ValueError(f"no such number: {number}") from error


def test_of_an_error_only_types_and_our_own_frames_are_written(written):
    try:
        fail(NUMBERS[0])
    except ValueError:
        structlog.get_logger().exception("it failed")
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    ours, theirs = written()
    for line in (ours, theirs):
        assert line["error"] == ["ValueError", "KeyError"]
        assert line["frames"] == []
        assert NUMBERS[0] not in json.dumps(line)


def test_frames_of_our_code_are_named_by_file_line_and_function():
    with pytest.raises(ValueError, match="twelve") as raised:
        duration("twelve")
    assert [re.sub(r"\d+", "N", frame) for frame in logs.frames(raised.tb)] == ["models/duration.py:N duration"]


# Everything that is written ----------------------------------------------------------------------------------------


async def test_nothing_written_holds_a_number_a_token_or_a_body(own_dir, tmp_path):
    """Requests of every kind, good, bad and failing inside, at the most talkative level; then all of it is searched."""
    config = tmp_path / "sendable.toml"
    config.write_text(f'[gateways.native]\nsecrets = ["{TOKEN}"]\n[gateways.kannel]\nsecrets = ["{TOKEN}"]\n')
    settings = {"data_dir": str(own_dir), "config": str(config), "log_level": "debug"}
    async with serving(tmp_path / "log", **settings) as served:
        made = await sendable("keys", "create", "test", "--scope", "admin", **settings)
        key = made.out.strip()
        async with httpx.AsyncClient(base_url=served.url, headers={"Authorization": f"Bearer {key}"}) as client:
            statuses = [await ask(client, *request) for request in REQUESTS]
            home = locate(own_dir)
            async with create_async_engine(home.url("sendable", "sendable", "postgresql+asyncpg")).begin() as db:
                for table in ("sender_blocks", "subscriptions", "messages"):
                    await db.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_away")
                await db.exec_driver_sql("ALTER TABLE changes ADD CONSTRAINT none CHECK (number = '') NOT VALID")
            statuses += [await ask(client, *request) for request in REQUESTS]
        await sendable("numbers", "show", f"+{NUMBERS[0]}", **settings)
        assert await served.end(signal.SIGTERM) == 0
    assert {200, 401, 403, 404, 405, 413, 422, 500} <= set(statuses), sorted(set(statuses))
    assert any(status >= 500 for status in statuses)
    search(served.log.read_text(), "\n".join(served.said), home.log, key)


async def ask(client: httpx.AsyncClient, method: str, path: str, more: dict) -> int:
    return (await client.request(method, path, timeout=60, **more)).status_code


def receipt(number: str, **more: str) -> dict:
    return {
        "message_id": number,
        "number": f"+{number}",
        "sender": "12345",
        "status": "undeliverable",
        "code": "560",
    } | more


SECRET = {"X-Sendable-Token": TOKEN}
LIST = "/v1/senders/12345/lists/spring/subscribers"
SENT = {"gateway": "native", "message_id": "7", "sender": "12345", "sent_at": "2026-01-01T00:00:00Z"}
N = iter(NUMBERS)
REQUESTS: list[tuple[str, str, dict]] = [
    ("POST", "/v1/receipts/native", {"json": receipt(next(N)), "headers": SECRET}),
    ("POST", "/v1/receipts/native", {"json": [receipt(next(N)), receipt("12")], "headers": SECRET}),
    ("POST", f"/v1/receipts/native?token={TOKEN}", {"json": receipt(next(N), code="3041")}),
    ("POST", "/v1/receipts/native?token=wrong-" + TOKEN, {"json": receipt(next(N))}),
    ("POST", f"/v1/receipts/native?{QUERY}=1", {"content": f'{{"{BODY}', "headers": SECRET}),
    ("POST", f"/v1/receipts/{next(N)}", {"content": BODY}),
    ("GET", f"/v1/receipts/kannel?st=2&id=1&to=%2B{next(N)}&a={BODY}&token={TOKEN}", {}),
    ("POST", "/v1/receipts/native", {"content": b"x" * (9 * 2**20), "headers": SECRET}),
    ("POST", "/v1/receipts/native", {"content": BODY.encode(), "headers": SECRET | {"Content-Encoding": "gzip"}}),
    ("GET", f"/v1/numbers/+{next(N)}?sender=12345&list={QUERY}", {}),
    ("GET", f"/v1/numbers/+{next(N)}", {"headers": {"Authorization": f"Bearer {TOKEN}"}}),
    ("GET", f"/v1/numbers/{NUMBERS[0]}{NUMBERS[1]}", {}),
    ("PATCH", f"/v1/numbers/+{next(N)}", {}),
    ("GET", f"/nowhere/+{next(N)}?{QUERY}", {}),
    ("POST", "/v1/numbers/status", {"json": {"numbers": [f"+{next(N)}", BODY]}}),
    ("PUT", f"{LIST}/+{next(N)}", {"json": {"consented_at": SENT["sent_at"], "source": "web", "evidence": BODY}}),
    ("PUT", f"{LIST}/+{NUMBERS[0]}", {"json": {"consented_at": BODY}}),
    ("DELETE", f"{LIST}/+{next(N)}?reason=unsubscribed", {}),
    ("GET", LIST, {}),
    ("POST", "/v1/messages", {"json": [SENT | {"number": f"+{next(N)}"}]}),
    ("POST", "/v1/messages", {"content": f'[{{"number": "+{NUMBERS[2]}", "{BODY}"'}),
    ("GET", f"/v1/receipts?number=%2B{NUMBERS[0]}", {}),
    ("GET", f"/v1/numbers/+{NUMBERS[0]}/history", {}),
    ("GET", "/v1/changes?after=0", {}),
    ("POST", "/v1/held/release", {"json": {"number": f"+{NUMBERS[0]}"}}),
    ("GET", "/metrics", {}),
]  # fmt: skip


def search(log: str, said: str, folder: Path, key: str) -> None:
    """Every file of the run, and within them anything that was sent."""
    files = {"log": log, "said": said} | {file.name: file.read_text("utf-8", "replace") for file in folder.iterdir()}
    assert len(files) > 2, "PostgreSQL's own log was looked at too"
    found = [
        (name, word) for name, text in files.items() for word in (*NUMBERS, TOKEN, BODY, QUERY, key) if word in text
    ]
    assert found == []
    lines = [json.loads(line) for line in log.splitlines()]
    routes = {line["route"] for line in lines if line["event"] == "request"}
    assert {"/v1/receipts/{gateway}", "/v1/numbers/{number}", "/v1/messages", "none"} <= routes
    assert any(line.get("error") for line in lines), "the requests that failed inside left their types"
