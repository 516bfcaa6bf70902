"""A deploy stops the worker, or the worker loses its broker, while the task runs."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Final

from tests.endings.cell import Cell, Drive, Expected, Hold, Looked, Otherwise, nothing
from tests.endings.combination import Pool
from tests.endings.scene import Scene
from tests.endings.theme import Theme


def warm(scene: Scene) -> Looked:
    """Stop a worker warm: it waits for the run."""
    worker = scene.worker(children=1)
    task_id = scene.send("gated", scene.gate)
    scene.wait_started()
    worker.signal(signal.SIGTERM)
    scene.wait_logged(worker, "Warm shutdown")
    scene.open_gate()
    scene.wait(lambda: not worker.running, "the worker has ended")
    return scene.looked(task_id)


def soft_in_time(scene: Scene) -> Looked:
    """Stop a worker soft: the run ends while it waits."""
    worker = scene.worker(children=1, configuration={"worker_soft_shutdown_timeout": 20.0})
    task_id = scene.send("gated", scene.gate)
    scene.wait_started()
    worker.signal(signal.SIGQUIT)
    scene.wait_logged(worker, "Initiating Soft Shutdown")
    scene.open_gate()
    if scene.place.parallel:
        scene.successor(worker)
    else:
        scene.wait_logged(worker, "does not implement kill_job")
        scene.replace(worker)
    return scene.looked(task_id)


def stopped(soft_seconds: float) -> Drive:
    """Return a drive in which SIGQUIT stops a worker before its run has ended, and another one takes the message."""

    def drive(scene: Scene) -> Looked:
        settings = {"worker_soft_shutdown_timeout": soft_seconds}
        worker = scene.worker(children=1, patient=True, configuration=settings)
        task_id = scene.send("gated", scene.gate)
        scene.wait_started()
        worker.signal(signal.SIGQUIT)
        if scene.place.cancels:
            scene.successor(worker)
            scene.wait_started(2)
            scene.open_gate()
        else:
            # It cannot cancel the run, and waits for it.
            scene.wait_logged(worker, "does not implement kill_job")
            scene.open_gate()
            scene.replace(worker)
        return scene.looked(task_id)

    return drive


def broker_lost(scene: Scene) -> Looked:
    """Cut the connection on which the message came."""
    proxy, url = scene.proxy()
    worker = scene.worker(patient=True, environment={"CELERY_BROKER_READ_URL": url})
    task_id = scene.send("gated", scene.gate)
    scene.wait_started()
    proxy.cut()
    if not scene.place.parallel:
        # It does not look at its connection before the run has ended.
        scene.open_gate()
    elif not scene.place.outlives_broker:
        scene.open_gate()
        scene.successor(worker)
    scene.wait_started(2)
    scene.open_gate()
    return scene.looked(task_id)


_SOLO_FAILS: Final = (
    Otherwise(
        pools=["solo"],
        versions=["5.6"],
        expect=nothing("FAILURE: NotImplementedError", "FAILURE"),
        why="the signal's handler runs inside the task, waits there and raises, since the pool cannot cancel; "
        "the worker goes on",
    ),
    Otherwise(
        pools=["solo"],
        expect=nothing("FAILURE: NotImplementedError", "STARTED"),
        why="the signal's handler runs inside the task, waits there and raises, since the pool cannot cancel",
    ),
)

_GEVENT_BLOCKS: Final[Mapping[Pool, str]] = {
    "gevent": "Celery's handler of SIGQUIT blocks, which gevent's event loop refuses: the worker does not shut down so"
}

THEME: Final = Theme(
    title="Shutdowns and a lost broker",
    cells=(
        Cell(key="warm-shutdown", ending="warm shutdown while it runs", drive=warm, expect=Expected(), alone=True),
        Cell(
            key="soft-shutdown",
            ending="soft shutdown, and it ends in time",
            drive=soft_in_time,
            expect=Expected(),
            otherwise=_SOLO_FAILS,
            alone=True,
        ),
        Cell(
            key="soft-shutdown-late",
            ending="soft shutdown, and it takes too long: another worker takes the message",
            drive=stopped(1.0),
            unfit=_GEVENT_BLOCKS,
            expect=Expected(hold=Hold.CHARGED_AFTER_CUT),
            otherwise=_SOLO_FAILS,
            alone=True,
        ),
        Cell(
            key="cold-shutdown",
            ending="cold shutdown: another worker takes the message",
            drive=stopped(0.0),
            unfit=_GEVENT_BLOCKS,
            expect=Expected(hold=Hold.CHARGED_AFTER_CUT),
            otherwise=_SOLO_FAILS,
            alone=True,
            core=True,
            quick=True,
        ),
        Cell(
            key="broker-lost",
            ending="the connection to the broker is lost while it runs, and the run is cancelled",
            drive=broker_lost,
            expect=Expected(hold=Hold.CHARGED_AFTER_CUT),
            remark="on threads Celery 5.6 ends the worker then, whose pool cannot cancel a run",
            alone=True,
        ),
    ),
)
