"""Notes for the trail, from what the gate and the lifecycle know: of a refusal, of a hold's end, of a takeover."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Reject

from billing.core.clock import Clock, to_milliseconds
from billing.core.errors import BillingError, InsufficientCredits
from billing.core.shards import shard_of
from billing.credits.values import StoredHold
from billing.events.usage_event import decode_head
from billing.task.headers import Identity, Request
from billing.task.park import Parked
from billing.task.run import Run
from billing.task.trail import Kind, Note, Trail, encode_note
from billing.task.waits import read_waits

if TYPE_CHECKING:
    from billing.credits.verbs import Verbs
    from billing.task.billable import BillableTask

logger = logging.getLogger(__name__)


def note_refusal(
    trail: Trail,
    clock: Clock,
    task: BillableTask,
    refused: BillingError,
    ended: BaseException,
    identify: Callable[[], Identity],
) -> None:
    """Note that a delivery was refused, and how it `ended`: failed, waiting, parked, given back. Never raises."""
    client_id = getattr(refused, "client_id", None)
    if isinstance(client_id, str) and trail.drops(client_id):
        return
    try:
        trail.add(_of_refusal(clock, task, refused, ended, identify))
    except Exception:
        logger.exception("billing: the refusal of task %s is not noted", task.request.id)


def _of_refusal(
    clock: Clock, task: BillableTask, refused: BillingError, ended: BaseException, identify: Callable[[], Identity]
) -> Note:
    request: Any = task.request
    client_id, run_id = str(getattr(refused, "client_id", "") or ""), None
    try:
        identity = identify()
        client_id, run_id = identity.client_id, identity.run_id
    except Exception as error:  # noqa: BLE001 - whoever pays cannot be told, which is most likely why it was refused
        logger.debug("billing: task %s: %s", request.id, error)
    exhausted = refused if isinstance(refused, InsufficientCredits) else None
    sku = getattr(refused, "sku", None) or task.definition.sku
    return Note(
        kind=_kind_of(ended),
        at=to_milliseconds(clock.now()),
        task_id=str(request.id or ""),
        run_id=run_id,
        client_id=client_id,
        task=str(task.name),
        sku=sku if isinstance(sku, str) else "",
        credits=None if exhausted is None else exhausted.required,
        available=None if exhausted is None else exhausted.available,
        attempt=(request.retries or 0) + 1,
        waits=_waits_of(request),
        reason=" ".join(str(refused).split()),
        error=type(refused).__name__,
        worker=str(request.hostname or ""),
    )


def _kind_of(ended: BaseException) -> Kind:
    if isinstance(ended, Parked):
        return "parked"
    if isinstance(ended, Ignore):
        return "waits"
    return "given_back" if isinstance(ended, Reject) else "refused"


def _waits_of(request: Request) -> int:
    try:
        return read_waits(request.headers).count
    except BillingError:
        return 0


def of_run(kind: Kind, run: Run, clock: Clock, reason: object = "") -> Note:
    """Return a note on a run whose hold came to an end, or goes from one delivery to the next.

    Of an exception of the user's only the type is kept: its text may be anything.
    """
    error = ""
    if isinstance(reason, BillingError):
        text, error = " ".join(str(reason).split()), type(reason).__name__
    else:
        text = type(reason).__name__ if isinstance(reason, BaseException) else str(reason or "")
    return Note(
        kind=kind,
        at=to_milliseconds(clock.now()),
        task_id=run.head.correlation_id,
        run_id=run.identity.run_id,
        client_id=run.identity.client_id,
        task=run.head.task,
        sku=run.hold.sku,
        credits=run.hold.credits,
        attempt=run.head.attempt,
        reason=text,
        error=error,
    )


def of_retry(run: Run, clock: Clock, retry: object, waits: float) -> Note:
    """Return a note on a run whose task asked for a retry of its own; of the reason only the type is kept."""
    reason = getattr(retry, "exc", None)
    after = f" after {type(reason).__name__}" if isinstance(reason, BaseException) else ""
    return of_run("retries", run, clock, f"again in {waits:.1f} s{after}")


def note_takeover(trail: Trail, clock: Clock, run: Run, head: bytes) -> None:
    """Note that a delivery took a hold over whose attempt had not ended, if so: a retry of the user's own is another.

    `head` is the draft's that it found. Never raises.
    """
    try:
        if decode_head(head).attempt == run.head.attempt:
            trail.add(of_run("attempt", run, clock))
    except Exception:
        logger.exception("billing: the takeover of run %s is not noted", run.identity.run_id)


def note_hold(buckets: Verbs, clock: Clock, kind: Kind, hold: StoredHold, reason: str) -> None:
    """Note what the reaper did with a hold, at once: it has no task to keep waiting. Never raises."""
    try:
        note = _of_hold(clock, kind, hold, reason)
        buckets.add_notes([(shard_of(note.client_id, buckets.shards), encode_note(note))])
    except Exception as error:  # noqa: BLE001 - the hold is resolved, whatever becomes of the note
        logger.warning("billing: that the hold of run %s is %s is not noted: %s", hold.run_id, kind, error)


def _of_hold(clock: Clock, kind: Kind, hold: StoredHold, reason: str) -> Note:
    head = decode_head(hold.head)
    return Note(
        kind=kind,
        at=to_milliseconds(clock.now()),
        task_id=head.correlation_id,
        run_id=hold.run_id,
        client_id=hold.client_id,
        task=head.task,
        sku=hold.sku,
        credits=hold.credits,
        attempt=hold.attempt,
        reason=reason,
        worker="reaper",
    )
