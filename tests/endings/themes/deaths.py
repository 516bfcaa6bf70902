"""A process dies without a word: the kernel's, an operator's, or its own doing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

from tests.endings import noting
from tests.endings.cell import NO_CHILDREN, Cell, Drive, Expected, Hold, Looked, Otherwise, nothing
from tests.endings.scene import Scene
from tests.endings.theme import Theme


def dies(name: str) -> Drive:
    """Return a drive of a task whose first delivery ends its process."""

    def drive(scene: Scene) -> Looked:
        worker = scene.worker(patient=True)
        task_id = scene.send(name)
        if not scene.place.forks:
            scene.successor(worker)
        return scene.looked(task_id)

    return drive


def killed_before(step: str) -> Drive:
    """Return a drive of a task whose process dies before a step of billing."""

    def drive(scene: Scene) -> Looked:
        worker = scene.worker(patient=not scene.place.forks)
        scene.order_death(step)
        task_id = scene.send("metered", 5, 2)
        if not scene.place.forks:
            scene.successor(worker)
        return scene.looked(task_id)

    return drive


def exits(scene: Scene) -> Looked:
    """Have a body call `sys.exit` at its first delivery."""
    worker = scene.worker()
    task_id = scene.send("exits_once")
    if not scene.place.sees_exits:
        scene.wait(lambda: noting.was(scene.fleet.directory, noting.RETURNED, scene.client), "its hold is back")
        worker.kill()
        scene.worker()
    return scene.looked(task_id)


def gone(then: Callable[[Scene], None], *, patient: bool = False) -> Drive:
    """Return a drive of a run whose whole worker is killed, and what follows."""

    def drive(scene: Scene) -> Looked:
        worker = scene.worker(children=1, patient=patient)
        task_id = scene.send("gated", scene.gate)
        scene.wait_started()
        worker.signal(signal.SIGKILL)
        scene.wait(lambda: not worker.running, "the worker is gone")
        then(scene)
        return scene.looked(task_id)

    return drive


def for_good(scene: Scene) -> None:
    """Nobody comes after it: one lease at most, then the hold is back."""
    deadlines = {hold.deadline_ms for hold in scene.fleet.holds(scene.client)}

    def resolved() -> bool:
        deadlines.update(hold.deadline_ms for hold in scene.fleet.holds(scene.client))
        return not scene.fleet.holds(scene.client)

    scene.wait(resolved, "the hold is resolved")
    assert len(deadlines) <= 1, f"nobody renews the lease of a dead run: {deadlines}"


def at_once(scene: Scene) -> None:
    """Have another worker take its message."""
    scene.worker(children=1)
    scene.wait_started(2)
    scene.open_gate()


def after_the_lapse(scene: Scene) -> None:
    """Have another worker take its message when the hold is gone."""
    for_good(scene)
    at_once(scene)


THEME: Final = Theme(
    title="Deaths",
    cells=(
        Cell(
            key="exit",
            ending="`sys.exit()`; succeeds when it comes again",
            drive=exits,
            expect=Expected(hold=Hold.CHARGED_AND_RETURNED),
            remark="but for prefork under 5.7, the worker does not see it, and keeps the message until it ends itself",
            alone=True,
        ),
        Cell(
            key="killed-running",
            ending="the process that runs it is killed while it runs",
            drive=dies("dies_once"),
            expect=Expected(),
            alone=True,
            core=True,
            quick=True,
        ),
        Cell(
            key="killed-by-rlimit",
            ending="the kernel kills the process at an `rlimit`",
            drive=dies("over_rlimit_once"),
            expect=Expected(),
            unfit=dict.fromkeys(("threads", "solo", "gevent"), NO_CHILDREN),
            alone=True,
        ),
        Cell(
            key="killed-before-settle",
            ending="killed between success and settle",
            drive=killed_before("_settle"),
            expect=Expected(rows=(20,), hold=Hold.CHARGED_BY_REAPER),
            otherwise=[
                Otherwise(
                    versions=["5.6"],
                    expect=Expected(rows=(20,)),
                    why="the message comes again, the run is repeated and charged once",
                ),
                Otherwise(
                    pools=["threads", "solo", "gevent"],
                    expect=Expected(rows=(20,)),
                    why="the message comes again, the run is repeated and charged once",
                ),
            ],
            alone=True,
            core=True,
            quick=True,
        ),
        Cell(
            key="killed-before-publish",
            ending="killed between settle and publish",
            drive=killed_before("publish"),
            expect=Expected(rows=(20,)),
            alone=True,
            quick=True,
        ),
        Cell(
            key="killed-before-ack",
            ending="killed between publish and ack",
            drive=killed_before("end"),
            expect=Expected(rows=(20,)),
            alone=True,
        ),
        Cell(
            key="worker-killed",
            ending="the whole worker is killed; another one takes the message",
            drive=gone(at_once, patient=True),
            expect=Expected(),
            remark="over Redis its message comes again after the transport's `visibility_timeout`, an hour by default",
            alone=True,
        ),
        Cell(
            key="worker-killed-for-good",
            ending="the whole worker is killed, and no other comes",
            drive=gone(for_good),
            expect=nothing("PENDING", "STARTED", Hold.LAPSED),
            otherwise=[
                Otherwise(
                    pools=["solo"],
                    expect=nothing("PENDING", "not listed", Hold.LAPSED),
                    why="its events wait until the task has ended",
                )
            ],
            alone=True,
            quick=True,
        ),
        Cell(
            key="worker-killed-then-late",
            ending="the whole worker is killed; another one comes when the hold is gone",
            drive=gone(after_the_lapse),
            expect=Expected(hold=Hold.CHARGED_AFTER_LAPSE),
            alone=True,
        ),
    ),
)
