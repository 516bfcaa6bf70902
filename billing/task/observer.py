"""The plug point for who counts what a process bills. Nobody does by default, which costs one look at an attribute.

An observer is told where the state has changed, in the process that changed it. It must be quick, must not raise, and
decides nothing. What it is told is listed, with what sums to what, in `observability/metrics`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from celery.states import FAILURE

from billing.credits.values import ReserveOutcome
from billing.task.outcome import Outcome
from billing.task.park import Parked

if TYPE_CHECKING:
    from billing.task.run import Run
    from billing.task.runtime import Runtime


class Published(Enum):
    """What became of the publish of a usage event."""

    CONFIRMED = "confirmed"
    #: The broker has no confirms.
    SENT = "sent"
    #: It waits in this process, or in the outbox.
    UNCONFIRMED = "unconfirmed"


class Called(Enum):
    """What became of a call of a webhook."""

    DELIVERED = "delivered"
    #: It is made again.
    FAILED = "failed"
    GIVEN_UP = "given_up"


class Observer(Protocol):
    """Who is told. Times are seconds."""

    def reserved(self, outcome: ReserveOutcome | None) -> None:
        """Note what a bucket answered a reserve; None: Redis did not answer."""

    def ended(self, outcome: Outcome) -> None:
        """Note that the billing of a task's delivery has ended."""

    def charged(self, credits: int, delay_seconds: float | None) -> None:
        """Note a usage event that was made, so long after its work was done; None: that says nothing (a dry run)."""

    def published(self, result: Published, events: int) -> None:
        """Note what became of the publish of usage events."""

    def confirmed_after(self, seconds: float) -> None:
        """Note how long the broker took to confirm one event."""

    def owes(self, charges: int) -> None:
        """Note how many successes wait in this process for their charge."""

    def relayed(self, events: int) -> None:
        """Note events of the outbox that the relay has published."""

    def reaped(self, credits: int | None) -> None:
        """Note a hold whose draft the reaper has settled, of so many credits; None: the hold has expired."""

    def rebuilt(self, buckets: int) -> None:
        """Note buckets that were written anew from the usage history."""

    def alerted(self, kind: str) -> None:
        """Note an alert whose signal was sent."""

    def called(self, result: Called) -> None:
        """Note what became of a call of a client's webhook."""


def tell_charge(runtime: Runtime, run: Run) -> None:
    """Tell that the usage event of a run was made here. Once per run."""
    observer = runtime.observer
    if observer is not None:
        began = run.succeeded_at
        observer.charged(run.credits_charged or 0, None if began is None else runtime.clock.monotonic() - began)


def tell_end(observer: Observer, run: Run | None, state: str | None, outcome: object) -> None:
    """Tell how the billing of a delivery ended, unless it goes on. The same facts as the event `task-billed` has."""
    ended = ended_as(run, state, outcome)
    if ended is not None:
        observer.ended(ended)


def ended_as(run: Run | None, state: str | None, outcome: object) -> Outcome | None:
    """Return how the billing of a delivery ended; None: it goes on, as that of one which is retried or put off."""
    if run is not None:
        return None if run.outcome is Outcome.HELD else run.outcome
    if isinstance(outcome, Parked):
        return Outcome.PARKED
    return Outcome.REFUSED if state == FAILURE else None
