"""Codes: the tables that ship say what the policy and their sources say, and a broken one is refused by its line."""

from __future__ import annotations

import csv
import re
import tomllib
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

import pytest

from app.catalogue import FOLDER, CatalogueError, load
from app.models.catalogue import REASONS

ROOT = Path(__file__).parents[1]
CATALOGUE = load()

CODE_HEAD = "code,meaning,level,permanence,reason,confidence,source\n"
CODE_ROW = "7,Gone,number,permanent,deactivated,verified,a page\n"


# What ships -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("341", "stale_carrier"),
        ("345", "carrier_unknown"),
        ("349", "carrier_unknown"),
        ("560", "carrier_blocked_subscriber"),
        ("561", "content_blocked_for_subscriber"),
        ("565", "mvno_not_supported"),
        ("568", "sms_not_provisioned"),
        ("573", "sender_blocked_by_subscriber"),
        ("592", "network_not_covered"),
        ("603", "opted_out"),
        ("629", "not_sms_capable"),
        ("3041", "deactivated"),
    ],
)
def test_each_of_the_twelve_codes_has_the_reason_that_the_policy_is_written_for(code: str, reason: str) -> None:
    found = CATALOGUE.find("openmarket", code)
    assert found is not None
    assert (found.space, found.code, found.reason) == ("openmarket", code, reason)


def test_all_code_spaces_ship_with_all_their_codes() -> None:
    written = {}
    for table in (FOLDER / "codes").glob("*.csv"):
        with table.open(newline="", encoding="utf-8") as rows:
            written[table.stem] = len([*csv.DictReader(rows)])
    assert {space: len(CATALOGUE.space(space)) for space in CATALOGUE.spaces()} == written
    assert len(CATALOGUE.codes) >= 1_486


def test_a_space_lists_its_codes_in_the_order_of_its_table() -> None:
    assert [code.code for code in CATALOGUE.space("smpp_stat")][:3] == ["ENROUTE", "DELIVRD", "ACCEPTD"]
    assert CATALOGUE.space("nowhere") == []


@pytest.mark.parametrize(
    ("space", "reason"),
    [("openmarket", "in_progress"), ("clickatell_one_api", "delivered"), ("vonage_dlr", "porting_in_progress")],
)
def test_the_same_code_means_another_thing_in_another_space(space: str, reason: str) -> None:
    found = CATALOGUE.find(space, "5")
    assert found is not None
    assert found.reason == reason


@pytest.mark.parametrize(
    ("space", "received", "code"),
    [
        ("openmarket", "0341", "341"),
        ("openmarket", "03041", "3041"),
        ("openmarket", "000", "0"),
        ("twilio_smpp", "7", "007"),
        ("twilio_smpp", "0007", "007"),
        ("twilio_smpp", "0", "000"),
        ("clickatell_error", "7", "0007"),
    ],
)
def test_a_numeric_space_is_read_without_leading_zeros(space: str, received: str, code: str) -> None:
    found = CATALOGUE.find(space, received)
    assert found is not None
    assert found.code == code


@pytest.mark.parametrize(("space", "code"), [("bird_messagebird", "1"), ("smpp_stat", "DELIVRD")])
def test_a_space_with_letters_is_read_exactly(space: str, code: str) -> None:
    assert CATALOGUE.find(space, code) is not None
    assert CATALOGUE.find(space, "0" + code) is None


@pytest.mark.parametrize(
    ("space", "code"),
    [(None, "341"), ("openmarket", None), ("openmarket", ""), ("", "341"), ("nowhere", "341"), ("openmarket", "99999"),
     ("openmarket", " 341"), ("openmarket", "\u0663\u0664\u0661")],
)  # fmt: skip
def test_an_unknown_code_is_found_nowhere(space: str | None, code: str | None) -> None:
    assert CATALOGUE.find(space, code) is None


def test_every_reason_of_every_table_is_one_of_the_closed_list() -> None:
    assert {code.reason for code in CATALOGUE.codes.values()} <= REASONS


def test_the_only_reasons_without_a_code_are_those_of_lookups_and_calls() -> None:
    assert REASONS - {code.reason for code in CATALOGUE.codes.values()} == {
        "disconnected",
        "permanent_failure",
        "unsubscribed",
    }


