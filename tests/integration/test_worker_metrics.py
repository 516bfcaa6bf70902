"""What the workers of a fleet count adds up to what the log has, whatever becomes of the processes of their pools."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from typing import Any

import psutil
import psycopg
import pytest

from billing.embedded.process import Child
from tests.fleet.harness import Fleet
from tests.integration.scraping import added, by_label, samples, url_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: What is served at a port that is free.
ANY_PORT = {"BILLING_METRICS_ADDRESS": "0"}
EVENTS, CREDITS = "billing_usage_events_total", "billing_charged_credits_total"
REAPED, REAPED_CREDITS = 'billing_reaped_holds_total{outcome="settled"}', "billing_reaped_credits_total"


def consumer(fleet: Fleet) -> Child:
    """Start a fulfillment worker that serves its metrics."""
    return fleet.start("consumer", pool="solo", options=("--fulfillment",), environment=ANY_PORT)


def worker(fleet: Fleet, name: str = "worker", *, children: int = 3, pool: str = "prefork", tasks: int = 0) -> Child:
    """Start a worker that serves its metrics, and whose children end after so many tasks; 0: they do not."""
    options = (f"--max-tasks-per-child={tasks}",) if tasks else ()
    return fleet.start(name, children=children, pool=pool, options=options, environment=ANY_PORT)


def logged(fleet: Fleet) -> tuple[int, int]:
    """Return the runs of the usage history, and their credits."""
    query = b"SELECT count(DISTINCT run_id), coalesce(sum(credits), 0) FROM usage_history WHERE corrects IS NULL"
    with psycopg.connect(fleet.settings.database_url) as connection:
        found = connection.execute(query).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


def pool_of(child: Child) -> set[int]:
    """Return the children of a worker's pool."""
    return {process.pid for process in psutil.Process(child.child_pid).children()}


def send_all(fleet: Fleet, *calls: tuple[str, int, tuple[Any, ...]]) -> list[Any]:
    """Submit tasks: their name, how often, their arguments."""
    return [fleet.send(name, *arguments) for name, count, arguments in calls for _ in range(count)]


def wait_for_all(results: list[Any]) -> None:
    """Wait until every task has ended."""
    wait_until(lambda: all(result.ready() for result in results), "every task has ended", timeout_seconds=300)


def settle_late(fleet: Fleet, client_id: str) -> Any:
    """Have a run succeed whose hold is gone: another one took it away."""
    result = fleet.send("gated", client_id, "gate")
    started = fleet.directory / "gate.started"
    wait_until(started.exists, "the run has begun")
    (hold,) = fleet.holds(client_id)
    fleet.buckets.release(client_id, hold.run_id, hold.token)
    (fleet.directory / "gate").touch()
    return result


def test_given_recycled_children_when_all_is_settled_then_the_totals_are_the_logs_to_the_credit(fleet: Fleet) -> None:
    """Show 4: rows, credits and runs by outcome, of tasks that end in every way, in children that live for 3 tasks."""
    rich, poor, slow = (fleet.client(name, credits) for name, credits in (("a", 100_000), ("b", 25), ("c", 100)))
    started = consumer(fleet), worker(fleet, tasks=3)
    of_consumer, of_worker = map(url_of, started)
    first = pool_of(started[1])
    assert not any(samples(of_worker).values())
    results = send_all(
        fleet,
        ("ok", 40, (rich,)),
        ("ok", 6, (poor,)),
        ("metered", 10, (rich, 5, 3)),
        ("lines", 10, (rich, 2)),
        ("fails", 7, (rich,)),
        ("rejects", 2, (rich,)),
        ("retries", 3, (rich, 2)),
        ("unpriced", 2, (rich,)),
        ("free", 5, ()),
    )
    results.append(settle_late(fleet, slow))
    answered = [result for result in results if result.id not in {r.id for r in results[73:75]}]
    wait_for_all(answered)
    charged = 40 + 2 + 10 + 10 + 3 + 1
    wait_until(lambda: logged(fleet)[0] == charged, "the log has every run")
    wait_until(lambda: by_label(samples(of_worker), "billing_runs_total").get("released") == 9, "all have ended")

    found = samples(of_worker)
    assert (found[EVENTS], found[CREDITS]) == logged(fleet) == (charged, 420 + 300 + 160 + 30 + 10)
    assert by_label(found, "billing_runs_total") == {"charged": 65, "late": 1, "released": 9, "refused": 6}
    held = 40 + 2 + 10 + 10 + 7 + 2 + 3 + 1
    assert by_label(found, "billing_reservations_total") == {"held": held, "taken_over": 6, "insufficient": 4}
    assert by_label(found, "billing_published_events_total") == {"confirmed": charged}
    assert found["billing_settle_delay_seconds_count"] == found["billing_publish_confirm_seconds_count"] == charged
    assert found['billing_settle_delay_seconds_bucket{le="+Inf"}'] == charged
    assert found["billing_pending_charges"] == 0
    wait_until(lambda: not first & pool_of(started[1]), "no child of the beginning lives any more")
    wait_until(
        lambda: samples(of_consumer)["billing_consumer_usage_rows_total"] == charged + 10, "all rows are written"
    )
    assert samples(of_consumer)[EVENTS] == 0


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_in_every_pool_the_totals_are_the_logs(fleet: Fleet, pool: str) -> None:
    client = fleet.client("acme", 1_000)
    url = url_of(worker(fleet, pool=pool, children=1 if pool == "solo" else 4))
    results = send_all(fleet, ("ok", 20, (client,)), ("fails", 3, (client,)), ("metered", 5, (client, 4, 1)))
    fleet.consumer()
    wait_for_all(results)
    wait_until(lambda: logged(fleet) == (25, 250), "the log has every run")
    assert (samples(url)[EVENTS], samples(url)[CREDITS]) == (25, 250)
    wait_until(
        lambda: by_label(samples(url), "billing_runs_total") == {"charged": 25, "released": 3}, "every end is counted"
    )


