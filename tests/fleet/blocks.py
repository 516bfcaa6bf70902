"""A process without Celery that bills a block: what a web view, a script or a notebook does. Run as `-m`.

Its servers are those of the environment. Where it meets the test half way it does so through files, as the fleet's
tasks do, in the directory `FLEET_DIRECTORY`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import billing
from billing import AlreadyCharged, InsufficientCredits
from tests.fleet.tasks import OTHER_SKU, SKU, dying, note, noted, wait_for_gate


def main(what: str, client_id: str, *arguments: str) -> None:
    """Do what the test asks for."""
    known: dict[str, Callable[..., None]] = {"once": once, "crowd": crowd, "dies": dies}
    known[what](Path(os.environ["FLEET_DIRECTORY"]), client_id, *arguments)


def once(directory: Path, client_id: str, gate: str, key: str = "") -> None:
    """Bill one block that waits in it until the gate is opened."""
    try:
        with billing.reserve(client_id, SKU, 2, key=key or None) as run:
            run.record(1)
            note(directory, f"{gate}.started")
            wait_for_gate(directory, gate)
        note(directory, f"{gate}.ended", run.outcome.value)
    except AlreadyCharged as error:
        note(directory, f"{gate}.ended", str(error))


def dies(directory: Path, client_id: str, key: str) -> None:
    """Bill one block and die by SIGKILL between its settle and its publish."""
    from billing.task.lifecycle import Lifecycle  # noqa: PLC0415 - only this one breaks it

    order = directory / "kill.block"
    order.touch()
    setattr(Lifecycle, "publish", dying(Lifecycle.publish, order))  # noqa: B010 - for the type checker
    with billing.reserve(client_id, SKU, key=key):
        pass


def crowd(directory: Path, client_id: str, threads: str) -> None:
    """Have threads reserve 75 credits each at the same moment, and end only when all have had their answer."""

    def try_once(_: int) -> bool:
        try:
            with billing.reserve(client_id, OTHER_SKU, 25):
                note(directory, "answers", "admitted")
                wait_for_gate(directory, "all-answered")
        except InsufficientCredits:
            note(directory, "answers", "refused")
            return False
        return True

    note(directory, "ready")
    wait_for_gate(directory, "go")
    with ThreadPoolExecutor(int(threads)) as pool:
        list(pool.map(try_once, range(int(threads))))
    assert noted(directory, "answers")


if __name__ == "__main__":
    main(*sys.argv[1:])
