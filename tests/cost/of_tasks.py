"""What a task costs from its delivery to its end, for each way to publish: by a worker's own tracer, one at a time.

The message is published and taken from the broker's memory as a worker takes it. What a process would do by itself
after a second (removing confirmed events from the outbox) is done at once, and counted with the task.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import celery
from celery.app.trace import build_tracer
from kombu.serialization import loads

import billing
from billing import BillableTask, admin
from billing.task.attachment import attachment_of
from billing.task.lifecycle import Lifecycle
from tests.cost.place import Place
from tests.cost.wires import Counts, only

BILLING: Final = str(Path(billing.__file__).parent)
#: What Python 3.11 enters as a function, and 3.12 does not.
INLINED: Final = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
WARM: Final = 3
#: What each way charges: it is the way that it is called only then.
CHARGES: Final = {
    "charged": 5,
    "refused": 0,
    "released": 0,
    "late": 5,
    "renewed": 5,
    "recorded": 13,
    "retried": 5,
}
#: A task's arguments, and its request.
Delivery = tuple[list[Any], dict[str, Any], dict[str, Any]]


class Shop:
    """An app whose tasks are billed over the tapped wires, and the worker that runs them."""

    def __init__(self, place: Place, publish: str) -> None:
        self.place = place
        self.app = celery.Celery(f"cost-{publish}", broker="memory://", backend="cache+memory://", set_as_current=False)
        self.app.conf.task_default_queue = f"cost-{publish}"
        keys = place.keys(publish=publish)
        self.app.conf.update({f"billing_{name}": value for name, value in keys.items()})
        billing.setup(self.app)
        self.inside: Callable[[], object] = lambda: None
        self.task: Any = self._task()
        self.settings = attachment_of(self.app).runtime.settings
        # What this thread does at once, no thread does later.
        vars(self.lifecycle.pending)["_thread"] = threading.current_thread()

    @property
    def lifecycle(self) -> Lifecycle:
        """What bills."""
        return attachment_of(self.app).lifecycle

    def _task(self) -> Any:
        def body(bound: Any, client_id: str, **_: object) -> None:
            self.inside()

        decorate: Any = self.app.task(shared=False, name="sold", bind=True, base=BillableTask, sku="page")
        task = decorate(body)
        self.app.finalize()
        return self.app.tasks[task.name]

    def sent(self, client_id: str = "acme") -> Delivery:
        """Publish the task, and take its message from the broker."""
        self.task.apply_async((client_id,))
        message = self._taken()
        args, kwargs, _ = loads(message.body, message.content_type, message.content_encoding)
        return args, kwargs, {**message.headers, "is_eager": False, "delivery_info": {}}

    def _taken(self) -> Any:
        with self.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return channel.basic_get(self.app.conf.task_default_queue, no_ack=True)

    def run(self, delivery: Delivery) -> Any:
        """Run a delivery as a worker's process does."""
        args, kwargs, request = delivery
        return build_tracer(self.task.name, self.task, app=self.app)(request["id"], args, kwargs, request)

    def ended(self, client_id: str = "acme") -> None:
        """Run the task once, and remove what is confirmed."""
        self.run(self.sent(client_id))
        self.lifecycle.pending.pay()

    def raising(self) -> None:
        """Have the body fail."""
        raise ValueError("the body fails")

    def releasing(self) -> None:
        """Have the hold be gone before the body ends: somebody released it, from elsewhere and untapped."""

        def release() -> None:
            (hold,) = self.place.buckets.held("acme")
            self.place.buckets.release("acme", hold.run_id, hold.token)

        elsewhere = threading.Thread(target=release)
        elsewhere.start()
        elsewhere.join()

    def renewing(self) -> None:
        """Have the lease renewed once while the body runs."""
        self.lifecycle.renewal.renew()

    def recording(self) -> None:
        """Have two lines recorded."""
        billing.usage.record(2)
        billing.usage.record(1, sku="extra")

    def with_body(self, inside: Callable[[], object]) -> Callable[[], None]:
        """Return one task with such a body."""

        def work() -> None:
            self.inside = inside
            try:
                self.ended()
            finally:
                self.inside = lambda: None

        return work

    def retried(self) -> None:
        """Run a task that asks for another attempt, and succeeds in it."""
        args, kwargs, request = self.sent()

        def again() -> None:
            raise self.task.retry(countdown=0)

        self.inside = again
        self.run((args, kwargs, {**request, "retries": 0}))
        self.inside = lambda: None
        message = self._taken()
        self.run((args, kwargs, {**message.headers, "is_eager": False, "delivery_info": {}}))
        self.lifecycle.pending.pay()


@contextmanager
def shop_in(place: Place, publish: str) -> Iterator[Shop]:
    """Open a shop; everything is connected and read that a process needs once."""
    shop = Shop(place, publish)
    try:
        for _ in range(WARM):
            shop.ended()
        yield shop
    finally:
        runtime = attachment_of(shop.app).runtime
        shop.app.close()
        runtime.close()


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions of billing's own this thread entered while `work` did."""
    entered = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal entered
        code = frame.f_code
        entered += event == "call" and code.co_filename.startswith(BILLING) and code.co_name not in INLINED

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return entered


def measure(place: Place) -> dict[str, Counts]:
    """Count each way that a task can go, for each way to publish."""
    settings = place.settings()
    admin.add_client(settings, "acme")
    admin.grant(settings, "acme", 1_000_000, key="first")
    admin.add_client(settings, "poor")
    admin.grant(settings, "poor", 1, key="first")
    found: dict[str, Counts] = {}
    for publish in ("confirm", "relay"):
        with shop_in(place, publish) as shop:
            ways: dict[str, Callable[[], object]] = {
                "charged": shop.ended,
                "refused": lambda shop=shop: shop.ended("poor"),  # type: ignore[misc]
                "released": shop.with_body(shop.raising),
                "late": shop.with_body(shop.releasing),
                "renewed": shop.with_body(shop.renewing),
                "recorded": shop.with_body(shop.recording),
                "retried": shop.retried,
            }
            for way, work in ways.items():
                before = _spent(place)
                work()
                assert _spent(place) - before == CHARGES[way], way
                counts = place.wires.counted(work, "redis", "sql", "amqp")
                spoken = only(counts, "redis", "amqp")
                found[f"task.{publish}.{way}"] = {
                    **{name: count for name, count in spoken.items() if "bytes" not in name or way == "charged"},
                    "sql_statements": counts.get("sql_statements", 0),
                    "calls": calls_of(work),
                }
    admin.close(settings)
    return found


def _spent(place: Place) -> int:
    balance = place.buckets.balance("acme")
    assert balance is not None
    return balance.spent
