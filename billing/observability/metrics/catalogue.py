"""Every metric that billing has, by name: what it says, its labels with all their values, and who counts it.

Pure: the one list from which metrics are made, the reference is written, and dashboards and alert rules are checked.
Guarantee: no client is in a name or a label, and every label has few values that are known beforehand (L9), except the
number of a usage queue, which the settings bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from enum import Enum
from typing import Final

from billing.alerts.alert import FACTS
from billing.credits.values import ReserveOutcome
from billing.fulfillment.pressure import WRITE_SECONDS_BOUNDS
from billing.reconciliation.report import Law
from billing.sinks.sync.increment import State
from billing.task.observer import Called, Published
from billing.task.outcome import Outcome


class Kind(Enum):
    """What Prometheus calls a metric's type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(Enum):
    """Which process says it."""

    #: Every worker that runs billable tasks, summed over its children: what happened there since it began.
    WORKER = "worker"
    #: A worker with `--fulfillment`: what its consumer and its loops did since it began.
    FULFILLMENT = "fulfillment worker"
    #: Flower, or `billing exporter`: how the whole fleet stands, read from its servers. Several say the same.
    FLEET = "Flower or exporter"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric. `name` is as Prometheus shows it, a counter's with `_total`; `labels`: name → all values.

    A label without values has them from the settings (a usage queue's number). `buckets`: upper bounds, of histograms.
    """

    name: str
    kind: Kind
    source: Source
    says: str
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of the time series that a scrape has of it."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


#: Parts that the doctor looks at, by the name that its findings have.
PARTS: Final = (
    "Redis",
    "PostgreSQL",
    "clocks",
    "buckets",
    "broker",
    "Stripe",
    "reconciliation",
    "allowances",
    "top-ups",
    "tasks",
    "liveness",
    "laws",
    "doctor",
)
#: Servers that answer or do not.
SERVERS: Final = ("Redis", "PostgreSQL", "broker", "Stripe")
#: Of the value, not of the table: SQLAlchemy is not for a task worker's memory.
INCREMENT_STATES: Final = tuple(state.value for state in State)
#: Of these a state's oldest increment waits for something.
OPEN_STATES: Final = tuple(state.value for state in State if state not in (State.CONFIRMED, State.WRITTEN_OFF))
ALERT_KINDS: Final = tuple(FACTS)
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

#: What a law check is about: what reconciliation compares, and what only runs while time passes.
CHECKED: Final = (*(law.value for law in Law), "L1 ceiling", "L7 append only", "L9 liveness")


def _values(outcomes: Iterable[Enum]) -> tuple[str, ...]:
    return tuple(str(outcome.value).lower() for outcome in outcomes)


def _counter(name: str, source: Source, says: str, *labels: tuple[str, tuple[str, ...]]) -> Metric:
    return Metric(name=f"billing_{name}_total", kind=Kind.COUNTER, source=source, says=says, labels=labels)


def _gauge(name: str, source: Source, says: str, *labels: tuple[str, tuple[str, ...]]) -> Metric:
    return Metric(name=f"billing_{name}", kind=Kind.GAUGE, source=source, says=says, labels=labels)


def _histogram(name: str, source: Source, says: str, buckets: tuple[float, ...] = _SECONDS) -> Metric:
    return Metric(name=f"billing_{name}", kind=Kind.HISTOGRAM, source=source, says=says, buckets=buckets)


_W, _F, _S = Source.WORKER, Source.FULFILLMENT, Source.FLEET

CATALOGUE: Final[tuple[Metric, ...]] = (
    # A worker, over all its children. README.md has what sums to what.
    _counter(
        "reservations",
        _W,
        "Reserves by what the bucket answered; 'unreachable': Redis did not answer",
        ("outcome", (*_values(ReserveOutcome), "unreachable")),
    ),
    _counter(
        "runs",
        _W,
        "Deliveries of billable tasks whose billing ended, by how; 'pending': what is charged later, without another "
        "count here; a delivery that is retried, put off or killed has not ended",
        ("outcome", _values(each for each in Outcome if each is not Outcome.HELD)),
    ),
    _counter("charged_credits", _W, "Credits of the usage events made"),
    _counter(
        "usage_events",
        _W,
        "Runs whose charge this worker made, in a bucket or by a direct event, dry runs with theirs; with "
        "billing_reaped_holds_total{outcome='settled'} of the fulfillment workers: the runs of the usage history",
    ),
    _histogram("settle_delay_seconds", _W, "Time from the success of a run to its charge"),
    _histogram(
        "publish_confirm_seconds", _W, "Time from the first publish of a usage event to the broker's confirm of it"
    ),
    _counter(
        "published_events",
        _W,
        "Usage events published: 'confirmed': the broker has them; 'sent': on their way to a broker without confirms; "
        "'unconfirmed': they had to wait, and count again when the broker has them",
        ("outcome", tuple(each.value for each in Published)),
    ),
    _gauge("pending_charges", _W, "Successes whose charge waits for Redis in a worker's memory"),
    # A fulfillment worker: its consumer …
    _gauge("consumer_hand_events", _F, "Usage events received from the broker and not acked yet"),
    _gauge("consumer_hand_limit_events", _F, "Usage events that the broker sends at most before some are acked"),
    _gauge("consumer_oldest_seconds", _F, "Age of the oldest usage event in hand; 0: there is none"),
    _gauge("consumer_write_age_seconds", _F, "Age of the write that is under way; 0: none is"),
    _gauge("consumer_database_wait_seconds", _F, "Time for which PostgreSQL has taken no batch; 0: it does"),
    _gauge("consumer_subscribed_queues", _F, "Usage queues that the consumer is subscribed to"),
    _counter("consumer_committed_events", _F, "Usage events whose batch is committed, whatever became of them"),
    _counter("consumer_usage_rows", _F, "Rows inserted into the usage history"),
    _counter("consumer_duplicate_events", _F, "Usage events whose run was in the usage history"),
    _counter("consumer_dead_letters", _F, "Usage events that were refused and kept as dead letters"),
    _counter(
        "consumer_forged_events", _F, "Of these: refused for their signature; nobody knows who wrote them"
    ),
    _counter("consumer_database_failures", _F, "Writes that PostgreSQL did not take and that were tried again"),
    _histogram(
        "consumer_batch_write_seconds",
        _F,
        "Time that a batch took from its first try to its commit",
        WRITE_SECONDS_BOUNDS,
    ),
    # … and its loops.
    _counter("relayed_events", _F, "Usage events that the relay, or a rebuild, published from the outbox"),
    _counter(
        "reaped_holds",
        _F,
        "Holds whose worker died, by how the reaper ended them; 'settled': it charged their drafts",
        ("outcome", ("settled", "expired")),
    ),
    _counter(
        "reaped_credits",
        _F,
        "Credits of the drafts that the reaper charged; with billing_charged_credits_total of all workers: the credits "
        "of the usage history, adjustments aside",
    ),
    _counter("rebuilt_buckets", _F, "Buckets written anew from the usage history"),
    _counter("alerts", _F, "Alerts, by kind; each counts once in the fleet, when its signal was sent",
             ("kind", ALERT_KINDS)),
    _counter(
        "webhook_calls",
        _F,
        "Calls of clients' webhooks, by what became of them; 'failed': to be called again; 'given_up': the last one",
        ("outcome", tuple(each.value for each in Called)),
    ),
    # The whole fleet.
    _gauge("server_up", _S, "1: the server answers; 0: it does not", ("server", SERVERS)),
    _gauge(
        "findings",
        _S,
        "What billing doctor finds, by part and verdict",
        ("part", PARTS),
        ("verdict", ("ok", "warn", "fail")),
    ),
    _gauge("read_age_seconds", _S, "Age of what these metrics were read from"),
    _gauge("holds", _S, "Reservations that are held"),
    _gauge("held_credits", _S, "Credits that are held; absent while there are more than 100,000 holds"),
    _gauge("hold_overdue_seconds", _S, "How long the hold that is longest past its lease has been so; 0: none is"),
    _gauge("recovering_shards", _S, "Shards that admit nothing until they are rebuilt"),
    _gauge("outbox_events", _S, "Usage events that wait to be confirmed by the broker"),
    _gauge("outbox_oldest_seconds", _S, "Age of the oldest of them; 0: there is none"),
    _gauge("queue_events", _S, "Messages in a usage queue that nobody has received", ("queue", ())),
    _gauge("queue_consumers", _S, "Consumers of a usage queue", ("queue", ())),
    _gauge("dead_letters", _S, "Dead letters that are open"),
    _gauge("parked_tasks", _S, "Tasks that wait for credits in PostgreSQL"),
    _gauge("parked_oldest_seconds", _S, "How long the oldest of them has waited; 0: there is none"),
    _gauge("unplanned_credits", _S, "Credits of the log that no increment carries yet"),
    _gauge(
        "rollup_to_stripe_seconds", _S, "Age of the oldest hour of usage that no increment carries; 0: there is none"
    ),
    _gauge("increments", _S, "Increments for Stripe, by state; many confirmed ones are PostgreSQL's estimate",
           ("state", INCREMENT_STATES)),
    _gauge(
        "increment_oldest_seconds", _S, "Age of the oldest increment of a state; 0: there is none",
        ("state", OPEN_STATES),
    ),
    _gauge("law_violations", _S, "What a law's last check found to differ", ("law", CHECKED)),
    _gauge("law_check_age_seconds", _S, "Time since a law was last checked; +Inf: it never was", ("law", CHECKED)),
    _gauge("seen_age_seconds", _S, "Time since one of these was last seen; +Inf: none ever was",
           ("process", ("beat", "consumer"))),
    _gauge("log_age_seconds", _S, "Time since the usage history got its last row; +Inf: it has none"),
    _gauge("months_ahead", _S, "Months after this one for which the usage history has partitions"),
    _gauge("webhook_deliveries", _S, "Alerts that wait for their client's webhook"),
)  # fmt: skip
