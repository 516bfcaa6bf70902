"""`billing parked list|cancel` as a user types them."""

from __future__ import annotations

import pytest

from billing.core.settings import load
from billing.parking.storing import park
from billing.task.runtime import Runtime
from tests.integration.starting import delivery
from tests.terminal import Terminal

pytestmark = pytest.mark.integration

REFUSED = [
    (("parked", "list", "--client", "nobody"), ("client_id", "'nobody'", "known client")),
    (("parked", "cancel"), ("parked_id", "either the id of a parked task, or a client")),
    (("parked", "cancel", "1", "--client", "acme"), ("parked_id", "either the id of a parked task, or a client")),
    (("parked", "cancel", "99"), ("parked_id", "99", "is not a parked task")),
    (("parked", "cancel", "-1"), ("parked_id", "-1", "must be from 1")),
    (("parked", "cancel", "--client", "nobody"), ("client_id", "'nobody'", "known client")),
]


def test_what_is_refused_is_one_line(shop: Terminal) -> None:
    """Given input that breaks a rule, then field, value and rule in one line, exit code 2, and the books unchanged."""
    before = shop.books()
    for arguments, names in REFUSED:
        shop.type(*arguments).refused(2, *names)
    assert shop.books() == before


def test_parked_tasks_are_listed_and_cancelled(shop: Terminal) -> None:
    """Given three parked tasks, then they are listed in order, cancelled one by one or all of a client, once."""
    settings = load({}, shop.environment)
    runtime = Runtime(lambda: settings)
    shop.type("client", "add", "brook")
    with runtime.engine.begin() as connection:
        for client, task_id in (("acme", "one"), ("brook", "two"), ("acme", "three")):
            park(connection, settings, delivery(client, task_id), runtime.clock.now())
    runtime.close()

    listed = shop.type("parked", "list", "--json").json()
    assert [(row["task_id"], row["client_id"], row["credits"], row["state"]) for row in listed] == [
        ("one", "acme", 10, "waiting"),
        ("two", "brook", 10, "waiting"),
        ("three", "acme", 10, "waiting"),
    ]
    assert [row["task_id"] for row in shop.type("parked", "list", "--client", "brook", "--json").json()] == ["two"]
    shown = shop.type("parked", "list", "--after", str(listed[1]["parked_id"])).out
    assert ("brook" in shown, f"  {listed[2]['parked_id']}    acme" in shown) == (False, True)

    cancelled = shop.type("parked", "cancel", str(listed[0]["parked_id"]))
    assert (cancelled.code, "(ok, one) is cancelled" in cancelled.out) == (0, True)
    shop.type("parked", "cancel", str(listed[0]["parked_id"])).refused(2, "parked_id", "waits no more: it is cancelled")
    assert [row["task_id"] for row in shop.type("parked", "cancel", "--client", "acme", "--json").json()] == ["three"]
    assert "has no parked tasks" in shop.type("parked", "cancel", "--client", "acme").out
    assert [row["task_id"] for row in shop.type("parked", "list", "--json").json()] == ["two"]
