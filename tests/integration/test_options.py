"""Every option and every word of a call, on real workers: one charge per success, at the promised price (L3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import celery
import pytest
from celery.backends.base import Backend
from celery.backends.redis import RedisBackend

from billing import InsufficientCredits, InvalidValue
from billing.embedded.process import Child
from billing.embedded.stack import Stack
from billing.task.attachment import attachment_of
from tests.fleet.fixtures import make_fleet, module_servers
from tests.fleet.harness import Fleet
from tests.fleet.options import CREDITS, FIXED_SKU, LATER, register
from tests.fleet.tasks import OTHER_SKU, SKU, noted
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def options_fleet(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Run a consumer, a worker, and one of the next deploy, which takes what retries and sells reports for more."""
    directory = tmp_path_factory.mktemp("fleet")
    with module_servers(stack) as servers, make_fleet(servers, directory) as made:
        register(made.app, {"FLEET_DIRECTORY": str(directory)})
        made.consumer(wait=False)
        start(made, "old", "tasks", credits_=7)
        start(made, "new", LATER, credits_=9)
        for name in ("consumer", "old", "new"):
            made.wait_ready(name)
        yield made
        attachment = attachment_of(made.app)
        attachment.runtime.close()


def start(fleet: Fleet, name: str, queue: str, *, credits_: int) -> Child:
    """Start a worker of `tests.fleet.options_worker`."""
    arguments = ("worker", "-Q", queue, "-c", "2", "-n", f"{name}@test", "-l", "INFO")
    environment = {CREDITS: str(credits_)}
    return fleet._run(name, "celery", "-A", "tests.fleet.options_worker", *arguments, environment=environment)


@pytest.fixture
def fleet(options_fleet: Fleet) -> Fleet:
    """Return the module's fleet: each test has clients of its own."""
    return options_fleet


def ended(fleet: Fleet, client_id: str, spent: int) -> None:
    """Wait until nothing is held, and hold the bucket to what was spent."""
    wait_until(lambda: fleet.balance(client_id).spent >= spent, f"{client_id} has spent {spent}")
    wait_until(lambda: not fleet.holds(client_id), "no hold is left")
    assert fleet.balance(client_id).spent == spent


def test_fixed_credits_are_those_of_the_first_reserve_through_a_deploy(fleet: Fleet) -> None:
    """Given a report of 7 credits that retries on a worker which sells it for 9, then it costs 7, without a price."""
    fleet.client("acme", 16)

    assert fleet.send("report", "acme").get(timeout=120) == 9

    (row,) = fleet.wait_for_rows(1, "acme")
    assert (row.sku, row.quantity, row.credits, row.attempt) == (FIXED_SKU, 1, 7, 2)
    ended(fleet, "acme", 7)


def test_what_a_call_says_survives_a_kill_and_a_retry(fleet: Fleet) -> None:
    """Given a call of 4 units whose worker is killed, and which then retries, then 4 units are charged once (L3)."""
    fleet.client("brook", 100)

    sized: Any = fleet.app.tasks["sized"]
    most = {SKU: 6, OTHER_SKU: 2}
    result = sized.apply_async(("brook", "brook.runs"), billing_quantity=4, billing_reserve=most)

    assert result.get(timeout=120) == 4
    assert len(noted(fleet.directory, "brook.runs")) == 3
    assert [(row.quantity, row.credits) for row in fleet.wait_for_rows(1, "brook")] == [(4, 40)]
    ended(fleet, "brook", 40)


def test_a_message_that_says_nonsense_is_refused_before_it_runs(fleet: Fleet) -> None:
    """Given a sender without the library, when its header is no quantity, then the caller gets one line."""
    fleet.client("cedar", 100)

    sender = celery.Celery("sender", broker=fleet.app.conf.broker_url, backend=fleet.app.conf.result_backend)
    with sender:
        sent = sender.send_task("ok", ("cedar",), queue="tasks", headers={"billing_quantity": "4"})
    with pytest.raises(InvalidValue, match="billing_quantity: '4': must be a whole number"):
        fleet.app.AsyncResult(sent.id).get(timeout=120)
    ended(fleet, "cedar", 0)


