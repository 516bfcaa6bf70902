"""Reconciliation of a fleet at work: no false alarm, and one credit changed by hand is found all the same."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.keys import shard_keys
from billing.reconciliation.reconcile import reconcile
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLIENTS = ("acme", "bolt", "core")
TASKS = 120


def test_given_a_fleet_at_work_when_reconciled_over_and_over_then_nothing_differs_until_a_credit_does(
    running_fleet: Fleet,
) -> None:
    """L2, L3: hundreds of tasks while reconciliation loops, then the same with one credit moved by hand."""
    fleet = running_fleet
    fleet.runtime.settings = dataclasses.replace(fleet.settings, reconcile_wait_seconds=120.0)
    for client_id in CLIENTS:
        fleet.client(client_id, 1_000_000)
    done = threading.Event()
    stream = threading.Thread(target=_submit, args=(fleet, done), daemon=True)
    stream.start()
    try:
        wait_until(lambda: len(fleet.rows("acme")) > 0, "the fleet works")
        spent = [_reconciled(fleet) for _ in range(5)]
        assert spent == sorted(spent)
        wait_until(lambda: sum(row.credits for row in fleet.rows()) > spent[-1] + 100, "the fleet goes on working")

        _move_one_credit(fleet, "bolt")
        fleet.runtime.settings = dataclasses.replace(fleet.settings, reconcile_wait_seconds=10.0)
        report = reconcile(fleet.runtime, stripe=False)
        rows = len(fleet.rows())
        wait_until(lambda: len(fleet.rows()) > rows, "the fleet is still at work")
    finally:
        done.set()
        stream.join(120)

    assert {(found.law, found.client_id) for found in report.discrepancies} == {("L2 spent", "bolt")}


def _submit(fleet: Fleet, done: threading.Event) -> None:
    """Keep the fleet busy: a bounded number of tasks waits at a time."""
    sent = 0
    while not done.is_set():
        if sent - len(fleet.rows()) < TASKS:
            for client_id in CLIENTS:
                fleet.app.tasks["lines"].apply_async((client_id, sent % 5), ignore_result=True)
                sent += 1
        else:
            done.wait(0.01)


def _reconciled(fleet: Fleet) -> int:
    """Reconcile, and return what was spent by all clients."""
    report = reconcile(fleet.runtime, stripe=False)
    assert report.ok, (report.discrepancies, [law.text for law in report.laws])
    (spent,) = [law.compared["credits"] for law in report.laws if law.law == "L2 spent"]
    return spent


def _move_one_credit(fleet: Fleet, client_id: str) -> None:
    """Take one credit from what is spent and make it available, in one step: the bucket still adds up by itself."""
    key = shard_keys(shard_of(client_id, fleet.settings.shards)).bucket + client_id
    moved = """
        local bucket = redis.call('GET', KEYS[1])
        local head, available, held, spent, tail = string.match(bucket, '^(%d+ %d+ %d+:)(%d+):(%d+):(%d+)(.*)$')
        bucket = head .. string.format('%d', available + 1) .. ':' .. held .. ':'
            .. string.format('%d', spent - 1) .. tail
        return redis.call('SET', KEYS[1], bucket)
    """
    buckets = fleet.buckets
    assert isinstance(buckets, Buckets)
    buckets._scripts.client.execute_command("EVAL", moved, 1, key)
