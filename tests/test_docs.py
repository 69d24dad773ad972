"""What is written down is true: links lead somewhere, curls work, settings are all told, decisions name their tests."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import typer.main
from pydantic import SecretStr

from app.catalogue import load
from app.catalogue.policy import load_policy
from app.cli import app as commands
from app.config import _FROM_ENVIRONMENT, Settings, read_settings
from app.gateways import GATEWAYS
from app.models.duration import duration
from app.models.settings import FeedsTable, LinkTable, LookupTable, PolicyTable, RndTable, SenderTable
from app.services.doctor.waiting import _MENDS
from app.services.keys import SCOPES
from app.services.lookup import stops
from app.services.simulate import Item, Line, Simulated
from app.wiring import parts_of
from tests.conftest import Service

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
README = (ROOT / "README.md").read_text()


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Links and paths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`((?:app|bench|docs|migrations|tests)/[\w./-]*\w)(?:::\w+)?`", page.read_text())
    invented = {path for path in named if "acme" in path}
    assert [path for path in named if path not in invented and not (ROOT / path).exists()] == []


# Decisions ---------------------------------------------------------------------------------------------------------


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == [*range(1, len(DECISIONS) + 1)]
    assert [int(re.match(r"# (\d+)\. ", page.read_text())[1]) for page in DECISIONS] == [*range(1, len(DECISIONS) + 1)]


@pytest.mark.parametrize("page", DECISIONS, ids=name_of)
def test_a_decision_says_what_was_decided_and_which_tests_enforce_it(page: Path) -> None:
    said = page.read_text()
    assert "**Decided.** " in said
    enforced = said.partition("**Enforced by**")[2]
    tests = re.findall(r"`(tests/test_\w+\.py)(?:::(test_\w+))?`", enforced)
    assert tests
    assert [(file, name) for file, name in tests if name and f"def {name}(" not in (ROOT / file).read_text()] == []


# Commands ----------------------------------------------------------------------------------------------------------


def tree(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield " ".join(path)
        return
    for name, part in command.commands.items():
        yield from tree(part, (*path, name))


EVERY = {*tree(typer.main.get_command(commands))}


def test_the_readme_names_every_command_of_make_and_no_other() -> None:
    targets = {*re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    assert {*re.findall(r"(?:^|`)make\s([a-z]+)\b", README, re.MULTILINE)} == targets


def test_the_readme_names_every_command_of_sendable() -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    assert {*re.findall(r"`sendable ([a-z -]+)`", table)} == EVERY


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_named_is_one(page: Path) -> None:
    said = " ".join(page.read_text().split())
    named = {(first, second) for first, second in re.findall(r"`(?:\S*/)?sendable ([a-z]+)(?: ([a-z-]+))?", said)}
    unknown = {" ".join(words).strip() for words in named if not {words[0], " ".join(words)} & EVERY}
    assert unknown == set()


# Settings ----------------------------------------------------------------------------------------------------------


def rows(title: str) -> list[list[str]]:
    """The cells of all tables under a heading of the README, without the heads of the tables."""
    part = README.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_setting_of_the_environment_is_told_with_what_it_is_unless_set() -> None:
    told = {row[0].strip("`"): (row[1].strip("`"), row[2].strip("`")) for row in rows("Settings") if len(row) == 4}
    assert told.pop("SENDABLE_CONFIG") == ("", "")
    assert {name: key for name, (key, _) in told.items()} == _FROM_ENVIRONMENT
    for key, default in told.values():
        usual = Settings.model_fields[key].default
        assert str(usual if usual is not None else "") == default or usual == duration(default), key


def test_every_key_of_the_settings_file_is_told() -> None:
    told = {row[0].strip("`") for row in rows("Settings") if len(row) == 2}
    keys = {f"gateways.NAME.{key}" for key in LinkTable.model_fields} | {
        "gateways.NAME.accounts.ACCOUNT",
        "gateways.custom.NAME",
    }
    keys |= {f"policy.{key}" for key in PolicyTable.model_fields}
    keys |= {f"senders.SENDER.{key}" for key in SenderTable.model_fields}
    told = {key.strip("` ") for cell in told for key in cell.split(",")}
    keys |= {f"rnd.{key}" for key in RndTable.model_fields}
    keys |= {f"lookup.{key}" for key in LookupTable.model_fields} | {"lookup.PROVIDER"}
    keys |= {f"feeds.{key}" for key in FeedsTable.model_fields} | {"feeds.FEED"}
    alone = (
        Settings.model_fields.keys() - _FROM_ENVIRONMENT.values() - {"gateways", "policy", "rnd", "senders", "feeds"}
    )
    assert told == keys | alone


def test_the_readmes_settings_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "sendable.toml").write_text(
        re.search(r"```toml\n(.*?)```", README.partition("## Settings")[2], re.DOTALL)[1]
    )
    settings = read_settings({"SENDABLE_CONFIG": str(tmp_path / "sendable.toml")})
    assert settings.gateways["twilio"].secrets == (SecretStr("the auth token"),)
    assert settings.sender_modes() == {"12345": "strict"}


OF_THEIR_OWN = {"adding-a-gateway.md", "custom.md", "policy.md"}
"""Their examples build on one another, or are no settings: tests of their own read them."""
WITH_SETTINGS = [page for page in PAGES if "```toml\n" in page.read_text() and page.name not in OF_THEIR_OWN]


@pytest.mark.parametrize("page", WITH_SETTINGS, ids=name_of)
def test_every_example_of_settings_is_taken_as_it_stands(page: Path, tmp_path: Path) -> None:
    """One that begins without a table goes on with the first of its page."""
    written, file = [block for language, block in blocks(page) if language == "toml"], tmp_path / "sendable.toml"
    for block in written:
        file.write_text(block if block.startswith("[") else written[0] + block)
        parts_of(read_settings({"SENDABLE_CONFIG": str(file)}))


# What is there -----------------------------------------------------------------------------------------------------


def test_the_readme_counts_the_code_spaces_and_names_every_gateway() -> None:
    assert f"codes of {len(load().spaces())} code spaces" in README
    assert {*re.findall(r"^\| \[([a-z0-9-]+)\]\(docs/gateways/", README, re.MULTILINE)} == GATEWAYS.keys()


async def test_the_readme_names_every_published_view_and_the_columns_of_number_status(service: Service) -> None:
    views = "SELECT table_name FROM information_schema.views WHERE table_schema = 'published'"
    told = {row[0].strip("`"): row[1] for row in rows("Read it in Postgres")}
    assert told.keys() == {name for (name,) in await service.sql(views)}
    columns = """SELECT column_name FROM information_schema.columns
    WHERE table_schema = 'published' AND table_name = 'number_status' ORDER BY ordinal_position"""
    assert told["number_status"].endswith(": " + ", ".join([name for (name,) in await service.sql(columns)]))


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "operating.md"], ids=name_of)
def test_every_scope_of_a_key_is_told(page: Path) -> None:
    said = " ".join(page.read_text().split()).partition("copes: ")[2].partition("which implies all")[0]
    assert {*re.findall(r"`([a-z:]+)`", said)} == SCOPES.keys()


def test_every_kind_of_alarm_is_told_and_has_a_mend() -> None:
    part = (ROOT / "docs" / "operating.md").read_text().partition("## Alarms")[2].partition("\n## ")[0]
    told = {kind for row in re.findall(r"^\| (`.*?) \|", part, re.MULTILINE) for kind in re.findall(r"`(\w+)`", row)}
    assert told == {*_MENDS, stops.ALARM}
    assert told > {reason for reason, rule in load_policy().rules.items() if rule.alarm}


def test_the_page_about_the_policy_tells_every_figure_of_a_simulation() -> None:
    part = (ROOT / "docs" / "policy.md").read_text().partition("## Simulate")[2].partition("\n## ")[0]
    figures = ({*Simulated._fields} - {"lines"}) | {*Item._fields} | ({*Line._fields} - {"item"})
    assert figures - {*re.findall(r"`(\w+)`", part)} == set()


def test_the_example_of_a_policy_file_is_taken_and_changes_what_it_says(tmp_path: Path) -> None:
    (example,) = [block for language, block in blocks(ROOT / "docs" / "policy.md") if language == "toml"]
    (tmp_path / "own.toml").write_text(example)
    own, shipped = load_policy(tmp_path / "own.toml"), load_policy()
    assert (own.revocation, own.rule("suspended").lapse) == ("sender", timedelta(days=10))
    assert own.rule("suspended").state == shipped.rule("suspended").state
    assert (shipped.rule("network_not_covered").block, own.rule("network_not_covered").block) == (True, False)
    assert own.ladders["soft"] == replace(shipped.ladders["soft"], strikes=5)
    assert own.breaker == replace(shipped.breaker, least=100)


# Curls -------------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    method: str
    url: str
    headers: dict[str, str]
    body: str | None


def curls(block: str) -> Iterator[list[Asked]]:
    """Each curl of a shell block: the requests that it makes."""
    for words in spoken(block):
        if words[:1] == ["curl"]:
            yield [*requests(words[1:])]


def spoken(block: str) -> Iterator[list[str]]:
    """The commands of a block; one goes on over lines by a backslash, or inside quotes."""
    pending = ""
    for line in block.splitlines(keepends=True):
        pending += line
        if pending.endswith("\\\n"):
            continue
        try:
            words = shlex.split(pending.replace("\\\n", " "), comments=True)
        except ValueError:
            continue
        yield words
        pending = ""


def requests(words: list[str]) -> Iterator[Asked]:
    method, url, headers, body = None, "", {}, None
    given = iter([*words, "--next"])
    for word in given:
        if word == "--next":
            form = {"content-type": "application/x-www-form-urlencoded"} if body is not None else {}
            yield Asked(method or ("GET" if body is None else "POST"), url, form | headers, body)
            method, url, headers, body = None, "", {}, None
        elif word == "-d":
            body = next(given).replace("\n", "")
        elif word == "-X":
            method = next(given)
        elif word == "-H":
            name, _, value = next(given).partition(": ")
            headers[name.lower()] = value
        else:
            assert "://" in word, f"curl's {word} is not known here"
            url = word


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    yield from re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)


async def answered(service: Service, asked: Asked) -> httpx.Response:
    path = re.sub(r"^https?://[^/]+", "", asked.url)
    return await service.client.request(asked.method, path, headers=asked.headers, content=asked.body)


def without_times(value: Any) -> Any:
    return json.loads(re.sub(r'"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)"', '"a time"', json.dumps(value)))


WITH_CURLS = [page for page in PAGES if "curl " in page.read_text()]


@pytest.mark.parametrize("page", WITH_CURLS, ids=name_of)
async def test_every_curl_works_and_is_answered_as_it_is_written(page: Path, service: Service) -> None:
    answer, ran, compared = None, 0, 0
    for language, block in blocks(page):
        if language == "sh":
            for curl in curls(block):
                for asked in curl:
                    answer = await answered(service, asked)
                    assert answer.is_success, (asked, answer.text)
                    ran += 1
        elif language == "json" and answer is not None:
            assert without_times(json.loads(block)) == without_times(answer.json())
            compared += 1
    assert ran
    assert compared or page.name != "README.md"


def test_curls_are_read_as_a_shell_reads_them() -> None:
    (first, second), (third,) = curls(
        """curl http://h/a -d '{"x": 1}' \\\n  --next 'http://h/b?c=d'\ncurl -X PUT http://h/e"""
    )
    assert first == Asked("POST", "http://h/a", {"content-type": "application/x-www-form-urlencoded"}, '{"x": 1}')
    assert second == Asked("GET", "http://h/b?c=d", {}, None)
    assert third == Asked("PUT", "http://h/e", {}, None)
