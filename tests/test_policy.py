"""The policy as data: what ships, what an owner's file may change, and what is said of a file that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

import pytest

from app.catalogue.policy import PolicyError, load_policy
from app.models.catalogue import REASONS
from app.models.duration import duration, written
from app.models.policy import Policy, Rule

SHIPPED = load_policy()
Write = Callable[[str], Path]


@pytest.fixture
def override(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text, "utf-8")
        return path

    return write


# What ships ---------------------------------------------------------------------------------------------------------


def test_what_ships_names_only_reasons_that_there_are() -> None:
    assert SHIPPED.rules.keys() <= REASONS
    assert all(rule.reason == reason for reason, rule in SHIPPED.rules.items())


def test_what_ships_looks_up_first_and_has_no_provider() -> None:
    assert (SHIPPED.mode, SHIPPED.lookups) == ("lookup_first", False)


@pytest.mark.parametrize("reason", [*sorted(REASONS - SHIPPED.rules.keys()), "unheard of"])
def test_a_reason_without_a_rule_is_only_counted(reason: str) -> None:
    assert SHIPPED.rule(reason) == Rule(reason)


def test_only_the_persons_own_will_is_a_revocation() -> None:
    own = {reason for reason, rule in SHIPPED.rules.items() if rule.revocation}
    assert own == {"sender_blocked_by_subscriber", "opted_out"}


def test_strict_names_each_of_the_twelve_codes_and_no_other_reason() -> None:
    strict = {reason for reason, rule in SHIPPED.rules.items() if (rule.strict_consent or rule.consent) == "sender"} - {
        "invalid_number"
    }  # one that ends the lists of its sender in either mode
    assert strict == {
        "stale_carrier", "carrier_unknown", "carrier_blocked_subscriber", "content_blocked_for_subscriber",
        "mvno_not_supported", "sms_not_provisioned", "sender_blocked_by_subscriber", "network_not_covered",
        "opted_out", "not_sms_capable", "deactivated",
    }  # fmt: skip


def test_errors_of_ours_are_alarmed() -> None:
    for reason in ("account_error", "billing", "request_error", "invalid_sender", "sender_not_registered"):
        assert SHIPPED.rule(reason).alarm, reason


def test_every_key_of_a_rule_is_told_at_the_head_of_the_file() -> None:
    text = (files("app.catalogue") / "policy.toml").read_text("utf-8")
    head = text.split("# The twelve codes", 1)[0]
    told = set(head.replace("#", " ").split())
    assert {field.name for field in fields(Rule)} - {"reason"} <= told


# An owner's file ----------------------------------------------------------------------------------------------------


def test_an_empty_file_changes_nothing(override: Write) -> None:
    assert load_policy(override("")) == SHIPPED


def test_a_file_may_begin_with_a_byte_order_mark(override: Write) -> None:
    assert load_policy(override('\ufeffmode = "strict"')).mode == "strict"


def test_a_file_changes_only_what_it_names(override: Write) -> None:
    policy = load_policy(override('[rules.suspended]\nlapse = "10d"\n\n[rules.handset_full]\nblock = true\n'))
    changed = {reason for reason in policy.rules if policy.rule(reason) != SHIPPED.rule(reason)}
    assert changed == {"suspended", "handset_full"}
    assert policy.rule("suspended") == replace(SHIPPED.rule("suspended"), lapse=timedelta(days=10))
    assert policy.rule("handset_full") == Rule("handset_full", block=True, ladder="soft")


@pytest.mark.parametrize(
    ("written", "key", "read"),
    [
        ('state = "porting"', "state", "porting"),
        ('ends = "held"', "ends", "held"),
        ('lapse = "90m"', "lapse", timedelta(minutes=90)),
        ('alone_lapse = "30s"', "alone_lapse", timedelta(seconds=30)),
        ('alone_lapse = "1d"\nrepeats = " 7 d "', "repeats", timedelta(days=7)),
        ("block = true", "block", True),
        ("lookup = false", "lookup", False),
        ('consent = "keep"', "consent", "keep"),
        ('strict_consent = "everyone"', "strict_consent", "everyone"),
        ('alone_consent = "sender"', "alone_consent", "sender"),
        ('unrouted_consent = "keep"', "unrouted_consent", "keep"),
    ],
)
def test_each_kind_of_value_is_read(override: Write, written: str, key: str, read: object) -> None:
    policy = load_policy(override(f"[rules.deactivated]\n{written}\n"))
    assert getattr(policy.rule("deactivated"), key) == read


def test_a_key_that_the_file_does_not_name_may_be_idle_for_want_of_one_that_it_does(override: Write) -> None:
    assert not load_policy(override("[rules.network_not_covered]\nblock = false\n")).rule("network_not_covered").block
    lapsing = load_policy(override('[rules.expired]\nlapse = "30d"\n[rules.permanent_failure]\nlapse = "90d"\n'))
    assert lapsing.rule("expired").ladder == "soft"


def test_the_mode_of_the_settings_goes_before_that_of_the_file(override: Write) -> None:
    path = override('mode = "strict"\n')
    assert load_policy(path).mode == "strict"
    assert load_policy(path, mode="lookup_first").mode == "lookup_first"


def test_a_sender_has_its_own_mode_or_that_of_the_house() -> None:
    policy = Policy({}, "strict", {"12345": "lookup_first"})
    assert [policy.strict(sender) for sender in ("12345", "67890", None)] == [False, True, True]
    assert load_policy(sender_modes={"12345": "strict"}).strict("12345")


def test_a_provider_in_the_settings_is_all_that_lookups_need() -> None:
    assert load_policy(lookups=True) == replace(SHIPPED, lookups=True)


# A file that is wrong -----------------------------------------------------------------------------------------------

WRONG = {
    "a reason nobody has heard of": ("[rules.suspendet]\nblock = true", "[rules.suspendet]", "unknown reason"),
    "a key nobody has heard of": ("[rules.suspended]\nblok = true", "[rules.suspended]", "'blok'", "block"),
    "another reason for a rule": ('[rules.suspended]\nreason = "resumed"', "[rules.suspended]", "'reason'"),
    "a state nobody has heard of": ('[rules.suspended]\nstate = "gone"', "[rules.suspended] state", '"held"'),
    "a state that is what is left": ('[rules.suspended]\nstate = "active"', "[rules.suspended] state", '"held"'),
    "a state of nobody": ('[rules.suspended]\nstate = "unseen"', "[rules.suspended] state", '"held"'),
    "an end of what has none": ('[rules.resumed]\nends = "active"', "[rules.resumed] ends", '"held"'),
    "consent of nobody": ('[rules.suspended]\nconsent = "all"', "[rules.suspended] consent", '"everyone"'),
    "consent as a truth": ("[rules.suspended]\nconsent = true", "[rules.suspended] consent", '"everyone"'),
    "a truth as a number": ("[rules.suspended]\nblock = 1", "[rules.suspended] block", "true or false"),
    "a truth as a word": ('[rules.suspended]\nlookup = "yes"', "[rules.suspended] lookup", "true or false"),
    "a time without a unit": ("[rules.suspended]\nlapse = 30", "[rules.suspended] lapse", '"24h"'),
    "a time in months": ('[rules.suspended]\nlapse = "1 month"', "[rules.suspended] lapse", '"24h"'),
    "a time before now": ('[rules.suspended]\nlapse = "-1d"', "[rules.suspended] lapse", '"24h"'),
    "a time of no length": ('[rules.suspended]\nlapse = "0s"', "[rules.suspended] lapse", "0s", '"36500d"'),
    "a lapse of no state": ('[rules.network_error]\nlapse = "1d"', "[rules.network_error] lapse", "`state`"),
    "a lookup of no question": ("[rules.expired]\nlookup = true", "[rules.expired] lookup", "`state` or `block`"),
    "a carrier forgotten by no state": ("[rules.dnd_registry]\nforgets_carrier = true", "forgets_carrier", "`state`"),
    "a port that lifts no block": ("[rules.suspended]\nlifted_by_port = true", "lifted_by_port", "`block`"),
    "a repetition after no lapse": ('[rules.suspended]\nrepeats = "7d"', "[rules.suspended] repeats", "`alone_lapse`"),
    "a rule of no failure": ("[rules.delivered]\nblock = true", "[rules.delivered]", "no failure"),
    "a time as a list": ('[rules.suspended]\nlapse = ["1d"]', "[rules.suspended] lapse", '"24h"'),
    "a word where rules stand": ('rules = "none"', "[rules.REASON]"),
    "a word where a rule stands": ('[rules]\nsuspended = "held"', "[rules.REASON]"),
    "a key beside the rules": ('[rule.suspended]\nstate = "held"', "'rule'", "[rules.REASON]"),
    "a mode nobody has heard of": ('mode = "lax"', '"lax"', '"strict"'),
    "a mode as a list": ('mode = ["strict"]', '"lookup_first"', '"strict"'),
    "no TOML at all": ("rules: {}", "cannot be read"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_of_a_wrong_file_one_line_says_what_and_where_and_how_to_mend_it(override: Write, wrong: str) -> None:
    text, *words = WRONG[wrong]
    path = override(text)
    with pytest.raises(PolicyError) as error:
        load_policy(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert all(word in line for word in words), line


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    image = tmp_path / "image.toml"
    image.write_bytes(b"\x89PNG\xff")
    for path in (tmp_path / "missing.toml", image, tmp_path):
        with pytest.raises(PolicyError, match="cannot be read") as error:
            load_policy(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_a_wrong_mode_in_the_file_is_told_even_where_the_settings_give_one(override: Write) -> None:
    with pytest.raises(PolicyError, match="lax"):
        load_policy(override('mode = "lax"\n'), mode="strict")


@pytest.mark.parametrize("text", ["0s", "90s", "5m", "36h", "14d"])
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    assert written(duration(text)) == text
