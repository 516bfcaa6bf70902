"""A limit ends the run: of time, of memory, or none does, however long it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.endings.cell import Cell, Expected, Looked, nothing
from tests.endings.combination import Pool
from tests.endings.scene import Scene
from tests.endings.theme import Theme
from tests.endings.themes.simple import sends

_NO_LIMITS: Final[Mapping[Pool, str]] = dict.fromkeys(
    ("threads", "solo", "gevent"), "Celery enforces no such time limit in it"
)


def out_of_memory(scene: Scene) -> Looked:
    """Run on a worker whose process may be limited."""
    scene.worker()
    return scene.looked(scene.send("out_of_memory"))


def long_run(scene: Scene) -> Looked:
    """Run for many leases: not one of them runs out."""
    scene.worker(children=1)
    task_id = scene.send("gated", scene.gate)
    scene.wait_started()
    first = scene.fleet.holds(scene.client)[0].deadline_ms
    milliseconds = scene.leases * scene.fleet.settings.lease_seconds * 1_000

    def outlived() -> bool:
        (hold,) = scene.fleet.holds(scene.client)
        return hold.deadline_ms > first + milliseconds

    scene.wait(outlived, f"{scene.leases} leases have been renewed")
    scene.open_gate()
    scene.wait_spent(10)
    assert len(scene.noted("gate.started")) == 1
    return scene.looked(task_id)


THEME: Final = Theme(
    title="Limits",
    cells=(
        Cell(
            key="soft-limit",
            ending="soft time limit",
            drive=sends("too_long", soft_time_limit=1),
            expect=nothing("FAILURE: SoftTimeLimitExceeded", "FAILURE"),
            unfit=_NO_LIMITS,
            quick=True,
        ),
        Cell(
            key="soft-limit-caught",
            ending="soft time limit, caught: returns what there is",
            drive=sends("makes_do", soft_time_limit=1),
            expect=Expected(),
            unfit=_NO_LIMITS,
        ),
        Cell(
            key="hard-limit",
            ending="hard time limit",
            drive=sends("too_long", time_limit=1),
            expect=nothing("FAILURE: TimeLimitExceeded", "FAILURE"),
            unfit={pool: reason for pool, reason in _NO_LIMITS.items() if pool != "gevent"},
            core=True,
            quick=True,
        ),
        Cell(
            key="memory-error",
            ending="out of memory under `RLIMIT_AS`: `MemoryError`",
            drive=out_of_memory,
            expect=nothing("FAILURE: MemoryError", "STARTED"),
            remark="on prefork Celery ends the whole worker for it, before it acknowledges the message",
            alone=True,
        ),
        Cell(
            key="many-leases",
            ending="runs for many leases",
            drive=long_run,
            expect=Expected(),
            alone=True,
            quick=True,
        ),
    ),
)
