"""Suspended, deactivated, recycled, back again: by HTTP and by the views, which must agree at every step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.services import upkeep
from tests.conftest import Service, Start
from tests.passing import passes

WHO, SENDER, OTHER = "+15555551234", "12345", "67890"
IN, OUT = "opted_in", "opted_out"


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


async def opt_in(service: Service, days: float, name: str = "spring", sender: str = SENDER) -> int:
    path = f"/v1/senders/{sender}/lists/{name}/subscribers/{WHO}"
    call = {"consented_at": ago(days).isoformat(), "source": "web form"}
    return (await service.client.put(path, json=call)).status_code


async def hear(service: Service, code: str | None, days: float, *, sent: float | None = None, **said: Any) -> None:
    """A receipt about something that happened so many days ago."""
    body = {"message_id": f"{code}-{days}", "number": WHO, "sender": SENDER, "status": "undeliverable", "code": code,
            "occurred_at": ago(days).isoformat()} | said  # fmt: skip
    body |= {"sent_at": ago(sent).isoformat()} if sent is not None else {}
    answer = await service.client.post("/v1/receipts/native", json=body)
    assert (answer.status_code, "sendable-unread" in answer.headers) == (200, False)


async def delivered(service: Service, sent: float, **said: Any) -> None:
    await hear(service, None, sent, sent=sent, status="delivered", **said)


async def told(service: Service) -> Any:
    """What HTTP says of the number, once the views and the list have said the same."""
    one = (await service.client.get(f"/v1/numbers/{WHO}")).json()
    row = await service.sql("SELECT state, sendable, reason, waiting_for, until FROM published.number_status")
    until = one["until"] and datetime.fromisoformat(one["until"])
    assert row == [(one["state"], one["sendable"], one["reason"], one["waiting_for"], until)]
    may = [(two["sender"], two["list"]) for two in one["lists"] if two["sendable"]]
    assert await service.sql("SELECT sender, list FROM published.sendable ORDER BY 1, 2") == may
    gone = [(two["sender"], two["list"]) for two in one["lists"] if two["consent"] == OUT]
    assert await service.sql("SELECT sender, list FROM published.opt_outs ORDER BY 1, 2") == gone
    for two in one["lists"]:
        path = f"/v1/senders/{two['sender']}/lists/{two['list']}/subscribers"
        (subscriber,) = (await service.client.get(path)).json()["items"]
        expected = {"consent": two["consent"], "sendable": two["sendable"], "state": one["state"]}
        assert expected.items() <= subscriber.items()
    return one


def lists(one: Any) -> dict[str, tuple[str, bool]]:
    return {f"{two['sender']}/{two['list']}": (two["consent"], two["sendable"]) for two in one["lists"]}


# Suspended ---------------------------------------------------------------------------------------------------------


async def test_who_is_suspended_is_not_texted_and_stays_a_subscriber(service: Service) -> None:
    await opt_in(service, 90)
    await hear(service, "569", 3)
    one = await told(service)
    assert (one["state"], one["sendable"], one["reason"]) == ("suspended", False, "suspended")
    assert lists(one) == {"12345/spring": (IN, False)}
    assert one["lists"][0]["reason"] == "suspended"
    for query in ({"consent": IN}, {"state": "suspended"}, {"sendable": False}):
        page = await service.client.get(f"/v1/senders/{SENDER}/lists/spring/subscribers", params=query)
        assert [item["number"] for item in page.json()["items"]] == [WHO]
    active = await service.client.get(f"/v1/senders/{SENDER}/lists/spring/subscribers", params={"state": "active"})
    assert active.json()["items"] == []


async def test_after_thirty_days_everybody_sees_it_lapse_at_the_same_instant_and_the_feed_tells_it(
    service: Service,
) -> None:
    await opt_in(service, 90)
    ends = datetime.now(UTC) + timedelta(hours=1)
    await hear(service, "569", 3, occurred_at=(ends - timedelta(days=30)).isoformat())
    one = await told(service)
    assert (one["state"], datetime.fromisoformat(one["until"])) == ("suspended", ends)
    await passes(service, timedelta(hours=1))
    one = await told(service)
    assert (one["state"], lists(one)) == ("active", {"12345/spring": (IN, True)})
    await upkeep.tell_lapses(service.app.state.engine, service.app.state.meaning.policy, datetime.now(UTC))
    feed = (await service.client.get("/v1/changes")).json()["items"]
    last = feed[-1]
    assert (last["kind"], last["from"], last["to"], last["cause"]["kind"]) == (
        "number.state", "suspended", "active", "lapse")  # fmt: skip
    assert datetime.fromisoformat(last["occurred_at"]) == ends - timedelta(hours=1)
    assert (await told(service))["state"] == "active"


async def test_a_suspension_that_is_told_after_it_is_over_is_over(service: Service) -> None:
    await opt_in(service, 90)
    await hear(service, "569", 31)
    one = await told(service)
    assert (one["state"], lists(one)) == ("active", {"12345/spring": (IN, True)})


@pytest.mark.parametrize("word", ["RESUME", "REACTIVATION"])
async def test_a_resume_ends_it_early_and_an_older_one_does_not(service: Service, word: str) -> None:
    await opt_in(service, 90)
    await hear(service, "SUSPEND", 5, code_space="deactivation_feed")
    await hear(service, word, 6, code_space="deactivation_feed")
    assert (await told(service))["state"] == "suspended"
    await hear(service, word, 2, code_space="deactivation_feed")
    one = await told(service)
    assert (one["state"], lists(one)) == ("active", {"12345/spring": (IN, True)})


async def test_a_delivery_of_a_later_message_ends_it_early_and_of_an_older_one_does_not(service: Service) -> None:
    await opt_in(service, 90)
    await hear(service, "569", 5)
    await delivered(service, 6, occurred_at=ago(1).isoformat())
    assert (await told(service))["state"] == "suspended"
    await delivered(service, 2)
    one = await told(service)
    assert (one["state"], lists(one)) == ("active", {"12345/spring": (IN, True)})


async def test_coming_back_needs_no_opt_in_and_an_opt_in_does_not_end_it(service: Service) -> None:
    await opt_in(service, 90)
    await hear(service, "569", 5)
    assert await opt_in(service, 1) == 200
    assert (await told(service))["state"] == "suspended"


@pytest.mark.parametrize("provider", [True, False])
async def test_a_deactivation_during_it_acts_as_any(start: Start, *, provider: bool) -> None:
    async with start(**({"lookup": {}} if provider else {})) as service:
        await opt_in(service, 90)
        await opt_in(service, 90, "news", OTHER)
        await hear(service, "569", 5)
        await hear(service, "3041", 2)
        one = await told(service)
        assert one["state"] == "deactivated"
        assert {consent for consent, _ in lists(one).values()} == {IN if provider else OUT}
        await hear(service, "RESUME", 1, code_space="deactivation_feed")
        assert (await told(service))["state"] == "deactivated"


# Date guards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["560", "561", "565", "568", "573", "603", "629"])
async def test_an_opt_in_newer_than_the_send_is_never_ended_by_that_messages_receipt(
    service: Service, code: str
) -> None:
    await opt_in(service, 90)
    await opt_in(service, 2, "summer")
    await hear(service, code, 1, sent=3)
    assert {name: consent for name, (consent, _) in lists(await told(service)).items()} == {
        "12345/spring": OUT, "12345/summer": IN}  # fmt: skip


async def test_the_send_time_may_come_from_the_register(service: Service) -> None:
    await opt_in(service, 90)
    await opt_in(service, 2, "summer")
    sent = {"gateway": "native", "message_id": "m1", "number": WHO, "sender": SENDER, "sent_at": ago(3).isoformat()}
    assert (await service.client.post("/v1/messages", json=[sent])).status_code == 200
    await hear(service, "603", 1, message_id="m1")
    assert {name: consent for name, (consent, _) in lists(await told(service)).items()} == {
        "12345/spring": OUT, "12345/summer": IN}  # fmt: skip


async def test_a_deactivation_ends_only_opt_ins_older_than_its_effective_date(service: Service) -> None:
    await opt_in(service, 90)
    await opt_in(service, 5, "summer")
    await opt_in(service, 90, "news", OTHER)
    await hear(service, "3041", 10, sent=1)  # told late: of a message that was sent yesterday
    one = await told(service)
    assert lists(one) == {"12345/spring": (OUT, False), "12345/summer": (IN, True), "67890/news": (OUT, False)}
    assert one["state"] == "active"  # the newer opt-in is somebody's who has the number now


async def test_a_late_event_changes_the_history_and_never_a_newer_condition(service: Service) -> None:
    """A suspension of yesterday is neither aged nor ended by what is older and heard of later."""
    await opt_in(service, 90)
    await hear(service, "569", 1)
    until = (await told(service))["until"]
    await hear(service, "569", 20)
    await hear(service, "RESUME", 3, code_space="deactivation_feed")
    one = await told(service)
    assert (one["state"], one["until"]) == ("suspended", until)
    assert len((await service.client.get("/v1/receipts", params={"number": WHO})).json()["items"]) == 3


async def test_an_opt_in_older_than_a_remembered_opt_out_is_refused_also_on_a_new_list(service: Service) -> None:
    await opt_in(service, 90)
    await hear(service, "603", 5)
    assert await opt_in(service, 6, "autumn") == 409
    assert lists(await told(service)) == {"12345/autumn": (OUT, False), "12345/spring": (OUT, False)}
    assert await opt_in(service, 4, "autumn") == 200
    assert lists(await told(service)) == {"12345/autumn": (IN, True), "12345/spring": (OUT, False)}


# Recycled ----------------------------------------------------------------------------------------------------------


async def test_a_deactivated_number_that_delivers_again_is_presumed_a_strangers(start: Start) -> None:
    async with start(lookup={}) as service:
        await opt_in(service, 90)
        await hear(service, "3041", 40)
        await delivered(service, 41, occurred_at=ago(39).isoformat())  # sent before it: says nothing
        assert (await told(service))["state"] == "deactivated"
        await delivered(service, 10)
        one = await told(service)
        assert (one["state"], one["sendable"], lists(one)) == ("reassigned", False, {"12345/spring": (IN, False)})
        await delivered(service, 5)
        assert (await told(service))["state"] == "reassigned"


async def test_the_years_of_one_subscriber(start: Start) -> None:
    """Opted in, suspended, resumed, deactivated while suspended, recycled, a stranger's delivery, and a new opt-in."""
    async with start() as service:
        await opt_in(service, 700)
        await opt_in(service, 650, "summer")
        assert lists(await told(service)) == {"12345/spring": (IN, True), "12345/summer": (IN, True)}
        await hear(service, "SUSPEND", 600, code_space="deactivation_feed")
        await hear(service, "RESUME", 590, code_space="deactivation_feed")
        assert (await told(service))["state"] == "active"
        await hear(service, "SUSPEND", 20, code_space="deactivation_feed")
        assert (await told(service))["state"] == "suspended"
        await hear(service, "3041", 15)
        one = await told(service)
        assert (one["state"], lists(one)) == (
            "deactivated", {"12345/spring": (OUT, False), "12345/summer": (OUT, False)})  # fmt: skip
        await delivered(service, 10)
        assert (await told(service))["state"] == "reassigned"
        assert await opt_in(service, 16, "summer") == 409
        assert (await told(service))["state"] == "reassigned"
        assert await opt_in(service, 3, "summer") == 200
        one = await told(service)
        assert (one["state"], lists(one)) == (
            "active", {"12345/spring": (OUT, False), "12345/summer": (IN, True)})  # fmt: skip
