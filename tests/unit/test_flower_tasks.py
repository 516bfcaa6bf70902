"""A task as Flower keeps it: states are Celery's, billing's fields stay, contents are never there."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from celery.events.state import State

from billing.observability.flower.access import asks_who, check_access
from billing.observability.flower.tasks import COLUMNS, BilledTask, without_contents

BILLED = {"billing_client": "acme", "billing_sku": "unit", "billing_charged": 10, "billing_outcome": "charged"}


class BilledState(State):
    """Celery's state of a cluster, with our record of a task."""

    Task = BilledTask


def state_after(*events: tuple[str, dict[str, Any]]) -> BilledTask:
    """Return the one task of a state that received these events, in the order in which they are given."""
    state = BilledState()
    for clock, (type_, fields) in enumerate(events, start=1):
        common = {"uuid": "one", "hostname": "worker@test", "timestamp": 1.0, "local_received": 1.0, "clock": clock}
        state.event({"type": type_, **common, **fields})
    task: BilledTask = state.tasks["one"]  # type: ignore[attr-defined]  # the stubs lack it
    return task


@pytest.mark.parametrize("end", ["task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked"])
def test_in_every_order_the_state_is_that_of_celery_alone(end: str) -> None:
    """`task-billed` goes another way than Celery's own events, so it may come at any time."""
    own = [("task-received", {"name": "ok", "args": "('x',)"}), ("task-started", {}), (end, {"result": "'x'"})]
    billed = ("task-billed", BILLED)
    for order in itertools.permutations(own):
        alone = state_after(*order)
        for position in range(len(own) + 1):
            task = state_after(*order[:position], billed, *order[position:])
            assert task.state == alone.state
            assert {name: getattr(task, name) for name in BILLED} == BILLED
            assert (task.args, task.kwargs, task.result) == (None, None, None)


@pytest.mark.parametrize("end", ["succeeded", "failed", "revoked"])
def test_the_event_of_a_retry_that_comes_after_the_end_changes_nothing(end: str) -> None:
    """Two workers' events have no order among each other: the earlier attempt's may be the last to come."""
    events = [("task-received", {"name": "ok"}), ("task-started", {}), (f"task-{end}", {})]
    task = state_after(*events, ("task-retried", {"exception": "Retry()"}))

    assert task.state == state_after(*events).state
    assert task.exception is None


def test_a_repeat_without_an_amount_keeps_the_amount() -> None:
    """A redelivery of a charged run does not know what it cost."""
    task = state_after(("task-billed", BILLED), ("task-billed", {"billing_outcome": "charged"}))

    assert task.billing_charged == 10


def test_events_lose_their_contents() -> None:
    given = {"uuid": "one", "args": "(1,)", "kwargs": "{}", "result": "2", "traceback": "Traceback", "runtime": 0.1}

    assert without_contents(given) == {"uuid": "one", "runtime": 0.1}
    assert given["args"] == "(1,)"


@pytest.mark.parametrize(
    ("exception", "kept"),
    [
        ("ValueError('secret')", "ValueError"),
        ("app.errors.BadQuery('secret', 3)", "app.errors.BadQuery"),
        ("<secret object>", "not shown"),
        ("SoftTimeLimitExceeded()", "SoftTimeLimitExceeded"),
        ("4111111111111111 was declined", "not shown"),
        ("4111111111111111('declined')", "not shown"),
        ("secret", "not shown"),
    ],
)
def test_of_an_error_only_its_name_is_kept(exception: str, kept: str) -> None:
    assert without_contents({"exception": exception}) == {"exception": kept}


def test_every_column_is_a_field_that_is_served() -> None:
    served = BilledTask(uuid="one").as_dict()

    assert set(COLUMNS) <= served.keys()


LOOPBACK = ["127.0.0.1", "127.8.9.1", "::1", "localhost"]
OPEN = ["", "0.0.0.0", "::", "0", "10.0.0.7", "fe80::1", "flower.example", "localhost.example", "127.0.0.1.example"]  # noqa: S104


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_needs_no_authentication(address: str) -> None:
    assert check_access(address=address, unix_socket="", authenticated=False) is None


@pytest.mark.parametrize("address", OPEN)
def test_another_address_needs_authentication_or_a_unix_socket(address: str) -> None:
    refused = check_access(address=address, unix_socket="", authenticated=False)

    assert refused is not None
    assert str(refused).startswith(f"address: {address!r}: is not loopback")
    assert check_access(address=address, unix_socket="", authenticated=True) is None
    assert check_access(address=address, unix_socket="/run/flower", authenticated=False) is None


@pytest.mark.parametrize(
    ("basic_auth", "auth", "asks"),
    [
        (["operator:secret"], "", True),
        (["operator:secret", "other:secret"], None, True),
        (None, ".*@example.com", True),
        (None, None, False),
        ([], "", False),
        ([""], "", False),
        (["operator"], "", False),
        (["operator:"], "", False),
        ([":"], "", False),
        ([":secret"], "", False),
        (["operator:secret", ""], "", False),
    ],
)
def test_only_who_has_a_password_counts_as_authenticated(
    basic_auth: list[str] | None, auth: str | None, *, asks: bool
) -> None:
    """`FLOWER_BASIC_AUTH=` of a variable that was not set lets everybody in."""
    assert asks_who(basic_auth=basic_auth, auth=auth) is asks
