"""How it is called: in the caller's own process, without a result, or by a sender that knows nothing of billing."""

from __future__ import annotations

import uuid
from typing import Final

from tests.endings.cell import Cell, Drive, Expected, Hold, Looked, nothing
from tests.endings.scene import Scene
from tests.endings.theme import Theme
from tests.endings.themes.simple import sends


def in_own_process(what: str) -> Drive:
    """Return a drive of a process that calls the task itself, and notes what it sees."""

    def drive(scene: Scene) -> Looked:
        scene.run("caller", what, scene.client)
        (said,) = scene.noted("saw")
        return Looked(caller=said, flower=[])

    return drive


def by_stranger(scene: Scene) -> Looked:
    """Have a process without the library send it."""
    task_id = str(uuid.uuid4())
    scene.run("stranger", scene.fleet.settings.broker_url, "one", task_id, scene.queue, scene.client)
    return scene.looked(task_id)


_NOTHING: Final = "nothing to ask"

THEME: Final = Theme(
    title="Ways to call",
    cells=(
        Cell(
            key="result-ignored",
            ending="`ignore_result`",
            drive=sends("forgotten"),
            expect=Expected(caller="PENDING"),
            core=True,
            quick=True,
        ),
        Cell(
            key="foreign-sender",
            ending="sent by a program without the library",
            drive=by_stranger,
            expect=Expected(),
            core=True,
        ),
        Cell(
            key="eager",
            ending="eager (`apply()`)",
            drive=in_own_process("eager"),
            expect=Expected(caller="SUCCESS", flower=_NOTHING),
            quick=True,
        ),
        Cell(
            key="eager-raises",
            ending="eager, raises",
            drive=in_own_process("eager_raises"),
            expect=nothing("FAILURE: ValueError", _NOTHING),
        ),
        Cell(
            key="eager-propagates",
            ending="eager with `throw`, raises",
            drive=in_own_process("eager_propagates"),
            expect=nothing("raises ValueError", _NOTHING),
        ),
        Cell(
            key="direct",
            ending="called directly: a function call, not billed",
            drive=in_own_process("direct"),
            expect=nothing("returns", _NOTHING, Hold.NEVER),
        ),
        Cell(
            key="map",
            ending="`map`: refused",
            drive=in_own_process("map"),
            expect=nothing("raises Unhooked", _NOTHING, Hold.NEVER),
        ),
        Cell(
            key="starmap",
            ending="`starmap`: refused",
            drive=in_own_process("starmap"),
            expect=nothing("raises Unhooked", _NOTHING, Hold.NEVER),
        ),
        Cell(
            key="chunks",
            ending="`chunks`: refused",
            drive=in_own_process("chunks"),
            expect=nothing("raises Unhooked", _NOTHING, Hold.NEVER),
        ),
    ),
)
