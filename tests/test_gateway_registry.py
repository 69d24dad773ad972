"""A gateway is its code, its cases, its row and its page: none is missing, and all of them name the same codes."""

from __future__ import annotations

import csv
import importlib.util
import re
import tomllib
from pathlib import Path

from msgspec.structs import replace

from app import gateways
from app.gateways import GATEWAYS, signed_by
from app.gateways._smpp import CAUSES, COMMAND_SPACE, STAT_SPACE, command_status
from app.gateways.jasmin import ESME
from app.gateways.openmarket import status as openmarket_status
from app.models.receipt import Gateway, Status
from tests.gateway_cases import CASES, RECORDED, cases_of, check, proven

REPOSITORY = Path(__file__).parent.parent
FOLDER = Path(gateways.__file__).parent
CODES = REPOSITORY / "app" / "catalogue" / "codes"

# -- tables that must agree --------------------------------------------------------------------------------------------

REJECTED_REASONS = {
    *("request_error", "invalid_message"),
    *("account_error", "billing"),
    *("invalid_sender", "sender_blocked", "sender_not_registered"),
    *("content_blocked", "stale_carrier"),
}
NOT_FAILED = {
    "accepted": {Status.ACCEPTED, Status.SENT},
    "in_progress": {Status.ACCEPTED, Status.SENT},
    "delivered": {Status.DELIVERED},
    "expired": {Status.EXPIRED},
}


def codes_of(space: str) -> dict[str, str]:
    with (CODES / f"{space}.csv").open(newline="") as table:
        return {row["code"]: row["reason"] for row in csv.DictReader(table)}


def test_every_openmarket_code_has_the_status_that_its_reason_asks_for() -> None:
    wrong = {
        code: (reason, openmarket_status(code))
        for code, reason in codes_of("openmarket").items()
        if openmarket_status(code)
        not in NOT_FAILED.get(reason, {Status.REJECTED if reason in REJECTED_REASONS else Status.UNDELIVERABLE})
    }
    assert not wrong


def test_every_code_space_that_a_gateway_names_is_in_the_catalogue() -> None:
    named = {case.code_space for one in CASES for case in one.receipts if case.code_space}
    spaces = named | {gateway.code_space for gateway in GATEWAYS.values() if gateway.code_space}
    assert {space for space in spaces if not (CODES / f"{space}.csv").exists()} == set()


def test_the_names_of_smpp_answers_are_codes_of_the_catalogue() -> None:
    known = codes_of(COMMAND_SPACE)
    assert {command_status(number) for number in ESME.values()} == set(known) - {command_status(0)}
    assert codes_of(STAT_SPACE).keys() >= CAUSES


def test_the_page_on_codes_tells_which_spaces_a_gateway_names() -> None:
    """Those of its cases, but for what only the settings of a link say."""
    cases = [(one, case.code_space) for one in CASES for case in one.receipts if case.code_space != one.link.code_space]
    named = {(one.gateway.name, space) for one, space in cases if space and not one.gateway.name.startswith("custom/")}
    page = (REPOSITORY / "docs" / "codes.md").read_text()
    lines = [re.split(r" *\| *", line)[1:3] for line in page.splitlines() if line.startswith("| ")]
    told = {
        (name, space) for names, cell in lines for name in names.split(", ") for space in re.findall(r"`(\w+)`", cell)
    }
    assert {pair for pair in told if pair[0] in GATEWAYS} == named


# -- nothing missing ---------------------------------------------------------------------------------------------------


