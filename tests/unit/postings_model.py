"""A model of the table of verdicts with epochs, rebuilders and postings, small enough to be searched whole.

One client with one grant. A run is settled twice (its first settlement perhaps by two buckets), and a direct event says
the same; Redis is lost twice; rebuilders race, pause and die at each step; events arrive in any order, any number of
times; every total that was ever committed may be told to the bucket at any time. The verdicts and the plan of a bucket
are the project's own functions; `Rules` says what else holds, so that a simpler rule can be shown to fail.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from billing.credits.rebuilding import plan_bucket
from billing.fulfillment.verdicts import Settled, Verdict, judge
from tests.unit.searching import Violation, search_states

GRANTED = 100
#: What each settlement costs. The direct event is of the first: epoch 0.
COSTS = {"first": 5, "second": 7}
DIRECT = Settled("first", 0)
LOSSES = 2
REBUILDERS = 3
SETTLES_OF_FIRST = 2

Judge = Callable[[Settled, int, Settled | None], Verdict]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What the fleet keeps to. The defaults are what it does."""

    judge: Judge = judge
    #: Which settlements count as the same when they are given back; None: it is not remembered.
    returned_once: Callable[[Settled], object] | None = Settled._make
    totals_are_absolute: bool = True
    versions_are_compared: bool = True
    postings_have_epochs: bool = True
    rebuild_raises_epoch: bool = True
    epoch_is_read_again: bool = True
    newer_bucket_stays: bool = True
    server_is_compared: bool = True
    planned_while_closed: bool = True
    read_with_the_epoch: bool = True


class Bucket(NamedTuple):
    """What Redis has: what was spent, what was posted, and on which server it was written.

    `noted` is the version that PostgreSQL knows it to have: nobody tells it that one again.
    """

    epoch: int
    spent: int
    version: int
    posted: int
    noted: int
    server: int


class Total(NamedTuple):
    """A posting as it was committed."""

    epoch: int
    version: int
    credits: int


class Rebuilder(NamedTuple):
    """One who has closed the shard: `spent` is what it has read of the log, `epoch` the one that it began."""

    server: int
    epoch: int = 0
    spent: int = -1
    wrote: bool = False


class State(NamedTuple):
    """All there is. `server` counts losses; `trusted` is the server that the shard was verified on, or none."""

    epoch: int = 1
    stored: Settled | None = None
    logged: int = 0
    totals: tuple[Total, ...] = ()
    returned: frozenset[object] = frozenset()
    server: int = 0
    trusted: int | None = 0
    bucket: Bucket | None = Bucket(1, 0, 0, 0, 0, 0)
    sent: frozenset[Settled] = frozenset()
    rebuilders: tuple[Rebuilder, ...] = ()
    begun: int = 0


Step = tuple[str, State]


def search(rules: Rules, *, states_max: int) -> int:
    """Walk through every interleaving; return how many states there are. Raises `Violation` with the way to it."""
    return search_states(State(), lambda state: successors(state, rules), check, states_max=states_max)


def is_open(state: State) -> bool:
    """Whether the shard is trusted: work is admitted."""
    return state.trusted == state.server


def check(state: State, steps: Sequence[Step]) -> None:
    """Hold a state to the laws: with nothing on its way to it, an open bucket is the log, and the run charged once.

    Whatever a rebuilder was about to do: it may be dead.
    """
    if state.logged not in {0, *COSTS.values()}:
        raise Violation(f"the log has {state.logged}")
    last = last_total(state)
    taken = sum(COSTS[one.settlement_id] for one in state.sent if one.epoch == state.epoch)
    if last.credits < -taken:
        raise Violation(f"{-last.credits} are given back of {taken} that were taken")
    if any(name.startswith("consume") for name, _ in steps) or not is_open(state):
        return
    if state.bucket is None or state.bucket.epoch != state.epoch:
        raise Violation("the bucket is not of PostgreSQL's epoch")
    if state.bucket.noted < last.version:
        return
    if state.bucket.spent != state.logged:
        raise Violation(f"the bucket has spent {state.bucket.spent}, the log {state.logged}")


def successors(state: State, rules: Rules) -> Iterator[Step]:
    """Yield every step that changes something."""
    for name, after in (*_work(state), *_losses(state), *_log(state, rules), *_rebuilds(state, rules)):
        if after != state:
            yield name, after


def _work(state: State) -> Iterator[Step]:
    """Settle, by a bucket or without one. The retention of a settled run may be over at any time."""
    if DIRECT not in state.sent:
        yield "direct", state._replace(sent=state.sent | {DIRECT})
    if not is_open(state):
        return
    bucket = state.bucket
    if bucket is None or bucket.server != state.server:
        raise Violation("work is admitted on a bucket of a server that is gone")
    for settlement_id, credits_ in COSTS.items():
        settled = Settled(settlement_id, bucket.epoch)
        before = [one for one in state.sent if one.settlement_id == settlement_id and one != DIRECT]
        if settled not in state.sent and len(before) < (SETTLES_OF_FIRST if settlement_id == "first" else 1):
            taken = bucket._replace(spent=bucket.spent + credits_)
            yield f"settle {settlement_id}", state._replace(bucket=taken, sent=state.sent | {settled})


