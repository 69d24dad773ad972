"""What a proof or a handshake needs from outside: fetched at the edge, from hosts that the vendor's file knows."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.gateways import GATEWAYS, certificate_at, confirmation_at
from app.models.receipt import Callback, Link
from app.services.connection import Busy
from app.services.errands import AT_ONCE, KEPT, WAITING_MOST, Errands
from tests.conftest import Service, Start

TOPIC = "arn:aws:sns:us-east-1:123456789012:sms-events"
AMAZON = "https://sns.us-east-1.amazonaws.com"
PEM = f"{AMAZON}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
SUBSCRIBE = f"{AMAZON}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t-1"
URL = "/v1/receipts/aws-eum"
EVENT = {"eventType": "TEXT_UNREACHABLE", "isFinal": True, "messageId": "m-1", "destinationPhoneNumber": "+15555551234",
         "originationPhoneNumber": "12345"}  # fmt: skip
HASHES = {"1": SHA1, "2": SHA256}
NOTIFIES = ("Message", "MessageId", "Timestamp", "TopicArn", "Type")
CONFIRMS = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")


class Amazon(httpx.AsyncBaseTransport):
    """SNS as it is seen from here: signs what it sends, and answers whoever asks it by GET."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.asked: Counter[str] = Counter()
        self.busiest = self._now = 0
        self.status = 200

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "GET"
        self.asked[str(request.url)] += 1
        self._now += 1
        self.busiest = max(self.busiest, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        if self.status == 0:
            raise httpx.ConnectError("away")
        return httpx.Response(self.status, content=self.certificate() if request.url.path != "/" else b"<ok/>")

    def certificate(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        made = x509.CertificateBuilder(name, name, self.key.public_key(), 7, datetime(2020, 1, 1, tzinfo=UTC),
                                       datetime(2120, 1, 1, tzinfo=UTC))  # fmt: skip
        return made.sign(self.key, SHA256()).public_bytes(Encoding.PEM)

    def says(self, kind: str = "Notification", version: str = "2", **more: Any) -> dict[str, Any]:
        """A signed envelope, as it is posted."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        said = {"Type": kind, "MessageId": "1", "TopicArn": TOPIC, "Message": json.dumps(EVENT), "Timestamp": now,
                "SignatureVersion": version, "SigningCertURL": PEM}  # fmt: skip
        if kind != "Notification":
            said |= {"SubscribeURL": SUBSCRIBE, "Token": "t-1"}
        said |= more
        names = NOTIFIES if kind == "Notification" else CONFIRMS
        text = "".join(f"{name}\n{said[name]}\n" for name in names).encode()
        signature = self.key.sign(text, padding.PKCS1v15(), HASHES[version]())
        return said | {"Signature": base64.b64encode(signature).decode()}


@pytest.fixture
def amazon() -> Amazon:
    return Amazon()


@pytest.fixture
async def service(start: Start, amazon: Amazon) -> AsyncIterator[Service]:
    async with start(auth="on", first_key="k" * 30, gateways={"aws-eum": {"secrets": [TOPIC, "raw-token"]}}) as started:
        started.app.state.errands = Errands(amazon)
        yield started


async def stored(service: Service) -> list[tuple[Any, ...]]:
    return await service.sql("SELECT message_id, status FROM receipts")


# -- as the service does it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2"])
async def test_what_sns_signed_is_taken_and_its_certificate_is_fetched_once(
    service: Service, amazon: Amazon, version: str
) -> None:
    for _ in range(3):
        assert (await service.client.post(URL, json=amazon.says(version=version))).status_code == 200
    assert await stored(service) == [("m-1", "undeliverable")]
    assert amazon.asked == {PEM: 1}


async def test_what_was_refused_is_proven_again_by_a_certificate_that_is_fetched_again(
    start: Start, amazon: Amazon
) -> None:
    """The topic of the settings was another one. While Amazon does not answer all stays, and nothing is lost."""
    wrong, right = ({"auth": "on", "first_key": "k" * 30, "gateways": {"aws-eum": {"secrets": [topic]}}}
                    for topic in (f"{TOPIC}-2", TOPIC))  # fmt: skip
    async with start(**wrong) as service:
        for said in (amazon.says(), amazon.says("SubscriptionConfirmation"), Amazon().says()):
            assert (await service.client.post(URL, json=said)).status_code == 403
    async with start(**right) as service:
        service.app.state.errands = Errands(amazon)

        async def again() -> Any:
            key = {"Authorization": "Bearer " + "k" * 30}
            return (await service.client.post("/v1/unread/reverify", json={}, headers=key)).json()

        amazon.status = 0
        assert await again() == {"proven": 0, "receipts": 0, "left": 3}
        assert amazon.asked == {PEM: 1}, "who does not answer is asked once a run"
        amazon.status = 200
        assert await again() == {"proven": 2, "receipts": 1, "left": 1}
        assert amazon.asked == {PEM: 2, SUBSCRIBE: 1}
        assert await stored(service) == [("m-1", "undeliverable")]


async def test_what_another_signed_is_refused(service: Service) -> None:
    assert (await service.client.post(URL, json=Amazon().says())).status_code == 403
    assert await stored(service) == []


async def test_nobody_is_asked_for_the_certificate_of_a_topic_that_is_not_ours(
    service: Service, amazon: Amazon
) -> None:
    for said in (amazon.says(TopicArn=f"{TOPIC}-2"), amazon.says(SigningCertURL="https://sns.evil.example/x.pem")):
        assert (await service.client.post(URL, json=said)).status_code == 403
    assert not amazon.asked


@pytest.mark.parametrize("status", [0, 500, 503])
async def test_while_the_certificate_cannot_be_had_the_receipt_may_come_again(
    service: Service, amazon: Amazon, status: int
) -> None:
    amazon.status = status
    answer = await service.client.post(URL, json=amazon.says())
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    amazon.status = 200
    assert (await service.client.post(URL, json=amazon.says())).status_code == 200


async def test_a_certificate_that_is_not_there_proves_nothing_and_is_not_remembered(
    service: Service, amazon: Amazon
) -> None:
    amazon.status = 404
    assert (await service.client.post(URL, json=amazon.says())).status_code == 403
    amazon.status = 200
    assert (await service.client.post(URL, json=amazon.says())).status_code == 200


async def test_a_proven_handshake_is_confirmed_and_nothing_is_stored(service: Service, amazon: Amazon) -> None:
    assert (await service.client.post(URL, json=amazon.says("SubscriptionConfirmation"))).status_code == 200
    assert amazon.asked == {PEM: 1, str(httpx.URL(SUBSCRIBE)): 1}
    assert await stored(service) == []
    assert await service.sql("SELECT FROM unread") == []


async def test_a_handshake_of_a_raw_subscription_is_confirmed_by_its_token(service: Service, amazon: Amazon) -> None:
    said = Amazon().says("SubscriptionConfirmation")
    assert (await service.client.post(URL, json=said)).status_code == 403
    assert sum(amazon.asked.values()) == 1  # the certificate
    assert (await service.client.post(f"{URL}?token=raw-token", json=said)).status_code == 200
    assert amazon.asked[str(httpx.URL(SUBSCRIBE))] == 1
    assert (await service.client.post(f"{URL}?token=raw-token", json=EVENT)).status_code == 200
    assert await stored(service) == [("m-1", "undeliverable")]


async def test_a_handshake_that_is_not_taken_may_come_again(service: Service, amazon: Amazon) -> None:
    said = amazon.says("SubscriptionConfirmation")
    for status in (0, 500, 403):
        amazon.status = status
        assert (await service.client.post(f"{URL}?token=raw-token", json=said)).status_code == 503
    amazon.status = 200
    assert (await service.client.post(f"{URL}?token=raw-token", json=said)).status_code == 200


async def test_an_old_envelope_is_refused(service: Service, amazon: Amazon) -> None:
    for age, status in ((timedelta(minutes=64), 200), (timedelta(minutes=66), 403), (-timedelta(minutes=6), 403)):
        at = (datetime.now(UTC) - age).isoformat(timespec="milliseconds")
        assert (await service.client.post(URL, json=amazon.says(Timestamp=at))).status_code == status


# -- whom the vendor's file would ask ----------------------------------------------------------------------------------

ELSEWHERE = [
    "http://sns.us-east-1.amazonaws.com/a.pem",
    "https://sns.us-east-1.amazonaws.com.evil.example/a.pem",
    "https://evil.example/sns.us-east-1.amazonaws.com/a.pem",
    "https://sns.us-east-1.amazonaws.com@evil.example/a.pem",
    "https://evil@sns.us-east-1.amazonaws.com/a.pem",
    "https://sns.us-east-1.amazonaws.com:8443/a.pem",
    "https://sns.us-east-1.amazonaws.com/a.pem#x",
    "https://sns.us-east-1.amazonaws.com/a/../b.pem",
    "https://sns.us-east-1.amazonaws.com/a.txt",
    "https://sns.evil.example/a.pem",
    "https://sns..amazonaws.com/a.pem",
    "https://sns.us-east-1.amazonaws.com\\@evil.example/a.pem",
    "https://sns.us-east-1.amazonaws.com\n.evil.example/a.pem",
    "https://169.254.169.254/a.pem",
    "file:///etc/passwd.pem",
    "https://[::1/a.pem",
    "",
]


def posted(said: object) -> Callback:
    return Callback("POST", "", {}, "", json.dumps(said).encode())


def certificate_of(said: object, *secrets: str) -> str | None:
    return certificate_at(GATEWAYS["aws-eum"], posted(said), Link("aws-eum", secrets=secrets or (TOPIC,)))


@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_certificate_is_looked_for_at_amazon_and_nowhere_else(amazon: Amazon, url: str) -> None:
    assert certificate_of(amazon.says()) == PEM
    assert certificate_of(amazon.says(SigningCertURL=url)) is None


@pytest.mark.parametrize("url", [PEM.replace("us-east-1", "eu-west-3"), PEM.replace(".com/", ".com.cn/")])
def test_amazon_has_many_regions_and_china(amazon: Amazon, url: str) -> None:
    assert certificate_of(amazon.says(SigningCertURL=url)) == url


def test_no_certificate_is_looked_for_where_a_token_is_the_proof(amazon: Amazon) -> None:
    assert certificate_of(amazon.says(), "raw-token") is None
    assert certificate_of(EVENT) is None


QUERY = SUBSCRIBE.partition("/?")[2]
CONFIRMED_ELSEWHERE = [
    f"http://sns.us-east-1.amazonaws.com/?{QUERY}",
    f"https://evil.example/?{QUERY}",
    f"https://sns.us-east-1.amazonaws.com@evil.example/?{QUERY}",
    f"https://sns.us-east-1.amazonaws.com:8443/?{QUERY}",
    f"{AMAZON}/path?{QUERY}",
    f"{AMAZON}/?{QUERY}#x",
    f"{AMAZON}/?{QUERY}&Action=DeleteTopic",
    f"{AMAZON}/?{QUERY}&AuthenticateOnUnsubscribe=true",
    SUBSCRIBE.replace("ConfirmSubscription", "DeleteTopic"),
    SUBSCRIBE.replace("sms-events", "another"),
    SUBSCRIBE.replace("t-1", "t-2"),
    f"{AMAZON}/",
    "",
]


@pytest.mark.parametrize("url", CONFIRMED_ELSEWHERE)
def test_nothing_is_confirmed_but_what_the_handshake_itself_names(amazon: Amazon, url: str) -> None:
    aws = GATEWAYS["aws-eum"]
    assert confirmation_at(aws, posted(amazon.says("SubscriptionConfirmation"))) == SUBSCRIBE
    assert confirmation_at(aws, posted(amazon.says("SubscriptionConfirmation", SubscribeURL=url))) is None


def test_nothing_else_is_a_handshake(amazon: Amazon) -> None:
    aws = GATEWAYS["aws-eum"]
    for said in (amazon.says("UnsubscribeConfirmation"), amazon.says() | {"SubscribeURL": SUBSCRIBE, "Token": "t-1"},
                 EVENT, [], "SubscriptionConfirmation"):  # fmt: skip
        assert confirmation_at(aws, posted(said)) is None
    assert confirmation_at(GATEWAYS["native"], posted(amazon.says("SubscriptionConfirmation"))) is None


# -- the errands themselves --------------------------------------------------------------------------------------------


async def test_a_hundred_who_need_the_same_certificate_fetch_it_once(amazon: Amazon) -> None:
    errands = Errands(amazon)
    found = await asyncio.gather(*(errands.certificate(PEM) for _ in range(100)))
    assert amazon.asked == {PEM: 1}
    assert len(set(found)) == 1
    await errands.close()


async def test_few_are_asked_at_once_and_few_are_kept(amazon: Amazon) -> None:
    errands = Errands(amazon)
    await asyncio.gather(*(errands.certificate(f"{AMAZON}/{place}.pem") for place in range(2 * KEPT)))
    assert amazon.busiest == AT_ONCE
    await errands.certificate(f"{AMAZON}/{2 * KEPT - 1}.pem")
    assert sum(amazon.asked.values()) == 2 * KEPT
    await errands.certificate(f"{AMAZON}/0.pem")
    assert sum(amazon.asked.values()) == 2 * KEPT + 1
    await errands.close()


async def test_who_gives_up_waiting_does_not_end_the_fetch_for_the_others(amazon: Amazon) -> None:
    errands = Errands(amazon)
    first, second = (asyncio.create_task(errands.certificate(PEM)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).startswith(b"-----BEGIN")
    assert amazon.asked == {PEM: 1}
    await errands.close()


async def test_a_crowd_of_addresses_is_sent_away(amazon: Amazon) -> None:
    errands = Errands(amazon)
    urls = [f"{AMAZON}/{place}.pem" for place in range(WAITING_MOST + 1)]
    found = await asyncio.gather(*map(errands.certificate, urls), return_exceptions=True)
    assert [type(one) for one in found] == [bytes] * WAITING_MOST + [Busy]
    await errands.close()


async def test_no_redirect_is_followed(amazon: Amazon) -> None:
    amazon.status = 302
    errands = Errands(amazon)
    assert await errands.certificate(PEM) == b""
    with pytest.raises(Busy):
        await errands.confirm(SUBSCRIBE)
    await errands.close()
