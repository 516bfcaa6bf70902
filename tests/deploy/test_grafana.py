"""The dashboard of `deploy/grafana`: made from its source, and every panel shows a metric that there is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import yaml

from billing.observability.metrics.catalogue import CATALOGUE
from deploy.grafana import dashboard
from tests.deploy.files import CONFIGURATION, DEPLOY, read, rules
from tests.deploy.promtool import check
from tests.deploy.queries import faults, metrics

GRAFANA = DEPLOY / "grafana"
#: What no panel shows, and why.
NOT_SHOWN = {
    "billing_read_age_seconds": "an alert says when it is old",
    "billing_hold_overdue_seconds": "an alert says when it is long",
    "billing_parked_oldest_seconds": "an alert says when it is long",
    "billing_webhook_deliveries": "the calls are shown",
    "billing_usage_events_total": "one for each run that is charged",
    "billing_consumer_hand_events": "of one consumer; the lag is shown",
    "billing_consumer_hand_limit_events": "of one consumer; the lag is shown",
    "billing_consumer_subscribed_queues": "each queue's consumers are shown",
    "billing_consumer_database_failures_total": "the wait for PostgreSQL is shown",
}


def queries() -> list[str]:
    """Return every query, with the rate's window as Grafana makes it: four scrapes."""
    found = [target["expr"] for panel in shown()["panels"] for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "20s") for query in found]


def shown() -> Any:
    """Return the dashboard as it is in the repository."""
    return json.loads((GRAFANA / "billing.json").read_text(encoding="utf-8"))


def test_the_dashboard_is_what_its_source_makes() -> None:
    """Given another panel, run: python -m deploy.grafana.dashboard."""
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text()


def test_each_query_names_only_what_exists_and_uses_it_as_what_it_is() -> None:
    assert len(queries()) > 40
    assert [fault for query in queries() for fault in faults(query, [rule.name for rule in rules()])] == []


def test_prometheus_itself_takes_each_query(tmp_path: Path) -> None:
    """Promtool has no check of a query alone: each is the expression of a rule."""
    path = tmp_path / "queries.yml"
    made = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries())]
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}), encoding="utf-8")
    assert check("rules", path) == ""
    made.append({"record": "wrong", "expr": "sum(rate(billing_holds))"})
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}), encoding="utf-8")
    assert "could not parse expression" in check("rules", path)


def test_every_metric_is_on_a_panel_or_there_is_a_reason() -> None:
    on_panels = {name for query in queries() for name in metrics(query)}
    assert {metric.name for metric in CATALOGUE} - on_panels == set(NOT_SHOWN)


def test_no_two_panels_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in shown()["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, panel["title"]
        assert max(column for column, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in shown()["panels"]}) == len(shown()["panels"])


def test_it_is_provisioned_from_the_prometheus_that_scrapes() -> None:
    (source,) = read(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == read(CONFIGURATION)["global"]["scrape_interval"]
