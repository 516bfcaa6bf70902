"""The worker's bootstep that keeps leases alive, and that refuses to start a worker with wrong settings."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import bootsteps
from celery.worker import state

from billing.core.errors import BillingError, InvalidValue
from billing.core.limits import RENEWALS_PER_LEASE
from billing.task.attachment import attachment_of
from billing.task.leases import LeaseKeeper
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)


class LeaseStep(bootsteps.StartStopStep):
    """Renews the leases of the worker's active requests every third of a lease."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        attachment = attachment_of(parent.app)
        try:
            settings = attachment.runtime.settings
        except InvalidValue as error:
            message = f"billing: {error}"
            raise SystemExit(message) from error
        _check_fleet(attachment.runtime)
        self._keeper = LeaseKeeper(attachment)
        self._interval = settings.lease_seconds / RENEWALS_PER_LEASE
        self._timer_entry: Any = None
        self._stopped = threading.Event()

    def start(self, parent: Any) -> None:
        """Start renewing: by the worker's timer, or by a thread in the solo pool, whose timer waits for each task."""
        if _pool_name(parent) == "solo":
            threading.Thread(target=self._loop, name="billing-leases", daemon=True).start()
        else:
            # Prefork: a thread of ours would be forked into the children with its locks, so the timer it is.
            self._timer_entry = parent.timer.call_repeatedly(self._interval, self._renew)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - the signature is Celery's
        """Stop renewing."""
        self._stopped.set()
        if self._timer_entry is not None:
            self._timer_entry.cancel()

    def _loop(self) -> None:
        while not self._stopped.wait(self._interval):
            self._renew()

    def _renew(self) -> None:
        self._keeper.renew(_active())


def _check_fleet(runtime: Runtime) -> None:
    """Refuse to start with numbers that differ from the database's; without an answer, the first price load checks."""
    try:
        # Loading the price book checks them, and is bounded in time, also where PostgreSQL hangs.
        runtime.prices.get()
    except InvalidValue as error:
        message = f"billing: {error}"
        raise SystemExit(message) from error
    except BillingError as error:
        logger.warning("billing: %s", error)
    finally:
        # This process may fork: no connection of it may be shared.
        runtime.close()


def _active() -> list[Any]:
    """Return the active requests; in the threads pool the set may change while it is read."""
    for _ in range(10):
        try:
            return list(state.active_requests)
        except RuntimeError:
            continue
    return []


def _pool_name(parent: Any) -> str:
    return str(parent.pool_cls.__module__).rsplit(".", 1)[-1]
