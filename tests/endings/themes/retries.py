"""The task comes again by its own wish."""

from __future__ import annotations

from typing import Final

from tests.endings.cell import Cell, Expected, Hold, Looked, nothing
from tests.endings.scene import Scene
from tests.endings.theme import Theme
from tests.endings.themes.simple import sends

#: Longer than two leases of the fleet.
_LONG_SECONDS: Final = 8.0
#: Enough for a worker to hear of a revocation.
_REVOKED_WITHIN_SECONDS: Final = 15.0


def waits_long(scene: Scene) -> Looked:
    """Wait for a retry longer than a lease: the hold is there all the while."""
    task_id = scene.send("waits", _LONG_SECONDS)
    scene.wait(lambda: scene.noted("started"), "the first attempt has run")
    scene.wait(lambda: scene.fleet.balance(scene.client).held == 10, "its credits are held")
    scene.wait_spent(10)
    return scene.looked(task_id)


def revoked_while_it_waits(scene: Scene) -> Looked:
    """Revoke what waits for its retry."""
    task_id = scene.send("waits", _REVOKED_WITHIN_SECONDS)
    scene.wait(lambda: scene.fleet.app.AsyncResult(task_id).state == "RETRY", "it waits for its retry")
    scene.revoke(task_id)
    return scene.looked(task_id)


THEME: Final = Theme(
    title="Retries",
    cells=(
        Cell(
            key="retry-once",
            ending="`retry()` once",
            drive=sends("retries", 1),
            expect=Expected(),
            core=True,
            quick=True,
        ),
        Cell(key="retry-twice", ending="`retry()` twice", drive=sends("retries", 2), expect=Expected()),
        Cell(
            key="retry-exhausted",
            ending="`retry()` until its tries are used up",
            drive=sends("gives_up"),
            expect=nothing("FAILURE: ConnectionError", "FAILURE"),
            quick=True,
        ),
        Cell(
            key="autoretry",
            ending="`autoretry_for`: succeeds at the third try",
            drive=sends("comes_through"),
            expect=Expected(),
        ),
        Cell(
            key="retry-beyond-lease",
            ending="waits for its retry longer than a lease",
            drive=waits_long,
            expect=Expected(),
        ),
        Cell(
            key="retry-revoked",
            ending="is revoked while it waits for its retry",
            drive=revoked_while_it_waits,
            expect=nothing("REVOKED: TaskRevokedError", "REVOKED", Hold.LAPSED),
        ),
    ),
)
