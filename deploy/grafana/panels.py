"""What the dashboard shows: rows of panels, each with its queries. `dashboard.py` makes Grafana's JSON of it.

Gauges of the whole fleet are said by every exporter, so a query takes their max or min; counters are summed.
"""

from __future__ import annotations

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A query, and what its series are called; `{{label}}` is the value of a label."""

    expr: str
    legend: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A panel. `kind` is Grafana's; `says`: what one reads from it. `red`: from which value on it is red."""

    title: str
    says: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    red: float | None = None
    #: Values that have words instead of numbers.
    words: tuple[tuple[float, str], ...] = ()


def _one(title: str, says: str, expr: str, *, unit: str = "short", red: float | None = None) -> Panel:
    return Panel(title=title, says=says, queries=(Query(expr=expr),), kind="stat", unit=unit, width=4, red=red)


def _many(title: str, says: str, *queries: tuple[str, str], unit: str = "short", width: int = 8) -> Panel:
    made = tuple(Query(expr=expr, legend=legend) for expr, legend in queries)
    return Panel(title=title, says=says, queries=made, unit=unit, width=width)


def _rate(name: str, label: str = "", legend: str = "") -> tuple[str, str]:
    by = f" by ({label})" if label else ""
    return f"sum{by} (rate({name}[$__rate_interval]))", legend or f"{{{{{label}}}}}"


def _quantiles(name: str) -> tuple[tuple[str, str], ...]:
    buckets = f"sum by (le) (rate({name}_bucket[$__rate_interval]))"
    return tuple((f"histogram_quantile({part / 100:g}, {buckets})", f"{part} %") for part in (50, 95, 99))


_SERVERS: Final = Panel(
    title="Servers",
    says="Which server answers. Nothing is admitted without Redis, nothing is written without PostgreSQL.",
    queries=(Query(expr="max by (server) (billing_server_up)", legend="{{server}}"),),
    kind="stat",
    width=12,
    words=((0, "down"), (1, "up")),
)

ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "At a glance": (
        _SERVERS,
        _one("Doctor: failures", "What `billing doctor` calls a failure.",
             'sum(max by (part) (billing_findings{verdict="fail"}))', red=1),
        _one("Doctor: warnings", "What it warns of.",
             'sum(max by (part) (billing_findings{verdict="warn"}))'),
        _one("Laws violated", "Differences that the last check of each law found. Run: billing reconcile",
             "sum(max by (law) (billing_law_violations))", red=1),
        _one("Consumer seen", "How long ago a consumer said that it lives.",
             'min(billing_seen_age_seconds{process="consumer"})', unit="s", red=30),
        _one("Beat seen", "How long ago beat's last tick came through.",
             'min(billing_seen_age_seconds{process="beat"})', unit="s", red=1_800),
        _one("Outbox, oldest", "How long a usage event has waited for the broker's confirm.",
             "min(billing_outbox_oldest_seconds)", unit="s", red=15),
        _one("Dead letters", "Usage events that could not be read, and are open. See: billing dead-letters list",
             "max(billing_dead_letters)", red=1),
        _one("Shards recovering", "Shards that admit nothing until they are rebuilt.",
             "min(billing_recovering_shards)", red=1),
        _one("Months ahead", "Months for which the usage history has partitions.", "max(billing_months_ahead)"),
    ),
    "Work": (
        _many("Reservations", "What buckets answered, per second.", _rate("billing_reservations_total", "outcome"),
              unit="ops"),
        _many("Runs", "How the billing of deliveries ended, per second.", _rate("billing_runs_total", "outcome"),
              unit="ops"),
        _many("Charged credits", "Credits charged by workers, and by the reaper for workers that died, per second.",
              _rate("billing_charged_credits_total", legend="credits"),
              _rate("billing_reaped_credits_total", legend="by the reaper"), unit="ops"),
        _many("Settle delay", "From a task's success to its charge.", *_quantiles("billing_settle_delay_seconds"),
              unit="s"),
        _many("Held", "Reservations that are held, and their credits.",
              ("max(billing_holds)", "holds"), ("max(billing_held_credits)", "credits")),
        _many("Waiting for credits or Redis", "Tasks parked in PostgreSQL; successes whose charge waits for Redis.",
              ("max(billing_parked_tasks)", "parked"), ("sum(billing_pending_charges)", "pending charges")),
    ),
    "Usage events": (
        _many("Publish to confirm", "Time until the broker confirms a usage event.",
              *_quantiles("billing_publish_confirm_seconds"), unit="s"),
        _many("Published", "What became of publishes, and what the relay published after them, per second.",
              _rate("billing_published_events_total", "outcome"),
              _rate("billing_relayed_events_total", legend="relayed"),
              unit="ops"),
        _many("Outbox", "Usage events that wait to be confirmed.", ("min(billing_outbox_events)", "events")),
        _many("Usage queues", "Messages that nobody has received yet.",
              ("max by (queue) (billing_queue_events)", "queue {{queue}}")),
        _many("Queues' consumers", "Who is subscribed: a standby counts, too.",
              ("max by (queue) (billing_queue_consumers)", "queue {{queue}}")),
        _many("Recovered", "Holds of dead workers that were ended, and buckets written anew, per second.",
              _rate("billing_reaped_holds_total", "outcome", "reaped: {{outcome}}"),
              _rate("billing_rebuilt_buckets_total", legend="rebuilt buckets"), unit="ops"),
    ),
    "The usage history": (
        _many("Committed", "What consumers have committed, and what of it was new, per second.",
              _rate("billing_consumer_committed_events_total", legend="events"),
              _rate("billing_consumer_usage_rows_total", legend="rows"),
              _rate("billing_consumer_duplicate_events_total", legend="duplicates"),
              _rate("billing_consumer_dead_letters_total", legend="dead letters"),
              _rate("billing_consumer_forged_events_total", legend="refused for their signature"), unit="ops"),
        _many("Batch write", "Time of a batch from its first try to its commit.",
              *_quantiles("billing_consumer_batch_write_seconds"), unit="s"),
        _many("Consumer lag", "Age of the oldest event in hand, of the write under way, of the log's last row.",
              ("max(billing_consumer_oldest_seconds)", "oldest in hand"),
              ("max(billing_consumer_write_age_seconds)", "write under way"),
              ("max(billing_consumer_database_wait_seconds)", "waits for PostgreSQL"),
              ("min(billing_log_age_seconds)", "last row"), unit="s"),
    ),
    "Stripe": (
        _many("Increments", "Increments by state; those that are rejected or quarantined wait for a person.",
              ("max by (state) (billing_increments)", "{{state}}"), width=12),
        _many("Not planned yet", "Credits of the log that no increment carries.",
              ("max(billing_unplanned_credits)", "credits"), width=6),
        _many("Usage to Stripe", "Age of the oldest usage without an increment, and of the oldest increment by state.",
              ("min(billing_rollup_to_stripe_seconds)", "not planned"),
              ("min by (state) (billing_increment_oldest_seconds)", "{{state}}"), unit="s", width=6),
    ),
    "Laws and alerts": (
        _many("Violations", "What each law's last check found.", ("max by (law) (billing_law_violations)", "{{law}}")),
        _many("Last check", "How long ago each law was checked.",
              ("min by (law) (billing_law_check_age_seconds)", "{{law}}"), unit="s"),
        _many("Alerts to clients", "Alerts by kind, and calls of webhooks by what became of them, per second.",
              _rate("billing_alerts_total", "kind"),
              _rate("billing_webhook_calls_total", "outcome", "webhook {{outcome}}"),
              unit="ops"),
    ),
}  # fmt: skip
