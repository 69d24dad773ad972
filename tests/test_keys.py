"""API keys: made, found, refused; in the database and over HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.services import connection, keys
from app.services.connection import connect, is_lost, transaction
from app.services.keys import KNOWN_FOR, SCOPES, Keyring, UnknownScope
from tests.running import environment

FULL = Path("/dev/full")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = connect(database_url)
    yield engine
    await engine.dispose()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Counted:
    """How often keys were read from the database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.times = 0
        event.listen(engine.sync_engine, "before_cursor_execute", self._one)

    def _one(self, _connection, _cursor, statement: str, *_more) -> None:
        self.times += "FROM api_keys" in statement


# Made --------------------------------------------------------------------------------------------------------------


async def test_a_token_is_kept_nowhere_but_as_its_digest(engine):
    _, token = await keys.create(engine, "shop", ["numbers:read"])
    async with engine.connect() as db:
        row = (await db.execute(text("SELECT api_keys::text AS all, digest FROM api_keys"))).one()
    assert row.digest == keys.digest_of(token)
    assert token.removeprefix("sendable_") not in row.all


@pytest.mark.skipif(not FULL.exists(), reason="Linux alone has a device that is always full")
@pytest.mark.parametrize("full", ["stdout", "stderr", "stdout of JSON"])
async def test_a_key_that_cannot_be_shown_is_revoked(engine, database_url, full):
    words = ("keys", "create", "shop", "--scope", "numbers:read", *(["--json"] if full.endswith("JSON") else []))
    stream, _, _ = full.partition(" ")
    with FULL.open("wb") as device:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", *words, env=environment(database_url=database_url),
            **{"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, stream: device},
        )  # fmt: skip
        _, err = await process.communicate()
    assert process.returncode in {1, 120}  # the latter is Python's own, for output that was left
    (key,) = await keys.list_all(engine)
    assert key.revoked_at
    if stream == "stdout":
        said = "sendable: the key could not be shown, and is revoked: No space left on device; make another\n"
        assert said in err.decode()


def test_every_token_is_another_and_has_256_bits():
    tokens = {keys.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(bytes.fromhex(token.removeprefix("sendable_"))) for token in tokens} == {32}


async def test_a_scope_that_is_none_is_refused_with_those_there_are(engine):
    with pytest.raises(UnknownScope, match=r"'numbers:write' is no scope; there are numbers:read, consent:write"):
        await keys.create(engine, "shop", ["numbers:read", "numbers:write"])
    assert await keys.list_all(engine) == []


async def test_admin_implies_every_scope_and_no_other_does(engine):
    admin, _ = await keys.create(engine, "boss", ["admin"])
    reader, _ = await keys.create(engine, "shop", ["numbers:read"])
    assert all(admin.may(scope) for scope in SCOPES)
    assert [scope for scope in SCOPES if reader.may(scope)] == ["numbers:read"]


# Found -------------------------------------------------------------------------------------------------------------


async def test_several_keys_live_at_once(engine):
    made = [await keys.create(engine, name, ["numbers:read"]) for name in ("old", "new")]
    ring = Keyring(engine)
    assert [await ring.find(token) for _, token in made] == [key for key, _ in made]


async def test_a_known_key_costs_no_query(engine):
    _, token = await keys.create(engine, "shop", ["numbers:read"])
    ring, reads = Keyring(engine, Clock()), Counted(engine)
    for _ in range(50):
        assert await ring.find(token)
    assert reads.times == 1


async def test_a_new_key_works_from_its_first_use(engine):
    _, old = await keys.create(engine, "old", ["numbers:read"])
    clock = Clock()
    ring = Keyring(engine, clock)
    assert await ring.find(old)
    clock.now += 0.1
    _, new = await keys.create(engine, "new", ["numbers:read"])
    assert await ring.find(new)


async def test_however_many_strangers_ask_at_once_one_query_answers_them(engine):
    ring, reads = Keyring(engine), Counted(engine)
    found = await asyncio.gather(*(ring.find(keys.new_token()) for _ in range(200)))
    assert found == [None] * 200
    assert reads.times <= 2


async def test_a_revoked_key_is_refused_within_seconds(engine):
    key, token = await keys.create(engine, "shop", ["numbers:read"])
    clock = Clock()
    ring = Keyring(engine, clock)
    assert await ring.find(token)
    await keys.revoke(engine, key.id)
    clock.now += KNOWN_FOR + 0.1
    assert await ring.find(token) is None


async def test_a_key_ends_at_its_expiry(engine):
    _, ended = await keys.create(engine, "yesterday", ["numbers:read"], timedelta(seconds=-1))
    _, lasting = await keys.create(engine, "tomorrow", ["numbers:read"], timedelta(days=1))
    ring = Keyring(engine)
    assert await ring.find(ended) is None
    assert await ring.find(lasting)


async def test_a_known_key_ends_at_its_expiry_though_it_is_not_read_again(engine):
    _, token = await keys.create(engine, "brief", ["numbers:read"], timedelta(days=1))
    ring = Keyring(engine, Clock())
    assert await ring.find(token)
    ((kept, key),) = ring._live.values()
    ring._live[key.id] = kept, replace(key, expires_at=datetime.now(UTC))
    assert ring._known(kept) is None


