"""What a fulfillment worker runs beside Celery: the consumer, and the loops that keep money moving."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import celery
from celery import states
from celery.backends.base import DisabledBackend

from billing.alerts.announcing import Announcer
from billing.alerts.deliveries import Deliveries
from billing.alerts.recording import record_and_announce
from billing.connections import broker, postgres
from billing.core.rounds import Rounds
from billing.credits.values import SettleReply
from billing.events.relay import Relay
from billing.fulfillment.batch import Received
from billing.fulfillment.consumer import AfterCommit, Consumer
from billing.fulfillment.log import UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.integration.loops import Loop
from billing.observability.liveness.noting import NOTE_SECONDS, Presence
from billing.parking.starting import Starter
from billing.parking.telling import Teller
from billing.reconciliation.continuous.reconciler import Reconciler
from billing.recovery.allowances import grant_allowances
from billing.recovery.changes import apply_changes
from billing.recovery.grants import apply_grants
from billing.recovery.lapsing import lapse_grants
from billing.recovery.postings import Postings
from billing.recovery.rebuild import Rebuilder
from billing.task.attachment import attachment_of
from billing.task.reaper import Reaper, StoredResult
from billing.task.runtime import Runtime
from billing.task.stored_results import status_of, stored_at
from billing.top_ups.asking import TopUps

if TYPE_CHECKING:
    from billing.observability.metrics.worker import WorkerMetrics

logger = logging.getLogger(__name__)

_RELAY_SECONDS: Final = 1.0
_GRANTS_SECONDS: Final = 2.0
_POSTINGS_SECONDS: Final = 1.0
_ENDINGS_SECONDS: Final = 5.0
_ALLOWANCES_SECONDS: Final = 5.0
_RECOVERY_SECONDS: Final = 1.0
_ALERTS_SECONDS: Final = 1.0
_RECONCILER_SECONDS: Final = 1.0
_PARKED_SECONDS: Final = 1.0
_PRESENCE_SECONDS: Final = 1.0
#: Sweeps per lease: a hold whose worker died is resolved within its lease plus one of these (L5).
_SWEEPS_PER_LEASE: Final = 6
_SWEEP_SECONDS_MAX: Final = 5.0
_STOP_SECONDS: Final = 10.0
#: The longest pause while Redis is away, of recovery, and of what notes within a claim's margin what it has called.
_SILENT_SECONDS: Final = 4.0
#: What a loop waits at its end for what it has begun, within the bound of its stop.
_FINISH_SECONDS: Final = 5.0


class Services:
    """Starts and stops the threads of one fulfillment worker."""

    def __init__(
        self,
        app: celery.Celery,
        *,
        hostname: str,
        queues: Sequence[int],
        on_failure: Callable[[], None],
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._runtime = attachment_of(app).runtime
        self._on_failure = on_failure
        self._consumer = make_consumer(self._runtime, queues)
        if metrics is not None:
            from billing.observability.metrics.consumer import ConsumerMetrics  # noqa: PLC0415 - off unless asked for

            metrics.add(ConsumerMetrics(self._consumer.pressure))
        self._thread = threading.Thread(target=self._consume, name="billing-consumer", daemon=True)
        settings = self._runtime.settings
        reaper = make_reaper(app)
        relay = make_relay(self._runtime)
        self._rebuilder = Rebuilder(self._runtime)
        self._announcer = Announcer(self._runtime)
        self._deliveries = Deliveries(self._runtime)
        self._reconciler = Reconciler(self._runtime)
        self._top_ups = TopUps(self._runtime)
        starter = Starter(app, self._runtime)
        presence = Presence(self._runtime, hostname, queues, self._consumer.pressure)
        # The servers are asked for, and connected to, by the first sweep alone.
        endings = Rounds(lambda shard: self._runtime.buckets.node_of(shard), self._runtime.clock)  # noqa: PLW0108
        sweep_seconds = min(_SWEEP_SECONDS_MAX, settings.lease_seconds / _SWEEPS_PER_LEASE)
        self._loops = (
            Loop("relay", _RELAY_SECONDS, lambda: self._tell_relayed(relay.sweep())),
            Loop("reaper", sweep_seconds, reaper.sweep),
            Loop("grants", _GRANTS_SECONDS, lambda: apply_grants(self._runtime)),
            Loop("changes", _GRANTS_SECONDS, lambda: apply_changes(self._runtime)),
            Loop("postings", _POSTINGS_SECONDS, Postings(self._runtime).step),
            Loop("allowances", _ALLOWANCES_SECONDS, lambda: grant_allowances(self._runtime)),
            Loop("endings", _ENDINGS_SECONDS, lambda: lapse_grants(self._runtime, endings)),
            # A node that is dead for long must not make the others' shards wait for their rebuild.
            Loop("recovery", _RECOVERY_SECONDS, self._rebuilder.step, pause_seconds_max=_SILENT_SECONDS),
            # What receivers and the hook have answered is written at the end, or the next worker would ask them again.
            Loop(
                "alerts",
                _ALERTS_SECONDS,
                lambda: record_and_announce(self._runtime, self._announcer),
                at_end=lambda: self._announcer.finish(_FINISH_SECONDS),
                pause_seconds_max=_SILENT_SECONDS,
            ),
            Loop(
                "top-ups",
                _ALERTS_SECONDS,
                self._top_ups.step,
                at_end=lambda: self._top_ups.finish(_FINISH_SECONDS),
                pause_seconds_max=_SILENT_SECONDS,
            ),
            Loop("parked", _PARKED_SECONDS, starter.step, at_end=starter.close),
            # Apart, since it waits for the result backend.
            Loop("parked-ends", _PARKED_SECONDS, Teller(app, self._runtime).step),
            Loop("webhooks", _ALERTS_SECONDS, self._deliveries.step),
            Loop("reconciler", _RECONCILER_SECONDS, self._reconciler.step),
            # Soon after PostgreSQL is back it is seen again.
            Loop(
                "presence",
                _PRESENCE_SECONDS,
                presence.step,
                at_end=presence.leave,
                pause_seconds_max=NOTE_SECONDS,
            ),
        )

    def start(self) -> None:
        """Start every thread."""
        self._thread.start()
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """Stop every thread within a bound; an open batch is committed, or given back to the broker."""
        self._consumer.stop()
        self._rebuilder.stop()
        self._reconciler.stop()
        for loop in self._loops:
            loop.stop()
        self._thread.join(_STOP_SECONDS)
        for loop in self._loops:
            loop.join(_STOP_SECONDS)
        self._deliveries.close()
        self._reconciler.close()

    def _tell_relayed(self, events: int) -> None:
        if self._runtime.observer is not None:
            self._runtime.observer.relayed(events)

    def _consume(self) -> None:
        try:
            self._consumer.run()
        except Exception:
            logger.exception("billing: the fulfillment consumer failed")
            self._on_failure()
        else:
            if self._consumer.error is not None:
                self._on_failure()


def make_usage_log(runtime: Runtime) -> UsageLog:
    """Return a usage log with a database connection of its own."""
    return PostgresUsageLog(lambda: postgres.connect(runtime.settings), shards=runtime.settings.shards)


def make_consumer(runtime: Runtime, queues: Sequence[int]) -> Consumer:
    """Return a consumer of some usage queues."""
    return Consumer(runtime.settings, make_usage_log(runtime), queues=queues, after_commit=outbox_cleaner(runtime))


def outbox_cleaner(runtime: Runtime) -> AfterCommit | None:
    """Return what removes outbox entries whose rows are committed; None where publisher confirms have done so."""
    if broker.confirms(runtime.settings):
        return None

    def clean(received: Sequence[Received]) -> None:
        # A shard that is none of ours, which anybody may write into a header, must not keep others' entries (L10).
        named = [(r.shard, r.entry_id) for r in received if r.shard is not None and r.entry_id]
        runtime.buckets.forget([entry for entry in named if entry[0] < runtime.settings.shards])

    return clean


def make_relay(runtime: Runtime) -> Relay:
    """Return a relay over every shard's outbox."""
    return Relay(runtime.settings, runtime.buckets, runtime.publisher, runtime.clock)


def make_reaper(app: celery.Celery) -> Reaper:
    """Return a reaper that reads the app's result backend."""
    attachment = attachment_of(app)
    runtime = attachment.runtime

    def read_state(task_id: str) -> StoredResult:
        backend = app.backend
        if isinstance(backend, DisabledBackend):
            # Without a result backend no result will ever say more: what succeeded has settled (L3).
            return StoredResult(state=states.PENDING)
        meta = backend.get_task_meta(task_id)
        return StoredResult(state=status_of(meta), stored_at=stored_at(meta.get("date_done")))

    def publish(client_id: str, reply: SettleReply) -> None:
        attachment.lifecycle.publish(client_id, reply)

    def tell(credits: int | None) -> None:
        if runtime.observer is not None:
            runtime.observer.reaped(credits)

    return Reaper(runtime.settings, runtime.buckets, read_state, publish, runtime.clock, tell=tell)
