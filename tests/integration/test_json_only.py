"""No process of the shipped fleet loads a pickle, wherever one is put: its payload would make a directory.

Nor YAML, nor msgpack: JSON alone is decoded, and a body that says it is JSON and is not is refused as such.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Final

import celery
import kombu
import psycopg
import pytest

from billing.observability.doctor.finding import Verdict
from billing.observability.doctor.tasks import examine_tasks
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PICKLE: Final = "application/x-python-serialize"
#: Content type, and encoding.
KINDS: Final = {
    "pickle": (PICKLE, "binary"),
    "pickle, by its other name": ("application/x-python-serialize;v=2", "binary"),
    "a pickle that says it is JSON": ("application/json", "utf-8"),
    "YAML": ("application/x-yaml", "utf-8"),
    "msgpack": ("application/x-msgpack", "binary"),
    "nothing": ("", ""),
}
TASK: Final = "worker_tasks.search.premium_search"


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def payload(kind: str, path: Path) -> bytes:
    """Return bytes that make a directory where they are loaded as what they are."""
    if kind == "YAML":
        return f"!!python/object/apply:os.mkdir ['{path}']\n".encode()
    return pickle.dumps(Bomb(path))


@pytest.fixture
def shipped(fleet: Fleet) -> Fleet:
    """Run a worker and a fulfillment worker as they are shipped."""
    fleet.module = "worker_tasks.app"
    fleet.consumer(wait=False)
    fleet.worker(children=1)
    return fleet


def test_the_payload_would_do_it(tmp_path: Path) -> None:
    pickle.loads(payload("pickle", tmp_path / "made"))  # noqa: S301 - what is shown
    assert (tmp_path / "made").is_dir()


def test_nothing_but_json_is_loaded_from_any_queue(shipped: Fleet, tmp_path: Path) -> None:
    """Task queues, billing's own tasks, usage queues, remote control: refused, and the workers live on.

    Events of workers are left out: Celery 5.7 refuses such a one, too, and ends (its gossip; `--without-gossip`).
    """
    fleet, made = shipped, tmp_path / "made"
    with kombu.Connection(fleet.settings.broker_url, transport_options={"confirm_publish": True}) as connection:
        channel: Any = connection.channel()
        # Exchange, routing key, task name.
        places = [
            ("", "tasks", TASK),
            ("", "billing.maintenance", "billing.usage.drain"),
            ("", "billing.usage.0", ""),
            ("billing.usage", "billing.usage.1", ""),
            ("celery.pidbox", "", ""),
        ]
        for kind, (content_type, encoding) in KINDS.items():
            for exchange, key, task in places:
                headers = {"id": str(uuid.uuid4()), "task": task, "lang": "py", "argsrepr": "()"} if task else {}
                message = channel.prepare_message(
                    payload(kind, made), content_type=content_type, content_encoding=encoding, headers=headers
                )
                channel.basic_publish(message, exchange, key)
        waiting = ("tasks", "billing.maintenance", "billing.usage.0", "billing.usage.1")

        def taken() -> bool:
            return not any(channel.queue_declare(name, passive=True).message_count for name in waiting)

        wait_until(taken, "all are taken")
    # The same pickle twice in one queue is one letter, whatever its properties said of it.
    kinds = len({payload(kind, made) for kind in KINDS})
    wait_until(lambda: _letters(fleet) == kinds, "the usage queues' are dead letters")

    def answering() -> set[str]:
        return {name for each in fleet.app.control.ping(timeout=5) or [] for name in each}

    wait_until(lambda: answering() >= {"worker@test", "consumer@test"}, "both answer")
    assert not made.exists()
    logs = "".join((fleet.directory / f"{name}.log").read_text("utf-8", "replace") for name in ("worker", "consumer"))
    assert "ContentDisallowed" in logs


def test_nothing_but_json_is_loaded_from_a_result(fleet: Fleet, tmp_path: Path) -> None:
    """The reaper reads results that anybody with the backend's password may have written."""
    made, task_id = tmp_path / "made", str(uuid.uuid4())
    backend: Any = fleet.app.backend
    backend.client.set(backend.get_key_for_task(task_id), payload("pickle", made))
    code = f"from worker_tasks.app import app; print(app.backend.get_task_meta({task_id!r}))"
    environ = {**os.environ, **fleet._environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        cwd=fleet.directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode != 0, done.stdout
    assert "DecodeError" in done.stderr
    assert not made.exists()


@pytest.mark.parametrize("accepted", [["json", "pickle"], [PICKLE]])
@pytest.mark.parametrize("setting", ["accept_content", "result_accept_content"])
def test_doctor_fails_an_app_that_takes_pickle(setting: str, accepted: list[str]) -> None:
    app = celery.Celery("shop", broker="memory://", set_as_current=False)
    assert not [finding for finding in examine_tasks(app) if finding.verdict is Verdict.FAIL]
    app.conf[setting] = accepted
    [found] = [finding for finding in examine_tasks(app) if finding.verdict is Verdict.FAIL]
    assert found.seen.startswith(f"{setting} has pickle: whoever may write")
    assert found.advice


def _letters(fleet: Fleet) -> int:
    with psycopg.connect(fleet.settings.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM dead_letter").fetchone()
    return int(row[0]) if row else 0