def test_every_code_says_what_it_means_and_where_that_was_read() -> None:
    assert [code for code in CATALOGUE.codes.values() if not (code.meaning and code.source)] == []


def test_the_page_on_codes_tells_who_speaks_each_space() -> None:
    page = (ROOT / "docs" / "codes.md").read_text("utf-8")
    section = page.partition("## Which gateway speaks which space")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert set(re.findall(r"`([a-z0-9_]+)`", "".join(rows))) == set(CATALOGUE.spaces())


# What is broken -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("code,meaning\n7,Gone\n", r"x\.csv:1: .*column.* must read code,meaning,level,"),
        ("", r"x\.csv:1: .*column"),
        (
            CODE_HEAD + CODE_ROW.replace("deactivated", "deactivatd"),
            r"x\.csv:2: unknown reason 'deactivatd'.*deactivated",
        ),
        (CODE_HEAD + CODE_ROW.replace("number", "nummer"), r"x\.csv:2: unknown level 'nummer'.*number"),
        (CODE_HEAD + CODE_ROW.replace("permanent", "forever"), r"x\.csv:2: unknown permanence 'forever'.*permanent"),
        (CODE_HEAD + CODE_ROW.replace("verified", "sure"), r"x\.csv:2: unknown confidence 'sure'.*verified"),
        (CODE_HEAD + CODE_ROW.replace("7", ""), r"x\.csv:2: code '' is empty"),
        (CODE_HEAD + CODE_ROW.replace("7", "7 "), r"x\.csv:2: code '7 ' .*blanks"),
        (CODE_HEAD + CODE_ROW + "8,Gone\n", r"x\.csv:3: 2 cells, not 7: .*quotes"),
        (CODE_HEAD + CODE_ROW + "\n" + CODE_ROW, r"x\.csv:4: duplicate code '7': .* x\.csv:2 .*delete"),
        (CODE_HEAD + CODE_ROW + CODE_ROW.replace("7", "007"), r"x\.csv:3: duplicate code '007': .* x\.csv:2 "),
        (CODE_HEAD + CODE_ROW.replace("Gone", '"Gone'), r"x\.csv:\d: not readable as CSV"),
    ],
)
def test_a_broken_code_table_is_refused_with_file_and_line_and_mend(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message) as refused:
        load(_codes(tmp_path, table.encode()))
    assert "\n" not in str(refused.value)


def test_a_code_table_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"x\.csv:\d: not readable as CSV in UTF-8"):
        load(
            _codes(tmp_path, (CODE_HEAD + CODE_ROW).encode() + b"8,\xff,number,permanent,deactivated,verified,a page\n")
        )


def test_a_folder_without_code_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no code tables"):
        load(tmp_path)


def test_codes_that_differ_in_zeros_alone_are_two_codes_where_the_space_has_letters(tmp_path: Path) -> None:
    table = CODE_HEAD + CODE_ROW + CODE_ROW.replace("7", "007") + CODE_ROW.replace("7", "late")
    assert [code.code for code in load(_codes(tmp_path, table.encode())).space("x")] == ["7", "007", "late"]


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    table = b"\xef\xbb\xbf" + (CODE_HEAD + CODE_ROW.replace("Gone", '"Gone, for\ngood"')).replace("\n", "\r\n").encode()
    assert [code.meaning for code in load(_codes(tmp_path, table)).space("x")] == ["Gone, for\r\ngood"]


def _codes(folder: Path, table: bytes) -> Path:
    (folder / "codes").mkdir()
    (folder / "codes" / "x.csv").write_bytes(table)
    return folder


# The package ----------------------------------------------------------------------------------------------------------


def test_the_tables_are_found_as_resources_of_the_package() -> None:
    package = files("app.catalogue")
    assert package.joinpath("carriers.csv").is_file()
    assert sorted(f"{space}.csv" for space in CATALOGUE.spaces()) == sorted(
        table.name for table in package.joinpath("codes").iterdir()
    )


def test_a_wheel_carries_every_table() -> None:
    """Setuptools takes along only data that a pattern names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["app"]
    data = [path.relative_to(ROOT / "app").as_posix() for path in FOLDER.rglob("*.csv")]
    assert len(data) == 1 + len(CATALOGUE.spaces())
    assert [path for path in data if not any(fnmatch(path, pattern) for pattern in patterns)] == []
