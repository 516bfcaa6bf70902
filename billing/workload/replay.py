"""One replay on servers and a fleet that run: prices, clients, grants, rows, and the wait until the log has them.

Nothing is submitted before the whole file was looked through and every client has its grant. Every step may be
repeated: the same file with the same options is the same workload.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import celery

from billing import admin
from billing.admin import bulk
from billing.admin.access import runtime_for
from billing.catalog.price_book import PriceBook
from billing.connections import postgres
from billing.core.clock import Clock, SystemClock, to_milliseconds
from billing.core.errors import Fatal
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.workload import charges
from billing.workload.ending import Ended, close_books
from billing.workload.feed import POLL_SECONDS, Feed, reaching
from billing.workload.findings import rows_accounted, rows_charged
from billing.workload.price_list import PriceOptions, prices_to_set
from billing.workload.progress import Steps, TaskProgress
from billing.workload.recording import Recording
from billing.workload.results import backend_of
from billing.workload.row_task import ROW_TASK
from billing.workload.survey import Survey, priceable, survey
from billing.workload.tally import Account

#: The unit of a SKU that a replay gives its price.
UNIT: Final = "unit"
#: How long workers may take to answer, and one question to them.
WORKER_SECONDS: Final = 20.0
_ASK_SECONDS: Final = 1.0
#: How often the log is counted for the progress: that reads the workload's rows.
_COUNT_SECONDS: Final = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a replay was told besides the file: credits for each client, and prices."""

    recording: Recording
    grant: int
    prices: PriceOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a replay: the account of its lines, the laws and its own findings, how each client stands."""

    recording: Recording
    account: Account
    ended: Ended

    @property
    def ok(self) -> bool:
        """Whether every law holds and every line is accounted for."""
        return self.ended.ok


class Replay:
    """One start of a workload on a fleet.

    `alive` raises when a process that the replay stands on has ended; None: none of them is ours, so that a worker must
    answer before anything is made.
    """

    def __init__(
        self, settings: Settings, app: celery.Celery, plan: Plan, steps: Steps, alive: Callable[[], None] | None = None
    ) -> None:
        self._settings, self._app, self._plan = settings, app, plan
        self._steps, self._clock = steps, SystemClock()
        self._ours, self._alive = alive is not None, alive or (lambda: None)

    def run(self) -> Outcome:
        """Bill every row once, and close the books. Raises what billing raises; the same call again goes on."""
        recording = self._plan.recording
        self._steps.begin("file", f"{recording.name}: looking through it")
        backend_of(self._app)
        with postgres.reaching(self._settings), postgres.connect(self._settings, autocommit=True) as connection:
            with connection.transaction():
                # Not on record until everything that may be refused was looked at: a refusal leaves nothing.
                identity, new = charges.start(connection, recording.digest, recording.name)
                found = survey(recording.entries(identity.started_at))
                prices, missing = self._prices(found)
                if not self._ours:
                    wait_for_worker(self._app, self._clock)
            for sku, credits_ in missing.items():
                admin.set_price(self._settings, sku, credits_, UNIT)
            self._steps.say(found.text if new else f"{found.text}; first started {identity.started_at:%Y-%m-%d %H:%M}")
            self._clients(found, recording.digest)
            if self._ours:
                # It has become ready meanwhile.
                wait_for_worker(self._app, self._clock)
            self._steps.begin("work", f"feeding {found.lines:,} lines to the fleet")
            with TaskProgress(self._steps, found.lines, what="rows") as progress:
                feed = Feed(self._app, connection, identity, self._clock, again=not new)
                shown = _Shown(feed.account, progress, lambda: charges.count_of(connection, identity), self._clock)
                entries = priceable(recording.entries(identity.started_at), prices)
                account = feed.run(entries, lambda: self._look(shown))
            self._steps.say(account.sentence())
            self._steps.begin("books", "every row has ended; waiting for the log")
            self._wait_for_log(lambda: charges.count_of(connection, identity) >= account.charged, found.clients)
            books = close_books(self._settings, found.clients, account.clients, self._steps)
            own = (rows_charged(account, charges.charges_of(connection, identity)), rows_accounted(account))
            if account.complete:
                charges.finish(connection, identity.digest)
        self._steps.end()
        ended = Ended(findings=(*books.report.findings(), *own), standings=books.standings)
        return Outcome(recording=recording, account=account, ended=ended)

    def _prices(self, found: Survey) -> tuple[dict[str, int], dict[str, int]]:
        book = PriceBook(admin.prices(self._settings))
        return prices_to_set(book, to_milliseconds(self._clock.now()), found.skus, self._plan.prices)

    def _clients(self, found: Survey, digest: str) -> None:
        grant = self._plan.grant
        self._steps.begin("clients", f"{len(found.clients):,} clients, {grant:,} credits each")
        added = bulk.add_clients(self._settings, found.clients)
        applied = bulk.grant_each(self._settings, found.clients, grant, key=f"replay-{digest}")
        self._steps.say(f"{added:,} of them are new; {applied:,} have their grant")

    def _look(self, shown: _Shown) -> None:
        shown.show()
        self._alive()

    def _wait_for_log(self, there: Callable[[], bool], client_ids: Sequence[str]) -> None:
        """Wait until the log has every charge, as long as events may take that were published at the last moment.

        And until their shards' outboxes have nothing left from before: other work may go on in them.
        """
        started = self._clock.monotonic()
        shards = sorted({shard_of(client_id, self._settings.shards) for client_id in client_ids})
        buckets = runtime_for(self._settings).buckets

        def confirmed() -> bool:
            waited_ms = (self._clock.monotonic() - started) * 1_000
            return all(not depth or age_ms < waited_ms for depth, age_ms in buckets.oldest_outbox_ms(shards).values())

        deadline = started + self._settings.lease_seconds + self._settings.reconcile_wait_seconds
        while not (there() and confirmed()) and self._clock.monotonic() < deadline:
            self._alive()
            time.sleep(POLL_SECONDS)


class _Shown:
    """The progress as it is shown, with the log counted now and then."""

    def __init__(self, account: Account, progress: TaskProgress, count: Callable[[], int], clock: Clock) -> None:
        self._account, self._progress, self._count, self._clock = account, progress, count, clock
        self._counted_at, self._logged = clock.monotonic(), 0

    def show(self) -> None:
        """Show the numbers as they are now."""
        if self._clock.monotonic() >= self._counted_at + _COUNT_SECONDS:
            self._logged, self._counted_at = self._count(), self._clock.monotonic()
        self._progress.show(ended=self._account.ended, succeeded=self._account.charged, logged=self._logged)


def wait_for_worker(app: celery.Celery, clock: Clock, *, seconds: float = WORKER_SECONDS) -> None:
    """Wait until a worker answers that knows the task and serves the app's task queue; raise `Fatal` if none does."""
    deadline = clock.monotonic() + seconds
    while True:
        with reaching("broker"):
            inspect: Any = app.control.inspect(timeout=_ASK_SECONDS)
            serving = {
                name
                for name, queues in (inspect.active_queues() or {}).items()
                if any(queue["name"] == app.conf.task_default_queue for queue in queues or ())
            }
            registered = (inspect.registered() or {}) if serving else {}
        # A task is its name, with what the worker has to say of it in brackets.
        if any(task.split()[0] == ROW_TASK for name in serving for task in registered.get(name) or ()):
            return
        if clock.monotonic() >= deadline:
            what = "knows recorded workloads" if serving else "answers"
            queue = app.conf.task_default_queue
            raise Fatal(f"fleet: no worker of queue {queue!r} {what}: start one: celery -A … worker (or: billing up)")
