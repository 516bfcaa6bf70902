"""The `billing.stripe.*` tasks: the report to Stripe in steps. Each is bounded, and harmless twice, late or killed.

The SDK of Stripe is imported where a task runs: task workers register these, and it is not for their memory.
"""

from __future__ import annotations

from collections.abc import Callable

import celery

from billing.task.attachment import attachment_of


def stripe_tasks(app: celery.Celery) -> tuple[tuple[str, Callable[[], dict[str, int]]], ...]:
    """Return the tasks by name."""

    def plan_increments() -> dict[str, int]:
        """Plan the increments of all usage that has none."""
        from billing.sinks.stripe import scheduled  # noqa: PLC0415 - see above

        return scheduled.plan(attachment_of(app).runtime)

    def push_increments() -> dict[str, int]:
        """Send planned increments to Stripe, at most a batch of them, at the fleet's rate."""
        from billing.sinks.stripe import scheduled  # noqa: PLC0415 - see above

        return scheduled.push(attachment_of(app).runtime)

    def confirm_increments() -> dict[str, int]:
        """Confirm what Stripe's own sums show, and take back what they show twice."""
        from billing.sinks.stripe import scheduled  # noqa: PLC0415 - see above

        return scheduled.confirm(attachment_of(app).runtime)

    def read_error_reports() -> dict[str, int]:
        """Read which events Stripe has dropped after it had taken them."""
        from billing.sinks.stripe import scheduled  # noqa: PLC0415 - see above

        return scheduled.errors(attachment_of(app).runtime)

    return (
        ("billing.stripe.plan", plan_increments),
        ("billing.stripe.push", push_increments),
        ("billing.stripe.confirm", confirm_increments),
        ("billing.stripe.errors", read_error_reports),
    )
