"""Revoked, or too old to be run."""

from __future__ import annotations

import uuid
from typing import Final

from tests.endings.cell import Cell, Expected, Hold, Looked, Otherwise, nothing
from tests.endings.scene import Scene
from tests.endings.theme import Theme

#: Enough for the message to reach its worker, which then waits for the eta.
_EXPIRES_SECONDS: Final = 8.0


def before_start(scene: Scene) -> Looked:
    """Revoke an id, then send it."""
    task_id = str(uuid.uuid4())
    scene.revoke(task_id)
    return scene.looked(scene.send("one", task_id=task_id))


def terminated(scene: Scene) -> Looked:
    """Revoke with `terminate` what runs."""
    scene.worker()
    task_id = scene.send("gated", scene.gate)
    scene.wait_started()
    scene.revoke(task_id, terminate=True, destination=[f"{scene.client}-1@test"])
    return scene.looked(task_id)


def expired_in_worker(scene: Scene) -> Looked:
    """Have a task expire in the worker, where it waits for its eta."""
    task_id = scene.send("one", countdown=_EXPIRES_SECONDS + 1, expires=_EXPIRES_SECONDS)
    return scene.looked(task_id)


def expired_in_queue(scene: Scene) -> Looked:
    """Have a message expire before a worker comes; the one that comes does what else there is."""
    task_id = scene.send("gated", scene.gate, expires=0.2)
    other = scene.send("one", countdown=1)
    scene.worker()
    scene.wait_spent(10)
    assert other
    assert not scene.noted("gate.started")
    return scene.looked(task_id)


THEME: Final = Theme(
    title="Revoked or expired",
    cells=(
        Cell(
            key="revoked",
            ending="revoked before it starts",
            drive=before_start,
            expect=nothing("REVOKED: TaskRevokedError", "REVOKED", Hold.NEVER),
            quick=True,
        ),
        Cell(
            key="revoked-terminate",
            ending="revoked with `terminate` while it runs",
            drive=terminated,
            expect=nothing("REVOKED: TaskRevokedError", "REVOKED"),
            otherwise=[
                Otherwise(
                    pools=["gevent"],
                    expect=nothing("REVOKED: TaskRevokedError", "SUCCESS"),
                    why="Celery sends the event of a success for a greenlet that was killed",
                )
            ],
            unfit={
                "threads": "a thread cannot be terminated",
                "solo": "it hears no remote control while a task runs",
            },
            alone=True,
            quick=True,
        ),
        Cell(
            key="expired-in-worker",
            ending="expires while it waits for its eta in a worker",
            drive=expired_in_worker,
            expect=nothing("REVOKED: TaskRevokedError", "REVOKED", Hold.NEVER),
        ),
        Cell(
            key="expired-in-queue",
            ending="expires in the queue (another task of the client is run and charged)",
            drive=expired_in_queue,
            expect=Expected(caller="PENDING", flower="not listed"),
            otherwise=[
                Otherwise(
                    brokers=["Redis"],
                    expect=Expected(caller="REVOKED: TaskRevokedError", flower="REVOKED"),
                    why="the transport drops no expired message: the worker does",
                )
            ],
            alone=True,
        ),
    ),
)
