"""Who posts CloudEvents asks first, by OPTIONS, whether it may: the answer is a consent, or none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Service, Start

URL = "/v1/receipts/azure-acs"
ORIGIN = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
NAMES = {"webhook-allowed-origin", "webhook-allowed-rate"}


@pytest.fixture
async def service(start: Start) -> AsyncIterator[Service]:
    gateways = {"azure-acs": {"secrets": ["azure-token"], "accounts": {"eu": {"secrets": ["eu-token"]}}},
                "kannel": {"secrets": ["kannel-token"]}}  # fmt: skip
    async with start(auth="on", first_key="k" * 30, gateways=gateways) as started:
        yield started


async def test_event_grid_may_post_cloud_events_where_our_token_stands_in_the_address(service: Service) -> None:
    """learn.microsoft.com, end-point-validation-cloud-events-schema: both headers, and POST in `Allow`."""
    for url in (f"{URL}?token=azure-token", f"{URL}/eu?token=eu-token"):
        answer = await service.client.request("OPTIONS", url, headers=ORIGIN)
        assert answer.status_code == 200
        assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
        assert answer.headers["webhook-allowed-rate"] == "*"
        assert "POST" in answer.headers["allow"]
        assert answer.content == b""
    assert await service.sql("SELECT 1 FROM unread") == []


@pytest.mark.parametrize("query", ["", "?token=another", "?token="])
async def test_who_does_not_know_the_token_gets_no_consent(service: Service, query: str) -> None:
    answer = await service.client.request("OPTIONS", URL + query, headers=ORIGIN)
    assert answer.status_code == 403
    assert not NAMES & {*answer.headers}


async def test_who_names_no_origin_asked_for_nothing(service: Service) -> None:
    answer = await service.client.request("OPTIONS", f"{URL}?token=azure-token")
    assert answer.status_code == 200
    assert not NAMES & {*answer.headers}


async def test_other_vendors_do_not_ask_and_are_told_how_to_post(service: Service) -> None:
    """405 is what the specification of these handshakes wants of who knows none."""
    answer = await service.client.request("OPTIONS", "/v1/receipts/kannel?token=kannel-token", headers=ORIGIN)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    assert not NAMES & {*answer.headers}


async def test_what_was_consented_to_comes_as_cloud_events_one_or_many(service: Service) -> None:
    def event(place: int) -> dict[str, object]:
        return {
            "specversion": "1.0", "id": str(place), "source": "/communicationServices/acs1",
            "type": "Microsoft.Communication.SMSDeliveryReportReceived", "time": "2026-11-21T18:42:07.1301502Z",
            "data": {"messageId": f"m-{place}", "to": "+15555551234", "deliveryStatus": "Delivered"},
        }  # fmt: skip

    for body, kind in ((event(1), "application/cloudevents+json; charset=utf-8"),
                       ([event(2), event(3)], "application/cloudevents-batch+json; charset=utf-8")):  # fmt: skip
        answer = await service.client.post(
            f"{URL}?token=azure-token", json=body, headers={"content-type": kind, "WebHook-Request-Origin": "x"}
        )
        assert answer.status_code == 200
        assert "sendable-unread" not in answer.headers
    assert await service.sql("SELECT message_id, status FROM receipts ORDER BY message_id") == [
        ("m-1", "delivered"), ("m-2", "delivered"), ("m-3", "delivered"),
    ]  # fmt: skip
