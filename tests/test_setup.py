"""What a fresh clone is set up from: locks that any machine can use, and an image made by the same steps."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from app.config import read_settings

REPOSITORY = Path(__file__).parents[1]
LOCKS = ["requirements.txt", "requirements-dev.txt"]


def _pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / lock).read_text(), re.MULTILINE))


def _declared(*groups: str) -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(x for group in groups for x in project["dependency-groups"][group]),
    ]
    return {re.match(r"[\w.-]+", one)[0] for one in wanted}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_path_and_pins_every_package_by_hashes(lock: str):
    text = (REPOSITORY / lock).read_text()
    assert not re.search(r"://|--index|--find-links|(^|\s)/", text)
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:])


def test_the_locks_hold_what_the_project_asks_for_in_the_same_versions():
    run, develop = _pins("requirements.txt"), _pins("requirements-dev.txt")
    assert _declared("build") <= run.keys()
    assert _declared("build", "dev") <= develop.keys()
    assert run.items() <= develop.items()


def test_the_image_is_made_by_the_same_pip_steps_as_a_clone():
    def steps(file: str) -> list[str]:
        text = (REPOSITORY / file).read_text().replace("\\\n", "")
        return [
            re.sub(r" --(quiet|no-cache-dir)", "", step) for step in re.findall(r"pip (install [^\n&]*[^\s&])", text)
        ]

    assert steps("Dockerfile") == steps("Makefile")[:2]


def test_the_image_listens_where_its_environment_says():
    """What stands on the command line goes before SENDABLE_HOST: with the host's own network all of it listened."""
    text = (REPOSITORY / "Dockerfile").read_text()
    given = dict(re.findall(r"(SENDABLE_\w+)=(\S+)", text))
    assert re.findall(r"^CMD (.*)", text, re.MULTILINE) == ['["serve"]']
    assert read_settings(given).host == "0.0.0.0"  # noqa: S104 - it is compared
    assert read_settings(given | {"SENDABLE_HOST": "127.0.0.1"}).host == "127.0.0.1"


def test_the_image_is_for_its_user_to_read_under_whatever_umask_it_was_checked_out(tmp_path: Path):
    """COPY keeps the modes: of what git made under 077, user 10001 could read nothing, and no container started."""
    build = (REPOSITORY / "Dockerfile").read_text().split("\nFROM ")[1]
    module = tmp_path / "app" / "main.py"
    module.parent.mkdir(mode=0o700)
    module.touch(mode=0o600)
    for step in re.findall(r"&& (chmod .*)", build):
        subprocess.run(shlex.split(step), cwd=tmp_path, check=True)
    assert module.stat().st_mode & 0o777 == 0o644
    assert module.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("python", ["as it was", "gone", "a newer one"])
def test_what_was_set_up_with_a_python_that_is_no_more_is_set_up_anew(python: str, tmp_path: Path):
    """As after an upgrade of the system: `make run` found no module of ours, or could not make what was there."""
    made = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    if python == "gone":
        (made / "bin" / "python").unlink()
        (made / "bin" / "python").symlink_to(tmp_path / "python3")
    if python == "a newer one":
        (library,) = (made / "lib").glob("python3.*")
        library.rename(library.with_name("python3.10"))
    subprocess.run(["make", "-f", REPOSITORY / "Makefile", "-n", "help"], cwd=tmp_path, check=True)
    assert made.exists() == (python == "as it was")


@pytest.mark.parametrize(("settings", "auth"), [
    ("", "off"), ('# auth = "on"', "off"), ('[gateways.twilio.reconcile]\nauth_token = "x"', "off"),
    ('auth = "on"', ""), ('port = 1\n\tauth="on"', ""), ('"auth" = "on"', ""), ('\ufeffauth = "on"', ""),
])  # fmt: skip
def test_make_run_asks_for_no_keys_unless_the_settings_file_speaks_of_them(settings: str, auth: str, tmp_path: Path):
    (tmp_path / "s.toml").write_text(settings)
    environment = {"PATH": os.environ["PATH"], "SENDABLE_CONFIG": str(tmp_path / "s.toml")}

    def told(*command: str) -> str:
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    step = told("make", "-n", "run").splitlines()[-1].replace("exec .venv/bin/sendable serve", 'echo "$SENDABLE_AUTH"')
    assert told("sh", "-c", step) == f"{auth}\n"
