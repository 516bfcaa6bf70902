"""A model of one run that a direct event has charged: its hold, the posting, losses and rebuilds, searched whole.

The run has succeeded and no bucket took its settle. Its process publishes the event, asserts the hold while the shard
recovers, asks PostgreSQL and gives the hold back; Redis is lost twice; rebuilders race, pause and die at each step.
`Rules` says when the hold is given back, so that an earlier moment can be shown to fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.unit.searching import Violation, search_states

COST = 5
LOSSES = 2
REBUILDERS = 3
#: The epoch of a hold that no bucket has lent anything: it was asserted while the shard recovered.
NONE = 0
#: A hold that was marked as charged.
MARKED = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What the fleet keeps to. The defaults are what it does."""

    #: What has to be true of the charge before the hold is given back: `told`, in the `log`, or `published`.
    released_when: str = "told"
    rebuild_waits_for_asserts: bool = True
    asserts_are_compared: bool = True
    posting_is_of_the_epoch: bool = True


class Bucket(NamedTuple):
    """What Redis has of the client: what it has spent, lent to the run, and been told."""

    epoch: int
    spent: int
    lent: int
    told: bool


class Rebuilder(NamedTuple):
    """One who has closed the shard, and what it has read once it has an epoch."""

    server: int
    asserts: int = 0
    epoch: int = 0
    spent: int = 0
    keeps: bool = False
    wrote: bool = False


class State(NamedTuple):
    """All there is. `hold` is the epoch of the bucket that lent to it, None: there is none."""

    epoch: int = 1
    logged: bool = False
    #: The epoch of the posting, 0: there is none; and whether PostgreSQL knows that the bucket has it.
    posted: int = 0
    noted: bool = False
    server: int = 0
    trusted: int | None = 0
    bucket: Bucket | None = Bucket(1, 0, COST, told=False)
    hold: int | None = 1
    asserts: int = 0
    sent: bool = False
    #: What the process knows, and whether it is done with the run.
    knows: bool = False
    done: bool = False
    rebuilders: tuple[Rebuilder, ...] = ()
    begun: int = 0


Step = tuple[str, State]


def search(rules: Rules, *, states_max: int) -> int:
    """Walk through every interleaving; return how many states there are. Raises `Violation` with the way to it."""
    return search_states(State(), lambda state: successors(state, rules), check, states_max=states_max)


def is_open(state: State) -> bool:
    """Whether the shard is trusted: work is admitted."""
    return state.trusted == state.server


def check(state: State, _: Sequence[Step]) -> None:
    """Hold a state to the laws, whatever is about to be done."""
    bucket = state.bucket
    if not is_open(state):
        return
    if bucket is None:
        raise Violation("an open shard has no bucket")
    if state.sent and bucket.spent + bucket.lent < COST:
        offered = COST - bucket.spent - bucket.lent
        raise Violation(f"L1: the work is done, and the bucket offers {offered} of it to others")
    waits = state.posted == state.epoch and not bucket.told
    if state.done and not waits and bucket != Bucket(state.epoch, COST, 0, bucket.told):
        raise Violation(f"L6: nothing is on its way, and the bucket has {bucket}")


def successors(state: State, rules: Rules) -> Iterator[Step]:
    """Yield every step that changes something."""
    for name, after in (*_process(state, rules), *_log(state, rules), *_losses(state), *_rebuilds(state, rules)):
        if after != state:
            yield name, after


def _process(state: State, rules: Rules) -> Iterator[Step]:
    """Publish, assert, ask, release; a process that pauses does none of it for as long."""
    if not state.sent:
        yield "publish", state._replace(sent=True)
    if state.hold is None and not state.done:
        if not is_open(state):
            yield "assert", state._replace(hold=NONE, asserts=state.asserts + 1)
        elif state.bucket is not None:
            # It was told that the shard recovers, and the shard is open by now.
            lent = state.bucket._replace(lent=COST)
            yield "assert late", state._replace(hold=state.bucket.epoch, bucket=lent)
    told = state.logged and (state.posted != state.epoch or state.noted)
    if {"told": told, "log": state.logged, "published": state.sent}[rules.released_when]:
        yield "ask", state._replace(knows=True)
    if state.knows and is_open(state) and state.bucket is not None:
        released = state._replace(done=True, hold=MARKED if state.hold == MARKED else None)
        if state.hold == state.bucket.epoch:
            released = released._replace(bucket=state.bucket._replace(lent=0))
        yield "release", released


