"""The consumer's metrics: their names, and where they are served."""

from __future__ import annotations

import re
import socket
import subprocess
import sys

import httpx
import pytest

from billing.core.errors import InvalidValue
from billing.core.settings import load
from billing.fulfillment.pressure import WRITE_SECONDS_BOUNDS, Pressure, WriteTimes
from billing.observability.metrics.consumer import ConsumerMetrics
from billing.observability.metrics.serving import MetricsServer
from tests.documents import DOCS


def seen() -> Pressure:
    """Return a look at a consumer, each number another one."""
    times = WriteTimes()
    for seconds in (0.001, 0.005, 0.2, 90.0):
        times.note(seconds)
    return Pressure(
        in_hand=1,
        in_hand_max=2,
        oldest_seconds=3.5,
        write_seconds=4.5,
        database_seconds=5.5,
        database_failures=6,
        queues=7,
        events=8,
        rows=9,
        duplicates=10,
        dead_letters=11,
        forged=12,
        signed_unasked=13,
        writes=tuple(times.counts),
        writes_seconds=times.seconds,
    )


def test_every_name_says_noun_and_unit_and_no_label_names_anybody() -> None:
    """The contract of names: `billing_<noun>_<unit>[_total]`; a label per client would be a series per client."""
    found = {}
    page = (DOCS / "dead-letters.md").read_text("utf-8")
    for metric in ConsumerMetrics(seen).collect():
        assert metric.documentation
        assert f"`{metric.name.removeprefix('billing_consumer_')}" in page
        for sample in metric.samples:
            assert re.fullmatch(
                r"billing_consumer_[a-z_]+_(events|seconds|rows|letters|queues|failures)(_[a-z]+)?", sample.name
            )
            assert set(sample.labels) <= {"le"}
            found[sample.name, sample.labels.get("le")] = sample.value
    assert {name: value for (name, bound), value in found.items() if bound is None} == {
        "billing_consumer_hand_events": 1,
        "billing_consumer_hand_limit_events": 2,
        "billing_consumer_oldest_seconds": 3.5,
        "billing_consumer_write_age_seconds": 4.5,
        "billing_consumer_database_wait_seconds": 5.5,
        "billing_consumer_database_failures_total": 6,
        "billing_consumer_subscribed_queues": 7,
        "billing_consumer_committed_events_total": 8,
        "billing_consumer_usage_rows_total": 9,
        "billing_consumer_duplicate_events_total": 10,
        "billing_consumer_dead_letters_total": 11,
        "billing_consumer_forged_events_total": 12,
        "billing_consumer_batch_write_seconds_count": 4,
        "billing_consumer_batch_write_seconds_sum": pytest.approx(90.206),
    }
    buckets = [value for (_, bound), value in found.items() if bound is not None]
    assert buckets == [2, 2, 2, 2, 2, *[3] * (len(WRITE_SECONDS_BOUNDS) - 5), 4]


def test_they_are_served_on_loopback_and_no_longer_once_closed() -> None:
    server = MetricsServer("127.0.0.1:0", ConsumerMetrics(seen))
    server.start()
    assert "\nbilling_consumer_hand_events 1.0\n" in httpx.get(server.url, timeout=60, trust_env=False).text
    server.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, timeout=60, trust_env=False)


def test_an_address_that_is_taken_or_not_ours_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            InvalidValue, match=rf"^billing_metrics_address: '{address}': cannot be listened on \(.*in use"
        ):
            MetricsServer(address)
    with pytest.raises(InvalidValue, match=r"^billing_metrics_address: '203\.0\.113\.1:9464': cannot be listened on"):
        MetricsServer("203.0.113.1:9464")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("", ""),
        (None, ""),
        (9464, "127.0.0.1:9464"),
        ("9464", "127.0.0.1:9464"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("[::1]:9", "[::1]:9"),
    ],
)
def test_a_port_alone_is_one_of_loopback(given: object, read: str) -> None:
    assert load({"billing_metrics_address": given}, {}).metrics_address == read


@pytest.mark.parametrize("given", ["x", "host:", ":9464", "host:70000", "a b:1", "::1:9", True, 1.5, -1, "1.2.3.4:9:9"])
def test_what_is_no_address_is_refused(given: object) -> None:
    with pytest.raises(InvalidValue, match=r"^billing_metrics_address: .*must be a port, or host:port"):
        load({"billing_metrics_address": given}, {})


def test_neither_billing_nor_its_consumer_imports_prometheus() -> None:
    """It costs whoever asks for it, and nobody else."""
    code = (
        "import sys, billing, billing.fulfillment.consumer, billing.integration.services; "
        "sys.exit('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=240).returncode == 0
