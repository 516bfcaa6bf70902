"""What a worker counts: every series from the start, added up over its processes, and nothing of anybody else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric as Family

from billing.credits.values import ReserveOutcome
from billing.observability.metrics.catalogue import CATALOGUE, Kind, Metric, Source
from billing.observability.metrics.consumer import ConsumerMetrics
from billing.observability.metrics.counts import Counts, CountsCollector, new_memory
from billing.observability.metrics.memory import CHILDREN_MAX, Memory
from billing.task.observer import Called, Published
from billing.task.outcome import Outcome
from tests.unit.test_consumer_metrics import seen

SOURCES = (Source.WORKER, Source.FULFILLMENT)


@pytest.fixture
def memory() -> Memory:
    return new_memory()


@pytest.fixture
def counts(memory: Memory) -> Iterator[Counts]:
    counts = Counts(memory)
    yield counts
    counts.leave()


def totals(memory: Memory) -> dict[str, float]:
    """Return what is not 0, by name and labels."""
    return {
        sample.name + "".join(f"[{value}]" for label, value in sorted(sample.labels.items())): sample.value
        for family in CountsCollector(memory, *SOURCES).collect()
        for sample in family.samples
        if sample.value
    }


def forked(job: Callable[[], object]) -> int:
    """Run a job in a child of this process, and return how it ended."""
    pid = os.fork()
    if not pid:
        job()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def shown(family: Family) -> tuple[str, Kind, str, set[tuple[tuple[str, str], ...]]]:
    """Return a family's name, type, meaning, and the labels of its series, histograms' bounds aside."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    series = {
        tuple(sorted((label, value) for label, value in sample.labels.items() if label != "le"))
        for sample in family.samples
    }
    return name, Kind(family.type), family.documentation, series


def declared(metric: Metric) -> tuple[str, Kind, str, set[tuple[tuple[str, str], ...]]]:
    series: set[tuple[tuple[str, str], ...]] = {()}
    for name, values in metric.labels:
        series = {tuple(sorted((*known, (name, value)))) for known in series for value in values}
    return metric.name, metric.kind, metric.says, series


def test_what_workers_show_and_what_the_catalogue_says_agree_both_ways(memory: Memory) -> None:
    """Every metric of a worker and of a fulfillment worker, with type, meaning and all series, from the start."""
    families = [*CountsCollector(memory, *SOURCES).collect(), *ConsumerMetrics(seen).collect()]
    wanted = [declared(metric) for metric in CATALOGUE if metric.source in SOURCES]
    assert sorted(map(shown, families), key=str) == sorted(wanted, key=str)
    bounds = {metric.name: [*map(str, metric.buckets), "+Inf"] for metric in CATALOGUE if metric.kind is Kind.HISTOGRAM}
    for family in families:
        if family.name in bounds:
            assert [sample.labels["le"] for sample in family.samples if "le" in sample.labels] == bounds[family.name]
    of_workers = {family.name for family in CountsCollector(memory, Source.WORKER).collect()}
    assert of_workers == {metric.name.removesuffix("_total") for metric in CATALOGUE if metric.source is Source.WORKER}


def test_every_name_says_noun_and_unit_and_no_label_names_anybody() -> None:
    for metric in CATALOGUE:
        assert re.fullmatch(r"billing_[a-z]+(_[a-z]+)*", metric.name), metric
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
        assert not {name for name, _ in metric.labels} & {"client", "client_id", "sku", "task", "worker", "pid"}


def test_each_thing_that_is_told_is_counted_in_its_place(memory: Memory, counts: Counts) -> None:
    """Whatever is told of once shows once, and the sum over all series is what was told."""
    for reserved in (*ReserveOutcome, None):
        counts.reserved(reserved)
    for ended in set(Outcome) - {Outcome.HELD}:
        counts.ended(ended)
    counts.charged(7, 0.002)
    counts.charged(5, None)
    for published in Published:
        counts.published(published, 3)
    counts.confirmed_after(100.0)
    counts.owes(4)
    counts.relayed(11)
    counts.reaped(9)
    counts.reaped(None)
    counts.rebuilt(12)
    counts.alerted("debt")
    counts.alerted("of a newer version")
    for called in Called:
        counts.called(called)
    found = totals(memory)
    assert {name: value for name, value in found.items() if "[" not in name} == {
        "billing_charged_credits_total": 12,
        "billing_usage_events_total": 2,
        "billing_settle_delay_seconds_count": 1,
        "billing_settle_delay_seconds_sum": 0.002,
        "billing_publish_confirm_seconds_count": 1,
        "billing_publish_confirm_seconds_sum": 100.0,
        "billing_pending_charges": 4,
        "billing_relayed_events_total": 11,
        "billing_reaped_credits_total": 9,
        "billing_rebuilt_buckets_total": 12,
    }
    assert found["billing_settle_delay_seconds_bucket[0.0025]"] == 1
    assert "billing_settle_delay_seconds_bucket[0.001]" not in found
    assert "billing_publish_confirm_seconds_bucket[60.0]" not in found
    assert found["billing_publish_confirm_seconds_bucket[+Inf]"] == 1
    assert [found[f"billing_published_events_total[{each.value}]"] for each in Published] == [3, 3, 3]
    assert found["billing_alerts_total[debt]"] == 1
    single = ("reservations", "runs", "webhook_calls", "reaped_holds")
    series = {name: value for name, value in found.items() if any(f"_{each}_total[" in name for each in single)}
    assert set(series.values()) == {1}
    assert len(series) == len(ReserveOutcome) + 1 + len(Outcome) - 1 + len(Called) + 2