def test_given_an_address_that_is_taken_then_a_worker_ends_with_one_line_and_has_started_nothing(fleet: Fleet) -> None:
    first = url_of(worker(fleet, "first"))
    taken = fleet.start("taken", children=2, environment={"BILLING_METRICS_ADDRESS": first.split("/")[2]})
    assert taken.wait(120) not in (None, 0)
    said = taken.log.read_text(errors="replace")
    assert said.count("billing_metrics_address: ") == 1
    assert "cannot be listened on (Address already in use)" in said
    assert "Traceback" not in said
    assert " ready." not in said
    assert samples(first)


def die_at(fleet: Fleet, point: str) -> None:
    """Have the next process die that comes to a point of `tests.fleet.counted`."""
    order = fleet.directory / f"kill.{point}"
    order.touch()
    wait_until(lambda: not order.exists(), f"a process has died at {point}")


def test_given_sigkill_then_what_is_not_counted_are_charges_whose_process_died_right_then_and_no_others(
    fleet: Fleet,
) -> None:
    """The law under SIGKILL: a death between a charge and its count costs that one count; nothing counts twice.

    Deaths at random first, then one at each point around the count, in children that are recycled as well.
    """
    fleet.module = "tests.fleet.counted"
    client, chance = fleet.client("acme", 1_000_000), random.Random(17)
    started = consumer(fleet), worker(fleet, tasks=25)
    urls = [url_of(child) for child in started]
    fleet.wait_ready("worker")
    results, kills, seen = send_all(fleet, ("works", 150, (client,))), 0, 0
    while seen < 100:
        wait_until(lambda: logged(fleet)[0] > seen, "the log grows")  # noqa: B023 - called here
        seen = logged(fleet)[0]
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(chance.choice(sorted(pool_of(started[1]))), signal.SIGKILL)
            kills += 1
    wait_for_all(results)
    wait_until(lambda: logged(fleet) == (150, 1_500), "the log has every run")
    found = added(urls)
    missed = 150 - found[EVENTS] - found[REAPED]
    assert 0 <= missed <= kills
    assert 1_500 - found[CREDITS] - found[REAPED_CREDITS] == 10 * missed

    for point in ("before_settle", "before_count", "before_publish", "before_count"):
        results = send_all(fleet, ("ok", 10, (client,)))
        die_at(fleet, point)
        wait_for_all(results)
    wait_until(lambda: logged(fleet) == (190, 1_900), "the log has every run")
    found = added(urls)
    assert 190 - found[EVENTS] - found[REAPED] == missed + 2
    assert 1_900 - found[CREDITS] - found[REAPED_CREDITS] == 10 * (missed + 2)
    assert found["billing_relayed_events_total"] >= 3
    assert found["billing_pending_charges"] == 0


def test_given_a_worker_that_died_whole_then_the_reaper_counts_what_it_charges_and_nobody_again(fleet: Fleet) -> None:
    """A stored success whose worker died before it settled: the reaper's to count, also once it is redelivered."""
    fleet.module = "tests.fleet.counted"
    client = fleet.client("acme", 1_000)
    started = consumer(fleet), worker(fleet, "first", children=1)
    of_consumer = url_of(started[0])
    url_of(started[1])
    sent = fleet.send("gated", client, "gate")
    wait_until((fleet.directory / "gate.started").exists, "it runs")
    # Else its main process would have it begun again by another child.
    os.kill(started[1].child_pid, signal.SIGSTOP)
    (fleet.directory / "gate").touch()
    die_at(fleet, "before_settle")
    started[1].kill()
    wait_until(lambda: samples(of_consumer)[REAPED] == 1, "the reaper has charged it")
    assert samples(of_consumer)[REAPED_CREDITS] == 10
    second = url_of(worker(fleet, "second", children=1))
    wait_until(lambda: by_label(samples(second), "billing_runs_total") == {"charged": 1}, "it came again")
    assert sent.get(timeout=120) == 0
    assert samples(second)[EVENTS] == samples(second)[CREDITS] == 0
    assert logged(fleet) == (1, 10)


def test_given_a_redis_that_is_away_at_the_settle_then_the_charge_is_counted_when_it_is_made(fleet: Fleet) -> None:
    """`pending` is how the delivery ended; the charge counts once, late, with its delay."""
    fleet.module = "tests.fleet.counted"
    client = fleet.client("acme", 1_000)
    fleet.consumer()
    url = url_of(worker(fleet, children=1))
    (fleet.directory / "away").touch()
    sent = fleet.send("ok", client)
    wait_until(lambda: by_label(samples(url), "billing_runs_total") == {"pending": 1}, "its delivery has ended")
    wait_until(lambda: samples(url)["billing_pending_charges"] == 1, "its charge waits")
    assert samples(url)[EVENTS] == 0
    (fleet.directory / "away").unlink()
    wait_until(lambda: samples(url)["billing_pending_charges"] == 0, "it is made")
    assert (samples(url)[EVENTS], samples(url)[CREDITS]) == (1, 10)
    assert by_label(samples(url), "billing_runs_total") == {"pending": 1}
    wait_until(lambda: logged(fleet) == (1, 10), "the log has it")
    assert sent.get(timeout=120) == 0