def _log(state: State, rules: Rules) -> Iterator[Step]:
    """Consume the event, in one transaction with its posting; tell the bucket, once or again."""
    if state.sent and not state.logged:
        yield "consume", state._replace(logged=True, posted=state.epoch)
    bucket = state.bucket
    if not state.posted or bucket is None or not is_open(state) or bucket.told:
        return
    if state.posted == bucket.epoch or not rules.posting_is_of_the_epoch:
        told = bucket._replace(spent=bucket.spent + COST, told=True)
        yield "tell", state._replace(bucket=told, noted=True)


def _losses(state: State) -> Iterator[Step]:
    """Lose Redis: another server answers, empty or with what it had."""
    if state.server < LOSSES:
        lost = state._replace(server=state.server + 1)
        yield "restart", lost
        yield "wipe", lost._replace(bucket=None, hold=None, asserts=0)


def _rebuilds(state: State, rules: Rules) -> Iterator[Step]:
    """Take each rebuilder one step further. One that pauses for ever is one that has died."""
    if state.begun < REBUILDERS and not is_open(state):
        begun = _with(state, None, Rebuilder(state.server))
        yield "close", begun._replace(begun=state.begun + 1, trusted=None)
    for one in dict.fromkeys(state.rebuilders):
        if not one.epoch:
            # It waits for as long as a living process takes to assert what it holds.
            waits = rules.rebuild_waits_for_asserts and state.hold is None and not (state.done or state.logged)
            if not waits and not is_open(state):
                yield "plan", _planned(state, one)
        elif not one.wrote:
            yield "write", _written(state, one, rules)
        else:
            yield "open", _opened(state, one, rules)


def _planned(state: State, one: Rebuilder) -> State:
    """Begin an epoch and read the log; what it has charged is held no more."""
    epoch = max(state.epoch, state.bucket.epoch if state.bucket else 0) + 1
    held = state.hold is not None and state.hold != MARKED
    planned = one._replace(
        server=state.server,
        asserts=state.asserts,
        epoch=epoch,
        spent=COST if state.logged else 0,
        keeps=held and not state.logged,
    )
    hold = MARKED if held and state.logged else state.hold
    return _with(state, one, planned)._replace(epoch=epoch, hold=hold)


def _written(state: State, one: Rebuilder, rules: Rules) -> State:
    newer = state.bucket is not None and state.bucket.epoch > one.epoch
    moved = one.asserts != state.asserts and rules.asserts_are_compared
    gone = one.keeps and state.hold in (None, MARKED)
    if one.server != state.server or newer or moved or gone or is_open(state):
        return _with(state, one, None)
    bucket = Bucket(one.epoch, one.spent, COST if one.keeps else 0, told=False)
    hold = one.epoch if one.keeps else state.hold
    return _with(state, one, one._replace(wrote=True))._replace(bucket=bucket, hold=hold)


def _opened(state: State, one: Rebuilder, rules: Rules) -> State:
    done = _with(state, one, None)
    moved = one.asserts != state.asserts and rules.asserts_are_compared
    if one.server != state.server or one.epoch != state.epoch or moved:
        return done
    return done._replace(trusted=state.server)


def _with(state: State, old: Rebuilder | None, new: Rebuilder | None) -> State:
    rebuilders = list(state.rebuilders)
    if old is not None:
        rebuilders.remove(old)
    if new is not None:
        rebuilders.append(new)
    return state._replace(rebuilders=tuple(sorted(rebuilders)))
