"""The units of `deploy/systemd`, as systemd itself reads them, and how they end what they started."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import celeryconfig
from billing.core.settings import FIELDS
from tests.conftest import missing
from tests.deploy.files import DEPLOY, ROOT

UNITS: Final = sorted((DEPLOY / "systemd").glob("celery-billing*"))
SERVICES: Final = [path for path in UNITS if path.suffix == ".service"]
#: Where the units expect the environment.
BIN: Final = "/srv/celery-billing/.venv/bin"


def options(path: Path) -> dict[str, list[str]]:
    """Return what a unit says, by key: systemd's files repeat keys, which Python's reader of such files refuses."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def analyze(*arguments: str | Path) -> str:
    """Run systemd-analyze; return what it says when it is not content, or nothing."""
    program = shutil.which("systemd-analyze") or missing("systemd-analyze is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr) if done.returncode else done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the units, with programs that are there: whether the environment was made is not theirs to say."""
    directory = tmp_path_factory.mktemp("units")
    for path in UNITS:
        text = path.read_text(encoding="utf-8").replace(BIN, str(Path(sys.executable).parent))
        (directory / path.name.replace("@.", "@1.")).write_text(text, encoding="utf-8")
    return directory


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_each_unit(path: Path, installed: Path) -> None:
    said = analyze("verify", "--man=no", installed / path.name.replace("@.", "@1."))
    assert [line for line in said.splitlines() if "celery-billing" in line] == []


def test_systemd_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """The check itself can fail."""
    path = tmp_path / "wrong.service"
    path.write_text("[Service]\nExecStart=/bin/true\nProtectSystm=strict\nRestart=maybe\n", encoding="utf-8")
    said = analyze("verify", "--man=no", path)
    assert "ProtectSystm" in said
    assert "maybe" in said


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_each_service_is_hardened_to_what_systemd_calls_ok(path: Path, installed: Path) -> None:
    name = path.name.replace("@.", "@1.")
    assert "exceeds" not in analyze("security", "--offline=yes", "--threshold=30", installed / name)


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_each_service_keeps_its_secrets_in_a_file_and_has_bounds(path: Path) -> None:
    found = options(path)
    own = re.match(r"celery-billing-(worker|fulfillment)@", path.name)
    keys = [f"-/etc/celery-billing/{own[1]}"] if own else []  # a worker of tasks is told no key that verifies
    assert found["EnvironmentFile"] == ["/etc/celery-billing/environment", *keys]
    assert found["User"] == ["celery-billing"]
    assert found["MemoryMax"] and found["TasksMax"] and found["TimeoutStopSec"]  # noqa: PT018
    assert found["Restart"][0] in {"always", "on-failure"}
    for variable in found.get("Environment", ()):
        name = variable.partition("=")[0]
        assert name == "REMAP_SIGTERM" or name.removeprefix("BILLING_").lower() in FIELDS


def test_a_worker_stops_softly_and_is_given_the_time_for_it() -> None:
    """SIGTERM goes to the main process alone: it ends its children after their tasks."""
    worker = options(DEPLOY / "systemd" / "celery-billing-worker@.service")
    assert worker["KillMode"] == ["mixed"]
    assert "REMAP_SIGTERM=SIGQUIT" in worker["Environment"]
    assert int(worker["TimeoutStopSec"][0]) >= celeryconfig.worker_soft_shutdown_timeout + 20
    fulfillment = options(DEPLOY / "systemd" / "celery-billing-fulfillment@.service")
    assert "REMAP_SIGTERM=SIGQUIT" not in fulfillment["Environment"]


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_the_command_of_a_unit_has_options_that_exist(path: Path) -> None:
    (command,) = options(path)["ExecStart"]
    program, *arguments = command.replace("%%", "%").split()
    assert program.startswith(f"{BIN}/")
    module = {"celery": "celery", "billing": "billing.cli.main"}[Path(program).name]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_one_beat_and_everything_belongs_to_the_target() -> None:
    assert not any("beat@" in path.name for path in UNITS)
    for path in SERVICES:
        assert options(path)["WantedBy"] == ["celery-billing.target"]
        assert options(path)["PartOf"] == ["celery-billing.target"]
