"""The life of a billed run: hold (reserve), succeed (settle, publish), end (release or keep). One parent decides.

`hold` may raise; nothing after success may: a settle whose bucket is lost or being rebuilt is charged by a direct event
at once, one that Redis did not answer is kept and tried again, a lease long, and so is a publish that failed. `end`
releases only what this very attempt holds. How a task's delivery comes to a run, and what refuses it, is in `gate.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from celery.states import REJECTED, RETRY, SUCCESS

from billing.core.clock import to_milliseconds
from billing.core.errors import BillingError, InvalidValue, Recovering, Retryable, UnknownSku, Unreachable
from billing.core.limits import RENEWALS_PER_LEASE
from billing.core.shards import shard_of
from billing.credits.values import ReleaseOutcome, ReserveOutcome, SettleOutcome, SettleReply
from billing.events.usage_event import decode_draft, encode_head
from billing.task.answering import answer_is_in_doubt
from billing.task.charging import book_of, settlement_of
from billing.task.counting import Counting
from billing.task.definition import Definition
from billing.task.headers import Identity, Request
from billing.task.keeping import keep_holds, lease_end
from billing.task.modes import Modes, is_metered
from billing.task.noting import note_takeover, of_retry, of_run
from billing.task.observer import tell_charge
from billing.task.outcome import Outcome
from billing.task.pending import Pending
from billing.task.publishing import Events
from billing.task.putting_off import seconds_until
from billing.task.refusals import refusal
from billing.task.releasing import Releases
from billing.task.renewal import Renewal
from billing.task.run import Run, prepare
from billing.task.run_lines import tell_run
from billing.task.trail import Trail
from billing.task.usage import Recorder

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: What a hold of a run that waits for a retry outlives the retry's eta by, in leases.
_RETRY_LEASES: Final = 2.0
#: How long a process that ends waits for Redis to take what it owes (L9).
_CLOSE_SECONDS: Final = 5.0


class Lifecycle:
    """Bills the deliveries of one app in one process."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.pending = Pending(
            lambda entries: runtime.buckets.forget_reached(entries),  # noqa: PLW0108 - made when it is used
            lambda shard: runtime.buckets.node_of(shard),  # noqa: PLW0108 - the same
        )
        self.renewal = Renewal(runtime.settings.lease_seconds / RENEWALS_PER_LEASE, self.keep, runtime.clock)
        self.pending.also(self._tell_owed)
        self.events = Events(runtime, self.pending)
        self.modes = Modes(runtime, self.events, Counting(runtime, self.pending))
        self.trail = Trail(runtime, self.pending)
        self.releases = Releases(runtime, self.pending, lambda run: self.renewal.remove(run))  # noqa: PLW0108 - the same

    def prepare_run(
        self,
        definition: Definition,
        identity: Identity,
        request: Request,
        call: tuple[Sequence[Any], Mapping[str, Any]],
    ) -> Run:
        """Return a run of some declared work, not yet reserved."""
        at = to_milliseconds(self.runtime.clock.now())
        try:
            hold, head, default = prepare(definition, identity, request, self.runtime.prices.get(), at, call)
        except UnknownSku:
            # Its price may have been set a moment ago.
            hold, head, default = prepare(definition, identity, request, self.runtime.prices.renewed(), at, call)
        run = Run(
            definition=definition,
            identity=identity,
            head=head,
            hold=hold,
            default_quantity=default,
            priced_at=at,
            fixed_credits=definition.credits,
            recorder=Recorder(hold.sku, fixed=definition.credits is not None),
        )
        run.recorder.staged_by(lambda: self._stage(run))
        return run

    def hold(self, run: Run) -> None:
        """Reserve for a run, and renew its lease until it ends; raise the reason why not."""
        self._reserve(run)
        if not run.settled and run.mode is None:
            self.renewal.add(run)

    def succeed(self, run: Run) -> None:
        """Settle a run that succeeded, and publish its event. Never raises: the task has succeeded (L3)."""
        if run.settled:
            return
        run.settled, run.outcome = True, Outcome.PENDING
        if self.runtime.observer is not None:
            run.succeeded_at = self.runtime.clock.monotonic()
        try:
            self._settle_or_charge(run)
        except Retryable as error:
            logger.warning("billing: settle of run %s waits: %s", run.identity.run_id, error)
        except Exception:
            logger.exception("billing: settle of run %s failed; it is tried again", run.identity.run_id)
        finally:
            # Also where Ctrl-C came upon billing: the work is done. Its hold is renewed until the charge is made, so
            # that nobody else gets its credits.
            if run.outcome is Outcome.PENDING:
                shard = shard_of(run.identity.client_id, self.runtime.settings.shards)
                self.pending.settle_later(
                    lambda: self._settle_kept(run), lambda: self._charge_at_last(run), shard=shard
                )
                tell_run(run, "pending")
                self._tell_owed()

    def end(self, run: Run, state: str | None, outcome: object) -> None:
        """Release the hold of a run that did not settle, or keep it for the attempt that follows. Never raises."""
        if run.settled:
            return
        if run.mode is not None:
            self.modes.end(run, state)
            return
        self.renewal.remove(run)
        client_id, run_id, token = run.identity.client_id, run.identity.run_id, run.hold.token
        if state == SUCCESS and answer_is_in_doubt():
            # The caller may have its answer: the reaper reads it, and settles the draft or gives the hold back (L3).
            logger.warning("billing: hold of run %s is left to its lease: its result may be stored or not", run_id)
            return
        try:
            if state == RETRY:
                waits = seconds_until(outcome, self.runtime.clock.now())
                lease = waits + _RETRY_LEASES * self.runtime.settings.lease_seconds
                self.runtime.buckets.renew([(client_id, run_id, lease)])
                self.trail.add(of_retry(run, self.runtime.clock, outcome, waits))
                tell_run(run, "kept", logging.DEBUG, seconds=round(lease, 1))
            elif state == REJECTED and getattr(outcome, "requeue", False):
                self.runtime.buckets.renew([(client_id, run_id, None)])
            elif self.runtime.buckets.release(client_id, run_id, token) is ReleaseOutcome.RELEASED:
                run.outcome = Outcome.RELEASED
                self.trail.add(of_run("released", run, self.runtime.clock, outcome))
                tell_run(run, "released", credits=run.hold.credits)
        except Retryable as error:
            logger.warning("billing: hold of run %s is left to its lease: %s", run_id, error)
        except Exception:
            logger.exception("billing: hold of run %s is left to its lease", run_id)

    def keep(self, runs: Sequence[Run]) -> None:
        """Renew the holds of runs that go on, once."""
        keep_holds(self.runtime, runs, self._draft_of)

    def close(self) -> None:
        """Pay everything that is owed, before the process ends."""
        self.pending.close(_CLOSE_SECONDS)
        self._tell_owed()
        self.events.close(_CLOSE_SECONDS)
        self.releases.close(_CLOSE_SECONDS)

    def _tell_owed(self) -> None:
        if self.runtime.observer is not None:
            self.runtime.observer.owes(self.pending.owed)

    def _reserve(self, run: Run) -> None:
        """Take the hold, or raise the reason why not."""
        entries, lease_ends = self.pending.take_riders(), lease_end(self.runtime)
        try:
            reply = self.runtime.buckets.reserve(run.hold, forget=entries)
        except BaseException as error:
            self.pending.give_back(entries)
            if isinstance(error, Unreachable) and self.runtime.observer is not None:
                self.runtime.observer.reserved(None)
            if isinstance(error, Unreachable) and is_metered(run.definition, self.runtime.settings):
                self.modes.meter(run)
                return
            raise
        self.pending.give_back(reply.left)
        outcome, run.held_until = reply.outcome, lease_ends
        if self.runtime.observer is not None:
            self.runtime.observer.reserved(outcome)
        if outcome is ReserveOutcome.TAKEN_OVER:
            # The first reserve fixed the prices, however long the run has been retried since; and the draft is now
            # this attempt's: what an earlier one recorded is not charged.
            first = decode_draft(reply.lines)
            note_takeover(self.trail, self.runtime.clock, run, reply.head)
            run.price_as_of(reply.price_version, first.priced_at, first.fixed)
            book_of(self.runtime, run)
            self._stage(run)
            tell_run(run, "taken_over", logging.DEBUG, credits=reply.held)
        elif outcome is ReserveOutcome.SETTLED:
            run.settled, run.outcome = True, Outcome.CHARGED
            tell_run(run, "charged_before", logging.DEBUG)
        elif outcome is ReserveOutcome.HELD:
            tell_run(run, "reserved", logging.DEBUG, credits=reply.held)
        else:
            raise refusal(self.runtime, run.hold, reply)

    def _settle(self, run: Run) -> None:
        try:
            settlement = settlement_of(self.runtime, run)
        except Unreachable as error:
            # The prices are missing, which says nothing of Redis: other settles of its node are tried (L10).
            raise Retryable(str(error)) from error
        reply = self.runtime.buckets.settle(settlement)
        if reply.outcome is SettleOutcome.RECOVERING:
            raise Recovering(f"client {settlement.client_id!r}: its shard is being rebuilt")
        if reply.outcome in (SettleOutcome.UNKNOWN_CLIENT, SettleOutcome.CORRUPT):
            corrupt = reply.outcome is SettleOutcome.CORRUPT
            raise self.runtime.records.without_bucket(settlement.client_id, missing=True, corrupt=corrupt)
        if reply.outcome is SettleOutcome.TOO_LARGE:
            raise InvalidValue("credits", sum(settlement.amounts), "would lift the debt above what can be counted")
        self.renewal.remove(run)
        run.outcome = Outcome.LATE if reply.late else Outcome.CHARGED
        if reply.settlement_id == run.settlement_id:
            # Else another attempt came first, and what that one recorded was charged.
            run.credits_charged = sum(settlement.amounts)
            tell_charge(self.runtime, run)
        if self.runtime.settings.publish == "confirm":
            self.publish(settlement.client_id, reply)
        level, debt = (logging.WARNING, reply.debt) if reply.debt else (logging.INFO, None)
        tell_run(run, run.outcome.value, level, credits=run.credits_charged, debt=debt)

    def _settle_or_charge(self, run: Run) -> None:
        """Settle, or publish the charge without the bucket that is lost, being rebuilt or away. Raises `Retryable`.

        Away as long as the run's lease: its hold may be gone, so that nobody else would settle it should this process
        die. The same settlement may be in Redis after all, its answer lost: its epoch tells the log that it is another.
        """
        if run.mode is not None:
            self._charge_directly(run)
            return
        try:
            self._settle(run)
        except (Recovering, Unreachable) as away:
            if isinstance(away, Unreachable) and self.runtime.clock.monotonic() < run.held_until:
                raise
            try:
                self._charge_directly(run)
            except Retryable as error:
                raise type(away)(f"{away}; its direct event: {error}") from error

    def _settle_kept(self, run: Run) -> None:
        try:
            self._settle_or_charge(run)
        except Retryable:
            raise
        except BillingError:
            # Refused for good: the hold is no longer renewed, so that the reaper gets to see it.
            self.renewal.remove(run)
            raise

    def _charge_directly(self, run: Run) -> None:
        """Charge without a bucket, which learns of it later; until then the hold keeps what others could spend (L1)."""
        if run.mode is not None:
            self.modes.charge(run, lambda: run.lines(book_of(self.runtime, run)))
            tell_run(run, run.outcome.value)
            return
        lines = run.lines(book_of(self.runtime, run))
        self.events.publish_direct(run, lines)
        # The outcome last: where a time limit comes upon this, it still stands as pending, and is charged again.
        self.releases.add(run)
        run.outcome, run.credits_charged = Outcome.LATE, sum(line.credits for line in lines)
        tell_charge(self.runtime, run)
        tell_run(run, "late", logging.WARNING, credits=run.credits_charged, direct=True)

    def _charge_at_last(self, run: Run) -> None:
        """Charge without Redis, which does not take the settle. Never raises: what fails is logged whole."""
        try:
            self._charge_directly(run)
        except Exception:
            self.renewal.remove(run)
            unpaid = run.direct or run.head
            logger.exception("billing: neither Redis nor the broker took the charge of this run: %s", unpaid)

    def publish(self, client_id: str, reply: SettleReply) -> None:
        """Publish a settled event; one that is not confirmed is published again, here or by the relay."""
        if reply.event is not None and reply.entry_id is not None:
            self.events.publish(client_id, reply.event, reply.entry_id)

    def _stage(self, run: Run) -> None:
        """Keep what was recorded with the hold, for the reaper. An unknown SKU raises; Redis being away does not."""
        identity = run.identity
        try:
            draft, head = self._draft_of(run), encode_head(run.head)
            if run.mode is None:
                self.runtime.buckets.stage(identity.client_id, identity.run_id, run.hold.token, draft, head=head)
        except Retryable as error:
            logger.warning("billing: a usage line of run %s is not staged: %s", run.identity.run_id, error)

    def _draft_of(self, run: Run) -> bytes:
        return run.draft(book_of(self.runtime, run))
