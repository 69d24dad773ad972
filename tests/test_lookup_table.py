"""The table of what a lookup decides, cell by cell, through HTTP: receipts in, answers of a provider, statuses out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
import pytest
from sqlalchemy import text

from tests import lookup_steps
from tests.conftest import Service, Start
from tests.lookup_steps import LONG_AGO, WHO, looked_up, opt_in, served_by
from tests.provider import Provider, Reply, answering
from tests.running import CALM

FIELDS = ("carrier", "ported", "ported_at", "porting", "line_type", "active", "deactivated_at")
HELD, DEAD, PORTING = "345", "3041", "porting_in_progress"
NOBODY: set[str] = set()
OURS, EVERYBODY = {"12345"}, {"12345", "67890"}


pytestmark = pytest.mark.usefixtures("quick_lookups")


def days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).date().isoformat()


def settings(provider: Provider, *timetable: str) -> dict[str, Any]:
    """A provider of any JSON, which can say whatever the table asks for."""
    said = {"url": provider.url + "/{number}", "fields": {name: name for name in FIELDS},
            "errors": {"path": "problem", "words": {"nobody": "not_found"}}}  # fmt: skip
    return {"providers": ["http"], "http": said, "timetable": timetable or ["0s", "4h"]}


def answers(**told: Any) -> Reply:
    return Reply(orjson.dumps({"line_type": "mobile"} | told))


async def given(service: Service, code: str, carrier: str | None) -> None:
    """Opted in with two senders, served by this carrier as the register has it, and then the receipt."""
    for sender in sorted(EVERYBODY):
        await opt_in(service, sender=sender)
    await served_by(service, carrier)
    await receipt(service, code)


async def receipt(service: Service, code: str, message: str = "m1", **more: Any) -> None:
    if code == PORTING:
        catalogue = service.app.state.meaning.catalogue
        found = next(c for c in catalogue.codes.values() if c.reason == PORTING)
        code, more = found.code, more | {"code_space": found.space}
    await lookup_steps.receipt(service, code, message=message, **more)


class Shown(NamedTuple):
    """What the service tells afterwards: the state, whose consent has ended, what is waited for, whether it asks on."""

    state: str
    ended: set[str]
    waits: str | None
    asks: bool


async def shown(service: Service) -> Shown:
    told = (await service.client.get(f"/v1/numbers/{WHO}")).json()
    ended = {one["sender"] for one in told["lists"] if one["consent"] == "opted_out"}
    asks = bool(await service.sql("SELECT 1 FROM lookups"))
    assert told["sendable"] == (told["state"] == "active")
    return Shown(told["state"], ended, told["waiting_for"], asks)


ACTIVE = Shown("active", NOBODY, None, False)
HELD_ON, DEAD_ON, PORTING_ON = (Shown(state, NOBODY, "lookup", True) for state in ("held", "deactivated", "porting"))
FOR_A_PERSON = Shown("porting", NOBODY, "person", False)
OUT, DEAD_FOR_A_PERSON = Shown("deactivated", EVERYBODY, None, False), Shown("deactivated", NOBODY, "person", False)
DEAF = Shown("not_sms_capable", OURS, None, False)
MOVED, SAME = {"carrier": "T-Mobile USA, Inc."}, {"carrier": "AT&T Mobility"}
ATT = "AT&T"
CELLS: dict[str, tuple[str | None, dict[str, Any], tuple[Shown, Shown], tuple[Shown, Shown]]] = {
    # the stored carrier, the answer, (held, at the last step), (deactivated, at the last step)
    "another network": (ATT, MOVED, (ACTIVE, ACTIVE), (ACTIVE, ACTIVE)),
    "another, ported 13 days ago": (ATT, MOVED | {"ported": True, "ported_at": days_ago(13)}, (ACTIVE, ACTIVE),
                                    (ACTIVE, ACTIVE)),
    "another, ported 16 days ago": (ATT, MOVED | {"ported": True, "ported_at": days_ago(16)}, (ACTIVE, ACTIVE),
                                    (DEAD_ON, OUT)),
    "none stored, ported": (None, MOVED | {"ported": True}, (ACTIVE, ACTIVE), (ACTIVE, ACTIVE)),
    "none stored, nothing of ports": (None, MOVED, (ACTIVE, ACTIVE), (DEAD_ON, OUT)),
    "the same network": (ATT, SAME, (ACTIVE, ACTIVE), (DEAD_ON, OUT)),
    "the same network after a merger": ("Sprint", MOVED, (ACTIVE, ACTIVE), (DEAD_ON, OUT)),
    "port in progress": (ATT, SAME | {"porting": True}, (PORTING_ON, FOR_A_PERSON), (DEAD_ON, DEAD_FOR_A_PERSON)),
    "a landline": (ATT, {"carrier": "AT&T Local", "line_type": "landline"}, (DEAF, DEAF), (OUT, OUT)),
    "disconnected": (ATT, SAME | {"active": False}, (OUT, OUT), (OUT, OUT)),
    "not found": (ATT, {"problem": "nobody"}, (HELD_ON, Shown("invalid", OURS, None, False)), (DEAD_ON, OUT)),
}  # fmt: skip


IN_PORT = ("another network", "the same network", "port in progress", "not found")
ALL = [(name, code, last) for name in CELLS for code in (HELD, DEAD, PORTING) for last in (False, True)
       if code != PORTING or name in IN_PORT]  # fmt: skip


@pytest.mark.parametrize(("name", "code", "last"), ALL)
async def test_every_cell_of_the_table_is_so_for_whoever_asks(start: Start, name: str, code: str, last: bool) -> None:  # noqa: FBT001
    carrier, told, held, dead = CELLS[name]
    async with answering(lambda _: answers(**told)) as provider:
        async with start(lookup=settings(provider, *(["0s"] if last else ["0s", "4h"]))) as service:
            await given(service, code, carrier)
            await looked_up(service)
            wanted = (dead if code == DEAD else held)[last]
            if code == PORTING and wanted == HELD_ON:
                wanted = PORTING_ON
            assert await shown(service) == wanted
            assert provider.calls == {WHO: 1}


@pytest.mark.parametrize("code", [HELD, DEAD])
async def test_while_providers_are_down_a_number_waits_even_at_the_last_step(start: Start, code: str) -> None:
    async with answering(lambda _: Reply(b"", 503)) as provider:
        async with start(lookup=settings(provider, "0s")) as service:
            await given(service, code, ATT)
            await looked_up(service)
            assert await shown(service) == (HELD_ON if code == HELD else DEAD_ON)
            assert await service.sql("SELECT kind FROM alarms") == [("lookup_outage",)]


@pytest.mark.parametrize("code", [HELD, DEAD])
async def test_over_the_budget_a_number_waits_even_at_the_last_step(start: Start, code: str) -> None:
    async with answering(lambda _: answers(**SAME)) as provider:
        async with start(lookup=settings(provider, "0s") | {"budget_per_day": "0"}) as service:
            await given(service, code, ATT)
            await looked_up(service)
            assert await shown(service) == (HELD_ON if code == HELD else DEAD_ON)._replace(waits="budget")
            assert await service.sql("SELECT kind FROM alarms") == [("lookup_budget",)]
            assert not provider.calls


AGES = """
UPDATE numbers
SET facts = regexp_replace(facts::text, '("same/[^"]*": *)"[^"]*"', '\\1"' || CAST(:at AS text) || '"')::json
"""


@pytest.mark.parametrize(("days", "state"), [(6, "unreachable"), (8, "active")])
async def test_the_same_code_again_within_seven_days_is_out_of_reach_and_never_an_opt_out(
    start: Start, days: int, state: str
) -> None:
    async with answering(lambda _: answers(**SAME)) as provider:
        async with start(lookup=settings(provider)) as service:
            await given(service, HELD, ATT)
            await looked_up(service)
            assert await shown(service) == ACTIVE
            before = (datetime.now(UTC) - timedelta(days=days)).isoformat()
            assert await service.sql("SELECT 1 FROM numbers WHERE facts::text LIKE '%\"same/%'")
            async with service.app.state.engine.begin() as db:
                await db.execute(text(AGES), {"at": before})
                await db.execute(text("UPDATE lookup_answers SET asked_at = :at, kept_until = :at"), {
                    "at": datetime.now(UTC) - timedelta(days=days)})  # fmt: skip
            await receipt(service, HELD, "m2")
            await looked_up(service)
            assert await shown(service) == ACTIVE._replace(state=state)
            alarms = await service.sql("SELECT kind FROM alarms")
            assert alarms == ([("same_code_again",)] if state == "unreachable" else [])
            assert provider.calls == {WHO: 2}


@pytest.mark.parametrize(("more", "state"), [({}, "unreachable"), ({"sent_at": LONG_AGO}, "active")])
async def test_the_same_code_counts_at_once_unless_its_message_was_on_its_way(
    start: Start, more: dict[str, str], state: str
) -> None:
    async with answering(lambda _: answers(**SAME)) as provider:
        async with start(lookup=settings(provider)) as service:
            await given(service, HELD, ATT)
            await looked_up(service)
            await receipt(service, HELD, "m2", **more)
            await looked_up(service)
            assert await shown(service) == ACTIVE._replace(state=state)
            assert provider.calls == {WHO: 1}


@pytest.mark.parametrize("step", [1, 4])
async def test_what_is_asked_anew_is_looked_up_at_once_and_has_the_whole_timetable(start: Start, step: int) -> None:
    """A deactivation must not end consent by its first answer, since the number has been held for long already."""
    async with answering(lambda _: answers(problem="nobody")) as provider:
        async with start(lookup=settings(provider, "0s", "4h", "24h", "4d", "10d")) as service:
            await given(service, HELD, ATT)
            await looked_up(service)
            await service.sql("UPDATE lookups SET step = :step", step=step)
            await service.sql("UPDATE lookup_answers SET asked_at = now() - interval '2 days', kept_until = now()")
            await receipt(service, HELD, "m2")
            assert provider.calls == {WHO: 1}, "the same question again waits for its next step"
            await receipt(service, DEAD, "m3")
            await looked_up(service)
            assert provider.calls == {WHO: 2}
            assert await shown(service) == DEAD_ON
            ((due, now),) = await service.sql("SELECT due_at, now() FROM lookups")
            assert timedelta(hours=3.9) < due - now <= timedelta(hours=4)
            await receipt(service, DEAD, "m4", status="delivered")
            assert (await shown(service)).state == "reassigned"
            assert await service.sql("SELECT due_at FROM lookups") == [(due,)], "a stranger is no new question"


@pytest.mark.parametrize(("days", "state"), [(0, "active"), (20, "deactivated")])
async def test_a_port_that_was_told_before_a_deactivation_does_not_explain_it(
    start: Start, days: int, state: str
) -> None:
    """Our platform goes on naming the carrier that the number had before its port."""
    said: dict[str, Any] = dict(MOVED)
    async with answering(lambda _: answers(**said)) as provider:
        async with start(lookup=settings(provider)) as service:
            await given(service, HELD, ATT)
            await looked_up(service)
            assert await shown(service) == ACTIVE
            await service.sql("UPDATE lookup_answers SET asked_at = asked_at - CAST(:days AS int) * interval '1 day'",
                              days=days)  # fmt: skip
            said["carrier"] = "AT&T"
            at = datetime.now(UTC).isoformat()
            entry = {"gateway": "native", "message_id": "again", "number": WHO, "sender": "12345", "carrier": ATT,
                     "sent_at": at}  # fmt: skip
            assert (await service.client.post("/v1/messages", json=[entry])).status_code == 200
            await receipt(service, DEAD, "again")
            await looked_up(service)
            assert (await shown(service)).state == state


async def test_a_batch_asks_about_many_numbers_in_one_call(start: Start) -> None:
    numbers = [f"+1555555{n:04}" for n in range(1_200)]

    def reply(_: str) -> Reply:
        asked = orjson.loads(provider.bodies[-1])["to"]
        network = {"networkName": "T-Mobile USA, Inc."}
        told = [{"to": one, "ported": True, "portedNetwork": network, "status": {"groupId": 3}} for one in asked]
        return Reply(orjson.dumps({"results": told}))

    async with answering(reply) as provider:
        keys = {"api_key": "KEY", "base_url": provider.url}
        async with start(lookup={"providers": ["infobip"], "infobip": keys}, policy_file=CALM) as service:
            body = [{"message_id": one, "number": one, "sender": "12345", "status": "undeliverable", "code": HELD}
                    for one in numbers]  # fmt: skip
            assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200
            await looked_up(service)
            assert await service.sql("SELECT state, count(*) FROM numbers GROUP BY 1") == [("active", 1_200)]
            sizes = [len(orjson.loads(one)["to"]) for one in provider.bodies]
            assert (sum(sizes), max(sizes)) == (1_200, 1_000)
