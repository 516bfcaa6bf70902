"""The body returns, raises, or says that its message is to be treated otherwise."""

from __future__ import annotations

from typing import Final

from tests.endings.cell import Cell, Expected, Hold, Looked, Otherwise, nothing
from tests.endings.scene import Scene
from tests.endings.theme import Theme
from tests.endings.themes.simple import sends


def link_cannot_be_sent(scene: Scene) -> Looked:
    """Have a callback that no broker takes."""
    return scene.looked(scene.send("one", link=scene.signature("unsendable")))


def chain_cannot_be_sent(scene: Scene) -> Looked:
    """Have a next link that no broker takes."""
    last = scene.submit(scene.signature("one") | scene.signature("unsendable"))
    return scene.looked(str(last.parent.id))


def errback(scene: Scene) -> Looked:
    """Have a task called for the error of another."""
    failed = scene.send("fails", link_error=scene.signature("one"))
    return scene.looked(failed)


_HOOK_FAILS: Final = Otherwise(
    versions=["5.6"],
    expect=Expected(flower="FAILURE"),
    why="5.6 reports the hook's exception as the task's, whose stored result is a success",
)

THEME: Final = Theme(
    title="The body ends by itself",
    cells=(
        Cell(key="success", ending="returns", drive=sends("one"), expect=Expected(), core=True, quick=True),
        Cell(
            key="exception",
            ending="raises",
            drive=sends("fails"),
            expect=nothing("FAILURE: ValueError", "FAILURE"),
            core=True,
            quick=True,
        ),
        Cell(
            key="ignore",
            ending="raises `Ignore`",
            drive=sends("ignores"),
            expect=nothing("PENDING", "STARTED"),
            quick=True,
        ),
        Cell(
            key="reject",
            ending="raises `Reject`",
            drive=sends("rejects"),
            expect=nothing("FAILURE: Reject", "FAILURE"),
            otherwise=[
                Otherwise(
                    versions=["5.6"], expect=nothing("PENDING", "STARTED"), why="5.6 stores no result of a `Reject`"
                )
            ],
            quick=True,
        ),
        Cell(
            key="reject-requeue",
            ending="raises `Reject(requeue=True)`; succeeds when it comes again",
            drive=sends("requeues"),
            expect=Expected(),
            core=True,
        ),
        Cell(
            key="unencodable",
            ending="returns what cannot be encoded",
            drive=sends("unencodable"),
            expect=nothing("FAILURE: EncodeError", "FAILURE"),
            quick=True,
        ),
        Cell(
            key="replace",
            ending="`replace()`: the other task is what is charged",
            drive=sends("replaced"),
            expect=Expected(hold=Hold.CHARGED_AND_RETURNED),
            quick=True,
        ),
        Cell(
            key="callback-unsent",
            ending="returns, and its callback cannot be published",
            drive=link_cannot_be_sent,
            expect=nothing("FAILURE: OperationalError", "FAILURE"),
        ),
        Cell(
            key="chain-unsent",
            ending="returns, and the chain's next task cannot be published",
            drive=chain_cannot_be_sent,
            expect=nothing("FAILURE: OperationalError", "FAILURE"),
        ),
        Cell(
            key="on-success-raises",
            ending="returns, and the user's `on_success` raises",
            drive=sends("hooked"),
            expect=Expected(),
            otherwise=[_HOOK_FAILS],
            quick=True,
        ),
        Cell(
            key="after-return-raises",
            ending="returns, and the user's `after_return` raises",
            drive=sends("raises_after_return"),
            expect=Expected(),
            otherwise=[_HOOK_FAILS],
        ),
        Cell(
            key="before-start-raises",
            ending="the user's `before_start` raises",
            drive=sends("raises_before_start"),
            expect=nothing("FAILURE: RuntimeError", "FAILURE"),
        ),
        Cell(
            key="hooks-replaced",
            ending="returns, its hooks replaced without `super()`",
            drive=sends("decorated"),
            expect=Expected(),
            quick=True,
        ),
        Cell(
            key="errback",
            ending="raises, and a billable task is its error callback",
            drive=errback,
            expect=Expected(hold=Hold.CHARGED_AND_RETURNED, caller="FAILURE: ValueError", flower="FAILURE"),
        ),
    ),
)