def missing(name: str, gateway: Gateway) -> list[str]:
    """What a gateway still lacks of: one code file, one file of cases, one row, one page."""
    module = name.replace("-", "_")
    cases, page = RECORDED / f"{module}.toml", REPOSITORY / "docs" / "gateways" / f"{name}.md"
    recordings = tomllib.loads(cases.read_text()) if cases.exists() else {}
    wanted = {
        f"app/gateways/{file_of(name)}.py: a gateway whose name is {name!r}": gateway.name == name,
        f"tests/gateways/{module}.toml: [[case]] with its source": recordings.get("case")
        and all(case.get("source") for case in recordings["case"]),
        f"tests/gateways/{module}.toml: a [[case.receipt]] with the `word` of an unknown status": any(
            "word" in one for case in recordings.get("case", []) for one in case.get("receipt", [])
        ),
        f"tests/gateways/{module}.toml: [[proof]]": recordings.get("proof"),
        f"docs/gateways.md: a row | [{name}](gateways/{name}.md) | …": name in rows(),
        f"docs/gateways/{name}.md: with the address /v1/receipts/{name}": page.exists()
        and f"/v1/receipts/{name}" in page.read_text(),
        f"docs/gateways/{name}.md: its settings, [gateways.{name}]": page.exists()
        and re.search(rf"^\[gateways\.{name}[\].]", page.read_text(), re.MULTILINE),
        f"docs/gateways/{name}.md: what was checked": page.exists() and re.search(r"\bChecked: ", page.read_text()),
    }
    return [what for what, there in wanted.items() if not there]


def file_of(name: str) -> str:
    return ("_" if name[0].isdigit() else "") + name.replace("-", "_")


def rows() -> dict[str, list[str]]:
    """The table of docs/gateways.md, by gateway."""
    lines = (REPOSITORY / "docs" / "gateways.md").read_text().splitlines()
    found = [re.match(r"\| \[([a-z0-9-]+)\]\(gateways/\1\.md\) \|", line) for line in lines]
    return {row[1]: row.string.strip("| ").split(" | ") for row in found if row}


def test_every_gateway_has_its_code_its_cases_its_row_and_its_page() -> None:
    assert [what for name, gateway in GATEWAYS.items() for what in missing(name, gateway)] == []


def test_no_case_row_or_page_speaks_of_a_gateway_that_is_not_there() -> None:
    named = {path.stem.replace("_", "-") for path in RECORDED.glob("*.toml")}
    named |= {path.stem for path in (REPOSITORY / "docs" / "gateways").glob("*.md")} | rows().keys()
    assert named - GATEWAYS.keys() == set()


def test_the_folder_is_the_registry() -> None:
    shared = {"__init__", "_fields", "_jwt", "_smpp", "_verify", "_vonage_reports", "_words"}
    assert {file_of(name) for name in GATEWAYS} == {path.stem for path in FOLDER.glob("*.py")} - shared


# -- the way to a new gateway, walked ----------------------------------------------------------------------------------


def test_the_written_way_to_a_new_gateway_leads_there(tmp_path: Path) -> None:
    """Takes the files out of docs/adding-a-gateway.md as a stranger would, and drives what they make."""
    files = dict(re.findall(r"^`([\w/.]+)`[^\n]*\n\n```\w+\n(.*?)```", adding(), re.DOTALL | re.MULTILINE))
    (code, cases, row, told) = (
        files[name] for name in ("app/gateways/acme.py", "tests/gateways/acme.toml", "docs/gateways.md", "README.md")
    )
    (tmp_path / "acme.py").write_text(code)
    (tmp_path / "acme.toml").write_text(cases)
    acme = imported(tmp_path / "acme.py")
    for case in cases_of(acme, tmp_path / "acme.toml"):
        check(case)
    (proof,) = cases_of(acme, tmp_path / "acme.toml", "proof")
    assert proven(proof, proof.secret)
    assert not proven(proof, "another")
    signed = signed_by(acme, replace(proof.callback, headers={}), "another", proof.link)
    assert proven(proof, "another", callback=signed)
    assert len(row.strip("| \n").split(" | ")) == len(rows()["native"])
    (beside,) = re.findall(r"^\| \[native\]\(docs/gateways/.*", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert told.startswith("| [acme](docs/gateways/acme.md) | ")
    assert told.count(" | ") == beside.count(" | ")


def adding() -> str:
    return (REPOSITORY / "docs" / "adding-a-gateway.md").read_text()


def imported(path: Path) -> Gateway:
    spec = importlib.util.spec_from_file_location("acme", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gateway: Gateway = module.gateway
    return gateway
