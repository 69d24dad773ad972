"""Codes and statuses that nobody knows are counted, shown with a sample, and turn into rows to add."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from app.catalogue import FOLDER, load
from tests.conftest import Service, Start
from tests.running import sendable


def receipt(**said: Any) -> dict[str, Any]:
    return {"message_id": "m1", "number": "+15555550100", "sender": "12345", "status": "undeliverable"} | said


async def post(service: Service, *receipts: dict[str, Any]) -> None:
    answer = await service.client.post("/v1/receipts/native", json=receipts)
    assert answer.status_code == 200


async def unknown(service: Service, **query: str) -> list[dict[str, Any]]:
    answer = await service.client.get("/v1/codes/unknown", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_unknown_codes_and_statuses_are_counted_with_a_sample(service: Service) -> None:
    await post(
        service, receipt(code="9999"), receipt(message_id="m2", code="9999"), receipt(message_id="m3", code="560")
    )
    await post(service, receipt(message_id="m4", code="9999"), receipt(message_id="m6", code="9999", status="rejected"))
    await post(service, receipt(message_id=None, code="9999", status="expired"))
    await post(service, receipt(message_id="m5", status="Teleported"))
    word, code = await unknown(service)
    assert (code["gateway"], code["kind"], code["space"], code["word"]) == ("native", "code", "openmarket", "9999")
    assert (code["status"], code["message_id"], code["count"]) == ("expired", "m6", 5)
    assert code["first_at"] < code["last_at"]
    assert (word["kind"], word["space"], word["word"], word["message_id"]) == ("status", None, "Teleported", "m5")
    assert await unknown(service, gateway="twilio") == []


async def test_an_unknown_code_is_counted_and_alarmed_for_each_account_of_its_own(start: Start) -> None:
    async with start(gateways={"native": {"accounts": {"eu": {}}}}) as service:
        for place, path in enumerate(("native", "native/eu", "native/eu")):
            body = receipt(code="9999", message_id=f"m{place}")
            assert (await service.client.post(f"/v1/receipts/{path}", json=body)).status_code == 200
        alarms = (await service.client.get("/v1/alarms")).json()["items"]
        assert {one["key"]: one["count"] for one in alarms} == {
            "native/openmarket/9999": 1, "native/eu/openmarket/9999": 2,
        }  # fmt: skip
        assert {one["account"]: one["count"] for one in await unknown(service)} == {None: 1, "eu": 2}


async def test_a_repeated_receipt_and_a_word_for_unknown_itself_are_not_counted(service: Service) -> None:
    for _ in range(2):
        await post(service, receipt(code="9999"), receipt(message_id="m2", status="unknown"))
    (code,) = await unknown(service)
    assert code["count"] == 1


async def test_a_status_that_could_be_a_number_is_not_shown(service: Service) -> None:
    await post(service, receipt(status="sent to 15555550100"))
    (word,) = await unknown(service)
    assert word["word"] == "(a long number)"


async def test_what_a_table_knows_by_now_is_left_out(service: Service) -> None:
    await post(service, receipt(code="9999"))
    await service.sql("UPDATE unknown_words SET word = '0560' RETURNING 1")
    assert await unknown(service) == []


async def test_a_suggested_row_is_taken_by_its_table_and_acts_on_nobody(
    service: Service, database_url: str, tmp_path: Path
) -> None:
    await post(service, receipt(code='9,9"9'), receipt(message_id="m2", code="1", code_space="acme"))
    await service.client.get("/v1/receipts/kannel?id=k1&st=2&a=id:1+stat:UNDELIV+err:77&to=%2B15555550100")
    await post(service, receipt(message_id="m3", status="teleported"))
    said = await sendable("codes", "suggest", database_url=database_url)
    assert said.code == 0
    assert "the settings of kannel must say whose code 77 is: set `code_space`" in said.err
    assert "the status 'teleported' belongs in the table of app/gateways/native.py" in said.err
    shutil.copytree(FOLDER / "codes", tmp_path / "codes")
    file = None
    for line in said.out.splitlines():
        if line.startswith("# app/catalogue/"):
            file = tmp_path / line.removeprefix("# app/catalogue/")
            continue
        with file.open("a") as table:
            table.write(line + "\n")
    catalogue = load(tmp_path)
    assert catalogue.find("openmarket", '9,9"9').reason == "unknown"
    assert catalogue.find("acme", "1").confidence == "unverified"


async def test_the_command_shows_what_the_api_does(service: Service, database_url: str) -> None:
    await post(service, receipt(code="9999"))
    shown = json.loads((await sendable("codes", "unknown", "--json", database_url=database_url)).out)
    assert [(row["word"], row["count"]) for row in shown] == [("9999", 1)]
    rows = json.loads((await sendable("codes", "suggest", "--json", database_url=database_url)).out)
    ((file, (line,)),) = rows.items()
    assert file == "app/catalogue/codes/openmarket.csv"
    assert next(csv.reader([line]))[0] == "9999"
    said = await sendable("codes", "unknown", "--gateway", "nobody", database_url=database_url)
    assert (said.code, said.err.split(";")[0]) == (2, "sendable: 'nobody' is no gateway")
