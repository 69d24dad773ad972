"""How far a person's own opt-out reaches: a setting, since the law is about to ask for more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.catalogue.policy import PolicyError, load_policy
from app.config import Settings, SettingsError, read_settings
from tests.conftest import Service, Start

WHO = "+15555551234"
ALL = {("12345", "spring"), ("12345", "fall"), ("67890", "news")}


async def subscribed(service: Service) -> None:
    for sender, list_ in ALL:
        path = f"/v1/senders/{sender}/lists/{list_}/subscribers/{WHO}"
        await service.client.put(path, json={"consented_at": "2026-03-02T09:15:00Z", "source": "web form"})


async def left_in(service: Service) -> set[tuple[Any, ...]]:
    by_view = {*await service.sql("SELECT sender, list FROM published.sendable")}
    told = (await service.client.get(f"/v1/numbers/{WHO}")).json()["lists"]
    assert {(one["sender"], one["list"]) for one in told if one["sendable"]} == by_view
    return {(one["sender"], one["list"]) for one in told if one["consent"] == "opted_in"}


async def receipt(service: Service, code: str) -> None:
    body = {"message_id": "m", "number": WHO, "sender": "12345", "status": "undeliverable", "code": code}
    assert (await service.client.post("/v1/receipts/native", json=body)).status_code == 200


async def leave(service: Service, **query: str) -> None:
    path = f"/v1/senders/12345/lists/spring/subscribers/{WHO}"
    assert (await service.client.delete(path, params=query)).status_code == 200


@pytest.mark.parametrize("code", ["573", "603"])
@pytest.mark.parametrize(("scope", "left"), [
    (None, {("67890", "news")}), ("list", {("67890", "news")}), ("sender", {("67890", "news")}), ("all", set()),
])  # fmt: skip
async def test_a_revocation_by_receipt_reaches_the_senders_lists_or_all(
    start: Start, code: str, scope: str | None, left: set[Any]
) -> None:
    async with start(policy={"revocation_scope": scope} if scope else {}) as service:
        await subscribed(service)
        await receipt(service, code)
        assert await left_in(service) == left


async def test_what_is_no_revocation_reaches_no_further(start: Start) -> None:
    async with start(policy={"revocation_scope": "all"}) as service:
        await subscribed(service)
        await receipt(service, "560")
        assert await left_in(service) == {("67890", "news")}


@pytest.mark.parametrize(("scope", "left"), [
    (None, ALL - {("12345", "spring")}), ("list", ALL - {("12345", "spring")}), ("sender", {("67890", "news")}),
    ("all", set()),
])  # fmt: skip
async def test_an_opt_out_by_call_reaches_as_far_as_the_setting_unless_it_says_so_itself(
    start: Start, scope: str | None, left: set[Any]
) -> None:
    async with start(policy={"revocation_scope": scope} if scope else {}) as service:
        await subscribed(service)
        await leave(service)
        assert await left_in(service) == left
    async with start(policy={"revocation_scope": "all"}) as service:
        await leave(service, scope="list")
        assert await left_in(service) == left - {("12345", "spring")}


async def test_a_sender_may_have_a_scope_of_its_own(start: Start) -> None:
    senders = {"12345": {"revocation_scope": "all"}}
    async with start(policy={"revocation_scope": "sender"}, senders=senders) as service:
        await subscribed(service)
        other = {"message_id": "n", "number": WHO, "sender": "67890", "status": "undeliverable", "code": "603"}
        await service.client.post("/v1/receipts/native", json=other)
        assert await left_in(service) == {("12345", "spring"), ("12345", "fall")}
        await receipt(service, "603")
        assert await left_in(service) == set()


async def test_after_a_revocation_of_everything_a_new_opt_in_is_for_its_list_alone(start: Start) -> None:
    async with start(policy={"revocation_scope": "all"}) as service:
        await subscribed(service)
        await leave(service, at="2026-04-01T00:00:00Z")
        path = f"/v1/senders/67890/lists/news/subscribers/{WHO}"
        back = {"consented_at": "2026-04-02T00:00:00Z", "source": "web form"}
        assert (await service.client.put(path, json=back)).json()["consent"] == "opted_in"
        assert await left_in(service) == {("67890", "news")}


def test_the_scope_may_stand_in_the_policys_file_and_yields_to_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('revocation_scope = "all"\n')
    assert load_policy(file).revoked("12345") == "all"
    assert load_policy(file, revocation="list").revoked("12345") == "list"
    assert load_policy(file, sender_revocations={"12345": "sender"}).revoked("12345") == "sender"
    assert load_policy().revoked("12345") is None
    file.write_text('revocation_scope = "everyone"\n')
    with pytest.raises(PolicyError, match='is none of "list", "sender" and "all"'):
        load_policy(file)


def test_a_scope_that_is_none_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "sendable.toml"
    file.write_text('[senders."12345"]\nrevocation_scope = "world"\n')
    with pytest.raises(SettingsError, match=r"senders\.12345\.revocation_scope"):
        read_settings({"SENDABLE_CONFIG": str(file)})
    assert Settings(senders={"AcmeCo": {"revocation_scope": "all"}}).sender_revocations() == {"acmeco": "all"}
