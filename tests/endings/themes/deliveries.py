"""One message comes more than once, or one task id is used more than once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from billing.core.ids import new_nonce
from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.task.headers import AT, NONCE
from tests.endings.cell import Cell, Expected, Looked
from tests.endings.combination import Pool
from tests.endings.scene import Scene
from tests.endings.theme import Theme
from tests.endings.themes.simple import sends
from tests.fleet.keys import redis_of

_ONE_AT_A_TIME: Final[Mapping[Pool, str]] = {"solo": "one run at a time"}


def _message() -> dict[str, Any]:
    """Return what makes two publishes one message to billing: id and headers."""
    return {"task_id": str(uuid.uuid4()), "headers": {AT: time.time_ns() // 1_000_000, NONCE: new_nonce()}}


def redelivered_while_it_runs(scene: Scene) -> Looked:
    """Lose the connection of a worker that lets its runs go on: the message comes a second time."""
    proxy, url = scene.proxy()
    configuration = {"worker_cancel_long_running_tasks_on_connection_loss": False}
    worker = scene.worker(configuration=configuration, environment={"CELERY_BROKER_READ_URL": url})
    task_id = scene.send("gated", scene.gate)
    scene.wait_started()
    proxy.cut()
    scene.wait(lambda: worker.log.read_text().count(f"[{task_id}] received") == 2, "its message has come again")
    if scene.place.version == "5.7" or not scene.place.forks:
        scene.wait_started(2)
    scene.open_gate()
    scene.wait_started(2)
    return scene.looked(task_id)


def twice_at_once(scene: Scene) -> Looked:
    """Have the same message be there twice, and both run at the same time."""
    message = _message()
    for _ in range(2):
        scene.send("gated", scene.gate, **message)
    scene.wait_started(2)
    scene.open_gate()
    return scene.looked(message["task_id"])


def again_after_success(scene: Scene) -> Looked:
    """Have the message come again when its run is charged."""
    message = _message()
    scene.open_gate()
    scene.send("gated", scene.gate, **message)
    scene.wait_spent(10)
    scene.send("gated", scene.gate, **message)
    scene.wait_started(2)
    return scene.looked(message["task_id"])


def again_when_forgotten(scene: Scene) -> Looked:
    """Have the message come again when Redis has forgotten the settled run: log and bucket agree in the end."""
    message = _message()
    scene.open_gate()
    scene.send("gated", scene.gate, **message)
    scene.wait(lambda: len(scene.fleet.rows(scene.client)) == 1, "the row is there")
    (run_id,) = scene.run_ids()
    shard = shard_of(scene.client, scene.fleet.settings.shards)
    assert redis_of(scene.fleet).delete(shard_keys(shard).run + run_id) == 1
    scene.send("gated", scene.gate, **message)
    scene.wait_started(2)
    scene.wait(lambda: scene.fleet.balance(scene.client).spent == 20, "Redis has charged it twice")
    return scene.looked(message["task_id"])


def same_id_at_once(scene: Scene) -> Looked:
    """Submit one task id twice: two submissions, two runs."""
    task_id = str(uuid.uuid4())
    for _ in range(2):
        scene.send("gated", scene.gate, task_id=task_id)
    scene.wait_started(2)
    scene.open_gate()
    return scene.looked(task_id)


THEME: Final = Theme(
    title="More than one delivery",
    cells=(
        Cell(key="countdown", ending="`countdown`", drive=sends("one", countdown=1), expect=Expected(), core=True),
        Cell(
            key="redelivered-while-running",
            ending="redelivered while the first run still lives; both succeed",
            drive=redelivered_while_it_runs,
            expect=Expected(),
            remark=(
                "Celery 5.6 on prefork starts the second when the first has ended; on threads the events of both ends "
                "may be lost, and Flower then goes on showing STARTED"
            ),
            loses_events=("threads",),
            unfit=_ONE_AT_A_TIME,
            alone=True,
        ),
        Cell(
            key="delivered-twice",
            ending="one message, delivered twice at once; both succeed",
            drive=twice_at_once,
            expect=Expected(),
            unfit=_ONE_AT_A_TIME,
            core=True,
            quick=True,
        ),
        Cell(
            key="delivered-again",
            ending="one message, delivered again after its run was charged",
            drive=again_after_success,
            expect=Expected(),
            quick=True,
        ),
        Cell(
            key="delivered-when-forgotten",
            ending="one message, delivered again after Redis forgot its settled run",
            drive=again_when_forgotten,
            expect=Expected(),
        ),
        Cell(
            key="same-id-twice",
            ending="one task id, submitted twice at once: two runs",
            drive=same_id_at_once,
            expect=Expected(rows=(10, 10)),
            unfit=_ONE_AT_A_TIME,
        ),
    ),
)
