"""No secret of any setting shows: not in logs at DEBUG, reports, remote answers, refusals or files of others."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from billing.connections import connection_file
from billing.core.settings import FIELDS
from tests.fleet.harness import Fleet

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
MARK: Final = "hunter2"
#: 33 bytes, whose base64 is the mark again and again.
TEXT: Final = (MARK * 7)[:44]
SECRET: Final = base64.b64decode(TEXT)
#: Each setting that holds a secret; nobody listens on port 1.
MARKED: Final = {
    "redis_url": f"redis://user:{MARK}@127.0.0.1:1/0",
    "database_url": f"postgresql://user:{MARK}@127.0.0.1:1/billing",
    "broker_url": f"amqp://user:{MARK}@127.0.0.1:1//",
    "result_url": f"redis://user:{MARK}@127.0.0.1:1/1",
    "stripe_api_key": f"sk_test_{MARK}{MARK}",
    "stripe_sandbox_url": f"http://user:{MARK}@127.0.0.1:1",
    "signing_key": f"workers:{TEXT}",
    "verifying_keys": f"workers:{TEXT},shop:{TEXT}",
}
#: What is typed, each where every server refuses.
COMMANDS: Final = (
    ("celery", "-A", "shop", "report"),
    ("celery", "-A", "shop", "inspect", "conf", "--timeout", "1"),
    ("billing.cli.main", "-A", "shop", "doctor"),
    ("billing.cli.main", "-A", "shop", "doctor", "--json"),
    ("billing.cli.main", "-A", "shop", "balance", "acme"),
    ("billing.cli.main", "-A", "shop", "dead-letters", "list"),
    ("billing.cli.main", "-A", "shop", "sync", "status"),
)


def test_every_secret_setting_is_marked() -> None:
    """A new one that is hidden in the settings' repr belongs into this file."""
    assert set(MARKED) == {name for name, field in FIELDS.items() if not field.repr}


@pytest.mark.parametrize("given", ["configuration", "environment"])
def test_no_command_shows_one_where_nothing_answers(given: str, tmp_path: Path) -> None:
    conf = {f"billing_{name}": value for name, value in MARKED.items()} if given == "configuration" else {}
    servers = f"broker={MARKED['broker_url']!r}, backend={MARKED['result_url']!r}"
    text = f"import celery, billing\napp = celery.Celery('shop', {servers})\n"
    text += f"app.conf.update({conf!r})\nbilling.setup(app)\n"
    (tmp_path / "shop.py").write_text(text, "utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    environ |= {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    if given == "environment":
        environ |= {f"BILLING_{name.upper()}": value for name, value in MARKED.items()}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environ,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in COMMANDS
    ]
    for command, process in zip(COMMANDS, running, strict=True):
        said, _ = process.communicate(timeout=300)
        assert said.strip(), command
        assert shown(said) == [], (command, said)


@pytest.mark.parametrize("fleet_settings", [{"BILLING_SIGNING_KEY": f"workers:{TEXT}",
                                             "BILLING_VERIFYING_KEYS": f"workers:{TEXT}"}])  # fmt: skip
def test_a_fleet_at_debug_logs_none_and_its_signed_events_are_charged(fleet: Fleet) -> None:
    fleet.client("acme", 100)
    fleet.start("consumer", pool="solo", options=("--fulfillment", "-l", "DEBUG"))
    fleet.start("worker", options=("-l", "DEBUG"))
    for name in ("consumer", "worker"):
        fleet.wait_ready(name)
    results = [fleet.send("ok", "acme", number) for number in range(3)]
    assert [isinstance(result.get(timeout=120), int) for result in results] == [True] * 3
    assert len(fleet.wait_for_rows(3)) == 3
    answers = json.dumps(fleet.app.control.inspect(timeout=10).conf(), default=str)
    assert "billing_" in answers
    passwords = [urlsplit(url).password or "" for url in (fleet.settings.broker_url, fleet.settings.database_url)]
    for said in (answers, *((fleet.directory / f"{name}.log").read_text("utf-8") for name in ("consumer", "worker"))):
        assert shown(said) == []
        assert [password for password in passwords if password and password in said] == []


def test_the_connection_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = connection_file.write({"BILLING_REDIS_URL": MARKED["redis_url"]}, tmp_path / "new" / "connections.json")
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)


def shown(said: str) -> list[str]:
    """Return which secrets are in a text."""
    return [secret for secret in (MARK, repr(SECRET)[2:14]) if secret in said]
