"""Fixed seeds of the simulator, and broken rules that it has to find; `make simulate` runs seeds by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from billing.credits.twin.memory import Memory
from billing.events.links import Outgoing
from billing.fulfillment import verdicts
from billing.fulfillment.verdicts import Settled, Verdict, judge
from billing.task import reaper
from billing.task.lifecycle import Lifecycle
from billing.task.publishing import Events
from billing.task.run import Run
from tests.simulation.auditor import LawBroken
from tests.simulation.run import REST_EVERY, run

STEPS = 8_000
#: Seeds in which a broken rule has to show: the first does, as a rule.
SEEDS_MAX = 12


@pytest.mark.parametrize("seed", range(3))
def test_every_law_holds(seed: int) -> None:
    """Given a fleet with every fault, when it comes to rest, then no law is broken; and faults there were."""
    found = run(seed, STEPS)
    assert found.counts["quiescent points"] == STEPS // REST_EVERY
    assert found.observed.admitted > 500
    for fault in ("killed processes", "losses", "lose_a_bucket", "rebuilds", "posted"):
        assert found.counts[fault], fault


def test_the_same_seed_is_the_same_run() -> None:
    """Given a seed, when it is run again, then every step is the same: a failure can be replayed."""
    first, second = (run(7, 2_000) for _ in range(2))
    assert first.counts == second.counts
    assert first.clock.elapsed_ms == second.clock.elapsed_ms
    assert list(first.log.history) == list(second.log.history)


def never_taken(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Let a bucket have paid whatever is new."""
    return Verdict.NOTHING if stored is None else judge(settled, epoch, stored)


def never_given_back(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Let a second settlement be."""
    return judge(settled, epoch, stored) if stored is None else Verdict.NOTHING


def always_taken(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Deduct whatever is new."""
    return Verdict.TAKE if stored is None else judge(settled, epoch, stored)


def nobody_succeeded(*_: object) -> bool:
    """Have the reaper take every stored result for a failure."""
    return False


def same_server(_: Memory) -> None:
    """Have a server that came back be taken for the one that went."""


def only_kept(self: Lifecycle, run: Run) -> None:
    """Keep a settle that is refused, and tell nobody."""
    self._settle(run)


def left_to_the_relay(_: Events, message: Outgoing) -> None:
    """Keep no event that was not confirmed."""
    assert message.body


BROKEN: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "what is new is never taken": (verdicts, "judge", never_taken),
    "what was charged twice is never given back": (verdicts, "judge", never_given_back),
    "what is new is always taken": (verdicts, "judge", always_taken),
    "the reaper believes no result": (reaper, "_succeeded", nobody_succeeded),
    "a settle that is refused is only kept": (Lifecycle, "_settle_or_charge", only_kept),
    "an event that is not confirmed is left to the relay": (Events, "_keep", left_to_the_relay),
    "a server that came back with less is trusted": (Memory, "restart", same_server),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a rule that is wrong, when some seeds are run, then one of them breaks a law, and says how to replay it."""
    place, name, broken = BROKEN[rule]
    monkeypatch.setattr(place, name, broken)
    with pytest.raises(LawBroken, match=rf"make simulate SEED=\d+ STEPS={STEPS}"):
        run_seeds()


def run_seeds() -> None:
    """Run one seed after the other, until a law is broken."""
    for seed in range(SEEDS_MAX):
        run(seed, STEPS)
