"""What a block of `billing.reserve` orders, which app bills it, and for how long it is renewed. No server is asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import celery
import pytest
from hypothesis import given
from hypothesis import strategies as st

import billing
from billing.core import ids
from billing.core.errors import Fatal, InvalidValue
from billing.integration import outside as wiring
from billing.task.attachment import attachment_of
from billing.task.outside import TASK, Order
from billing.task.renewal import Renewal
from billing.task.usage import NotInARun
from tests.unit.selling import an_app

NOW = 1_790_000_000_000


def order(**changes: Any) -> Order:
    """Return an order."""
    given: dict[str, Any] = {"client_id": "acme", "sku": "page", "quantity": 1, "most": None, "key": None}
    return Order(**given | changes)


@pytest.fixture
def apps() -> Iterator[tuple[celery.Celery, celery.Celery]]:
    """Make two apps that billing is set up on."""
    first, second = an_app("first"), an_app("second")
    yield first, second
    first.close()
    second.close()


@given(st.text("abc", min_size=1), st.integers(0, NOW))
def test_a_key_is_the_same_run_at_any_time_and_of_one_client(key: str, later: int) -> None:
    """Given a key, then its run id depends on client and key alone: not on time, SKU or quantity (L3)."""
    first = order(key=key).identity(NOW).run_id

    assert order(key=key, sku="other", quantity=7, most=9).identity(NOW + later).run_id == first
    assert order(key=key, client_id="other").identity(NOW).run_id != first
    assert order(key=key + "x").identity(NOW).run_id != first
    assert ids.milliseconds_of(first) == ids.LEGACY_MILLISECONDS
    # A task that has the key as its id, sent without the library: its run id has the same time bits.
    assert ids.run_id("acme", key, nesting=0, nonce="", at_milliseconds=None) != first


def test_without_a_key_each_block_is_a_run_of_its_own_and_of_its_time() -> None:
    """Given one order, when it is begun twice at one instant, then two runs, in the partition of that instant."""
    runs = {order().identity(NOW).run_id for _ in range(100)}

    assert len(runs) == 100
    assert {ids.milliseconds_of(run) for run in runs} == {NOW}
    assert {run.version for run in runs} == {7}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"client_id": None}, "client_id: None"),
        ({"client_id": "two words"}, "client_id: "),
        ({"sku": lambda: "page"}, "sku: "),
        ({"quantity": True}, "quantity: True"),
        ({"quantity": lambda: 1}, "quantity: "),
        ({"most": -1}, "reserve: -1"),
        ({"most": 1.0}, "reserve: 1.0"),
        ({"key": ""}, "key: ''"),
        ({"key": "x" * 256}, "key: "),
        ({"key": "a\tb"}, "key: "),
        ({"key": 7}, "key: 7"),
    ],
)
def test_a_bad_argument_is_refused_where_it_is_given(changes: dict[str, Any], text: str) -> None:
    """Given a value that breaks its rule, then one line with its name, before anything is asked of a server."""
    with pytest.raises(InvalidValue) as refused:
        order(**changes)
    assert str(refused.value).startswith(text)
    assert "\n" not in str(refused.value)


def test_events_of_blocks_say_that_they_are_of_no_task() -> None:
    """Given an order, then its declaration is named as the reaper and people know it."""
    assert order().definition.task == TASK == "billing.reserve"


def test_the_app_that_is_set_up_bills_and_without_one_the_environment(
    apps: tuple[celery.Celery, celery.Celery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no app, one, or several, then the environment, that one, the one that is named or current; else a line."""
    first, second = apps
    attached = [attachment_of(first), attachment_of(second)]
    monkeypatch.setattr(wiring, "all_attachments", list)
    assert wiring._attachment(None) is wiring._environment
    monkeypatch.setattr(wiring, "all_attachments", lambda: attached[:1])
    assert wiring._attachment(None) is attached[0]

    monkeypatch.setattr(wiring, "all_attachments", lambda: attached)
    assert wiring._attachment(second) is attached[1]
    stranger = celery.Celery("stranger", broker="memory://")
    with pytest.raises(Fatal, match="say which: app="):
        wiring._attachment(None)
    stranger.close()
    first.set_current()
    assert wiring._attachment(None) is attached[0]


def test_l3_a_child_of_multiprocessing_makes_its_pending_charges_when_it_ends() -> None:
    """Given a process that bills, and forks a child that bills, then each pays once, though the child has no atexit."""
    program = """
import multiprocessing, os
from billing.integration import outside
parent = os.getpid()
outside._pay = lambda: print("parent" if os.getpid() == parent else "child", flush=True)
outside._attachment(None)
for kind in (outside._attachment, print):
    child = multiprocessing.get_context("fork").Process(target=kind, args=(None,))
    child.start()
    child.join()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.split() == ["child", "None", "parent"]


def test_before_it_is_entered_a_block_has_no_run() -> None:
    """Given a block that nobody entered, then there is nothing to record in, and nothing was asked of a server."""
    block = billing.reserve("acme", "page")
    with pytest.raises(NotInARun):
        block.record(1)
    with pytest.raises(NotInARun):
        block.run_id  # noqa: B018 - reading it raises
    block.__exit__(None, None, None)


def test_a_block_that_nobody_ends_is_not_renewed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a block beside a task, when the block's age is over, then the task's lease alone is renewed (L9)."""
    monkeypatch.setattr(Renewal, "_start", lambda _: None)
    renewed: list[Any] = []
    now = [0.0]
    clock: Any = SimpleNamespace(monotonic=lambda: now[0])
    renewal = Renewal(1.0, renewed.append, clock)
    block: Any = SimpleNamespace(name="block", renewed_until=10.0)
    task: Any = SimpleNamespace(name="task", renewed_until=float("inf"))
    for run in (block, task):
        renewal.add(run)

    renewal.renew()
    now[0] = 10.0
    renewal.renew()
    renewal.remove(task)
    renewal.renew()

    assert [[run.name for run in runs] for runs in renewed] == [["block", "task"], ["task"]]
    assert not renewal._runs, "what is over is not kept"