async def test_while_the_database_hangs_nobody_waits_for_the_question_of_another(database_url, monkeypatch):
    """A session that ends without a word leaves us in such a state, and so does a switch that drops what we send."""
    monkeypatch.setattr(connection, "STATEMENT_WITHIN", 0.5)
    engine, other, clock = connect(database_url), connect(database_url, pool=1), Clock()
    key, token = await keys.create(engine, "shop", ["numbers:read"])
    ring, reads = Keyring(engine, clock), Counted(engine)
    assert await ring.find(token)
    clock.now += KNOWN_FOR + 0.1
    async with transaction(other) as db:
        await db.execute("LOCK TABLE api_keys")
        assert await asyncio.gather(*(ring.find(token) for _ in range(20))) == [key] * 20
        strangers = (ring.find(keys.new_token()) for _ in range(20))
        told = await asyncio.gather(*strangers, return_exceptions=True)
    assert {is_lost(one) for one in told if isinstance(one, BaseException)} == {True}
    assert len(told) == 20
    assert reads.times <= 3
    assert await ring.find(token)
    assert await ring.find(keys.new_token()) is None
    await engine.dispose()
    await other.dispose()


async def test_a_known_key_stays_good_while_the_database_is_away(engine):
    _, token = await keys.create(engine, "shop", ["metrics:read"])
    clock = Clock()
    ring = Keyring(engine, clock)
    assert await ring.find(token)
    ring._engine = connect("postgresql+asyncpg://nobody@127.0.0.1:1/nowhere")
    clock.now += KNOWN_FOR + 0.1
    assert await ring.find(token)
    with pytest.raises(OSError, match="1"):
        await ring.find(keys.new_token())
    await ring._engine.dispose()


# Revoked -----------------------------------------------------------------------------------------------------------


async def test_a_key_is_revoked_once_and_for_good(engine):
    key, _ = await keys.create(engine, "shop", ["numbers:read"])
    first = await keys.revoke(engine, key.id)
    again = await keys.revoke(engine, key.id)
    assert first
    assert first.revoked_at
    assert again == first


async def test_a_key_that_is_none_is_not_revoked(engine):
    assert await keys.revoke(engine, "0123456789ab") is None


# The first key -----------------------------------------------------------------------------------------------------

FIRST, SECOND = "the-first-key-of-a-container", "another-first-key-for-a-container"


async def test_a_first_key_is_made_once_however_often_a_container_starts(engine):
    for _ in range(3):
        await keys.keep_first(engine, FIRST)
    (key,) = await keys.list_all(engine)
    assert key.first
    assert key.scopes == {"admin"}
    assert await Keyring(engine).find(FIRST) == key


async def test_another_first_key_replaces_the_former_one_and_no_other_key(engine):
    _, own = await keys.create(engine, "own", ["admin"])
    await keys.keep_first(engine, FIRST)
    await keys.keep_first(engine, SECOND)
    ring = Keyring(engine)
    assert await ring.find(FIRST) is None
    assert await ring.find(SECOND)
    assert await ring.find(own)


async def test_a_former_first_key_may_be_the_first_again(engine):
    for token in (FIRST, SECOND, FIRST):
        await keys.keep_first(engine, token)
    assert await Keyring(engine).find(FIRST)


async def test_a_first_key_that_a_person_revoked_stays_revoked(engine):
    await keys.keep_first(engine, FIRST)
    await keys.revoke(engine, keys.id_of(FIRST))
    await keys.keep_first(engine, FIRST)
    assert await Keyring(engine).find(FIRST) is None


# Over HTTP ---------------------------------------------------------------------------------------------------------

STATUS = "/v1/numbers/+15550001111"


async def bearer(service, *scopes: str, **more) -> dict[str, str]:
    _, token = await keys.create(service.app.state.engine, "test", scopes, **more)
    return {"Authorization": f"Bearer {token}"}


