"""Parks the delivery of a task whose client cannot pay: its message is kept in PostgreSQL, then the delivery ends.

Guarantee: the delivery ends only when the row is committed. A PostgreSQL that is away, or stands still, costs it a
bounded wait, and then it is put off. Refuses what an eager call, or a client with too many waiting, asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as NotInTime
from typing import TYPE_CHECKING, Any, Final, NoReturn

from celery.exceptions import Ignore

from billing.core.apart import call_apart
from billing.core.errors import InsufficientCredits, Retryable, Unreachable
from billing.events.task_message import TaskMessage, encode_body, serializer_of
from billing.parking.message import kept_headers, kept_properties, parked_times
from billing.parking.parked import Delivery, ParkOutcome
from billing.task.headers import identify
from billing.task.putting_off import put_off
from billing.task.run_lines import tell_delivery
from billing.task.waits import without_waits

if TYPE_CHECKING:
    from billing.task.billable import BillableTask
    from billing.task.runtime import Runtime


#: Writes of one process that PostgreSQL has not answered in time: while there are so many, no more are begun (L9).
UNANSWERED_MAX: Final = 2
#: The fields of Celery's own that are headers of a message.
_FIELDS: Final = (
    *("shadow", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id", "argsrepr"),
    *("kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps"),
)

_unanswered: Final[list[threading.Event]] = []
_lock: Final = threading.Lock()


class Parked(Ignore):
    """The delivery has ended: its task waits in PostgreSQL."""

    def __init__(self, client_id: str, sku: str, required: int) -> None:
        super().__init__(client_id, sku, required)
        self.client_id, self.sku, self.required = client_id, sku, required

    def __str__(self) -> str:
        return f"client {self.client_id!r} cannot pay {self.required} credits of SKU {self.sku!r} yet; it is parked"


def park_delivery(
    task: BillableTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    exhausted: InsufficientCredits,
    runtime: Runtime,
) -> NoReturn:
    """Park the delivery that `task` is executing, and end it. Raises `exhausted` where it cannot wait."""
    if task.request.is_eager:
        raise exhausted
    delivery = delivery_of(task, args, kwargs, exhausted)
    try:
        outcome = _park(runtime, delivery)
    except Retryable as unavailable:
        put_off(task, args, kwargs, unavailable, runtime)
    if outcome is not ParkOutcome.PARKED:
        raise exhausted
    parked = Parked(exhausted.client_id, exhausted.sku, exhausted.required)
    tell_delivery(task, "parked", exhausted)
    raise parked from exhausted


def delivery_of(
    task: BillableTask, args: Sequence[Any], kwargs: Mapping[str, Any], exhausted: InsufficientCredits
) -> Delivery:
    """Return the delivery that `task` is executing, as it is parked."""
    request: Any = task.request
    properties = request.properties or {}
    where = request.delivery_info or {}
    own = {name: getattr(request, name) for name in _FIELDS if name in vars(request)}
    # What it waited for in the broker is over: once it is started, its waits are counted anew.
    came = without_waits(request.headers or {})
    headers = {**came, "lang": "py", **own, "task": task.name, "id": request.id}
    # Where the transport does not say how it was encoded, it is encoded as this task's messages are.
    serializer = serializer_of(properties) or str(task.serializer or task.app.conf.task_serializer)
    content_type, content_encoding, body = encode_body(request, args, kwargs, serializer)
    answers = {"correlation_id": request.correlation_id, "reply_to": request.reply_to}
    message = TaskMessage(
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        headers=kept_headers(headers),
        properties=kept_properties({**properties, **answers}),
        exchange=where.get("exchange") or "",
        routing_key=where.get("routing_key") or "",
    )
    return Delivery(
        run_id=identify(request, exhausted.client_id, task.definition.task).run_id,
        client_id=exhausted.client_id,
        task=str(task.name),
        task_id=request.id or "",
        sku=exhausted.sku,
        credits=exhausted.required,
        available=exhausted.available,
        message=message,
        times=parked_times(request.headers),
    )


def _park(runtime: Runtime, delivery: Delivery) -> ParkOutcome:
    """Write the row, or raise `Retryable`. A write that nobody waits for any more is not committed."""
    settings = runtime.settings
    with _lock:
        _unanswered[:] = [one for one in _unanswered if not one.is_set()]
        unanswered = len(_unanswered)
    if unanswered >= UNANSWERED_MAX:
        raise Unreachable("parking waits for PostgreSQL, which has not answered")
    given_up = threading.Event()

    def write() -> ParkOutcome:
        from billing.parking.storing import store  # noqa: PLC0415 - with SQLAlchemy, which few workers need

        return store(runtime, delivery, given_up.is_set)

    # No bound of ours ends the wait for a server that stands still while its machine answers.
    answered = threading.Event()
    try:
        written = call_apart(write, name="billing-park")
    except RuntimeError as error:
        raise Unreachable(f"parking: no thread is to be had ({error})") from error
    written.add_done_callback(lambda _: answered.set())
    try:
        # It may connect first, and then waits for a lock.
        return written.result(timeout=2 * settings.database_timeout_seconds + 2)
    except NotInTime as error:
        raise Unreachable("parking: PostgreSQL has not answered in time") from error
    finally:
        given_up.set()
        if not written.done():
            with _lock:
                _unanswered.append(answered)
