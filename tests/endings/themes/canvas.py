"""Tasks that belong together: chains, groups, chords, and tasks that send tasks."""

from __future__ import annotations

from typing import Final

from celery import chain, chord, group

from tests.endings.cell import Cell, Expected, Hold, Looked
from tests.endings.scene import Scene
from tests.endings.theme import Theme


def in_chain(scene: Scene) -> Looked:
    """Run three after one another."""
    last = scene.submit(chain(scene.signature("one"), scene.signature("one"), scene.signature("one")))
    return scene.looked(str(last.id), str(last.parent.id), str(last.parent.parent.id))


def broken_chain(scene: Scene) -> Looked:
    """Have the middle of three fail: the last never runs."""
    last = scene.submit(chain(scene.signature("one"), scene.signature("fails"), scene.signature("one")))
    return scene.looked(str(last.parent.id))


def in_group(scene: Scene) -> Looked:
    """Run three at once."""
    together = scene.submit(group(scene.signature("one") for _ in range(3)))
    return scene.looked(*(str(member.id) for member in together.results))


def nested(scene: Scene) -> Looked:
    """Run groups in a group."""
    pair = group(scene.signature("one"), scene.signature("one"))
    together = scene.submit(group(pair, group(scene.signature("one"), scene.signature("one"))))
    members = [member for inner in together.results for member in getattr(inner, "results", [inner])]
    return scene.looked(*(str(member.id) for member in members))


def in_chord(scene: Scene) -> Looked:
    """Run two, and one with what they returned."""
    body = scene.task("total").s(client_id=scene.client).set(queue=scene.queue)
    result = scene.submit(chord([scene.signature("ok", 1), scene.signature("ok", 2)], body))
    return scene.looked(str(result.id))


def broken_chord(scene: Scene) -> Looked:
    """Have one of a chord's header fail: its body never runs."""
    body = scene.task("total").s(client_id=scene.client).set(queue=scene.queue)
    result = scene.submit(chord([scene.signature("ok", 1), scene.signature("fails")], body))
    return scene.looked(str(result.id))


def stamped(scene: Scene) -> Looked:
    """Run a group with stamps."""
    tasks = group(scene.signature("one"), scene.signature("one"))
    tasks.stamp(colour="blue")
    together = scene.submit(tasks)
    return scene.looked(*(str(member.id) for member in together.results))


THEME: Final = Theme(
    title="Canvas",
    cells=(
        Cell(
            key="chain",
            ending="chain of three",
            drive=in_chain,
            expect=Expected(rows=(10, 10, 10)),
            core=True,
            quick=True,
        ),
        Cell(
            key="chain-broken",
            ending="chain of three whose second raises",
            drive=broken_chain,
            expect=Expected(rows=(10,), hold=Hold.CHARGED_AND_RETURNED, caller="FAILURE: ValueError", flower="FAILURE"),
        ),
        Cell(key="group", ending="group of three", drive=in_group, expect=Expected(rows=(10, 10, 10))),
        Cell(key="nested-group", ending="two groups in a group", drive=nested, expect=Expected(rows=(10,) * 4)),
        Cell(
            key="chord",
            ending="chord of two and its body",
            drive=in_chord,
            expect=Expected(rows=(10, 10, 10)),
            core=True,
            quick=True,
        ),
        Cell(
            key="chord-broken",
            ending="chord of two of which one raises: its body does not run",
            drive=broken_chord,
            expect=Expected(hold=Hold.CHARGED_AND_RETURNED, caller="FAILURE: ChordError", flower="not listed"),
        ),
        Cell(key="stamped", ending="stamped group of two", drive=stamped, expect=Expected(rows=(10, 10))),
        Cell(
            key="nested",
            ending="a billable task that sends another",
            drive=lambda scene: scene.looked(scene.send("parent")),
            expect=Expected(rows=(10, 10)),
            quick=True,
        ),
    ),
)
