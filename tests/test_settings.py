"""Settings: whatever is wrong stops the start with one line that says which, and how to mend it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from app.config import Settings, SettingsError, is_loopback, read_settings
from app.models.database_url import hosts

SECRET = "swordfish-swordfish-swordfish"  # noqa: S105 - must not be quoted back


@pytest.fixture
def file(tmp_path: Path):
    def written(toml: str) -> dict[str, str]:
        path = tmp_path / "sendable.toml"
        path.write_text(toml)
        return {"SENDABLE_CONFIG": str(path)}

    return written


def refused(environment: dict[str, str], **given) -> str:
    with pytest.raises(SettingsError) as raised:
        read_settings(environment, **given)
    line = str(raised.value)
    assert "\n" not in line
    assert SECRET not in line
    return line


# From the environment ----------------------------------------------------------------------------------------------

WRONG = {
    "SENDABLE_PROT=8000": "SENDABLE_PROT is no setting of Sendable: remove it, or use one of",
    "SENDABLE_PORT=http": "SENDABLE_PORT (or `port`) must be a valid integer",
    "SENDABLE_PORT=http://10.0.0.1:8000": "SENDABLE_PORT (or `port`) must be a valid integer",
    "SENDABLE_PORT=65536": "SENDABLE_PORT (or `port`) must be less than or equal to 65535",
    "SENDABLE_AUTH=maybe": "SENDABLE_AUTH (or `auth`) must be 'on' or 'off'",
    "SENDABLE_DATABASE_URL=mysql://u@h/d": "SENDABLE_DATABASE_URL (or `database_url`) must be a PostgreSQL URL",
    "SENDABLE_DATABASE_URL=postgresql://": "SENDABLE_DATABASE_URL (or `database_url`) must be a PostgreSQL URL",
    f"SENDABLE_FIRST_KEY=short{' ' * 24}": "SENDABLE_FIRST_KEY (or `first_key`) is too short to be a key",
    "SENDABLE_FIRST_KEY=short": "SENDABLE_FIRST_KEY (or `first_key`) is too short to be a key: use at least 24",
    f"SENDABLE_FIRST_KEY={'ü' * 24}": "SENDABLE_FIRST_KEY (or `first_key`) cannot stand in a request",
    "SENDABLE_REGION=usa": "SENDABLE_REGION (or `region`) is no region that has phone numbers",
    "SENDABLE_REGION=XX": "SENDABLE_REGION (or `region`) is no region that has phone numbers",
    "SENDABLE_LOG_LEVEL=loud": "SENDABLE_LOG_LEVEL (or `log_level`) must be 'debug', 'info'",
    "SENDABLE_RECEIPTS_KEPT=90": 'SENDABLE_RECEIPTS_KEPT (or `receipts_kept`) "90" is not a duration: write a',
    "SENDABLE_CHANGES_KEPT=999999d": 'SENDABLE_CHANGES_KEPT (or `changes_kept`) "999999d" is longer than a hundred',
    "SENDABLE_CHANGES_KEPT=5y": 'SENDABLE_CHANGES_KEPT (or `changes_kept`) "5y" is not a duration: write a number and',
    "SENDABLE_RECEIPTS_KEPT=0d": "SENDABLE_RECEIPTS_KEPT (or `receipts_kept`) must be at least 1d: what is older",
    "SENDABLE_CHANGES_KEPT=23h": "SENDABLE_CHANGES_KEPT (or `changes_kept`) must be at least 1d: what is older",
    "SENDABLE_CONFIG=/nowhere/s.toml": "SENDABLE_CONFIG=/nowhere/s.toml cannot be read",
}


@pytest.mark.parametrize(("setting", "line"), WRONG.items(), ids=WRONG)
def test_a_wrong_variable_stops_the_start_and_names_itself(setting, line):
    name, _, value = setting.partition("=")
    assert refused({name: value}).startswith(line)


def test_a_password_in_a_wrong_database_url_is_not_quoted():
    refused({"SENDABLE_DATABASE_URL": f"mysql://user:{SECRET}@host/database"})


def test_blanks_around_the_first_key_are_no_part_of_it():
    key = read_settings({"SENDABLE_FIRST_KEY": f" {SECRET}\n"}).first_key
    assert key
    assert key.get_secret_value() == SECRET


def test_variables_that_others_put_there_are_left_alone():
    others = {"SENDABLE_SERVICE_HOST": "10.0.0.1", "SENDABLE_PORT_8000_TCP": "tcp://10.0.0.1", "SENDABLE_TEST_X": "1"}
    assert read_settings(others | {"PATH": "/bin"}) == Settings()


def test_a_port_that_kubernetes_puts_there_for_a_service_of_our_name_is_left_alone(file):
    kubernetes = {"SENDABLE_PORT": "tcp://10.0.0.1:8000", "SENDABLE_PORT_8000_TCP_PORT": "8000"}
    assert read_settings(kubernetes).port == Settings().port
    assert read_settings(file("port = 9000") | kubernetes).port == 9000


def test_an_empty_variable_is_as_good_as_none():
    assert read_settings({"SENDABLE_DATABASE_URL": "", "SENDABLE_PORT": "", "SENDABLE_CONFIG": ""}) == Settings()


@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_address_is_not_every_address(host):
    assert refused({}, host=host).startswith("SENDABLE_HOST (or `host`) must name an address: 127.0.0.1, or 0.0.0.0")


# From the file -----------------------------------------------------------------------------------------------------

WRONG_FILES = {
    'colour = "blue"': "`colour` in {file} is no setting of Sendable: remove it",
    "[policy]\nmood = 'strict'": "`policy.mood` in {file} is no setting of Sendable: remove it",
    "[policy]\nmode = 'lenient'": "`policy.mode` in {file} must be 'lookup_first' or 'strict'",
    "[gateways.twilio]\nsecret = 'x'": "`gateways.twilio.secret` in {file} is no setting of Sendable: remove it",
    "[gateways.twilio]\nsecrets = 'x'": "`gateways.twilio.secrets` in {file} must be a list",
    "[gateways.twilio]\nsecrets = ['']": "`gateways.twilio.secrets` in {file} a secret must not be blank",
    "[gateways.twilio]\nwindow = 'soon'": '`gateways.twilio.window` in {file} "soon" is not a duration',
    "[gateways.twilio]\nwindow = '30d'": "`gateways.twilio.window` in {file} must be more than 0s and at most 7d",
    "[gateways.twilio]\npublic_url = 'dlr.example.com'": "`gateways.twilio.public_url` in {file} must be an absolute",
    "[gateways.twilio]\nwindow = 5": '`gateways.twilio.window` in {file} "5" is not a duration: write a number',
    "receipts_kept = 90": 'SENDABLE_RECEIPTS_KEPT (or `receipts_kept`) "90" is not a duration',
    "[gateways.twilio]\npublic_url = 'https://h/?a=b'": "`gateways.twilio.public_url` in {file} must be an absolute",
    "[gateways.twilio]\npublic_url = 'https://h '": "`gateways.twilio.public_url` in {file} must be an absolute URL",
    "[gateways.twilio]\npublic_url = 'https://h/dlr/v1/receipts/twilio'": "`gateways.twilio.public_url` in {file} "
    "must end before `/v1/receipts/",
    "[gateways.twilio.accounts.'']": "`gateways.twilio.accounts` in {file} must have names that can stand in an",
    "[gateways.twilio.accounts.'a/b']": "`gateways.twilio.accounts` in {file} must have names that can stand in an",
    "[senders.ACME]\n[senders.acme]": "`senders` in {file} names one sender twice",
    "[gateways.twilio]\ntimezone = 'Mars/Base'": "`gateways.twilio.timezone` in {file} is no time zone",
    "[gateways.twilio]\ntimezone = ''": "`gateways.twilio.timezone` in {file} is no time zone: write a name such as",
    "[gateways.twilio]\nsender = ''\n[senders.'']\n": "`senders` in {file} not a sender",
    "[gateways.twilio.accounts.eu]\nsecret = 'x'": "`gateways.twilio.accounts.eu.secret` in {file} is no setting",
    "[senders.12345]\nkind = 'shortcode'": "`senders.12345.kind` in {file} must be 'short_code', 'long_code'",
    "[senders.12345]\npolicy = 'x'": "`senders.12345.policy` in {file} must be 'lookup_first' or 'strict'",
    "policy = 'strict'": "`policy` in {file} must be a table",
    "[feeds]\nguard = true": "`feeds.guard` in {file} must be a number: it is no switch",
    "[feeds]\nguard_at_least = true": "`feeds.guard_at_least` in {file} must be a number: it is no switch",
    "senders = 12345": "`senders` in {file} must be a table",
    "data_dir = 5": "SENDABLE_DATA_DIR (or `data_dir`) must be a path, in quotes",
    "[lookup]\nbudget_per_day = true": "`lookup.budget_per_day` in {file} must be a sum of money",
    "[lookup]\nbudget_per_day = '1e999999'": "`lookup.budget_per_day` in {file} must be less than or equal to",
    "[lookup]\nbudget_per_number = '1e30'": "`lookup.budget_per_number` in {file} must be less than or equal to",
    "port = ": "SENDABLE_CONFIG={file} cannot be read: Invalid value",
}


@pytest.mark.parametrize(("toml", "line"), WRONG_FILES.items(), ids=[toml.replace("\n", " ") for toml in WRONG_FILES])
def test_a_wrong_key_of_the_file_stops_the_start_and_names_itself(file, toml, line):
    environment = file(toml)
    assert refused(environment).startswith(line.replace("{file}", environment["SENDABLE_CONFIG"]))


def test_an_empty_key_of_the_file_is_as_good_as_none(file):
    assert read_settings(file("host = ''\ndata_dir = ''\npolicy_file = ''\nfirst_key = ''\nregion = ''")) == Settings()


def test_a_secret_of_the_wrong_kind_is_not_quoted(file):
    refused(file(f"[gateways.twilio]\nsecrets = '{SECRET}'"))


def test_a_file_that_begins_with_a_byte_order_mark_is_read(file):
    assert read_settings(file("\ufeffport = 9000")).port == 9000


def test_a_file_that_is_not_utf_8_stops_the_start(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"host = '\xff'")
    assert "cannot be read" in refused({"SENDABLE_CONFIG": str(tmp_path / "s.toml")})


def test_secrets_do_not_show_when_settings_are_printed(file):
    settings = read_settings(file(f"first_key = '{SECRET}'\n[gateways.twilio]\nsecrets = ['{SECRET}']"))
    assert SECRET not in repr(settings)


# Which one counts --------------------------------------------------------------------------------------------------


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(file):
    environment = file("port = 1\nhost = '127.0.0.2'\nregion = 'DE'") | {
        "SENDABLE_PORT": "2",
        "SENDABLE_HOST": "127.0.0.3",
    }
    settings = read_settings(environment, port=3, host=None)
    assert (settings.port, settings.host, settings.region) == (3, "127.0.0.3", "DE")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_common_form_of_a_database_url_is_taken(scheme):
    url = read_settings({"SENDABLE_DATABASE_URL": f"{scheme}://u:p@h/d"}).database_url
    assert url
    assert url.get_secret_value() == "postgresql+asyncpg://u:p@h/d"


def test_blanks_around_a_database_url_are_no_part_of_it():
    url = read_settings({"SENDABLE_DATABASE_URL": " postgresql://u:p@h/d\n"}).database_url
    assert url
    assert url.get_secret_value() == "postgresql+asyncpg://u:p@h/d"


def test_a_national_sender_of_the_settings_is_read_in_their_region(file):
    settings = read_settings(file("[senders.'7911 123456']\npolicy = 'strict'") | {"SENDABLE_REGION": "GB"})
    assert settings.sender_modes() == {"+447911123456": "strict"}


MANAGED = "app:p%40ss@db.example.com:5433/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem"
SEVERAL = "app@one:5432,two:5432/shop?target_session_attrs=read-write"
SOCKET = "app@/shop?host=/run/postgresql&port=5432"


@pytest.mark.parametrize("rest", [MANAGED, SEVERAL, SOCKET, "app@[::1]:5432/shop", "/shop"])
def test_a_database_url_is_written_as_psql_reads_it(rest):
    url = read_settings({"SENDABLE_DATABASE_URL": f"postgresql://{rest}"}).database_url
    assert url
    assert url.get_secret_value() == f"postgresql+asyncpg://{rest}"


HOSTS: dict[str, list[tuple[str, int | None]]] = {
    SEVERAL: [("one", 5432), ("two", 5432)],
    SOCKET: [("/run/postgresql", 5432)],
    "app@one,[::1]:5433/shop": [("one", None), ("::1", 5433)],
    "/shop?host=one,two&port=5433": [("one", 5433), ("two", 5433)],
    "/shop?host=/run/one,two&port=5433,5434": [("/run/one", 5433), ("two", 5434)],
    "%2Frun%2Fone:5433,two/shop": [("/run/one", 5433), ("two", None)],
    "app@/shop": [],
}


@pytest.mark.parametrize(("rest", "named"), HOSTS.items())
def test_the_hosts_of_a_database_url_are_those_that_psql_finds(rest, named):
    assert hosts(f"postgresql://{rest}") == named


BENT_URLS = {
    "u:swordfish@host:port/d": "cannot be read: write it as postgresql://",
    "u:swordfish@host:65536/d": "cannot be read: write it as postgresql://",
    "u:swordfish@/d?host=/run&port=many": "has no valid port: write a number up to 65535",
    "u:sword@fish@host/d": "cannot be read: write it as postgresql://",
    "u:sword/swordfish@host/d": "cannot be read: write it as postgresql://",
    "u:sword#swordfish@host/d": "cannot be read: write it as postgresql://",
    "u:1?swordfish@host/d": "cannot be read: write it as postgresql://",
    "u:swordfish@[::1/d": "cannot be read: write it as postgresql://",
    "u:swordfish@h/d?sslmode=on": "has an unknown sslmode; there are disable, allow",
    "u:swordfish@h/d?channel_binding=require": "has `channel_binding` behind the question mark: remove it; there",
}


@pytest.mark.parametrize(("rest", "line"), BENT_URLS.items(), ids=BENT_URLS)
def test_a_database_url_that_cannot_be_used_is_told_without_its_password(rest, line):
    said = refused({"SENDABLE_DATABASE_URL": f"postgresql://{rest}"})
    assert said.startswith(f"SENDABLE_DATABASE_URL (or `database_url`) {line}")
    assert "fish" not in said


def test_an_account_takes_over_what_it_does_not_name(file):
    links = read_settings(
        file("""
        [gateways.twilio]
        secrets = ["one"]
        window = "1m"
        [gateways.twilio.accounts.eu]
        secrets = ["two"]
    """)
    ).links()
    assert links["twilio", ""].secrets == ("one",)
    assert links["twilio", "eu"].secrets == ("two",)
    assert links["twilio", "eu"].window == timedelta(minutes=1)


# Auth off ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com"])  # noqa: S104 - that these are refused
def test_auth_off_is_refused_on_any_address_but_loopback(host):
    assert refused({"SENDABLE_AUTH": "off"}, host=host) == (
        f'SENDABLE_AUTH is "off" but SENDABLE_HOST is {host}: listen on 127.0.0.1, or set SENDABLE_AUTH=on'
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_auth_off_is_taken_on_loopback(host):
    assert is_loopback(host)
    assert read_settings({"SENDABLE_AUTH": "off", "SENDABLE_HOST": host}).auth == "off"


def test_auth_is_on_unless_somebody_turns_it_off():
    assert read_settings({}).auth == "on"
