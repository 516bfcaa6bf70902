"""A delivery becomes a parked message, and that a message again, with nothing lost that a second delivery needs."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery.app.task import Context

import billing
from billing import BillableTask
from billing.core.errors import Cancelled, InsufficientCredits, ParkedTooLong
from billing.core.settings import Settings
from billing.parking.message import PARKED, from_text, handed_over, kept_headers, parked_times, to_text
from billing.task.park import Parked, delivery_of, park_delivery
from billing.task.runtime import Runtime

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
EXHAUSTED = InsufficientCredits("acme", "unit", 10, 5)
#: What a worker gives the request of a message that a chain published, besides its arguments.
REQUEST: dict[str, Any] = {
    "lang": "py",
    "task": "billed",
    "id": "one",
    "shadow": None,
    "eta": "2026-11-21T11:00:00+00:00",
    "expires": (NOW + timedelta(seconds=90)).isoformat(),
    "group": "group",
    "group_index": 2,
    "retries": 1,
    "timelimit": [None, None],
    "root_id": "root",
    "parent_id": "parent",
    "argsrepr": "('acme',)",
    "kwargsrepr": "{}",
    "origin": "gen1@here",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": ["tenant"],
    "stamps": {"tenant": "north"},
    "tenant": "north",
    "billing_at": 1_790_000_000_000,
    "x-death": [{"count": 1, "time": NOW}],
    "x-first-death-queue": "delay",
    "compression": "application/x-gzip",
    "properties": {"content_type": "application/json", "priority": 4, "delivery_mode": 2, "expiration": "1"},
    "reply_to": "back",
    "correlation_id": "one",
    "hostname": "worker@test",
    "delivery_info": {"exchange": "", "routing_key": "tasks", "priority": 4, "redelivered": False},
    "is_eager": False,
    "callbacks": None,
    "errbacks": [{"task": "told"}],
    "chain": [{"task": "next"}],
    "chord": None,
}


@pytest.fixture
def task() -> Any:
    app = billing.setup(celery.Celery("parking", broker="memory://", set_as_current=False))

    @app.task(shared=False, base=BillableTask, sku="unit", name="billed")
    def billed(client_id: str, page: int = 0) -> None: ...

    app.finalize()
    yield app.tasks["billed"]
    app.close()


def test_a_message_keeps_what_the_sender_gave_it(task: Any) -> None:
    """Given a delivery, then body, headers and properties are the sender's, but for its eta, packing and way."""
    task.push_request(**REQUEST)
    delivery = delivery_of(task, ["acme"], {"page": 3}, EXHAUSTED)
    task.pop_request()

    message = delivery.message
    embedded = {"callbacks": None, "errbacks": [{"task": "told"}], "chain": [{"task": "next"}], "chord": None}
    assert json.loads(message.body) == [["acme"], {"page": 3}, embedded]
    left_out = {"x-death", "x-first-death-queue", "compression"}
    own = {name for name in REQUEST if name not in left_out} - {*embedded, "properties", "reply_to", "correlation_id"}
    own -= {"hostname", "delivery_info", "is_eager"}
    assert message.headers == {name: REQUEST[name] for name in own} | {"eta": None}
    assert message.properties == {"priority": 4, "delivery_mode": 2, "correlation_id": "one", "reply_to": "back"}
    assert (message.exchange, message.routing_key, message.content_type) == ("", "tasks", "application/json")
    assert (delivery.task, delivery.task_id, delivery.sku, delivery.credits) == ("billed", "one", "unit", 10)
    assert (delivery.available, delivery.times) == (5, 0)


def test_what_is_handed_over_says_how_often_it_was_parked_and_expires_when_its_sender_said(task: Any) -> None:
    """Given a message with 90 s to go, then its run id stays, its age counts on, and its next delivery knows."""
    task.push_request(**REQUEST)
    first = delivery_of(task, ["acme"], {}, EXHAUSTED)
    task.pop_request()

    message = handed_over(first.message, 1, NOW)
    assert message.properties["expiration"] == "90000"
    task.push_request(**Context({**message.headers, "delivery_info": {"routing_key": "tasks"}}).__dict__)
    again = delivery_of(task, ["acme"], {}, EXHAUSTED)
    task.pop_request()
    assert (again.run_id, again.times) == (first.run_id, 1)


def test_what_it_waited_for_before_it_was_parked_is_not_counted_when_it_is_started(task: Any) -> None:
    """Given a delivery that had waited in the broker, then its parked message does not count that."""
    counts = {"billing_waits": 1_499, "billing_exhausted_waits": 3, "billing_exhausted_since": 17}
    task.push_request(**REQUEST, **counts)
    delivery = delivery_of(task, ["acme"], {}, EXHAUSTED)
    task.pop_request()
    assert counts.keys().isdisjoint(delivery.message.headers)


def test_an_eager_call_fails_as_without_parking(task: Any) -> None:
    task.push_request(id="one", is_eager=True)
    with pytest.raises(InsufficientCredits):
        park_delivery(task, ["acme"], {}, EXHAUSTED, Runtime(Settings))
    task.pop_request()


def test_headers_are_kept_as_text_whatever_they_hold() -> None:
    """Given times and characters that PostgreSQL's JSON refuses, then they come back."""
    gone = {"x-last-death-reason": "expired", "x-acquired-count": 3, "CC": ["copy"], "BCC": ["hidden"]}
    headers = kept_headers({"at": NOW, "nul": "\x00", **gone})
    assert from_text(to_text(headers)) == {"at": NOW, "nul": "\x00", "eta": None}
    assert "\x00" not in to_text(headers)


@pytest.mark.parametrize("said", [None, "2", True, -1, 1.5])
def test_a_header_that_is_no_count_counts_for_nothing(said: object) -> None:
    assert parked_times({PARKED: said}) == 0
    assert (parked_times(None), parked_times({PARKED: 2})) == (0, 2)


@pytest.mark.parametrize(
    "error", [Cancelled("acme", 7), ParkedTooLong("acme", "unit", 10, 5), Parked("acme", "unit", 9)]
)
def test_what_is_raised_survives_json_and_pickle(error: Exception) -> None:
    """Given an error of a parked task, then it comes out of a result backend, and of a child process, whole."""
    again = type(error)(*json.loads(json.dumps(error.args)))
    unpickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert str(again) == str(error) == str(unpickled)
    assert "'acme'" in str(error)
