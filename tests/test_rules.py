"""Rules of the house that no type and no import contract can say. docs/decisions/ names them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, text

from app.feeds import FEEDS
from app.gateways import GATEWAYS
from app.models.tables import metadata
from tests.conftest import Service, Start
from tests.locks import waiting
from tests.running import CALM

APP = Path(__file__).parents[1] / "app"
WHO = "+15555551234"
SUBSCRIBER = f"/v1/senders/12345/lists/spring/subscribers/{WHO}"
GONE = {"message_id": "gone-1", "number": WHO, "sender": "12345", "status": "undeliverable", "code": "3041"}
OPT_IN = {"consented_at": "2026-01-02T03:04:05Z", "source": "web form"}


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((APP / folder).rglob("*.py")):
            yield str(path.relative_to(APP)), path.read_text()


DRIVERS_OWN = re.compile(r"typeinfo_tree|current_setting")
"""What asyncpg asks for types that it has not met on a connection."""


@contextmanager
def statements(service: Service) -> Iterator[list[str]]:
    """What is said to PostgreSQL meanwhile, also by those who speak to the driver's own connection."""
    seen: list[str] = []
    heard: set[Any] = set()

    def see(query: asyncpg.connection.LoggedQuery) -> None:
        seen.append(query.query)

    def listen(pooled: Any, *_: Any) -> None:
        if pooled.driver_connection not in heard:
            heard.add(pooled.driver_connection)
            pooled.driver_connection.add_query_logger(see)

    state = service.app.state
    engines = [state.engine.sync_engine, state.intake._engine.sync_engine]
    for engine in engines:
        event.listen(engine, "checkout", listen)
    yield seen
    for engine in engines:
        event.remove(engine, "checkout", listen)
    for connection in heard:
        connection.remove_query_logger(see)


# SQL ---------------------------------------------------------------------------------------------------------------


async def test_a_group_costs_the_same_statements_for_one_receipt_and_for_five_hundred(start: Start) -> None:
    """And where they are a mass event, the few more that open a quarantine."""

    def receipts(many: int) -> list[dict[str, str]]:
        return [
            GONE | {"message_id": f"{many}-{place}", "number": f"+1{700 + many % 99}555{place:04}"}
            for place in range(many)
        ]

    async def cost(service: Service, many: int) -> list[str]:
        await service.sql("TRUNCATE breaker_hits")
        with statements(service) as told:
            assert (await service.client.post("/v1/receipts/native", json=receipts(many))).status_code == 200
        return [statement for statement in told if not DRIVERS_OWN.search(statement)]

    async with start(policy_file=CALM) as service:
        await cost(service, 2)
        once = await cost(service, 1)
        assert await cost(service, 500) == once
        assert 8 < len(once) < 15
    async with start() as service:
        assert len(await cost(service, 501)) <= len(once) + 5  # counted, opened, named, caught, alarmed


async def test_the_register_takes_its_locks_in_the_order_of_the_receipts(service: Service) -> None:
    """Messages, the breaker's hits, and all numbers at once: those that failed, and those whose carrier it tells."""
    unnamed = {"message_id": "late", "status": "undeliverable", "code": "629"}
    assert (await service.client.post("/v1/receipts/native", json=unnamed)).status_code == 200
    entry = {"gateway": "native", "sender": "12345", "carrier": "AT&T", "sent_at": "2026-11-20T10:00:00Z"}
    sent = [
        entry | {"message_id": "late", "number": "+15555551234"},
        entry | {"message_id": "x", "number": "+15555550142"},
    ]
    with statements(service) as told:
        assert (await service.client.post("/v1/messages", json=sent)).json()["receipts_applied"] == 1
    locks = ("INSERT INTO messages", "INSERT INTO breaker_hits", "FOR UPDATE OF n", "INSERT INTO hourly_counts")
    taken = [lock for statement in told for lock in locks if lock in statement]
    assert taken == [*locks]


def test_no_session_and_no_mapped_class_is_used() -> None:
    mapped = re.compile(r"sqlalchemy\.orm|AsyncSession|sessionmaker|DeclarativeBase|mapped_column|relationship\(")
    assert [name for name, source in sources("") if mapped.search(source)] == []


def test_tables_about_numbers_have_the_number_in_their_key_and_no_table_refers_to_another() -> None:
    about_numbers = {"numbers", "sender_blocks", "subscriptions", "lookups"}
    assert about_numbers <= metadata.tables.keys()
    assert all("number" in metadata.tables[name].primary_key.columns for name in about_numbers)
    assert [table.name for table in metadata.tables.values() if table.foreign_keys] == []


def test_json_of_facts_is_read_and_written_in_the_store_alone() -> None:
    of_facts = re.compile(r"TypeAdapter\(|Decoder\(|\bfacts\s*=\s*v\.facts")
    found = {name.rpartition("/")[0] for name, source in sources("services") if of_facts.search(source)}
    assert found == {"services/store"}


# Numbers -----------------------------------------------------------------------------------------------------------


async def test_history_still_names_its_causes_when_the_receipts_are_gone(service: Service) -> None:
    await service.client.put(SUBSCRIBER, json=OPT_IN)
    await service.client.post("/v1/receipts/native", json=GONE)
    await service.sql("TRUNCATE receipts, receipt_keys")
    told = (await service.client.get(f"/v1/numbers/{WHO}/history")).json()["items"]
    causes = {change["kind"]: change["cause"] for change in told if change["reason"] == "deactivated"}
    assert causes.keys() == {"number.state", "list.opted_out"}
    assert all((cause["code"], cause["message_id"]) == ("3041", "gone-1") for cause in causes.values())
    assert (await service.client.get(f"/v1/numbers/{WHO}")).json()["evidence"]["message_id"] == "gone-1"


@pytest.mark.parametrize("call", ["opt in", "receipt"])
async def test_consent_of_a_number_waits_for_whoever_holds_the_number(service: Service, call: str) -> None:
    await service.client.put(SUBSCRIBER, json=OPT_IN)
    async with service.app.state.engine.begin() as db:
        await db.execute(text("SELECT FROM numbers WHERE number = :number FOR UPDATE"), {"number": WHO})
        sending = (
            service.client.put(SUBSCRIBER, json=OPT_IN | {"consented_at": "2026-02-03T04:05:06Z"}) if call == "opt in"
            else service.client.post("/v1/receipts/native", json=GONE | {"code": "560"})
        )  # fmt: skip
        told = asyncio.create_task(sending)
        await waiting(service, 1, told)
        held = await service.sql("SELECT consent, opted_in_at::date::text FROM subscriptions")
        assert held == [("opted_in", "2026-01-02")]
    assert (await told).status_code == 200


# Words -------------------------------------------------------------------------------------------------------------


def test_no_service_knows_a_vendor_by_name() -> None:
    of_nobody = {"native", "smpp", "custom", "carrier", "generic", "records"}
    names = "|".join((GATEWAYS.keys() | FEEDS.keys()) - of_nobody)
    vendors = re.compile(rf"(?<![a-z0-9])(?:{names})(?![a-z0-9])", re.IGNORECASE)  # `cm` stands in `cmd` too
    named = [name for name, source in sources("services") if vendors.search(source)]
    settings = ("main.py", "wiring.py", "config.py", "models/settings.py")
    named += [name for name in settings if vendors.search((APP / name).read_text())]
    assert named == []