def _losses(state: State) -> Iterator[Step]:
    """Lose Redis: another server answers, empty or with what it had."""
    if state.server < LOSSES:
        yield "restart", state._replace(server=state.server + 1)
        yield "wipe", state._replace(server=state.server + 1, bucket=None)


def _log(state: State, rules: Rules) -> Iterator[Step]:
    """Consume an event, also once more; tell the bucket any total that was ever committed."""
    for settled in state.sent:
        yield f"consume {settled.settlement_id} of {settled.epoch}", consumed(state, settled, rules)
    bucket = state.bucket
    if bucket is None or not is_open(state):
        return
    for total in state.totals:
        if rules.postings_have_epochs and total.epoch != bucket.epoch:
            continue
        if rules.versions_are_compared and total.version <= bucket.version:
            continue
        more = total.credits - (bucket.posted if rules.totals_are_absolute else 0)
        told = bucket._replace(
            spent=bucket.spent + more,
            version=total.version,
            posted=total.credits,
            noted=max(bucket.noted, total.version),
        )
        yield f"apply {total.version} of {total.epoch}", state._replace(bucket=told)


def consumed(state: State, settled: Settled, rules: Rules) -> State:
    """Return what a batch with one event makes of the log: its transaction is one step."""
    credits_, posted = COSTS[settled.settlement_id], 0
    verdict = rules.judge(settled, state.epoch, state.stored)
    if state.stored is None:
        state = state._replace(stored=settled, logged=credits_)
    if verdict is Verdict.TAKE:
        posted = credits_
    elif verdict is Verdict.GIVE_BACK:
        key = rules.returned_once(settled) if rules.returned_once else None
        if key is None or key not in state.returned:
            posted = -credits_
            state = state._replace(returned=state.returned if key is None else state.returned | {key})
    if not posted:
        return state
    last = last_total(state)
    before = last.credits if rules.totals_are_absolute else 0
    total = Total(state.epoch, last.version + 1, before + posted)
    return state._replace(totals=(*state.totals, total))


def last_total(state: State) -> Total:
    """Return the present total of the client's epoch."""
    return max((one for one in state.totals if one.epoch == state.epoch), default=Total(state.epoch, 0, 0))


def _rebuilds(state: State, rules: Rules) -> Iterator[Step]:
    """Take each rebuilder one step further. One that pauses for ever is one that has died."""
    if state.begun < REBUILDERS and not is_open(state):
        begun = _with(state, None, Rebuilder(state.server))
        yield "close", begun._replace(begun=state.begun + 1, trusted=None)
    for one in dict.fromkeys(state.rebuilders):
        if not one.epoch:
            if rules.planned_while_closed and is_open(state):
                continue
            if not rules.read_with_the_epoch and one.spent < 0:
                yield "read", _with(state, one, one._replace(spent=planned_spent(state.logged)))
                continue
            epoch = max(state.epoch, state.bucket.epoch if state.bucket else 0)
            epoch += rules.rebuild_raises_epoch
            spent = one.spent if one.spent >= 0 else planned_spent(state.logged)
            planned = one._replace(server=state.server, epoch=epoch, spent=spent)
            yield "plan", _with(state, one, planned)._replace(epoch=epoch)
        elif not one.wrote:
            yield "write", _written(state, one, rules)
        else:
            yield "open", _opened(state, one, rules)


def _written(state: State, one: Rebuilder, rules: Rules) -> State:
    newer = state.bucket is not None and state.bucket.epoch > one.epoch and rules.newer_bucket_stays
    if one.server != state.server or newer or (state.bucket is not None and is_open(state)):
        return _with(state, one, None)
    bucket = Bucket(one.epoch, one.spent, 0, 0, 0, state.server)
    return _with(state, one, one._replace(wrote=True))._replace(bucket=bucket)


def _opened(state: State, one: Rebuilder, rules: Rules) -> State:
    done = _with(state, one, None)
    if rules.server_is_compared and one.server != state.server:
        return done
    if rules.epoch_is_read_again and one.epoch != state.epoch:
        return done
    return done._replace(trusted=state.server)


def _with(state: State, old: Rebuilder | None, new: Rebuilder | None) -> State:
    rebuilders = list(state.rebuilders)
    if old is not None:
        rebuilders.remove(old)
    if new is not None:
        rebuilders.append(new)
    return state._replace(rebuilders=tuple(sorted(rebuilders)))


@functools.cache
def planned_spent(logged: int) -> int:
    """Return what a rebuilt bucket has spent."""
    plan = plan_bucket(grants=[(1, GRANTED)], spent={1: logged}, holds=[])
    return plan.grants[0].spent
