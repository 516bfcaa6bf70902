"""The check of queries finds what is wrong with one: else a dashboard of empty panels would pass."""

from __future__ import annotations

import pytest

from tests.deploy.files import rules
from tests.deploy.queries import faults


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("sum(rate(billing_runs_total[5m]", "is no query"),
        ("max(billing_hold)", "is no metric of the catalogue"),
        ('sum(rate(billing_runs_total{result="charged"}[5m]))', "has no label result"),
        ('sum(rate(billing_runs_total{outcome="charge"}[5m]))', 'never has outcome="charge"'),
        ('sum(rate(billing_runs_total{outcome=~"late|lost"}[5m]))', 'never has outcome="lost"'),
        ('sum(rate(billing_runs_total{job="billing-fleet"}[5m]))', 'never has job="billing-fleet"'),
        ("sum by (client) (rate(billing_runs_total[5m]))", "has no label client to group by"),
        ("sum(billing_runs_total)", "has no rate"),
        ("sum(rate(billing_pending_charges[5m]))", "is a gauge"),
        ("sum(billing_holds)", "take its max or min"),
        ("billing_holds > 0", "take its max or min"),
        ("histogram_quantile(0.5, sum(rate(billing_settle_delay_seconds_bucket[5m])))", "not summed by le"),
        ("histogram_quantile(0.5, sum by (le) (rate(billing_settle_delay_seconds_sum[5m])))", "are no buckets"),
        ("max(billing_settle_delay_seconds)", "is no metric of the catalogue"),
        ('up{job="billing"} == 0', 'never has job="billing"'),
    ],
)
def test_a_query_that_would_never_say_what_it_means_is_refused(query: str, fault: str) -> None:
    assert fault in " ".join(faults(query))


def test_each_rule_names_only_what_exists_and_uses_it_as_what_it_is() -> None:
    """Metrics, labels and their values are the catalogue's; a rate is of a counter, a quantile of buckets."""
    found = rules()
    recorded = [rule.name for rule in found if not rule.alerts]
    assert [fault for rule in found for fault in faults(rule.query, recorded)] == []
