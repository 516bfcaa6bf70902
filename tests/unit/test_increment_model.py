"""Whatever a sink, pushers, a confirmer, the planner and a person do, in every order, an increment is counted once (L8).

The model is searched whole: a law that fails is told with the shortest way to it. Each rule of the protocol is switched
off in turn: the law that it is for must fail then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.sinks.sink import Answer, Payload
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State
from tests.unit.increment_laws import search
from tests.unit.increment_model import DAY, HOUR, World
from tests.unit.searching import Violation

#: The search stops with an error past so many states: it is to stay small enough to be whole.
STATES_MAX = 150_000

#: The gate of the same identifier, the sink's memory, and a day of looking lie between these marks.
DAYS = (0, 3, 22 * HOUR, 23 * HOUR + 30, DAY + 6, 2 * DAY + 12)
#: Generations follow each other here, a day and some minutes apart.
WEEK = (0, DAY + 6, 2 * DAY + 12, 3 * DAY + 20, 4 * DAY + 40)
LATE = (0, DAY + 6, DAY + 12, 31 * HOUR, 2 * DAY + 20, 56 * HOUR, 73 * HOUR)
CLOSES = 22 * HOUR + 30

#: Each world with how many scenes it has at least.
WORLDS = {
    "calls": (World(marks=DAYS), 30_000),
    "three calls": (World(marks=(0, 3, 22 * HOUR, DAY + 6, 2 * DAY + 12), calls=3), 50_000),
    "generations": (World(marks=WEEK, calls=4), 30_000),
    "drops": (World(marks=(0, 3, 22 * HOUR, DAY + 6, 2 * DAY + 12), drops=True, person=True), 80_000),
    "closing": (World(marks=(0, 3, 22 * HOUR, CLOSES, DAY + 6, 2 * DAY + 12), closes=CLOSES, finds=True), 40_000),
    "writing off": (
        World(marks=(0, 3, 22 * HOUR, CLOSES, DAY + 6, 2 * DAY + 12), closes=CLOSES, writes_off=True, person=True),
        70_000,
    ),
    "clock": (World(marks=(0, 3, 22 * HOUR, 23 * HOUR + 59, 2 * DAY + 12), set_back=HOUR), 30_000),
    "age": (World(marks=(0, 3, 22 * HOUR, DAY + 6, 2 * DAY + 12), event_age=35 * DAY - 2 * HOUR), 10_000),
    "refused sums": (World(marks=(0, 3, 22 * HOUR, DAY + 6, 2 * DAY + 12), refused_sums=True), 20_000),
    # From here on, sums are later than anybody promises: what is counted twice shows, and is withdrawn in time.
    "one late sum": (World(marks=LATE, lag_of_first=31 * HOUR), 40_000),
    "late sums": (World(marks=LATE, lag_of_first=31 * HOUR, lag=31 * HOUR), 40_000),
    "very late sums": (World(marks=LATE, lag_of_first=40 * HOUR, lag=40 * HOUR), 40_000),
}


@pytest.mark.parametrize(("world", "scenes"), WORLDS.values(), ids=WORLDS)
def test_l8_whatever_happens_an_increment_is_counted_once_or_told_to_a_person(world: World, scenes: int) -> None:
    assert search(world, states_max=STATES_MAX) > scenes


REAL = {name: getattr(protocol, name) for name in dir(protocol)}
Mutant = tuple[str, dict[str, object], str]
LONG = timedelta(days=100)
NEVER: Callable[..., bool] = lambda *_, **__: False  # noqa: E731 - a table of functions
TWICE = "it is counted [23] times"
UNBILLED = "it is confirmed, and on no invoice"
STAYS = "it stays "


def after(name: str, **changes: Callable[[Increment], object]) -> Callable[..., Increment | None]:
    """Return a function of the protocol whose result is changed."""

    def changed(increment: Increment, *args: Any, **given: Any) -> Increment | None:
        found = REAL[name](increment, *args, **given)
        return found and dataclasses.replace(found, **{field: change(increment) for field, change in changes.items()})

    return changed


def unless_doubted(answer: Answer, *, doubted: bool) -> State:  # noqa: ARG001 - what it forgets
    return REAL["state_after"](answer, doubted=False)


def unknown_is_not_executed(answer: Answer, *, doubted: bool) -> State:
    return State.PENDING if answer is Answer.UNKNOWN and not doubted else REAL["state_after"](answer, doubted=doubted)


def of_any_attempt(increment: Increment, attempt: int, reply: object, *, doubted: bool) -> Increment | None:  # noqa: ARG001
    return REAL["answered"](increment, increment.attempts, reply, doubted=doubted)


def of_any_state(increment: Increment, attempt: int, reply: object, *, doubted: bool) -> Increment | None:
    return REAL["answered"](dataclasses.replace(increment, state=State.SENDING), attempt, reply, doubted=doubted)


def pending_keeps_its_first(increment: Increment, *args: Any, **given: Any) -> Increment | None:
    found = REAL["answered"](increment, *args, **given)
    return found and dataclasses.replace(found, first_attempt_at=increment.first_attempt_at)


def at_any_generation(increment: Increment, shown: int, now: datetime, *, payload: Payload) -> Increment | None:  # noqa: ARG001
    return REAL["checked"](increment, shown, now, payload=increment.payload)


def every_look_counts(increment: Increment, now: datetime) -> Increment:
    found = REAL["_unseen"](increment, now)
    return dataclasses.replace(found, absence_checks=increment.absence_checks + 1)


def anything_confirms(increment: Increment, shown: int, now: datetime, *, payload: Payload) -> Increment | None:
    return REAL["checked"](increment, increment.units if shown else 0, now, payload=payload)


def confirmed_by_nothing(increment: Increment, shown: int, now: datetime, *, payload: Payload) -> Increment | None:  # noqa: ARG001
    return REAL["checked"](increment, increment.units, now, payload=payload)


def always_rejects(increment: Increment, code: str, *, key: str) -> Increment | None:  # noqa: ARG001
    seen = increment.state in (State.SENDING, State.SENT, State.AMBIGUOUS, State.QUARANTINED)
    return dataclasses.replace(increment, state=State.REJECTED, lease_until=None) if seen else None


def pending_or_late(increment: Increment, now: datetime) -> bool:
    return increment.state is State.AMBIGUOUS and REAL["needs_reissue"](increment, now)


def whenever_in_doubt(increment: Increment, now: datetime) -> bool:
    return increment.state is State.AMBIGUOUS or REAL["needs_reissue"](increment, now)


def at_any_time(increment: Increment, now: datetime) -> bool:  # noqa: ARG001
    return increment.state in (State.REJECTED, State.QUARANTINED, State.AMBIGUOUS)


MUTANTS: dict[str, Mutant] = {
    "what was in doubt is forgotten": ("three calls", {"state_after": unless_doubted}, "it is rejected, and counted"),
    "no answer is no call": ("three calls", {"state_after": unknown_is_not_executed}, TWICE),
    "an identifier is sent again at any time": ("calls", {"RESEND_WITHIN": LONG}, TWICE),
    "an identifier is sent again for 23 hours": ("clock", {"RESEND_WITHIN": timedelta(hours=23)}, TWICE),
    "a period never closes": ("closing", {"is_closed": NEVER}, "it is sent after its period has closed"),
    "no event is too old": ("age", {"is_too_old": NEVER}, "it is sent with a time that the sink does not take"),
    "the first attempt is the latest": (
        "three calls",
        {"claimed": after("claimed", first_attempt_at=lambda one: None)},
        "",
    ),
    "an attempt has no number": ("three calls", {"answered": of_any_attempt}, TWICE),
    "an answer changes what is over": ("three calls", {"answered": of_any_state}, ""),
    "what was absent before a call is absent after it": (
        "calls",
        {
            "claimed": after(
                "claimed", absent_since=lambda one: one.absent_since, absence_checks=lambda one: one.absence_checks
            )
        },
        TWICE,
    ),
    "nobody is lost": ("calls", {"is_lost": NEVER}, STAYS + "sending"),
    "what is lost never arrived": (
        "calls",
        {"lost": after("lost", state=lambda _: State.PENDING, first_attempt_at=lambda _: None)},
        TWICE,
    ),
    "what never arrived keeps its first attempt": ("calls", {"answered": pending_keeps_its_first}, STAYS + "pending"),
    "a look is at any generation": ("closing", {"checked": at_any_generation}, ""),
    "every look counts": ("calls", {"_unseen": every_look_counts}, TWICE),
    "one look proves an absence": ("calls", {"ABSENCE_CHECKS": 1}, TWICE),
    "half a day proves an absence": ("calls", {"ABSENT_FOR": timedelta(hours=12)}, TWICE),
    "a look during a call counts": ("calls", {"LEASE": timedelta(0)}, ""),
    "nothing is absent": ("calls", {"is_absent": NEVER}, STAYS),
    "nothing shown is a proof": ("calls", {"checked": confirmed_by_nothing}, UNBILLED),
    "whatever is shown is a proof": ("one late sum", {"checked": anything_confirms}, TWICE),
    "any generation's units are a proof": ("one late sum", {"_is_settled": lambda *_: True}, TWICE),
    "a day settles": ("late sums", {"SETTLED_AFTER": timedelta(hours=24)}, TWICE),
    "nothing is withdrawn": ("one late sum", {"counted_twice": NEVER}, "it shows twice, and is not withdrawn"),
    "a refused sum is a doubt at once": ("refused sums", {"REFUSED_FOR": timedelta(0)}, "without a doubt"),
    "a report is of any call": ("drops", {"reported": always_rejects}, "it is rejected, and counted"),
    "what is pending is never planned anew": ("closing", {"needs_reissue": pending_or_late}, STAYS + "pending"),
    "what is too old is never planned anew": ("age", {"needs_reissue": pending_or_late}, STAYS + "pending"),
    "what is in doubt is planned anew": ("calls", {"needs_reissue": whenever_in_doubt}, TWICE),
    "a generation has the attempts of the one before": (
        "calls",
        {"reissued": after("reissued", first_attempt_at=lambda one: one.first_attempt_at)},
        STAYS + "pending",
    ),
    "generations are given up at once": ("calls", {"GENERATIONS_MAX": 1}, ""),
    "a person does not wait for a call": ("drops", {"may_resolve": at_any_time}, ""),
}


@pytest.mark.parametrize(("world", "changes", "law"), MUTANTS.values(), ids=MUTANTS)
def test_a_protocol_without_a_rule_breaks_a_law(
    world: str, changes: dict[str, object], law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, changed in changes.items():
        monkeypatch.setattr(protocol, name, changed)
    with pytest.raises(Violation, match=f"^{law}"):
        search(WORLDS[world][0], states_max=STATES_MAX)
