"""A real Prometheus scrapes a real fleet: what it was told adds up to what was done, and no alert fires for nothing."""

from __future__ import annotations

import pytest

from billing.embedded.stack import Stack
from billing.observability.metrics.catalogue import CATALOGUE
from tests.deploy.queries import JOBS
from tests.deploy.test_grafana import queries
from tests.deploy.watched import watched
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def fleet_settings(stripe_sandbox: object, stack: Stack) -> dict[str, str]:
    """Report to the session's stand-in."""
    return {"BILLING_STRIPE_SANDBOX_URL": stack.endpoints.stripe_sandbox_url}


def test_prometheus_has_what_the_fleet_did_from_both_children_of_the_worker_to_the_usage_history(fleet: Fleet) -> None:
    """Given tasks that succeed, fail and are refused, then a query has the counts and credits of the books."""
    fleet.client("acme", 1_000)
    fleet.client("poor", 10)
    with watched(fleet) as watching:
        asking = watching.prometheus
        results = [fleet.send("ok", "acme", number) for number in range(20)]
        results += [fleet.send("metered", "acme", 5, 3) for _ in range(5)]
        results += [fleet.send("fails", "acme") for _ in range(4)]
        results += [fleet.send("ok", "poor") for _ in range(3)]
        wait_until(lambda: all(result.ready() for result in results), "every task has ended")
        rows = fleet.wait_for_rows(26)
        assert (len(rows), sum(row.credits for row in rows)) == (26, 20 * 10 + 5 * 30 + 10)

        wait_until(lambda: asking.value("sum(billing_usage_events_total)") == 26, "the worker counted each charge once")
        assert asking.value("sum(billing_charged_credits_total)") == 360
        by_outcome = asking.query("sum by (outcome) (billing_runs_total) > 0")
        assert by_outcome == {
            (("outcome", "charged"),): 26,
            (("outcome", "released"),): 4,
            (("outcome", "refused"),): 2,
        }
        wait_until(lambda: asking.value("sum(billing_consumer_usage_rows_total)") == 26, "the consumer wrote each once")
        wait_until(lambda: asking.value("max(billing_holds)") == 0, "the exporter has read the end")
        assert asking.query("max by (server) (billing_server_up)") == {
            (("server", server),): 1 for server in ("Redis", "PostgreSQL", "broker", "Stripe")
        }
        # What is confirmed leaves an outbox up to a second later, and Prometheus sees that with its next scrape.
        wait_until(lambda: asking.value("max(billing_outbox_events)") == 0, "the outboxes are empty")
        assert (asking.value("max(billing_months_ahead)") or 0) >= 11

        types = {source: asking.types(job) for source, job in JOBS.items()}
        for metric in CATALOGUE:
            assert set(metric.samples) <= asking.names(), metric.name
            # OpenMetrics, which Prometheus asks for, names a counter's family without `_total`.
            assert types[metric.source][metric.name.removesuffix("_total")] == metric.kind.value, metric.name
        for query in queries():
            asking.query(query)
        assert asking.firing() == set(), "nothing is wrong with this fleet"
