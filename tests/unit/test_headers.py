"""The headers `billing_at` and `billing_nonce` make a run id the same on every delivery, and only there (L3)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import celery
import pytest
from celery import _state, signals
from celery.app.task import Context
from hypothesis import given
from hypothesis import strategies as st

import billing
from billing.core import ids
from billing.core.errors import InvalidValue
from billing.task.headers import AT, INHERITED_AGE_MAX_MILLISECONDS, NONCE, identify, mint, read_at

NOW = 1_800_000_000_000
YESTERDAY = time.time_ns() // 1_000_000 - 86_400_000


def inside(headers: dict[str, Any] | None) -> Context:
    """Return the request of a task that is running."""
    return Context(id="parent", headers=headers, called_directly=False)


def test_outside_a_task_a_publish_mints_time_and_nonce() -> None:
    """Given a caller outside any task, then each submission has its own nonce: one task id, two runs."""
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    mint(first, None, NOW)
    mint(second, None, NOW)

    assert first[AT] == second[AT] == NOW
    assert first[NONCE] != second[NONCE]
    runs = {identify(Context(id="same", headers=headers), "acme", "task").run_id for headers in (first, second)}
    assert len(runs) == 2


@given(st.integers(0, INHERITED_AGE_MAX_MILLISECONDS))
def test_inside_a_task_a_publish_inherits_the_time_of_its_root_and_takes_no_nonce(age: int) -> None:
    """Given a parent at most 30 days old, then its child has the same time and no nonce, each time it is published."""
    headers: dict[str, Any] = {}
    mint(headers, inside({AT: NOW - age, NONCE: "parents"}), NOW)

    assert headers == {AT: NOW - age}


def test_a_root_older_than_thirty_days_is_not_inherited() -> None:
    """Given a task that reschedules itself for ever, then past 30 days its time is minted anew."""
    headers: dict[str, Any] = {}
    mint(headers, inside({AT: NOW - INHERITED_AGE_MAX_MILLISECONDS - 1}), NOW)

    assert headers[AT] == NOW
    assert headers[NONCE]


@pytest.mark.parametrize("headers", [None, {}, {"other": 1}])
def test_the_child_of_a_sender_without_the_library_has_no_time_either(headers: dict[str, Any] | None) -> None:
    """Given a parent without a time, then nothing is minted: a republished child would be another run."""
    child: dict[str, Any] = {}
    mint(child, inside(headers), NOW)

    assert child == {}
    assert (
        ids.milliseconds_of(identify(Context(id="child", headers=child), "acme", "task").run_id)
        == ids.LEGACY_MILLISECONDS
    )


def test_what_a_message_carries_already_stays() -> None:
    """Given headers of a retry, inside or outside a task, then time and nonce are kept."""
    for parent in (None, inside({AT: 5})):
        headers: dict[str, Any] = {AT: NOW - 1, NONCE: "first"}
        mint(headers, parent, NOW)
        assert headers == {AT: NOW - 1, NONCE: "first"}


@pytest.mark.parametrize("value", [-1, 2**48 - 1, 2**60, 1.5, "1", True, [1]])
def test_a_time_that_is_none_is_refused(value: object) -> None:
    """Given a header that is no time, then the refusal names it."""
    with pytest.raises(InvalidValue, match=r"^billing_at: .*: must be milliseconds since the Unix epoch$"):
        read_at({AT: value})


def test_a_nonce_that_is_no_text_is_refused() -> None:
    """Given a nonce of another type, then the refusal names it."""
    with pytest.raises(InvalidValue, match=r"^billing_nonce: 5: must be text$"):
        identify(Context(id="x", headers={NONCE: 5}), "acme", "task")


def test_l3_a_time_that_the_log_would_not_take_is_refused_before_the_work() -> None:
    """Given seconds for milliseconds, then no work is done whose event would be no event."""
    with pytest.raises(InvalidValue, match=r"^billing_at: 1790000000: must be milliseconds since the Unix epoch$"):
        identify(Context(id="x", headers={AT: 1_790_000_000}), "acme", "task")


@pytest.mark.parametrize("text", ["x" * 1_025, "nul\x00", 5])
@pytest.mark.parametrize("name", ["id", "root_id"])
def test_l3_an_id_that_the_log_would_not_take_is_refused_before_the_work(name: str, text: Any) -> None:
    """Given an id that is no text, or too long, then no work is done whose event would be no event."""
    with pytest.raises(InvalidValue, match=r"_id: .*: must be text of at most 1024 characters without NUL$"):
        identify(Context(**{"id": "x", "headers": {AT: NOW}, name: text}), "acme", "task")


@pytest.mark.parametrize("retries", [-1, 2**31 - 1, "1", 1.5])
def test_l3_a_count_of_retries_that_the_log_would_not_take_is_refused_before_the_work(retries: Any) -> None:
    """Given retries that are none, then no work is done whose event would be no event."""
    with pytest.raises(InvalidValue, match=r"^retries: .*: must be "):
        identify(Context(id="x", headers={AT: NOW}, retries=retries), "acme", "task")


def test_replacing_a_task_is_another_run_and_a_redelivery_is_not() -> None:
    """Given a `replace()`, which keeps the task id, then its depth tells the two runs apart."""
    headers = {AT: NOW, NONCE: "n"}
    first = identify(Context(id="x", headers=headers, replaced_task_nesting=0), "acme", "task")
    again = identify(
        Context(id="x", headers=dict(headers), retries=3, delivery_info={"redelivered": True}), "acme", "task"
    )
    replaced = identify(Context(id="x", headers=headers, replaced_task_nesting=1), "acme", "task")

    assert first.run_id == again.run_id
    assert first.run_id != replaced.run_id
    assert first.submitted_at == NOW


# What Celery really publishes: on kombu's in-memory transport, read back from the signal that follows ours.


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """Make an app with billing, whose messages go nowhere."""
    app = celery.Celery("headers", broker="memory://", set_as_current=False)
    billing.setup(app)
    yield app
    app.close()


@pytest.fixture
def published() -> Iterator[list[dict[str, Any]]]:
    """Collect the headers of every message that is published."""
    found: list[dict[str, Any]] = []

    def see(headers: dict[str, Any] | None = None, **_: Any) -> None:
        found.append(dict(headers or {}))

    signals.before_task_publish.connect(see, weak=False)
    yield found
    signals.before_task_publish.disconnect(see)


def nothing(*_: Any) -> None:
    """Be the body of a task."""


@contextmanager
def running(task: Any, **request: Any) -> Iterator[None]:
    """Execute a task's body as a worker does: on top of the task stack, with its request."""
    stack: Any = vars(_state)["_task_stack"]
    stack.push(task)
    task.push_request(id="running", called_directly=False, is_eager=False, args=[], kwargs={}, **request)
    try:
        yield
    finally:
        task.pop_request()
        stack.pop()