def test_links_of_a_canvas_are_checked_when_they_run_not_on_their_parents_account(fleet: Fleet) -> None:
    """Given a chain whose second task cannot be paid for, then the first is charged, and the second fails by itself."""
    fleet.client("delta", 40)
    fleet.client("empty", 9)
    tasks: Any = fleet.app.tasks
    ok, early = tasks["ok"], tasks["early"]

    last: Any = celery.chain(ok.s("delta", 3), ok.s().set(billing_client="delta", billing_quantity=3)).apply_async()
    with pytest.raises(InvalidValue, match="client_id: 3"):
        # The result of the first is the first argument of the second: no client's name.
        last.get(timeout=120)
    assert last.parent.get(timeout=120) == 3
    last = celery.chain(ok.s("delta", 4), early.si("delta").set(billing_quantity=2), early.si("empty")).apply_async()
    with pytest.raises(InsufficientCredits):
        last.get(timeout=120)
    assert last.parent.get(timeout=120) == "delta"
    ended(fleet, "delta", 40)
    assert sorted(row.credits for row in fleet.wait_for_rows(3, "delta")) == [10, 10, 20]


def test_refused_early_is_nothing_sent_and_nothing_held(fleet: Fleet) -> None:
    """Given 15 credits, when two tasks of 10 are submitted that ask early, then the second is refused at submit."""
    fleet.client("fjord", 15)
    early: Any = fleet.app.tasks["early"]

    assert early.delay("fjord").get(timeout=120) == "fjord"
    ended(fleet, "fjord", 10)
    with pytest.raises(InsufficientCredits) as refused:
        early.delay("fjord")
    assert refused.value.args == ("fjord", SKU, 10, 5)
    # With a countdown it is not asked: the gate refuses.
    with pytest.raises(InsufficientCredits):
        early.apply_async(("fjord",), countdown=0.1).get(timeout=120)
    ended(fleet, "fjord", 10)


def test_a_chord_and_a_group_on_an_app_whose_every_task_is_billable(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given `task_cls` with a SKU, then a chord, joined by Celery's own task, is charged for its four tasks alone."""
    fleet.client("grove", 100)
    tasks: Any = fleet.app.tasks
    one, total = tasks["one"], tasks["total"]
    monkeypatch.setattr(RedisBackend, "apply_chord", Backend.apply_chord)

    joined = celery.chord([one.s("grove") for _ in range(3)], total.s("grove").set(billing_client="grove"))
    assert joined.apply_async().get(timeout=120) == 3
    grouped = celery.group(one.s("grove").set(billing_quantity=2), one.s("grove")).apply_async()
    assert grouped.get(timeout=120) == [1, 1]

    assert sorted(row.credits for row in fleet.wait_for_rows(6, "grove")) == [10, 10, 10, 10, 10, 20]
    ended(fleet, "grove", 70)
    assert "celery.chord_unlock" in (fleet.directory / "old.log").read_text()


def test_bodies_that_a_canvas_calls_inline_are_refused_by_the_worker(fleet: Fleet) -> None:
    """Given a `celery.starmap` made by hand, then the worker refuses to run billable bodies unbilled (L3)."""
    fleet.client("harbor", 100)

    ok: Any = fleet.app.tasks["ok"]
    result = celery.xstarmap(ok.s(), [("harbor", 1)], app=fleet.app).apply_async()
    with pytest.raises(Exception, match=r"starmap\(\) would run it unbilled"):
        result.get(timeout=120)
    ended(fleet, "harbor", 0)


def test_hooks_that_are_overridden_assigned_or_raise_cost_no_charge_and_no_second_one(fleet: Fleet) -> None:
    """Given `__call__` overridden, hooks assigned to the task and hooks that raise, then one charge per success."""
    fleet.client("iris", 100)

    assert fleet.send("called", "iris").get(timeout=120) == "done"
    assert fleet.send("assigned", "iris").get(timeout=120) == "done"
    # What callers see where hooks raise is Celery's affair, and not the same in its versions.
    for failures in (0, 2):
        fleet.send("runs", "iris", failures).get(timeout=120, propagate=False)

    rows = fleet.wait_for_rows(3, "iris")
    assert sorted((row.sku, row.credits, row.late) for row in rows) == [
        (OTHER_SKU, 3, False),
        (OTHER_SKU, 3, False),
        (OTHER_SKU, 6, False),
    ]
    ended(fleet, "iris", 12)
