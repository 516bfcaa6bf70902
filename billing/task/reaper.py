"""Resolves the holds whose lease has run out: a worker died, a message expired, a node was lost (L5).

It never reads the usage history, which may lag. It reads the task's stored result: SUCCESS of this very submission
means that the work was done, so the draft is settled; a result that says the run goes on, or cannot be read, extends
the hold up to a maximum age; anything else gives the credits back. If a shard was not swept for a while it expires
nothing for one lease. One hold or shard that goes wrong is logged, and never keeps the others from their turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from celery import states

from billing.core.clock import Clock, to_milliseconds
from billing.core.errors import Rejected, Retryable, Unreachable
from billing.core.ids import new_settlement_id
from billing.core.printable import printable
from billing.core.rounds import Rounds
from billing.core.settings import Settings
from billing.credits.values import ExpireOutcome, Settlement, SettleOutcome, SettleReply, StoredHold
from billing.credits.verbs import Verbs
from billing.events.usage_event import decode_draft, decode_head, encode_fragment
from billing.task import outside
from billing.task.noting import note_hold
from billing.task.run_lines import tell_hold
from billing.task.stored_results import is_unreadable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResult:
    """What a result backend says of a task: its state, and since when (aware; None where it does not say)."""

    state: str
    stored_at: datetime | None = None


#: Reads the stored result of a task; raises anything when it cannot.
ReadState = Callable[[str], StoredResult]
#: Publishes a settled event of a client, best effort (the relay has it otherwise).
PublishEvent = Callable[[str, SettleReply], None]
#: Is told of a hold that is gone: the credits of the draft that was settled, None where it has expired.
TellReaped = Callable[[int | None], None]


def _tell_nobody(_: int | None) -> None:
    """Nobody counts."""


#: The run goes on, or waits for its next attempt: its hold is kept.
_GOING_ON: Final = frozenset({states.RETRY})
#: How much a result may seem older than its run's first reserve: clocks of two workers differ, and are set.
_CLOCKS_DIFFER_MS: Final = 1_000


class Reaper:
    """Sweeps every shard's lease index, a bounded number of holds at a time."""

    def __init__(
        self,
        settings: Settings,
        buckets: Verbs,
        read_state: ReadState,
        publish: PublishEvent,
        clock: Clock,
        *,
        tell: TellReaped = _tell_nobody,
    ) -> None:
        self._settings = settings
        self._buckets = buckets
        self._read_state = read_state
        self._publish = publish
        self._clock = clock
        self._tell = tell
        self._rounds = Rounds(buckets.node_of, clock)
        self._first_shard = 0
        self._results_away = False

    def sweep(self) -> int:
        """Resolve overdue holds of all shards; return how many were settled or expired.

        Each sweep begins at the next shard. A node that does not answer costs it one wait, seldom and at its end:
        sweeps that come late would pause the others' shards, and none of their holds expire. Raises `Retryable` when
        nobody answers.
        """
        shards = self._settings.shards
        first, self._first_shard = self._first_shard, (self._first_shard + 1) % shards
        self._results_away = False
        return self._rounds.visit([(first + step) % shards for step in range(shards)], self._sweep_shard)

    def _sweep_shard(self, shard: int) -> int:
        try:
            return self._resolve_overdue(shard)
        except Unreachable as error:
            logger.warning("billing: shard %d cannot be swept: %s", shard, error)
            raise

    def _resolve_overdue(self, shard: int) -> int:
        try:
            overdue = self._buckets.overdue(shard, self._settings.sweep_batch)
        except Retryable:
            raise
        except Exception:
            logger.exception("billing: shard %d cannot be swept; it is tried again", shard)
            return 0
        # `held` is empty while the shard is paused.
        return sum(self._resolve_safely(hold) for hold in overdue.held)

    def _resolve_safely(self, hold: StoredHold) -> bool:
        try:
            return self._resolve(hold)
        except Retryable:
            raise
        except Exception:
            logger.exception("billing: the hold of run %s cannot be resolved; it is tried again", hold.run_id)
        try:
            self._extend(hold)
        except Retryable:
            raise
        except Exception:
            logger.exception("billing: the hold of run %s cannot be extended either", hold.run_id)
        return False

    def _resolve(self, hold: StoredHold) -> bool:
        """Settle, keep or expire a hold; True if it is gone."""
        try:
            result = self._result_of(hold)
            succeeded = result is not None and _succeeded(hold, result)
        except msgspec.MsgspecError as error:
            return self._cannot_be_charged(hold, f"its draft cannot be read: {error}")
        if succeeded:
            return self._settle(hold)
        if (result is None or result.state in _GOING_ON) and not self._too_old(hold):
            self._extend(hold)
            return False
        said = "its result cannot be read" if result is None else f"its stored result says {result.state}"
        return self._expire(hold, said)

    def _result_of(self, hold: StoredHold) -> StoredResult | None:
        """Return the stored result; None if it is not known. A backend that is away is asked once in a sweep.

        Its own retries take seconds each: a sweep of many holds would be taken for a pause, and nothing ever expire.
        """
        head = decode_head(hold.head)
        if head.task == outside.TASK:
            # A block of `billing.reserve` stores no result: what succeeded has settled (L3).
            return StoredResult(state=states.PENDING)
        if self._results_away:
            return None
        try:
            return self._read_state(head.correlation_id)
        except Exception as error:  # noqa: BLE001 - any result backend, any error: the result is not known
            why = printable(str(error))
            if is_unreadable(error):
                # This record's own matter: the backend has answered, and knows others (L10).
                logger.warning("billing: the stored result of run %s is none: %s", hold.run_id, why)
                return None
            logger.warning("billing: result of run %s cannot be read, nor others in this sweep: %s", hold.run_id, why)
            self._results_away = True
            return None

    def _settle(self, hold: StoredHold) -> bool:
        try:
            lines = decode_draft(hold.lines).lines
            settlement = Settlement(
                run_id=hold.run_id,
                client_id=hold.client_id,
                sku=hold.sku,
                settlement_id=new_settlement_id(),
                head=hold.head,
                fragments=tuple(encode_fragment(line) for line in lines),
                amounts=tuple(line.credits for line in lines),
            )
            reply = self._buckets.settle(settlement)
        except Rejected as error:
            return self._cannot_be_charged(hold, str(error))
        if reply.settlement_id == settlement.settlement_id:
            # Also where the first answer was lost, and a second try has found it settled.
            self._tell(sum(settlement.amounts))
        match reply.outcome:
            case SettleOutcome.SETTLED:
                # It succeeded, and its worker died: its draft is settled.
                note_hold(self._buckets, self._clock, "settled", hold, "its stored result says SUCCESS")
                level, debt = (logging.WARNING, reply.debt) if reply.debt else (logging.INFO, None)
                tell_hold(hold, "charged", level, credits=sum(settlement.amounts), debt=debt, by="reaper")
                self._publish(hold.client_id, reply)
                return True
            case SettleOutcome.ALREADY:
                return False  # its worker came first
            case SettleOutcome.RECOVERING:
                return False  # the shard is paused until it is rebuilt, and the hold with it
            case SettleOutcome.UNKNOWN_CLIENT | SettleOutcome.CORRUPT:
                # Kept at any age: a rebuild brings the bucket back, and no new hold can join it meanwhile (L9).
                logger.error(
                    "billing: run %s waits: client %s has no bucket that can be used", hold.run_id, hold.client_id
                )
                self._extend(hold)
                return False
            case SettleOutcome.TOO_LARGE:
                return self._cannot_be_charged(hold, "the client's debt would be more than can be counted")

    def _cannot_be_charged(self, hold: StoredHold, reason: str) -> bool:
        """Keep a hold that no settle takes for as long as any, for a correction; then give it up, loudly.

        The run is done, or may be: the last line in the log has what a correction by hand needs.
        """
        if not self._too_old(hold):
            logger.error("billing: run %s of client %s is not charged: %s", hold.run_id, hold.client_id, reason)
            self._extend(hold)
            return False
        gone = self._expire(hold, f"given up UNCHARGED, correct it by hand: {reason}")
        if gone:
            logger.error(
                "billing: run %s is given up UNCHARGED, correct it by hand: client %s, sku %s, held %d, attempt %d, "
                "price version %d, head %r, draft %r: %s",
                *(hold.run_id, hold.client_id, hold.sku, hold.credits, hold.attempt),
                *(hold.price_version, hold.head, hold.lines, reason),
            )
        return gone

    def _extend(self, hold: StoredHold) -> None:
        self._buckets.renew([(hold.client_id, hold.run_id, None)])

    def _expire(self, hold: StoredHold, reason: str) -> bool:
        outcome = self._buckets.expire(hold.client_id, hold.run_id)
        if outcome is ExpireOutcome.EXPIRED:
            self._tell(None)
            note_hold(self._buckets, self._clock, "expired", hold, reason)
            tell_hold(hold, "expired", credits=hold.credits)
        return outcome is ExpireOutcome.EXPIRED

    def _too_old(self, hold: StoredHold) -> bool:
        age = to_milliseconds(self._clock.now()) - hold.created_ms
        return age > self._settings.hold_age_max_seconds * 1_000


def _succeeded(hold: StoredHold, result: StoredResult) -> bool:
    """Whether this run succeeded. A result from before its first reserve is an earlier submission's of the same task.

    Celery never writes over a success, so that a resubmission's own is not seen: its hold is given back, not charged.
    """
    if result.state != states.SUCCESS:
        return False
    if result.stored_at is None:
        return True
    # The earlier of both: who takes a hold over brings a draft of its own, and a hold that was asserted is younger than
    # its run.
    first_reserve_ms = min(decode_draft(hold.lines).priced_at, hold.created_ms)
    return to_milliseconds(result.stored_at) + _CLOCKS_DIFFER_MS >= first_reserve_ms
