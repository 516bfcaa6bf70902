"""Each fault that an alert is about: what the metrics say then, and which alerts fire, and within what time."""

from __future__ import annotations

from typing import Final

from tests.deploy.promtool import Fault


def _fleet(name: str, value: float | None, fires: str, within: int = 30, **labels: str) -> Fault:
    """Return the fault in which a gauge of the fleet has a value."""
    given = ",".join(f'{label}="{text}"' for label, text in sorted({**labels, "job": "billing-fleet"}.items()))
    return Fault(series={f"billing_{name}{{{given}}}": value}, fires=frozenset(fires.split()), within=within)


def _of(job: str, fires: str, within: int = 30, clears: int = 30, **series: float) -> Fault:
    """Return the fault in which series of a worker are so: `name__outcome` is the series with that outcome."""
    given = {}
    for key, value in series.items():
        name, _, outcome = key.partition("__")
        labels = f'job="billing-{job}"' + (f',outcome="{outcome}"' if outcome else "")
        given[f"billing_{name}{{{labels}}}"] = value
    return Fault(series=given, fires=frozenset(fires.split()), within=within, clears=clears)


FAULTS: Final[dict[str, Fault]] = {
    "Redis is down": _fleet("server_up", 0, "BillingRedisDown", server="Redis"),
    "PostgreSQL is down": _fleet("server_up", 0, "BillingPostgreSQLDown", server="PostgreSQL"),
    "the broker is down": _fleet("server_up", 0, "BillingBrokerDown", server="broker"),
    "Stripe is down": _fleet("server_up", 0, "BillingStripeDown", server="Stripe"),
    "doctor finds a fault": _fleet("findings", 2, "BillingDoctorFails", part="clocks", verdict="fail"),
    "doctor warns": _fleet("findings", 2, "", part="clocks", verdict="warn"),
    "a worker is gone": Fault(
        series={'up{instance="one",job="billing-workers"}': 0}, fires=frozenset({"BillingTargetDown"})
    ),
    "the exporter is gone": Fault(
        series={'up{instance="one",job="billing-fleet"}': 0},
        fires=frozenset({"BillingTargetDown", "BillingNobodyReads"}),
        within=60,
    ),
    "the reading is old": _fleet("read_age_seconds", 90, "BillingReadingOld"),
    "the outbox is old": _fleet("outbox_oldest_seconds", 16, "BillingOutboxOld"),
    "the outbox grows": _fleet("outbox_events", 6000, "BillingOutboxGrows", within=60),
    "nothing is confirmed": _of(
        "workers", "BillingEventsUnconfirmed", within=40, clears=80, published_events_total__unconfirmed=5
    ),
    "the consumer is silent": _fleet("seen_age_seconds", 31, "BillingConsumerSilent", process="consumer"),
    "a queue has no consumer": _fleet("queue_consumers", 0, "BillingQueueUnread", queue="1"),
    "the consumer is behind": _of("fulfillment", "BillingConsumerBehind", within=150, consumer_oldest_seconds=61),
    "queues are long": _fleet("queue_events", 100_001, "BillingConsumerBehind", within=150, queue="0"),
    "the consumer waits for PostgreSQL": _of(
        "fulfillment", "BillingConsumerWaitsForPostgreSQL", consumer_database_wait_seconds=11
    ),
    "the log is silent": _fleet("log_age_seconds", 301, "BillingLogSilent", within=90),
    # The log's age is that of its runs which began last: rows of a backlog, or of senders without the library, come.
    "a backlog is worked off": Fault(
        series={
            'billing_log_age_seconds{job="billing-fleet"}': 3_600,
            'billing_consumer_usage_rows_total{job="billing-fulfillment"}': 5,
        },
        fires=frozenset(),
        within=400,
    ),
    "dead letters": _fleet("dead_letters", 1, "BillingDeadLetters"),
    "events are forged": _of(
        "fulfillment", "BillingEventsForged", within=40, clears=330, consumer_forged_events_total=5
    ),
    "charges are pending": _of("workers", "BillingChargesPending", within=90, pending_charges=1),
    "a law is violated": _fleet("law_violations", 1, "BillingLawViolated", law="L2 bucket"),
    "a law is not checked": _fleet(
        "law_check_age_seconds", 5_401, "BillingLawUnchecked", within=4_230, law="L8 planned"
    ),
    "beat is silent": _fleet("seen_age_seconds", 1_801, "BillingBeatSilent", within=150, process="beat"),
    "shards recover for long": _fleet("recovering_shards", 4, "BillingShardsRecovering", within=150),
    "holds are overdue": _fleet("hold_overdue_seconds", 301, "BillingHoldsOverdue", within=90),
    "a task is parked for long": _fleet("parked_oldest_seconds", 90_000, "BillingParkedLong", within=90),
    "many are refused": _of(
        "workers", "BillingRefusalsSpike", within=600, clears=400, reservations_total__insufficient=200
    ),
    "an outbox is full": _of(
        "workers", "BillingOutboxFull", within=40, clears=80, reservations_total__outbox_full=5
    ),
    "webhooks are given up": _of(
        "fulfillment", "BillingWebhooksFail", within=40, clears=930, webhook_calls_total__given_up=1
    ),
    "webhooks fail": _of(
        "fulfillment",
        "BillingWebhooksFail",
        within=330,
        clears=330,
        webhook_calls_total__failed=5,
        webhook_calls_total__delivered=1,
    ),
    "months are missing": _fleet("months_ahead", 1, "BillingMonthsMissing", within=90),
    "an increment is quarantined": _fleet("increments", 1, "BillingIncrementsInDoubt", state="quarantined"),
    "an increment is rejected": _fleet("increments", 1, "BillingIncrementsInDoubt", state="rejected"),
    "an increment is sent": _fleet("increments", 1, "", state="sent"),
    "an increment is old": _fleet("increment_oldest_seconds", 90_000, "BillingIncrementsOld", 90, state="ambiguous"),
    "usage is not planned": _fleet("rollup_to_stripe_seconds", 90_000, "BillingUsageUnplanned", within=90),
}  # fmt: skip
