"""Every `billing.*` task: thin, bounded, safe to run twice, late, or beside the fulfillment worker's own loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import celery

from billing.core.errors import Fatal
from billing.integration.stripe_tasks import stripe_tasks
from billing.integration.watching_tasks import watching_tasks
from billing.task.attachment import Attachment, attachment_of
from billing.workload import row_task

#: Bounds of one run of `billing.fulfillment.drain` (L9).
DRAIN_SECONDS: Final = 30.0
DRAIN_BATCHES: Final = 1_000
DRAIN_IDLE_SECONDS: Final = 2.0
#: A run of `billing.reconcile.run` begins no further clients after this time; the next one goes on there.
RECONCILE_SECONDS: Final = 1_200.0

_OPTIONS: Final[dict[str, Any]] = {
    "ignore_result": True,
    # Celery's plain task, even on an app whose default class is billable: maintenance is nobody's usage.
    "base": celery.Task,
    "acks_late": True,
    # Each app has its own: a shared one would bill another app's fleet with this app's settings.
    "shared": False,
}


def register_tasks(app: celery.Celery) -> None:
    """Register the maintenance tasks on an app."""

    def drain_usage_queues() -> dict[str, int]:
        """Write what waits in the usage queues to the usage history, for at most half a minute."""
        # Task workers register this and never run it: the consumer's modules are not for their memory.
        from billing.fulfillment.drain import drain  # noqa: PLC0415
        from billing.integration import services  # noqa: PLC0415

        runtime = attachment_of(app).runtime
        _check_signatures(attachment_of(app))
        log = services.make_usage_log(runtime)
        report = drain(
            runtime.settings,
            log,
            seconds=DRAIN_SECONDS,
            batches=DRAIN_BATCHES,
            idle_seconds=DRAIN_IDLE_SECONDS,
            after_commit=services.outbox_cleaner(runtime),
        )
        return {"events": report.events, "rows": report.rows}

    def make_months() -> int:
        """Make the usage history's partitions for a year ahead."""
        from billing.connections import postgres  # noqa: PLC0415 - not for task workers' memory
        from billing.schema.partitions import make_partitions  # noqa: PLC0415 - the same

        runtime = attachment_of(app).runtime
        with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
            return len(make_partitions(connection, runtime.clock.now()))

    def reconcile_books() -> dict[str, int]:
        """Compare Redis, the log and Stripe, from where the last run had to stop."""
        # Task workers register this and never run it, see above.
        from billing.reconciliation.scheduled import reconcile_next  # noqa: PLC0415

        report = reconcile_next(attachment_of(app).runtime, seconds=RECONCILE_SECONDS)
        return {"clients": report.clients, "discrepancies": sum(law.discrepancies for law in report.laws)}

    def deliver_alerts() -> None:
        """Record, announce and post the alerts that wait, in case no fulfillment worker's loop did."""
        from billing.alerts.delivering import deliver_pending  # noqa: PLC0415 - not for task workers' memory

        deliver_pending(attachment_of(app).runtime)

    def grant_due_allowances() -> int:
        """Grant what allowances are due for, in case no fulfillment worker's loop did."""
        from billing.recovery.allowances import grant_allowances  # noqa: PLC0415 - not for task workers' memory

        return grant_allowances(attachment_of(app).runtime)

    def run_due_top_ups() -> None:
        """Ask for the credits of clients that are short, in case no fulfillment worker's loop did."""
        from billing.top_ups.asking import run_top_ups  # noqa: PLC0415 - not for task workers' memory

        run_top_ups(attachment_of(app).runtime)

    for name, function in (
        ("billing.fulfillment.drain", drain_usage_queues),
        ("billing.partitions.make", make_months),
        ("billing.alerts.deliver", deliver_alerts),
        ("billing.allowances.grant", grant_due_allowances),
        ("billing.top_ups.run", run_due_top_ups),
        ("billing.parked.start", _starting_parked(app)),
        ("billing.reconcile.run", reconcile_books),
        *stripe_tasks(app),
        *watching_tasks(app),
    ):
        register: Any = app.task(name=name, **_OPTIONS)
        register(function)
    # Not maintenance: the one billable task of ours, for recorded workloads.
    billable: Any = app.task(**row_task.options())
    billable(row_task.verify_row)


def _check_signatures(attachment: Attachment) -> None:
    """Refuse to drain in a task worker of a fleet that signs: a task sent to it would have forged events written.

    Its process has no keys to verify with; fulfillment workers have them, if anybody asks for signatures.
    """
    settings = attachment.runtime.settings
    if settings.signing_key is not None and not settings.verifying_keys and not attachment.fulfills:
        rule = "this process signs, and is no fulfillment worker: nobody would verify what it drains"
        raise Fatal(f"billing_verifying_keys: none: {rule}")


def _starting_parked(app: celery.Celery) -> Callable[[], int]:
    def start_parked_tasks() -> int:
        """Start the parked tasks that can be paid, in case no fulfillment worker's loop did."""
        from billing.parking.passes import make_pass  # noqa: PLC0415 - not for task workers' memory

        return make_pass(app, attachment_of(app).runtime)

    return start_parked_tasks
