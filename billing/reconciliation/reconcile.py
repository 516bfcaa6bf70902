"""Compares Redis, PostgreSQL and Stripe, client by client, in bounded slices, to the unit.

It only reads, and no transaction outlives a slice. Clients whose bucket and log do not agree at once are pursued
together after all others: their events may be on their way. What cannot be compared is reported as that, never as a
discrepancy and never as fine.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from billing.connections import postgres
from billing.core.clock import to_milliseconds
from billing.core.errors import UnknownClient
from billing.core.identifiers import check_client_id
from billing.core.shards import shard_of
from billing.credits.auditing import BucketReading
from billing.reconciliation import reading, recording
from billing.reconciliation.facts import InvoiceFacts, LedgerFacts, LogFacts
from billing.reconciliation.laws import bucket, grants, holds, one_charge, orphans, planned, spent, sums
from billing.reconciliation.periods import Periods
from billing.reconciliation.pursuit import Pursuit
from billing.reconciliation.report import Discrepancy, Law, Report
from billing.reconciliation.tally import Tally
from billing.reconciliation.totals import Totals
from billing.task.runtime import Runtime

#: Clients that are pursued together (L9); past that they are reported as not compared.
PURSUED_MAX: Final = 10_000
#: The pause between two rounds of the pursuit, at first and at most.
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.1, 1.0

TOO_MANY: Final = "too many clients differ at once"
TOO_MANY_HOLDS: Final = "its shard has too many holds to look at in one step"
TOO_LONG: Final = "its history takes too long to add up"


def reconcile(
    runtime: Runtime,
    *,
    client_ids: Sequence[str] | None = None,
    stripe: bool = True,
    record: bool = True,
    totals: Totals | None = None,
    seconds: float | None = None,
    after: str = "",
    wait: Callable[[float], object] | None = None,
) -> Report:
    """Compare some clients (None: all, in the order of their ids, those after `after`), and return what was found.

    `stripe=False` leaves Stripe out; `totals` is asked instead of the gateway of the settings. With `seconds` no slice
    is begun after that time: the report says where to go on (`resume_after`). `record` keeps the report in PostgreSQL.
    Raises `UnknownClient`, and `Unreachable` when Redis or PostgreSQL does not answer.
    """
    return _Reconciliation(runtime, stripe=stripe, totals=totals, seconds=seconds, wait=wait).run(
        client_ids, after=after, record=record
    )


class _Reconciliation:
    """One pass over the clients."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        stripe: bool,
        totals: Totals | None,
        seconds: float | None,
        wait: Callable[[float], object] | None,
    ) -> None:
        self._runtime, self._settings = runtime, runtime.settings
        self._tally = Tally([law for law in Law if stripe or law is not Law.STRIPE])
        self._periods = Periods(runtime, self._tally, totals) if stripe else None
        self._until = None if seconds is None else runtime.clock.monotonic() + seconds
        self._wait = wait or threading.Event().wait
        self._pursued: dict[str, Pursuit] = {}
        self._unread: set[str] = set()
        self._shards: set[int] = set()

    def run(self, client_ids: Sequence[str] | None, *, after: str, record: bool) -> Report:
        """Compare, wait for what was on its way, and report."""
        runtime, started_at = self._runtime, self._runtime.clock.now()
        only = None if client_ids is None else self._known(client_ids)
        run_id = self._begin(whole=only is None) if record else None
        last, resume_after = after, None
        try:
            for ids in self._slices(only, after):
                if self._until is not None and runtime.clock.monotonic() > self._until:
                    resume_after = last
                    break
                self._slice(ids)
                last = ids[-1]
            self._pursue()
        finally:
            if self._periods is not None:
                self._periods.close()
        self._waiting()
        report = self._tally.report(
            run_id=run_id, started_at=started_at, finished_at=runtime.clock.now(), resume_after=resume_after
        )
        if run_id is not None:
            with postgres.reaching(self._settings), runtime.engine.begin() as connection:
                recording.finish(connection, report)
        return report

    def _begin(self, *, whole: bool) -> int:
        with postgres.reaching(self._settings), self._runtime.engine.begin() as connection:
            return recording.begin(connection, self._runtime.clock.now(), whole=whole)

    def _known(self, client_ids: Sequence[str]) -> list[str]:
        """Return clients that were named, each once, or raise for one that is unknown before any is compared."""
        only = sorted({check_client_id(client_id) for client_id in client_ids})
        with reading.snapshot(self._settings, self._runtime.engine) as connection:
            known = set(reading.page(connection, after="", limit=len(only), only=only))
        for client_id in only:
            if client_id not in known:
                raise UnknownClient(client_id)
        return only

    def _slices(self, only: Sequence[str] | None, after: str) -> Iterator[list[str]]:
        while True:
            with reading.snapshot(self._settings, self._runtime.engine) as connection:
                ids = reading.page(connection, after=after, limit=self._settings.reconcile_slice, only=only)
            if not ids:
                return
            yield ids
            after = ids[-1]

    def _slice(self, ids: list[str]) -> None:
        """Read the buckets of some clients, PostgreSQL after them, and hold them to the laws."""
        readings = self._runtime.buckets.audit(ids)
        try:
            with reading.snapshot(self._settings, self._runtime.engine) as connection:
                ledger = reading.ledger_facts(connection, self._since(readings))
                log = reading.log_facts(connection, ids)
                invoice = reading.invoice_facts(connection, ids, log)
        except reading.TooLong:
            if len(ids) > 1:
                self._slice(ids[: len(ids) // 2])
                self._slice(ids[len(ids) // 2 :])
                return
            for law in (Law.SUMS, Law.ONE_CHARGE, Law.PLANNED):
                self._tally.left_out(law, TOO_LONG)
            with reading.snapshot(self._settings, self._runtime.engine) as connection:
                ledger, log, invoice = reading.ledger_facts(connection, self._since(readings)), {}, {}
        self._tally.clients += len(ids)
        for client_id in ids:
            pursuit = Pursuit(client_id)
            self._ledger_laws(ledger[client_id])
            self._read_bucket(pursuit, readings[client_id], first=True)
            if not self._agrees(pursuit, ledger[client_id]):
                self._pursued[client_id] = pursuit
            if client_id in log:
                self._log_laws(log[client_id], invoice[client_id])
        if self._periods is not None:
            self._periods.compare(ids)

    def _since(self, readings: Mapping[str, BucketReading]) -> dict[str, int]:
        now = to_milliseconds(self._runtime.clock.now())
        return {client_id: found.at_ms or now for client_id, found in readings.items()}

    def _read_bucket(self, pursuit: Pursuit, found: BucketReading, *, first: bool) -> None:
        """Hand a reading on; the first one that there is, is held to the laws of a bucket by itself."""
        pursuit.read(found)
        self._shards.add(found.shard)
        if found.recovering:
            self._unread.add(found.client_id)
            return
        if not first and found.client_id not in self._unread:
            return
        self._unread.discard(found.client_id)
        tally = self._tally
        tally.found(bucket.differences(found))
        if found.balance is None:
            return
        tally.balance(found.balance)
        tally.compared(Law.BUCKET, **bucket.of_sums(found.balance))
        if found.lent is None:
            tally.left_out(Law.HOLDS, TOO_MANY_HOLDS)
            tally.left_out(Law.ORPHANS, TOO_MANY_HOLDS)
            return
        tally.found(holds.differences(found))
        tally.compared(Law.HOLDS, clients=1, holds=found.holds, held=sum(found.lent.values()))
        tally.found(orphans.differences(found, self._settings.lease_seconds))
        tally.compared(Law.ORPHANS, holds=found.holds)

    def _ledger_laws(self, ledger: LedgerFacts) -> None:
        granted = sum(grant.credits or 0 for grant in ledger.grants.values())
        waiting = sum(not grant.applied for grant in ledger.grants.values())
        self._tally.found(grants.in_ledger(ledger))
        self._tally.compared(Law.GRANTS, clients=1, grants=len(ledger.grants), credits=granted, not_applied_yet=waiting)

    def _log_laws(self, log: LogFacts, invoice: InvoiceFacts) -> None:
        tally = self._tally
        tally.found(one_charge.differences(log))
        tally.compared(Law.ONE_CHARGE, runs=log.runs, lines=log.rows)
        tally.found(sums.differences(log))
        tally.compared(Law.SUMS, lines=log.rows, credits=log.credits, rollups=log.rolled_rows)
        tally.found(planned.differences(invoice))
        not_planned = invoice.credits - invoice.planned
        states = dict(sorted(invoice.by_state.items()))
        tally.compared(
            Law.PLANNED, increments=invoice.increments, credits=invoice.credits, not_planned=not_planned, **states
        )

    def _agrees(self, pursuit: Pursuit, ledger: LedgerFacts) -> bool:
        agreed = pursuit.agreed(ledger)
        if agreed is None or agreed.balance is None:
            return False
        waits = spent.waiting(agreed.balance, ledger)
        told = {"not_posted_yet": len(waits)} if waits else {}
        self._tally.compared(
            Law.SPENT, clients=1, grants=len(agreed.balance.grants), credits=agreed.balance.spent, **told
        )
        return True

    def _pursue(self) -> None:
        """Read the clients that did not agree again and again, until they do or the time is over."""
        clock, pause = self._runtime.clock, _PAUSE_SECONDS
        started = clock.monotonic()
        for client_id in list(self._pursued)[PURSUED_MAX:]:
            del self._pursued[client_id]
            self._tally.left_out(Law.SPENT, TOO_MANY)
        while self._pursued and clock.monotonic() - started < self._settings.reconcile_wait_seconds:
            self._wait(pause)
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)
            pursued = list(self._pursued)
            for start in range(0, len(pursued), self._settings.reconcile_slice):
                self._round(pursued[start : start + self._settings.reconcile_slice])
        waited = clock.monotonic() - started
        explained = self._explanation() if self._pursued else ""
        for pursuit in self._pursued.values():
            self._give_up(pursuit, waited, explained)

    def _round(self, ids: list[str]) -> None:
        readings = self._runtime.buckets.audit(ids)
        for client_id in ids:
            self._read_bucket(self._pursued[client_id], readings[client_id], first=False)
        since = {
            client_id: self._pursued[client_id].since_ms or now for client_id, now in self._since(readings).items()
        }
        with reading.snapshot(self._settings, self._runtime.engine) as connection:
            ledger = reading.ledger_facts(connection, since)
        for client_id in ids:
            if self._agrees(self._pursued[client_id], ledger[client_id]):
                del self._pursued[client_id]

    def _give_up(self, pursuit: Pursuit, waited: float, explained: str) -> None:
        reason = pursuit.left_out(waited)
        if reason is not None:
            for law in (Law.SPENT, Law.BUCKET) if pursuit.client_id in self._unread else (Law.SPENT,):
                self._tally.left_out(law, reason)
            return
        self._tally.compared(Law.SPENT, clients=1)
        self._tally.found(_explain(found, explained) for found in pursuit.discrepancies(waited))

    def _explanation(self) -> str:
        """Return what may be missing in the log: events that no broker has confirmed, and dead letters."""
        shards = {shard_of(client_id, self._settings.shards) for client_id in self._pursued}
        outbox = sum(depth for depth, _ in self._runtime.buckets.oldest_outbox_ms(sorted(shards)).values())
        with reading.snapshot(self._settings, self._runtime.engine) as connection:
            letters = reading.dead_letters(connection)
        parts = [f"{outbox:,} events wait in the outbox of such shards"] if outbox else []
        parts += [f"{letters:,} dead letters"] if letters else []
        return f" ({', '.join(parts)})" if parts else ""

    def _waiting(self) -> None:
        """Report what waits to be logged, or never will be: numbers, which explain a difference and are none."""
        waiting = self._runtime.buckets.oldest_outbox_ms(sorted(self._shards)).values()
        with reading.snapshot(self._settings, self._runtime.engine) as connection:
            letters = reading.dead_letters(connection)
        self._tally.compared(Law.ONE_CHARGE, in_outbox=sum(depth for depth, _ in waiting), dead_letters=letters)
        oldest = max((age_ms for _, age_ms in waiting), default=0) // 1_000
        if oldest:
            self._tally.compared(Law.ONE_CHARGE, oldest_in_outbox_seconds=oldest)


def _explain(found: Discrepancy, explained: str) -> Discrepancy:
    return dataclasses.replace(found, found=found.found + explained) if found.law == Law.SPENT.value else found