async def test_without_a_key_the_answer_is_401_and_says_how_to_send_one(start):
    async with start(auth="on") as service:
        answer = await service.client.get(STATUS)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in answer.json()["detail"]


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer wrong", "Basic c2VuZGFibGU6eA==", "Bearer é", "sendable_0"]
)
async def test_what_is_no_live_key_is_401(start, header):
    async with start(auth="on") as service:
        answer = await service.client.get(STATUS, headers={"Authorization": header.encode()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_an_expired_key_is_401(start):
    async with start(auth="on") as service:
        header = await bearer(service, "admin", lasts=timedelta(seconds=-1))
        assert (await service.client.get(STATUS, headers=header)).status_code == 401


async def test_a_key_without_the_scope_is_403_and_hears_which_one_it_lacks(start):
    async with start(auth="on") as service:
        answer = await service.client.get(STATUS, headers=await bearer(service, "messages:write"))
    assert answer.status_code == 403
    assert "`numbers:read`" in answer.json()["detail"]
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="numbers:read"'


@pytest.mark.parametrize("scope", ["numbers:read", "admin"])
async def test_a_key_with_the_scope_is_let_in(start, scope):
    async with start(auth="on") as service:
        assert (await service.client.get(STATUS, headers=await bearer(service, scope))).status_code == 200


async def test_the_word_bearer_may_be_written_in_any_case(start):
    async with start(auth="on") as service:
        header = await bearer(service, "admin")
        header = {"authorization": header["Authorization"].replace("Bearer", "bearer")}
        assert (await service.client.get(STATUS, headers=header)).status_code == 200


async def test_the_first_key_of_the_environment_opens_everything(start):
    async with start(auth="on", first_key=FIRST) as service:
        answer = await service.client.get(STATUS, headers={"Authorization": f"Bearer {FIRST}"})
    assert answer.status_code == 200


async def test_with_auth_off_nobody_asks_for_a_key(service):
    assert (await service.client.get(STATUS)).status_code == 200


async def test_every_call_that_asks_for_a_key_names_in_the_document_the_scope_that_it_checks(start):
    async with start(auth="on") as service:
        headers = {scope: await bearer(service, scope) for scope in ("numbers:read", "metrics:read")}
        for path, calls in service.app.openapi()["paths"].items():
            for method, said in calls.items():
                if not said.get("security"):
                    continue
                (scope,) = said["security"][0]["key"]
                other = headers["metrics:read" if scope == "numbers:read" else "numbers:read"]
                plain = path.replace("{id}", "1").replace("{", "").replace("}", "")
                refused = await service.client.request(method, plain, headers=other)
                assert (method, path, refused.status_code) == (method, path, 403)
                assert refused.headers["www-authenticate"].endswith(f'scope="{scope}"')
                documented = said["responses"]["403"]
                assert f"`{scope}`" in documented["description"]
                example = documented["content"]["application/problem+json"]["example"]
                assert example["detail"] == refused.json()["detail"]


async def test_every_call_of_the_api_but_probes_pages_and_receipts_asks_for_a_key(start):
    """Whoever adds a route and forgets its scope reads it here."""
    async with start(auth="on") as service:
        paths = service.app.openapi()["paths"]
        open_ = [
            f"{method.upper()} {path}"
            for path, calls in paths.items()
            if not path.startswith("/v1/receipts/{gateway}")
            for method in calls
            if (
                await service.client.request(method, path.replace("{id}", "1").replace("{", "").replace("}", ""))
            ).status_code
            != 401
        ]
    assert open_ == ["GET /livez", "GET /readyz"]


NEEDS = {
    "consent:write": {
        "PUT /v1/senders/{sender}/lists/{list}/subscribers/{number}",
        "DELETE /v1/senders/{sender}/lists/{list}/subscribers/{number}",
        "POST /v1/senders/{sender}/lists/{list}/subscribers",
    },
    "messages:write": {"POST /v1/messages"},
    "lookups:write": {"POST /v1/numbers/{number}/lookup", "POST /v1/lookups/providers/{provider}/resume"},
    "deactivations:write": {"POST /v1/deactivations/{feed}"},
    "metrics:read": {"GET /metrics"},
    "admin": {
        "DELETE /v1/numbers/{number}",
        "POST /v1/held/release",
        "POST /v1/held/opt-out",
        "POST /v1/quarantine/{id}/release",
        "POST /v1/quarantine/{id}/discard",
        "GET /v1/unread",
        "GET /v1/unread/{id}",
        "POST /v1/unread/replay",
        "POST /v1/unread/reverify",
        "POST /v1/unread/drop",
    },
}
"""What decides, erases, or shows bytes as they came is a person's; all the rest of the API reads: `numbers:read`."""
OPEN = {"GET /livez", "GET /readyz"}
FILLED = {"number": "+15550001111", "sender": "12345", "list": "spring", "provider": "telnyx", "feed": "carrier",
          "id": "1", "space": "openmarket", "code": "3041"}  # fmt: skip


async def test_a_key_opens_the_calls_of_its_scope_and_no_others(start):
    async with start(auth="on") as service:
        paths = service.app.openapi()["paths"]
        calls = {f"{method.upper()} {path}" for path, of_path in paths.items() for method in of_path}
        calls -= {call for call in calls if "{gateway}" in call} | OPEN
        needs = NEEDS | {"numbers:read": calls - set().union(*NEEDS.values())}
        assert set().union(*NEEDS.values()) <= calls
        assert needs.keys() == SCOPES.keys()
        assert needs["numbers:read"] >= {"GET /v1/numbers/{number}", "POST /v1/numbers/status", "GET /v1/changes"}
        for scope in SCOPES:
            header, opened = await bearer(service, scope), set()
            for call in calls:
                method, _, path = call.partition(" ")
                answer = await service.client.request(method, path.format(**FILLED), headers=header)
                assert answer.status_code != 401
                if answer.status_code != 403:
                    opened.add(call)
            assert opened == (calls if scope == "admin" else needs[scope]), scope