def test_given_children_that_end_or_are_killed_then_their_successors_go_on_in_their_places(
    memory: Memory, counts: Counts
) -> None:
    """No undercount: 3 places, 5 processes one after the other in each, every other one killed."""

    def work(index: int, *, dies: bool) -> None:
        assert counts.enter(index)
        for _ in range(100):
            counts.charged(2, None)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    counts.charged(1, None)
    for index in range(3):
        for number in range(5):
            dies = number % 2 == 1
            assert forked(lambda: work(index, dies=dies)) == (-signal.SIGKILL if dies else 0)  # noqa: B023 - called here
    assert totals(memory) == {"billing_usage_events_total": 1_501, "billing_charged_credits_total": 3_001}
    assert len(list(memory.rows())) == 4


def test_a_process_that_somebody_forks_counts_nothing(memory: Memory, counts: Counts) -> None:
    """It would write where its parent writes, and one of two additions would be lost."""
    counts.rebuilt(1)
    assert forked(lambda: counts.rebuilt(1)) == 0
    counts.rebuilt(1)
    assert totals(memory) == {"billing_rebuilt_buckets_total": 2}


def test_what_a_dead_child_had_waiting_is_not_shown_for_ever(memory: Memory, counts: Counts) -> None:
    def child(charges: int) -> None:
        counts.enter(0)
        if charges:
            counts.owes(charges)

    counts.owes(1)
    forked(lambda: child(5))
    assert totals(memory) == {"billing_pending_charges": 1}
    # Nor is it once another process has its place.
    reading, writing = os.pipe()

    def successor() -> None:
        child(0)
        os.write(writing, b"%g" % totals(memory)["billing_pending_charges"])

    forked(successor)
    assert os.read(reading, 10) == b"1"
    os.close(reading)
    os.close(writing)


def test_threads_of_one_process_count_every_one(memory: Memory, counts: Counts) -> None:
    def work() -> None:
        for _ in range(2_000):
            counts.charged(3, 0.01)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = totals(memory)
    assert (found["billing_usage_events_total"], found["billing_charged_credits_total"]) == (16_000, 48_000)
    assert found["billing_settle_delay_seconds_count"] == 16_000


def test_children_beyond_the_bound_are_not_counted_and_harm_nobody(memory: Memory, counts: Counts) -> None:
    def work(index: int, *, counted: bool) -> None:
        assert counts.enter(index) is counted
        counts.rebuilt(1)

    assert forked(lambda: work(CHILDREN_MAX - 1, counted=True)) == 0
    assert forked(lambda: work(CHILDREN_MAX, counted=False)) == 0
    assert totals(memory) == {"billing_rebuilt_buckets_total": 1}


def test_a_users_own_metrics_stay_as_they_are(tmp_path: Path) -> None:
    """Given an app that counts by prometheus_client's multiprocess files, then those hold its own metrics alone."""
    code = """
import os, glob
from prometheus_client import Counter, CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector
before = values.ValueClass
own = Counter("own", "of the user")
from billing.observability.metrics.worker import WorkerMetrics
metrics = WorkerMetrics("127.0.0.1:0")
metrics.start()
own.inc(); metrics.counts.charged(1, 0.1)
registry = CollectorRegistry()
MultiProcessCollector(registry)
assert [family.name for family in registry.collect()] == ["own"]
assert values.ValueClass is before
assert len(glob.glob(os.environ["PROMETHEUS_MULTIPROC_DIR"] + "/*")) == 1
metrics.close()
"""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=240, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
