"""Carriers: who is meant by what vendors write, and who is one network; a broken table is refused by its line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from app.catalogue import CatalogueError, carriers

CARRIERS = carriers()
HEAD = "alias_pattern,canonical_carrier,kind,parent,mcc,mnc,successor,since,confidence,source\n"


# By name --------------------------------------------------------------------------------------------------------------


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
        ("Metro by T Mobile", "Metro by T-Mobile"),
        ("T MOBILE USA INC", "T-Mobile"),
        ("C-Spire", "C Spire"),
        ("cellular-south", "C Spire"),
        ("us-cellular", "US Cellular"),
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


@pytest.mark.parametrize(("raw", "number"), [
    ("MTS", "+79161234567"), ("T-Mobile Polska", "+48600123456"), ("NTT DOCOMO", "+819012345678"),
    ("Claro Brasil", "+5511987654321"), ("AT&T Mexico", "+525512345678"), ("Boost Mobile", "+61412345678"),
])  # fmt: skip
def test_a_carrier_of_another_country_is_not_ours_of_like_name(raw: str, number: str) -> None:
    assert CARRIERS.name(raw) is not None
    assert CARRIERS.name(raw, "+15555551234") == CARRIERS.name(raw)
    assert CARRIERS.name(raw, number) is None


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


# By network code ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("name", "hosted"), [
    ("Boost Mobile", True), ("Virgin Mobile", True), ("Xfinity Mobile", True), ("Google Fi Wireless", True),
    ("Cricket Wireless", False), ("Metro by T-Mobile", False), ("TracFone family", False), ("Verizon", False),
    ("Sprint", False), ("Cellcom", False), ("Twilio (CPaaS number)", False), ("nobody", False),
])  # fmt: skip
def test_a_reseller_whose_owner_has_no_network_is_hosted(name: str, hosted: bool) -> None:  # noqa: FBT001
    assert CARRIERS.is_hosted(name) is hosted


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


# One network, many brands ---------------------------------------------------------------------------------------------


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


# A broken table -------------------------------------------------------------------------------------------------------


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
    (folder / "carriers.csv").write_text(HEAD + rows, encoding="utf-8")
    return folder
