"""The laws of an increment (L8), held to each scene of its model: counted once or told to a person, and never stuck."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from billing.sinks.sink import Answer, Reply
from billing.sinks.sync import looks, protocol
from billing.sinks.sync.increment import State
from tests.unit import increment_model as model
from tests.unit.increment_world import (
    BOOKS,
    DAY,
    GENERATIONS,
    HOUR,
    UNITS,
    Look,
    Scene,
    Step,
    World,
    clock,
    counted,
    planned,
)
from tests.unit.searching import Violation, search_states

#: How often everybody does what they should, and how many minutes that takes, until it must be over.
ROUNDS: Final = 60
ROUND: Final = 5 * HOUR
#: A lease, and more.
LATER: Final = 3


def search(world: World, *, states_max: int) -> int:
    """Walk through every interleaving; return how many scenes there are. Raises `Violation` with the way to it.

    Time can always pass up to the last mark: that each scene there settles says that nothing is ever stuck.
    """
    settled: set[Scene] = set()

    def check(scene: Scene, steps: Sequence[Step]) -> None:
        hold_counted(scene, world)
        hold_over(scene, steps)
        if scene.mark == len(world.marks) - 1:
            alone = scene._replace(calls=(), afloat=(), looks=())
            if alone not in settled:
                settle(alone, world)
            settled.add(alone)

    start = Scene(planned(world))
    return search_states(start, lambda scene: model.successors(scene, world), check, states_max=states_max)


def hold_counted(scene: Scene, world: World) -> None:
    """Hold a scene to L8: counted once at most, and what is over is what it says.

    Where sums may be later than promised, a second time is told by a sum; what is rejected is told to a person anyhow.
    """
    state, times = scene.increment.state, counted(scene)
    if times > 1 and (world.is_in_time or state is State.CONFIRMED):
        raise Violation(f"it is counted {times} times, and {state.value}")
    if state is State.CONFIRMED and all(event.dropped or model.is_final(event, world) for event in scene.events):
        raise Violation("it is confirmed, and on no invoice")
    if state in (State.REJECTED, State.WRITTEN_OFF) and times and world.is_in_time:
        raise Violation(f"it is {state.value}, and counted")


def hold_over(scene: Scene, steps: Sequence[Step]) -> None:
    """Hold what is over to stay so, and identifiers to be few (L9)."""
    state, generation = scene.increment.state, scene.increment.generation
    if state in (State.CONFIRMED, State.WRITTEN_OFF):
        for name, after in steps:
            if after.increment != scene.increment:
                raise Violation(f"what is {state.value} is changed by: {name}")
    if generation > GENERATIONS:
        raise Violation(f"it has {generation} identifiers")


def settle(scene: Scene, world: World) -> None:
    """Go on from a scene whose pushers are dead, with a sink that does what it is asked to, and without a person.

    Raises `Violation` unless it is over, or quarantined, in the end.
    """
    for round_ in range(ROUNDS):
        hold_counted(scene, world)
        if scene.increment.state in (State.CONFIRMED, State.REJECTED, State.WRITTEN_OFF):
            return
        now = world.marks[-1] + LATER + ROUND * round_
        present = dataclasses.replace(world, marks=(now,))
        scene = _round(model.waited(scene._replace(mark=0), now, present), present)
    if scene.increment.state is not State.QUARANTINED:
        raise Violation(f"it stays {scene.increment.state.value}")


def _round(scene: Scene, world: World) -> Scene:
    """Let everybody do what they should, once."""
    now = clock(scene, world)
    found = protocol.lost(scene.increment, now)
    scene = scene if found is None else scene._replace(increment=found)
    if protocol.needs_reissue(scene.increment, now):
        scene = model.replanned(scene, world)
    claim = model.claimed(scene, world)
    if claim is not scene:
        call = claim.calls[-1]
        taken, _ = model.executed(claim._replace(calls=()), call, call.begun)
        found = protocol.answered(taken.increment, call.attempt, Reply(answer=Answer.TAKEN), doubted=call.doubted)
        return taken if found is None else taken._replace(increment=found)
    if looks.may_check(scene.increment, books=BOOKS):
        return _looked(scene, world)
    return scene


def _looked(scene: Scene, world: World) -> Scene:
    payload, generation = scene.increment.payload, scene.increment.generation
    shown = model.shown(scene, payload)
    after = next(model.noted(scene, Look(payload, clock(scene, world), shown), world))
    known = any(event.generation == generation and world.marks[0] < event.received + DAY for event in scene.events)
    if shown > UNITS and known and counted(after) > 1:
        raise Violation("it shows twice, and is not withdrawn while it can be")
    return after
