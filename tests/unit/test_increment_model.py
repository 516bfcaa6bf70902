"""Whatever a sink, pushers, confirmers, a planner and a person do, in any order, an increment is counted once (L8).

The model is searched whole: a law that fails is told with the shortest way to it. Each rule of the protocol is switched
off in turn: the law that it is for must fail then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.sinks.sink import Answer, Payload, Reply
from billing.sinks.sync import looks, protocol
from billing.sinks.sync.increment import Increment, State
from tests.unit.increment_laws import search
from tests.unit.increment_world import DAY, HOUR, World
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
    "to the minute": (World(marks=(0, 3, DAY, DAY + 3)), 5_000),
    "two confirmers": (
        World(marks=(0, DAY + 6, DAY + 12, 2 * DAY + 20), closes=CLOSES, finds=True, confirmers=2),
        10_000,
    ),
    "generations": (World(marks=WEEK, calls=4), 30_000),
    "drops": (World(marks=(0, 3, DAY + 6, 2 * DAY + 12), drops=True, person=True), 20_000),
    "closing": (World(marks=(0, 3, 22 * HOUR, CLOSES, DAY + 6, 2 * DAY + 12), closes=CLOSES, finds=True), 40_000),
    "writing off": (
        World(marks=(0, 3, CLOSES, DAY + 6, 2 * DAY + 12), closes=CLOSES, writes_off=True, person=True),
        20_000,
    ),
    "clock": (World(marks=(0, 3, 22 * HOUR, 23 * HOUR + 59, 2 * DAY + 12), set_back=HOUR), 30_000),
    "age": (World(marks=(0, 3, 22 * HOUR, DAY + 6, 2 * DAY + 12), event_age=35 * DAY - 2 * HOUR), 10_000),
    "refused sums": (World(marks=(0, 3, 22 * HOUR, DAY + 6, 2 * DAY + 12), refused_sums=True), 20_000),
    # From here on, sums are later than anybody promises: what is counted twice shows, and is withdrawn in time.
    "one late sum": (World(marks=LATE, lag_of_first=31 * HOUR), 40_000),
    "late sums": (World(marks=LATE, lag_of_first=31 * HOUR, lag=31 * HOUR), 40_000),
    "a late sum of a closed period": (
        World(marks=(0, 3, DAY + 6, 31 * HOUR, 2 * DAY + 20), lag_of_first=31 * HOUR, closes=CLOSES),
        20_000,
    ),
}


@pytest.mark.parametrize(("world", "scenes"), WORLDS.values(), ids=WORLDS)
def test_l8_whatever_happens_an_increment_is_counted_once_or_told_to_a_person(world: World, scenes: int) -> None:
    assert search(world, states_max=STATES_MAX) > scenes


#: The project's own functions, as they are before any is changed.
state_after, may_send, claimed = protocol.state_after, protocol.may_send, protocol.claimed
answered, needs_reissue = protocol.answered, protocol.needs_reissue
checked, unseen = looks.checked, looks._unseen
Mutant = tuple[str, dict[str, object], str]
LONG = timedelta(days=100)
NEVER: Callable[..., bool] = lambda *_, **__: False  # noqa: E731 - a table of functions
TWICE = "it is counted [23] times"
REFUSED = "it is rejected, and counted"
DOUBTLESS = "it is quarantined without a doubt"
UNTIMELY = "it is sent with a time that the sink does not take"
UNBILLED = "it is confirmed, and on no invoice"
STAYS = "it stays "


def after(name: str, **changes: Callable[[Increment], Any]) -> Callable[..., Increment | None]:
    """Return a function of the protocol whose result is changed."""
    real: Callable[..., Increment | None] = getattr(protocol, name)

    def changed(increment: Increment, *args: Any, **given: Any) -> Increment | None:
        found = real(increment, *args, **given)
        return found and dataclasses.replace(found, **{field: change(increment) for field, change in changes.items()})

    return changed


def unless_doubted(answer: Answer, *, doubted: bool) -> State:
    return state_after(answer, doubted=False)


def unknown_is_not_executed(answer: Answer, *, doubted: bool) -> State:
    return State.PENDING if answer is Answer.UNKNOWN and not doubted else state_after(answer, doubted=doubted)


def before_its_time(increment: Increment, *, books: str, now: datetime) -> bool:
    early = dataclasses.replace(increment, event_at=min(increment.event_at, now))
    return may_send(early, books=books, now=now)


def first_is_latest(increment: Increment, *, books: str, now: datetime) -> Increment | None:
    found = claimed(increment, books=books, now=now)
    return found and dataclasses.replace(found, first_attempt_at=now)


def of_any_attempt(increment: Increment, attempt: int, reply: Reply, *, doubted: bool) -> Increment | None:
    return answered(increment, increment.attempts, reply, doubted=doubted)


def of_any_state(increment: Increment, attempt: int, reply: Reply, *, doubted: bool) -> Increment | None:
    return answered(dataclasses.replace(increment, state=State.SENDING), attempt, reply, doubted=doubted)


def pending_keeps_its_first(increment: Increment, *args: Any, **given: Any) -> Increment | None:
    found = answered(increment, *args, **given)
    return found and dataclasses.replace(found, first_attempt_at=increment.first_attempt_at)


def at_any_generation(increment: Increment, shown: int, now: datetime, *, payload: Payload) -> Increment | None:
    return checked(increment, shown, now, payload=increment.payload)


def every_look_counts(increment: Increment, now: datetime, doubted_by: str | None) -> Increment:
    found = unseen(increment, now, doubted_by)
    return dataclasses.replace(found, absence_checks=increment.absence_checks + 1)


def anything_confirms(increment: Increment, shown: int, now: datetime, *, payload: Payload) -> Increment | None:
    return checked(increment, increment.units if shown else 0, now, payload=payload)


def confirmed_by_nothing(increment: Increment, shown: int, now: datetime, *, payload: Payload) -> Increment | None:
    return checked(increment, increment.units, now, payload=payload)


def always_rejects(increment: Increment, code: str, *, key: str) -> Increment | None:
    seen = increment.state in (State.SENDING, State.SENT, State.AMBIGUOUS, State.QUARANTINED)
    return dataclasses.replace(increment, state=State.REJECTED, lease_until=None) if seen else None


def pending_or_late(increment: Increment, now: datetime) -> bool:
    return increment.state is State.AMBIGUOUS and needs_reissue(increment, now)


def whenever_in_doubt(increment: Increment, now: datetime) -> bool:
    return increment.state is State.AMBIGUOUS or needs_reissue(increment, now)


def at_any_time(increment: Increment, now: datetime) -> bool:
    return increment.state in (State.REJECTED, State.QUARANTINED, State.AMBIGUOUS)


MUTANTS: dict[str, Mutant] = {
    "what was in doubt is forgotten": ("three calls", {"state_after": unless_doubted}, REFUSED),
    "no answer is no call": ("three calls", {"state_after": unknown_is_not_executed}, REFUSED),
    "an identifier is sent again at any time": ("calls", {"RESEND_WITHIN": LONG}, TWICE),
    "an identifier is sent again for 23 hours": ("clock", {"RESEND_WITHIN": timedelta(hours=23)}, TWICE),
    "a period never closes": ("closing", {"is_closed": NEVER}, "it is sent after its period has closed"),
    "no event is too early": ("clock", {"may_send": before_its_time}, UNTIMELY),
    "no event is too old": ("age", {"is_too_old": NEVER}, UNTIMELY),
    "the first attempt is the latest": ("three calls", {"claimed": first_is_latest}, TWICE),
    "an attempt has no number": ("three calls", {"answered": of_any_attempt}, REFUSED),
    "an answer changes what is over": ("three calls", {"answered": of_any_state}, "what is confirmed is changed"),
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
        REFUSED,
    ),
    "what never arrived keeps its first attempt": ("calls", {"answered": pending_keeps_its_first}, STAYS + "pending"),
    "a look is at any generation": ("two confirmers", {"checked": at_any_generation}, TWICE),
    "every look counts": ("calls", {"_unseen": every_look_counts}, TWICE),
    "one look proves an absence": ("calls", {"ABSENCE_CHECKS": 1}, TWICE),
    "half a day proves an absence": ("calls", {"ABSENT_FOR": timedelta(hours=12)}, TWICE),
    "a look during a call counts": ("to the minute", {"LEASE": timedelta(0)}, TWICE),
    "nothing is absent": ("calls", {"is_absent": NEVER}, STAYS),
    "nothing shown is a proof": ("calls", {"checked": confirmed_by_nothing}, UNBILLED),
    "whatever is shown is a proof": ("one late sum", {"checked": anything_confirms}, TWICE),
    "any generation's units are a proof": ("one late sum", {"_is_settled": lambda *_: True}, TWICE),
    "a day settles": ("late sums", {"SETTLED_AFTER": timedelta(hours=24)}, TWICE),
    "a look is at the present minute alone": (
        "a late sum of a closed period",
        {"may_show_twice": NEVER},
        TWICE,
    ),
    "nothing is withdrawn": ("one late sum", {"counted_twice": NEVER}, "it shows twice, and is not withdrawn"),
    "a refused sum is a doubt at once": ("refused sums", {"REFUSED_FOR": timedelta(0)}, DOUBTLESS),
    "a report is of any call": ("drops", {"reported": always_rejects}, REFUSED),
    "what is pending is never planned anew": ("closing", {"needs_reissue": pending_or_late}, STAYS + "pending"),
    "what is too old is never planned anew": ("age", {"needs_reissue": pending_or_late}, STAYS + "pending"),
    "what is in doubt is planned anew": ("calls", {"needs_reissue": whenever_in_doubt}, TWICE),
    "a generation has the attempts of the one before": (
        "calls",
        {"reissued": after("reissued", first_attempt_at=lambda one: one.first_attempt_at)},
        STAYS + "pending",
    ),
    "generations are given up at once": ("generations", {"GENERATIONS_MAX": 2}, DOUBTLESS),
    "a person does not wait for a call": ("writing off", {"may_resolve": at_any_time}, "it is written_off, "),
}


@pytest.mark.parametrize(("world", "changes", "law"), MUTANTS.values(), ids=MUTANTS)
def test_a_protocol_without_a_rule_breaks_a_law(
    world: str, changes: dict[str, object], law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, changed in changes.items():
        # A rule that one of them takes from the other is switched off in both.
        for module in (protocol, looks):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, changed)
    with pytest.raises(Violation, match=f"^{law}"):
        search(WORLDS[world][0], states_max=STATES_MAX)
