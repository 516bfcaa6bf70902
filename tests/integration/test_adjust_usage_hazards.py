"""Corrections of usage at once, killed on their way, over losses of Redis, and in any order: the books stay exact."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from billing import admin
from billing.core.errors import InvalidValue
from billing.recovery.postings import apply_postings
from tests.integration import killed_adjuster
from tests.integration.adjusting import charge, charge_direct, correct, logged, spent
from tests.integration.consuming import query
from tests.integration.granting import balance_of, grant, rebuild
from tests.integration.posting import assert_at_work, publish, settled, sums
from tests.integration.recovering import Business
from tests.sessions import wait_for_the_dead
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def test_fifty_at_once_never_exceed_what_the_line_was_charged_while_a_consumer_writes(business: Business) -> None:
    """L2, L7: of fifty corrections by 3 of a line of 40, thirteen stand; and no batch is held up for ever."""
    grant(business, 10_000, "k")
    run = charge(business, 40, "a")
    events = [settled(business, 10, f"other-{number}") for number in range(60)]

    def attempt(number: int) -> bool:
        publish(business, events[number])
        try:
            admin.adjust_usage(business.settings, run, -3, reason="a test", again=True, key=f"try-{number}")
        except InvalidValue as error:
            assert error.rule.startswith("must be at least -1:")  # noqa: PT017 - the others must not be raised
            return False
        return True

    with business.consuming(), ThreadPoolExecutor(16) as pool:
        # A rebuild asks for the locks that all of them share.
        business.request("acme")
        tried = pool.map(attempt, range(50))
        business.rebuilder.step()
        assert sum(tried) == 13
        for event in events[50:]:
            publish(business, event)
        wait_until(lambda: query(business.settings, "SELECT sum(credits) FROM usage_history") == [(601,)], "all rows")
        wait_until(lambda: apply_postings(business.runtime) == 0, "the bucket has every posting")
    assert query(business.settings, "SELECT count(*), sum(credits) FROM usage_correction") == [(13, -39)]
    assert query(business.settings, "SELECT count(*) FROM dead_letter") == [(0,)]
    assert sums(assert_at_work(business, epoch=2)) == (9_399, 0, 601, 0)


@pytest.mark.parametrize("point", ["before commit", "after commit"])
def test_given_a_process_that_is_killed_on_the_way_then_all_of_it_comes_or_nothing(
    business: Business, point: str
) -> None:
    """What was committed reaches the bucket by the worker's rounds; the same key tells what became of it."""
    grant(business, 100, "k")
    run = charge(business, 40, "a")
    given = [json.dumps(dataclasses.asdict(business.settings)), point, str(run), "-15", "ticket"]
    died = subprocess.run([sys.executable, killed_adjuster.__file__, *given], cwd=ROOT, check=False, timeout=240)
    assert died.returncode == -signal.SIGKILL
    wait_for_the_dead(business.settings.database_url)
    committed = point == "after commit"
    assert sums(balance_of(business)) == (60, 0, 40, 0)
    assert query(business.settings, "SELECT count(*) FROM usage_correction") == [(int(committed),)]
    assert apply_postings(business.runtime) == int(committed)
    assert sums(assert_at_work(business)) == ((75, 0, 25, 0) if committed else (60, 0, 40, 0))
    correct(business, run, -15, key="ticket")
    assert sums(assert_at_work(business)) == (75, 0, 25, 0)


def test_the_books_that_redis_lost_are_the_same_whenever_the_correction_came(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L6: before a loss with its posting untold, after a loss, or amid a rebuild: the balance is the same."""
    grant(business, 100, "k")
    runs = [charge(business, 20, name) for name in "abc"]

    def untold(run: uuid.UUID) -> None:
        found, applied = admin.adjust_usage(business.settings, run, -5, reason="a test")
        assert (found.credits, applied) == (-5, False)

    with business.consuming():
        with monkeypatch.context() as patched:
            patched.setattr("billing.admin.usage_adjustments.apply_to", lambda *_: False)
            untold(runs[0])
        business.lose()
        assert business.rebuilder.step() == 1
        assert sums(assert_at_work(business, epoch=2)) == (45, 0, 55, 0)

        business.lose()
        untold(runs[1])
        assert business.rebuilder.step() == 1
        assert sums(assert_at_work(business, epoch=3)) == (50, 0, 50, 0)

        business.lose()
        write_all = business.runtime.buckets.rebuild_all

        def amid(*args: Any, **options: Any) -> Any:
            untold(runs[2])
            return write_all(*args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(business.runtime.buckets, "rebuild_all", amid)
            assert business.rebuilder.step() == 1
        assert apply_postings(business.runtime) == 1
    assert sums(assert_at_work(business, epoch=4)) == (55, 0, 45, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_any_sequence_of_charges_corrections_and_losses_comes_to_what_a_model_says(
    business: Business, seed: int
) -> None:
    """L2, L6, L7: seeded; after each step the bucket is what the log says, per grant, and never below 0."""
    chance = random.Random(seed)
    charged: dict[uuid.UUID, int] = {}
    net: dict[uuid.UUID, list[int]] = {}
    epoch, granted = 1, 0
    with business.consuming():
        for step in range(40):
            kind = chance.choices(["charge", "direct", "correct", "grant", "lose"], [4, 2, 9, 2, 1])[0]
            if kind == "grant" and granted < 8:
                granted += 1
                grant(business, chance.randint(20, 80), f"g-{step}", priority=chance.randint(1, 3))
            elif kind == "charge":
                credits_ = chance.randint(1, 60)
                run = charge(business, credits_, f"t-{step}")
                charged[run], net[run] = credits_, []
            elif kind == "direct":
                credits_ = chance.randint(1, 60)
                run = charge_direct(business, credits_, f"t-{step}")
                charged[run], net[run] = credits_, []
                if chance.random() < 0.5:
                    apply_postings(business.runtime)
            elif kind == "correct" and charged:
                run = chance.choice(list(charged))
                credits_ = chance.choice([-1, 1]) * chance.randint(1, charged[run] + 2)
                again = chance.random() < 0.5
                fits = abs(sum(net[run]) + credits_) <= charged[run]
                same = any((one < 0) == (credits_ < 0) for one in net[run])
                try:
                    correct(business, run, credits_, again=again)
                except InvalidValue:
                    assert not fits or (same and not again)
                else:
                    assert fits
                    assert again or not same
                    net[run].append(credits_)
            elif kind == "lose":
                business.lose()
                assert business.rebuilder.step() == 1
                epoch += 1
            apply_postings(business.runtime)
            balance = balance_of(business)
            assert balance.spent == sum(charged.values()) + sum(map(sum, net.values()))
            assert spent(business) == logged(business)
        final = assert_at_work(business, epoch=epoch)
        rebuild(business)
    assert sums(assert_at_work(business, epoch=epoch + 1)) == sums(final)
