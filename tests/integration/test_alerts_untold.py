"""A signal is noted as sent once every receiver was called and has ended, or hangs: what was not told is told again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

import billing
from billing.alerts import receivers
from billing.alerts.announcing import CLAIM, Announcer, announce
from billing.alerts.receivers import CALL_SECONDS_MAX
from billing.core.settings import Settings
from tests.integration.alerting import Scene, hanging
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def scene(redis_url: str, database: Settings) -> Iterator[Scene]:
    """Set the scene: two clients."""
    made = Scene(dataclasses.replace(database, redis_url=redis_url))
    for client_id in ("acme", "globex"):
        made.client(client_id)
    yield made
    made.close()


@pytest.fixture
def one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one place for a receiver's calls, and a call in it that may end any moment, however long the test takes."""
    monkeypatch.setattr(receivers, "CALLS_MAX", 1)
    monkeypatch.setattr(receivers, "CALL_SECONDS_MAX", 1e9)


def noted(scene: Scene) -> list[str]:
    """Return the clients whose alert is noted as announced."""
    return [client for client, at in scene.rows("client_id, announced_at") if at is not None]


def a_short_pass(scene: Scene) -> int:
    """Make a pass whose time is over as soon as it has called; return how many signals it noted as sent."""
    announcer = Announcer(scene.runtime)
    announcer.step()
    announcer.give_up()
    return announcer.told


@pytest.mark.usefixtures("one_place")
def test_a_pass_that_finds_every_place_taken_ends_and_leaves_the_alert_to_be_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given acme's call in the only place, when a pass comes for globex, then it looks once; globex is told later."""
    steps, step = [], Announcer.step
    loop = Announcer(scene.runtime)

    def counted(announcer: Announcer) -> int:
        steps.append(step(announcer))
        return steps[-1]

    with hanging(billing.alerts.low_balance, "acme") as called:
        scene.alerted("acme")
        loop.step()
        wait_until(lambda: called == ["acme"], "acme's call is under way")
        scene.alerted("globex")
        with monkeypatch.context() as patch:
            patch.setattr(Announcer, "step", counted)
            assert announce(scene.runtime) == 0
        assert (steps, called, noted(scene)) == ([1], ["acme"], [])
        scene.clock.move(CLAIM.total_seconds())
        called.go_on.set()
        wait_until(lambda: loop.step() == 0, "all is told")
        assert (called, noted(scene)) == (["acme", "globex"], ["acme", "globex"])


@pytest.mark.usefixtures("one_place")
def test_a_receiver_that_had_no_place_within_the_bound_is_called_when_the_claim_has_run_out(scene: Scene) -> None:
    """Given a worker that found no place for globex in all its time, then it lets it go, and does not note it."""
    first, second = Announcer(scene.runtime), Announcer(scene.runtime)
    with hanging(billing.alerts.low_balance, "acme") as called:
        scene.alerted("acme")
        first.step()
        scene.alerted("globex")
        assert second.step() == 1
        scene.clock.move(CALL_SECONDS_MAX)
        assert (second.step(), noted(scene)) == (0, [])
        called.go_on.set()
        wait_until(lambda: first.step() == 0, "acme is told")
        scene.clock.move(CLAIM.total_seconds() - CALL_SECONDS_MAX)
        wait_until(lambda: second.step() == 0, "globex is told")
        assert (called, noted(scene)) == (["acme", "globex"], ["acme", "globex"])


def test_a_call_that_outlasts_its_pass_is_noted_when_it_ends_and_lost_with_its_process_is_made_again(
    scene: Scene,
) -> None:
    """Given a pass that does not wait, then nothing is noted before a call has ended, and its end needs no pass."""
    with hanging(billing.alerts.low_balance) as called:
        scene.alerted("acme")
        assert a_short_pass(scene) == 0
        assert a_short_pass(scene) == 0
        wait_until(lambda: called == ["acme"], "acme's call is under way")
        scene.clock.move(CLAIM.total_seconds())
        assert a_short_pass(scene) == 0
        wait_until(lambda: called == ["acme", "acme"], "it is called again")
        assert noted(scene) == []
        called.go_on.set()
        wait_until(lambda: noted(scene) == ["acme"], "the call's own thread notes it")
    assert announce(scene.runtime) == 0