def test_every_way_to_publish_from_outside_mints(app: celery.Celery, published: list[dict[str, Any]]) -> None:
    """Given delay, apply_async, send_task and a canvas outside a task, then each message has time and nonce."""
    task = app.task(shared=False, name="task")(nothing)

    task.delay(1)
    task.apply_async((1,), headers={"mine": "kept"})
    app.send_task("elsewhere")
    celery.group(task.s(1), task.s(2), app=app).apply_async()

    assert len(published) == 5
    assert all(headers[AT] > 1_600_000_000_000 and headers[NONCE] for headers in published)
    assert len({headers[NONCE] for headers in published}) == 5
    assert published[1]["mine"] == "kept"


def test_a_publish_from_inside_any_task_inherits(app: celery.Celery, published: list[dict[str, Any]]) -> None:
    """Given a running task, billable or not, then what it publishes has its root's time and no nonce."""
    task = app.task(shared=False, name="task")(nothing)

    with running(task, headers={AT: YESTERDAY, NONCE: "roots"}):
        task.delay(1)
        app.send_task("elsewhere")

    assert [headers[AT] for headers in published] == [YESTERDAY] * 2
    assert not any(NONCE in headers for headers in published)


def test_a_retry_keeps_time_and_nonce(app: celery.Celery, published: list[dict[str, Any]]) -> None:
    """Given a running task that retries, then the message that it publishes is the same run (L3)."""
    task = app.task(shared=False, name="task", max_retries=9)(nothing)
    headers = {AT: YESTERDAY, NONCE: "mine", "billing_client": "acme"}

    with running(task, headers=headers, retries=2):
        task.retry(throw=False, countdown=1)

    assert {name: published[0].get(name) for name in headers} == headers
    assert published[0]["retries"] == 3


def test_calling_a_task_directly_is_not_inside_it(app: celery.Celery, published: list[dict[str, Any]]) -> None:
    """Given a task that is called as a function, then what it publishes is a submission of its own."""
    child = app.task(shared=False, name="child")(nothing)

    def body() -> None:
        child.delay()

    parent = app.task(shared=False, name="parent")(body)

    parent()

    assert published[0][NONCE]


def test_an_eager_replacement_is_a_run_of_its_own() -> None:
    """Given an eager `replace()`, which keeps id and nesting, then the task tells the two runs apart."""
    request = Context(id="x", headers={}, is_eager=True)

    assert identify(request, "acme", "first").run_id != identify(request, "acme", "second").run_id
    assert identify(Context(id="x"), "acme", "first") == identify(Context(id="x"), "acme", "second")
