"""The tables that ship say what policy.md and their sources say, and a broken table is refused with its line named."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

import pytest

from app.catalogue import FOLDER, CatalogueError, carriers, load
from app.models.catalogue import REASONS

ROOT = Path(__file__).parents[1]
CATALOGUE = load()
CARRIERS = carriers()

CODE_HEAD = "code,meaning,level,permanence,reason,confidence,source\n"
CODE_ROW = "7,Gone,number,permanent,deactivated,verified,a page\n"
CARRIER_HEAD = "alias_pattern,canonical_carrier,kind,parent,mcc,mnc,successor,since,confidence,source\n"


# --- codes ---


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
    assert len(CATALOGUE.spaces()) == 36
    assert len(CATALOGUE.codes) == 1_439
    assert sum(len(CATALOGUE.space(space)) for space in CATALOGUE.spaces()) == 1_439


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


# --- broken code tables ---


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


# --- carriers by name ---


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("AT&T Wireless", "AT&T"),
        ("AT&T Mobility", "AT&T"),
        ("NEW CINGULAR WIRELESS PCS, LLC - GA", "AT&T"),
        ("Cingular Wireless/2", "AT&T"),
        ("T-Mobile USA, Inc.", "T-Mobile"),
        ("T-Mobile US:6529 - SVR/2", "T-Mobile"),
        ("T-Mobile US-SVR-10X/2", "T-Mobile"),
        ("Verizon Wireless", "Verizon"),
        ("Verizon Wireless:6006 - SVR/2", "Verizon"),
        ("Verizon/1", "Verizon"),
        ("CELLCO PARTNERSHIP DBA VERIZON WIRELESS - OH", "Verizon"),
        ("Cellco Partnership", "Verizon"),
        ("Sprint Spectrum", "Sprint"),
        ("NEXTEL PARTNERS OPERATING CORP.", "Sprint"),
        ("BOOST MOBILE, LLC", "Boost Mobile"),
        ("UNITED STATES CELLULAR CORP. - WISCONSIN", "US Cellular"),
        ("Cellular South Licenses LLC (C Spire Wireless)", "C Spire"),
        ("NEW CELL, INC. DBA CELLCOM", "Cellcom"),
        ("Cell Com", "Cellcom"),
        ("VIRGINIA PCS ALLIANCE, L.C.", "nTelos"),
        ("Virgin Mobile", "Virgin Mobile"),
        ("Cricket Wireless - ATT - SVR", "Cricket Wireless"),
        ("Metro by T-Mobile", "Metro by T-Mobile"),
    ],
)
def test_a_carrier_is_known_by_the_texts_that_vendors_write(raw: str, name: str) -> None:
    assert CARRIERS.name(raw) == name


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("VERIZON VIRGINIA, INC.", "Verizon (wireline)"),
        ("Verizon Business", "Verizon (wireline)"),
        ("AT&T LOCAL", "AT&T (wireline)"),
        ("AT&T - Southwest", "AT&T (wireline)"),
        ("Ameritech - PSTN", "AT&T (wireline)"),
        ("Southwestern Bell", "AT&T (wireline)"),
        ("AT&T - PSTN", "Landline (name says PSTN)"),
        ("Verizon - PSTN", "Landline (name says PSTN)"),
        ("SPRINT COMMUNICATIONS COMPANY, L.P.", "Sprint (wireline)"),
        ("Time Warner Cable", "Cable telephony (not mobile)"),
        ("VIRGIN ISLANDS TEL", "Local telephone company (not a mobile brand)"),
        ("Twilio - SMS/MMS-SVR", "Twilio (CPaaS number)"),
        ("Onvoy Spectrum, LLC", "Onvoy / Inteliquent (wholesale VoIP)"),
    ],
)
def test_a_landline_arm_or_a_wholesaler_is_not_the_mobile_carrier_of_like_name(raw: str, name: str) -> None:
    assert CARRIERS.name(raw) == name
    assert CARRIERS.network(name) == name
    assert {brand.kind for brand in CARRIERS.brands if brand.name == name} == {"other"}


@pytest.mark.parametrize(("mcc", "mnc"), [("310", "150"), ("310", "470")])
def test_a_network_code_that_two_carriers_use_names_neither(mcc: str, mnc: str) -> None:
    assert CARRIERS.by_network(mcc, mnc) is None


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("PUERTO RICO TELCO DBA VERIZON WIRELESS PUERTO RICO", "Claro Puerto Rico"),
        ("CENTENNIAL PUERTO RICO", "Liberty Puerto Rico"),
        ("ALLTEL COMMUNICATIONS", "Verizon"),
        ("ALLIED WIRELESS COMMUNICATIONS DBA ALLTEL", "AT&T"),
        ("Virgin Mobile Canada (Bell)", "Virgin Plus (Canada)"),
    ],
)
def test_a_name_that_was_sold_in_parts_goes_to_the_right_heir(raw: str, name: str) -> None:
    assert CARRIERS.name(raw) == name


@pytest.mark.parametrize(
    "raw", ["", " ", "Cincinnati Bell Wireless", "PUBLIC SERVICE WIRELESS", "IOWA RSA #12", "null"]
)
def test_a_carrier_that_is_not_in_the_table_has_no_name(raw: str) -> None:
    assert CARRIERS.name(raw) is None


def test_a_carriers_own_name_reads_as_itself() -> None:
    names = {brand.name for brand in CARRIERS.brands}
    assert {name for name in names if CARRIERS.name(name) != name} == set()


def test_no_carriers_own_name_is_caught_by_an_earlier_pattern_of_another() -> None:
    """Left out are the guards, which stand for many companies and carry a label that nobody sends."""
    brands = [brand for brand in CARRIERS.brands if brand.kind != "other"]
    strays = {brand.name: hit for brand in brands if (hit := _first_hit(brand.name)) not in {brand.name, None}}
    assert strays == {}


def _first_hit(raw: str) -> str | None:
    return next((brand.name for brand in CARRIERS.brands if brand.pattern and brand.pattern.search(raw)), None)


def test_every_carrier_can_be_reached_by_some_name() -> None:
    assert {brand.name for brand in CARRIERS.brands} == {brand.name for brand in CARRIERS.brands if brand.pattern}


def test_a_megabyte_of_carrier_text_costs_no_more_than_its_first_words() -> None:
    assert CARRIERS.name("puerto rico tel " * 65_536 + "verizon wireless") is None
    assert CARRIERS.name("Verizon Wireless" + " " * 1_048_576) == "Verizon"


# --- carriers by network code ---


@pytest.mark.parametrize(
    ("mcc", "mnc", "name"),
    [
        ("310", "260", "T-Mobile"),
        ("310", "026", "T-Mobile"),
        ("310", "26", "T-Mobile"),
        ("311", "480", "Verizon"),
        ("310", "004", "Verizon"),
        ("310", "4", "Verizon"),
        ("310", "410", "AT&T"),
        ("313", "100", "FirstNet (AT&T)"),
        ("302", "0720", "Rogers"),
        ("330", "000", "Open Mobile (Puerto Rico)"),
        ("311", "600", "Cox Mobile"),
    ],
)
def test_a_network_code_names_its_carrier_with_or_without_leading_zeros(mcc: str, mnc: str, name: str) -> None:
    assert CARRIERS.by_network(mcc, mnc) == name


def test_a_code_that_a_reseller_shares_with_its_host_is_the_hosts() -> None:
    assert CARRIERS.by_network("302", "610") == "Bell"
    assert CARRIERS.by_network("312", "250") == "T-Mobile"


@pytest.mark.parametrize(
    ("mcc", "mnc"), [(None, "260"), ("310", None), ("", ""), ("310", ""), ("999", "26"), ("US", "866")]
)
def test_an_unknown_network_code_has_no_carrier(mcc: str | None, mnc: str | None) -> None:
    assert CARRIERS.by_network(mcc, mnc) is None


def test_a_code_that_two_carriers_claim_names_neither(tmp_path: Path) -> None:
    shared = _carriers(
        tmp_path, ",One,mno,One,310,026,,,high,s\n,Two,mno,Two,310,26,,,high,s\none,One,mno,One,310,26,,,high,s\n"
    )
    assert carriers(shared).by_network("310", "26") is None


# --- one network, many brands ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sprint", "T-Mobile"),
        ("US Cellular", "T-Mobile"),
        ("nTelos", "T-Mobile"),
        ("Clearwire", "Sprint"),
        ("Metro by T-Mobile", "T-Mobile"),
        ("Mint / Ultra Mobile", "T-Mobile"),
        ("Cricket Wireless", "AT&T"),
        ("FirstNet (AT&T)", "AT&T"),
        ("TracFone family", "Verizon"),
        ("Visible", "Verizon"),
        ("Virgin Mobile", "Boost Mobile"),
        ("Republic Wireless", "DISH Wireless (Boost network)"),
        ("Fido", "Rogers"),
        ("Bell MTS", "Bell"),
    ],
)
def test_carriers_that_merged_are_one_network_and_keep_their_brands(one: str, other: str) -> None:
    assert CARRIERS.network(one) == CARRIERS.network(other)
    assert one != other


def test_the_big_carriers_are_different_networks() -> None:
    big = ["Verizon", "AT&T", "T-Mobile", "Boost Mobile", "C Spire", "Cellcom", "Rogers", "Bell", "Telus"]
    assert Counter(CARRIERS.network(name) for name in big).most_common(1)[0][1] == 1


@pytest.mark.parametrize(
    ("arm", "mobile"),
    [("Verizon (wireline)", "Verizon"), ("AT&T (wireline)", "AT&T"), ("Sprint (wireline)", "Sprint"),
     ("Google Voice", "Google Fi Wireless")],
)  # fmt: skip
def test_a_landline_arm_is_another_network_than_the_mobile_carrier_of_its_owner(arm: str, mobile: str) -> None:
    assert CARRIERS.network(arm) != CARRIERS.network(mobile)


def test_an_unknown_name_is_its_own_network() -> None:
    assert CARRIERS.network("Cincinnati Bell Wireless") == "Cincinnati Bell Wireless"


def test_of_several_lines_about_a_carrier_the_first_names_its_owner(tmp_path: Path) -> None:
    twice = _carriers(tmp_path, "one,One,mno,First,,,,,high,s\n,One,legacy,Second,310,26,,,high,s\n")
    assert carriers(twice).network("One") == "First"


def test_successors_that_run_in_a_circle_do_not_hang_the_start(tmp_path: Path) -> None:
    circle = _carriers(tmp_path, "one,One,legacy,A,,,Two,,high,s\ntwo,Two,legacy,B,,,One,,high,s\n")
    assert carriers(circle).network("One") in {"A", "B"}


# --- a broken carriers.csv ---


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "one,One,mno,One,310,26,,,high,s\n(two,Two,mno,Two,,,,,high,s\n",
            r"carriers\.csv:3: .*'\(two'.*regular expression",
        ),
        ("one|,One,mno,One,,,,,high,s\n", r"carriers\.csv:2: .*matches every name"),
        ("one,,mno,One,,,,,high,s\n", r"carriers\.csv:2: canonical_carrier '' is empty"),
        ("one,One,mobile,One,,,,,high,s\n", r"carriers\.csv:2: unknown kind 'mobile'"),
        ("one,One,mno,One,,,,,sure,s\n", r"carriers\.csv:2: unknown confidence 'sure'"),
        (",One,mno,One,,,,,high,s\n", r"carriers\.csv:2: neither alias_pattern nor mnc"),
        (",One,mno,One,,26,,,high,s\n", r"carriers\.csv:2: no network code -26: write mcc"),
        (",One,mno,One,310,26 27,,,high,s\n", r"carriers\.csv:2: no network code 310-26 27: write mcc"),
    ],
)
def test_a_broken_line_of_carriers_is_refused_with_file_and_line_and_mend(
    tmp_path: Path, rows: str, message: str
) -> None:
    with pytest.raises(CatalogueError, match=message) as refused:
        carriers(_carriers(tmp_path, rows))
    assert "\n" not in str(refused.value)


def test_a_missing_carriers_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"carriers\.csv:1: not readable"):
        carriers(tmp_path)


def _carriers(folder: Path, rows: str) -> Path:
    (folder / "carriers.csv").write_text(CARRIER_HEAD + rows, encoding="utf-8")
    return folder


# --- the package ---


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
    assert len(data) == 37
    assert [path for path in data if not any(fnmatch(path, pattern) for pattern in patterns)] == []
