"""A model of one increment under the protocol, beside a sink that may do anything, small enough to be searched whole.

Pushers, a confirmer, the planner and a person act on it, each paused for as long as it likes between two steps. The
sink executes a call, or not, or late; it loses answers, drops what it took, shows it up to a day later, and forgets an
identifier a day after its receipt. Every decision is the project's own (`protocol`); time passes from mark to mark.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from billing.sinks.sink import Answer, Payload, Reply
from billing.sinks.sync import looks, protocol
from billing.sinks.sync.increment import Increment, State
from tests.unit.increment_world import (
    BASE,
    BOOKS,
    DAY,
    FINAL_AFTER,
    GENERATIONS,
    HOUR,
    LEASE,
    UNITS,
    Call,
    Event,
    Look,
    Scene,
    Step,
    World,
    clock,
    counted,
    minutes,
)
from tests.unit.searching import Violation


def is_final(event: Event, world: World) -> bool:
    """Whether it came when the invoice of its period was final: it is on none."""
    first = event.event_at == BASE - minutes(world.event_age)
    return first and world.closes is not None and event.received >= world.closes + FINAL_AFTER


def successors(scene: Scene, world: World) -> Iterator[Step]:
    """Yield every step that changes something."""
    for steps in (_time, _pushers, _sink, _confirmer, _planner, _person):
        for name, after in steps(scene, world):
            if after != scene:
                yield name, after


def _with(scene: Scene, found: Increment | None) -> Scene:
    """Return the scene with a decision. Words, when it was looked at last, and ever more looks decide nothing."""
    if found is None:
        return scene
    checks = min(found.absence_checks, protocol.ABSENCE_CHECKS)
    alike = dataclasses.replace(found, reason="", checked_at=None, confirmed_at=None, absence_checks=checks)
    return scene._replace(increment=alike)


def _time(scene: Scene, world: World) -> Iterator[Step]:
    if world.set_back and not scene.set_back:
        yield "set the clock back", scene._replace(set_back=True)
    if scene.mark + 1 == len(world.marks):
        return
    now = world.marks[scene.mark + 1]
    yield f"wait until {now // HOUR}:{now % HOUR:02}", waited(scene._replace(mark=scene.mark + 1), now, world)


def waited(scene: Scene, now: int, world: World) -> Scene:
    """Return what time alone makes of it: calls end, and what was received shows at last."""
    afloat = tuple(call for call in scene.afloat if call.begun + LEASE > now)
    events = tuple(
        event._replace(shows=event.shows or event.received + _lag(event, world) <= now) for event in scene.events
    )
    return scene._replace(afloat=afloat, events=events)


def _lag(event: Event, world: World) -> int:
    return world.lag_of_first if event.generation == 1 else world.lag


def _pushers(scene: Scene, world: World) -> Iterator[Step]:
    increment, now = scene.increment, clock(scene, world)
    yield "take it for lost", _with(scene, protocol.lost(increment, now))
    if increment.attempts < world.calls and (claim := claimed(scene, world)) is not scene:
        yield from _calls(claim, claim.calls[-1], world)
    for call in scene.calls:
        left = scene._replace(calls=tuple(one for one in scene.calls if one != call))
        found = protocol.answered(increment, call.attempt, Reply(answer=call.answer), doubted=call.doubted)
        yield f"note {call.answer.value} of call {call.attempt}", _with(left, found)


def claimed(scene: Scene, world: World) -> Scene:
    """Return it claimed for a call, if it may be. Raises `Violation` when it may not, and is."""
    before, now = scene.increment, clock(scene, world)
    found = protocol.claimed(before, books=BOOKS, now=now)
    if found is None:
        return scene
    if before.closes_at is not None and now >= before.closes_at:
        raise Violation("it is sent after its period has closed")
    if now < before.event_at or now - before.event_at >= minutes(35 * DAY - HOUR):
        raise Violation("it is sent with a time that the sink does not take")
    if before.state not in (State.PENDING, State.AMBIGUOUS):
        raise Violation(f"it is sent as {before.state.value}")
    call = Call(
        attempt=found.attempts,
        generation=found.generation,
        event_at=found.event_at,
        begun=world.marks[scene.mark],
        doubted=before.state is State.AMBIGUOUS,
    )
    return _with(scene, found)._replace(calls=(*scene.calls, call))


def _calls(scene: Scene, call: Call, world: World) -> Iterator[Step]:
    """Yield each thing that may come of a call."""

    def after(scene: Scene, answer: Answer) -> Scene:
        return scene._replace(calls=(*scene.calls[:-1], call._replace(answer=answer)))

    said = f"call {call.attempt}"
    taken, is_new = executed(scene, call, call.begun)
    answer = Answer.TAKEN if is_new else Answer.DUPLICATE
    yield f"{said} is executed", after(taken, answer)
    yield f"{said} is executed, its answer lost", after(taken, Answer.UNKNOWN)
    yield f"{said} is lost", after(scene, Answer.UNKNOWN)
    yield f"{said} is lost for now", after(scene._replace(afloat=(*scene.afloat, call)), Answer.UNKNOWN)
    yield f"{said} is refused", after(scene, Answer.REFUSED)
    yield f"{said} is not made", after(scene, Answer.BUSY)
    if world.drops and is_new:
        dropped = taken._replace(events=(*taken.events[:-1], taken.events[-1]._replace(dropped=True)))
        yield f"{said} is dropped", after(dropped, answer)
        reports = dropped.reports | {f"i{call.generation}#{call.attempt}"}
        yield f"{said} is dropped and reported", after(dropped._replace(reports=reports), answer)


def executed(scene: Scene, call: Call, now: int) -> tuple[Scene, bool]:
    """Return it after the sink has received a call, and whether it took it: an identifier is known for a day."""
    if any(event.generation == call.generation and now < event.received + DAY for event in scene.events):
        return scene, False
    return scene._replace(events=(*scene.events, Event(call.generation, call.event_at, now))), True


def _sink(scene: Scene, world: World) -> Iterator[Step]:
    for call in scene.afloat:
        left = scene._replace(afloat=tuple(one for one in scene.afloat if one != call))
        yield f"execute call {call.attempt} late", executed(left, call, call.begun + LEASE)[0]
    for at, event in enumerate(scene.events):
        if not event.shows and not event.dropped:
            shown = (*scene.events[:at], event._replace(shows=True), *scene.events[at + 1 :])
            yield f"show generation {event.generation}", scene._replace(events=shown)
    for key in scene.reports:
        left = scene._replace(reports=scene.reports - {key})
        yield f"note the report of {key}", _with(left, protocol.reported(scene.increment, "c", key=key))


def shown(scene: Scene, payload: Payload) -> int:
    """Return the sink's sum of an increment's minute, and of those in which earlier generations of it were sent."""
    own = (event for event in scene.events if event.shows and not event.dropped)
    every = payload == scene.increment.payload and looks.may_show_twice(scene.increment)
    return sum(UNITS for event in own if every or event.event_at == payload.event_at)


def _confirmer(scene: Scene, world: World) -> Iterator[Step]:
    for look in scene.looks:
        left = scene._replace(looks=tuple(one for one in scene.looks if one != look))
        if look.at is None:
            yield from _looked(left, look, world)
        else:
            yield from ((f"note a look that showed {look.shown}", after) for after in noted(left, look, world))
    if len(scene.looks) < world.confirmers and looks.may_check(scene.increment, books=BOOKS):
        found = Look(scene.increment.payload)
        if world.finds:
            yield "find", scene._replace(looks=(*scene.looks, found))
        else:
            yield from _looked(scene, found, world)


def _looked(scene: Scene, found: Look, world: World) -> Iterator[Step]:
    look = found._replace(at=clock(scene, world), shown=shown(scene, found.payload))
    yield "look", scene._replace(looks=(*scene.looks, look))
    if world.refused_sums:
        yield "refuse a look", scene._replace(looks=(*scene.looks, look._replace(shown=None)))


def noted(left: Scene, look: Look, world: World) -> Iterator[Scene]:
    """Yield it after a look is noted, with what is withdrawn for it, and without.

    Raises `Violation` where it is quarantined without a doubt.
    """
    increment = left.increment
    if look.at is None:
        return
    if look.shown is None:
        found = looks.check_refused(increment, "r", look.at, payload=look.payload)
        patient = increment.last_attempt_at is not None and look.at - increment.last_attempt_at > minutes(2 * DAY)
        _hold_quarantine(increment, found, doubt=patient)
        yield _with(left, found)
        return
    found = looks.checked(increment, look.shown, look.at, payload=look.payload)
    _hold_quarantine(increment, found, doubt=look.shown not in (0, UNITS))
    after = _with(left, found)
    if found is not None and found.state is State.QUARANTINED and looks.counted_twice(found, look.shown):
        yield withdrawn(after, found.generation, world.marks[left.mark])
    yield after


def withdrawn(scene: Scene, generation: int, now: int) -> Scene:
    """Return it after a generation was withdrawn, which a sink does for a day."""
    events = tuple(
        event._replace(dropped=event.dropped or (event.generation == generation and now < event.received + DAY))
        for event in scene.events
    )
    return scene._replace(events=events)


def _hold_quarantine(before: Increment, after: Increment | None, *, doubt: bool) -> None:
    became = after is not None and after.state is State.QUARANTINED and before.state is not State.QUARANTINED
    if became and not doubt:
        raise Violation("it is quarantined without a doubt")


def _planner(scene: Scene, world: World) -> Iterator[Step]:
    if protocol.needs_reissue(scene.increment, clock(scene, world)):
        yield "plan anew", replanned(scene, world)


def replanned(scene: Scene, world: World) -> Scene:
    """Return its next generation: in its minute while its period is open, else in another one or not at all."""
    increment, now = scene.increment, clock(scene, world)
    first = BASE - minutes(world.event_age)
    is_open = world.closes is None or now < BASE + minutes(world.closes)
    late = increment.event_at == first and not is_open
    if late and world.writes_off:
        return _with(scene, protocol.written_off(increment, "late"))
    ahead = protocol.is_ahead(increment, now)
    stays = not late and not ahead and now - increment.event_at < minutes(34 * DAY)
    closes = world.closes is not None and stays and increment.event_at == first
    found = protocol.reissued(
        increment,
        kind=increment.kind,
        customer_id=increment.customer_id,
        period_start=increment.period_start,
        period_end=increment.period_end,
        closes_at=BASE + minutes(world.closes or 0) if closes else None,
        event_at=increment.event_at if stays else now - minutes(1),
        carries_from=None,
        identifier=f"i{increment.generation + 1}",
        reason="",
    )
    _hold_quarantine(increment, found, doubt=increment.generation >= GENERATIONS)
    return _with(scene, found)


def _person(scene: Scene, world: World) -> Iterator[Step]:
    """Resolve it, by what is true at the sink."""
    increment, now = scene.increment, clock(scene, world)
    if not world.person or not protocol.may_resolve(increment, now):
        return
    if counted(scene):
        yield "resolve as confirmed", _with(scene, protocol.resolved_as_confirmed(increment, "p", now))
    else:
        yield "resolve as absent", _with(scene, protocol.resolved_as_absent(increment, "p", now))
        yield "write off", _with(scene, protocol.written_off(increment, "p"))
