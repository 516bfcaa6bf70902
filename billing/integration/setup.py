"""`billing.setup(app)` attaches billing to an existing Celery app. Nothing connects until something is billed."""

from __future__ import annotations

from typing import Any

import celery
import click

from billing.integration import signals
from billing.integration.configuration import read_settings
from billing.integration.fulfillment_step import FulfillmentStep
from billing.integration.lease_step import LeaseStep
from billing.integration.metrics_step import MetricsStep
from billing.integration.tasks import register_tasks
from billing.task.attachment import attach, is_attached
from billing.task.billable import check_inline
from billing.task.inline_calls import guard_inline_calls
from billing.task.runtime import Runtime


def setup(app: celery.Celery) -> celery.Celery:
    """Attach billing to `app` and return it; doing so again changes nothing.

    It registers the `billing.*` tasks, the worker option `--fulfillment`, the renewal of leases, and the signals.
    Settings are read when they are first needed; a worker with a wrong `billing_*` setting does not start.
    """
    if is_attached(app):
        return app
    attach(app, Runtime(lambda: read_settings(app)))
    signals.connect()
    signals.hide_passwords_of(app)
    app.steps["worker"].add(LeaseStep)
    app.steps["worker"].add(MetricsStep)
    app.steps["worker"].add(FulfillmentStep)
    app.user_options["worker"].add(
        click.Option(
            ["--fulfillment"],
            is_flag=False,
            flag_value="all",
            default=None,
            help="Be a fulfillment consumer: write usage events to the usage history. Give queue numbers (0,1) to "
            "serve only some. Needs -P solo or -P threads; serves the queue billing.maintenance unless -Q says more.",
        )
    )
    register_tasks(app)
    if app.finalized:  # type: ignore[attr-defined]  # the stubs lack it
        _guard(app)
    else:
        app.on_after_finalize.connect(_guard, weak=False)
    return app


def _guard(sender: Any, **_: Any) -> None:
    guard_inline_calls(sender, check_inline)
