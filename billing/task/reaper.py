"""Resolves the holds whose lease has run out: a worker died, a message expired, a node was lost (L5).

It never reads the usage history, which may lag. It reads the task's stored result: SUCCESS means that the work was
done, so the draft is settled; a result that says the run goes on, or cannot be read, extends the hold up to a maximum
age; anything else gives the credits back. If a shard was not swept for a while it expires nothing for one lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from celery import states

from billing.core.clock import Clock, to_milliseconds
from billing.core.errors import Retryable
from billing.core.ids import new_settlement_id
from billing.core.settings import Settings
from billing.credits.buckets import Buckets
from billing.credits.values import ExpireOutcome, Settlement, SettleReply, StoredHold
from billing.events.usage_event import decode_draft, decode_head, encode_fragment

logger = logging.getLogger(__name__)

#: Reads the stored state of a task; raises anything when it cannot.
ReadState = Callable[[str], str]
#: Publishes a settled event of a client, best effort (the relay has it otherwise).
PublishEvent = Callable[[str, SettleReply], None]

#: The run goes on, or waits for its next attempt: its hold is kept.
_GOING_ON: Final = frozenset({states.RETRY})


class Reaper:
    """Sweeps every shard's lease index, a bounded number of holds at a time."""

    def __init__(
        self, settings: Settings, buckets: Buckets, read_state: ReadState, publish: PublishEvent, clock: Clock
    ) -> None:
        self._settings = settings
        self._buckets = buckets
        self._read_state = read_state
        self._publish = publish
        self._clock = clock

    def sweep(self) -> int:
        """Resolve overdue holds of all shards; return how many were settled or expired."""
        resolved = 0
        for shard in range(self._settings.shards):
            overdue = self._buckets.overdue(shard, self._settings.sweep_batch)
            if overdue.paused:
                continue
            for hold in overdue.held:
                resolved += self._resolve(hold)
        return resolved

    def _resolve(self, hold: StoredHold) -> int:
        try:
            state = self._read_state(decode_head(hold.head).correlation_id)
        except Retryable:
            raise
        except Exception as error:  # noqa: BLE001 - any result backend, any error: the result is not known
            logger.warning("billing: result of run %s cannot be read: %s", hold.run_id, error)
            state = None
        if state == states.SUCCESS:
            return self._settle(hold)
        if (state is None or state in _GOING_ON) and not self._too_old(hold):
            self._buckets.renew([(hold.client_id, hold.run_id, None)])
            return 0
        outcome = self._buckets.expire(hold.client_id, hold.run_id)
        if outcome is ExpireOutcome.EXPIRED:
            logger.info("billing: hold of run %s expired: %d credits are back", hold.run_id, hold.credits)
        return int(outcome is ExpireOutcome.EXPIRED)

    def _settle(self, hold: StoredHold) -> int:
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
        logger.info("billing: run %s succeeded and its worker died: its draft is settled", hold.run_id)
        self._publish(hold.client_id, reply)
        return 1

    def _too_old(self, hold: StoredHold) -> bool:
        age = to_milliseconds(self._clock.now()) - hold.created_ms
        return age > self._settings.hold_age_max_seconds * 1_000
