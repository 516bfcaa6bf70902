"""The continuous reconciler beside a fleet at work: one credit in any client is found, named, and told once.

1,000 clients and a short pass here; `make reconciler` runs it with 10,000 and the settings that a fleet has by default.
"""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
import pytest

from billing import admin
from billing.reconciliation.continuous.status import Status
from tests.fleet.busy import busy
from tests.fleet.crowd import add_crowd
from tests.fleet.harness import Fleet
from tests.fleet.keys import key_of, redis_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VARIABLE: Final = "RECONCILER_CLIENTS"
CLIENTS: Final = int(os.environ.get(VARIABLE, "1000"))
#: Clients whose tasks run all the time; one of them loses a credit, and one a credit of its rollups.
BUSY: Final = ("acme", "bolt", "core", "dove")
TASKS_WAITING: Final = 60
#: Nothing here is asserted to be fast; this bounds a hang.
PATIENCE_SECONDS: Final = 240.0 if CLIENTS <= 1_000 else 900.0


@pytest.fixture
def fleet_settings() -> dict[str, str]:
    """Return the fleet's settings: those of every fleet for 10,000 clients, a shorter pass for fewer."""
    short = {"BILLING_RECONCILE_PASS_SECONDS": "2", "BILLING_RECONCILE_LOAD_PERCENT": "60"}
    return {"BILLING_SHARDS": "16", **({} if VARIABLE in os.environ else short)}


def test_given_a_fleet_at_work_when_a_credit_is_changed_by_hand_then_it_is_found_named_and_told_once(
    fleet: Fleet,
) -> None:
    """L2, L7: passes under load find nothing; then every way to spoil a bucket is found, and nothing else is blamed."""
    crowd = [f"client-{number:05}" for number in range(CLIENTS)]
    add_crowd(fleet, [*crowd, *BUSY], 1_000_000)
    fleet.consumer()
    fleet.worker()
    with busy(fleet, BUSY, waiting=TASKS_WAITING, units=range(5)):
        wait_until(lambda: all(fleet.rows(client_id) for client_id in BUSY), "the fleet works", timeout_seconds=120)
        quiet = _passes(fleet, 3)
        assert quiet.last_pass is not None
        assert quiet.last_pass.clients == CLIENTS + len(BUSY)
        assert (_found(fleet), quiet.not_compared) == ([], 0)

        spoiled = {crowd[place * CLIENTS // len(SPOIL)]: way for place, way in enumerate(SPOIL)}
        began = time.monotonic()
        undo = [SPOIL[way](fleet, client_id) for client_id, way in spoiled.items()]
        undo += [_move_one_credit(fleet, "bolt", 1), _change_rollup(fleet, "core", 1)]
        expected = {(client_id, law) for client_id, way in spoiled.items() for law in LAWS[way]} | {
            ("bolt", "L2 spent"),
            ("core", "L7 sums of the log"),
        }
        wait_until(lambda: _named(fleet) >= expected, "all are found", timeout_seconds=PATIENCE_SECONDS)
        took = time.monotonic() - began
        found = _found(fleet)
        again = _passes(fleet, 2)

        assert _named(fleet) == expected
        assert _found(fleet) == found
        assert max(collections.Counter(row[:3] for row in found).values()) == 1
        assert again.standing == len(found)
        log = (fleet.directory / "consumer.log").read_text()
        for law, client_id, grant_id, *_ in found:
            grant = "" if grant_id is None else f", grant {grant_id}"
            assert log.count(f"billing: {law}: client {client_id}{grant}: ") == 1

        for back in undo:
            back()
        wait_until(
            lambda: admin.reconciler_status(fleet.settings).standing == 0,
            "all are gone",
            timeout_seconds=PATIENCE_SECONDS,
        )
        rows = len(fleet.rows())
        wait_until(lambda: len(fleet.rows()) > rows, "the fleet is still at work", timeout_seconds=60)
    assert len(_found(fleet)) == 2 * len(found)
    pass_seconds = (quiet.last_pass.finished_at - quiet.last_pass.started_at).total_seconds()
    print(  # noqa: T201 - what was measured, for `make reconciler`
        f"\n{CLIENTS:,} clients: a pass took {pass_seconds:.1f} s with {quiet.last_pass.busy_seconds:.1f} s of work; "
        f"{len(expected)} changes were all found {took:.1f} s after the first"
    )


Undo = Callable[[], object]


def _in_bucket(old: str, new: str) -> Callable[[Fleet, str], Undo]:
    """Return what changes a number of an idle client's bucket."""

    def spoil(fleet: Fleet, client_id: str) -> Undo:
        key, client = key_of(fleet, client_id, "bucket"), redis_of(fleet)
        before = client.get(key)
        assert before.decode().count(old) == 1, before
        client.set(key, before.decode().replace(old, new))
        return lambda: client.set(key, before)

    return spoil


def _in_hash(name: str, by: int) -> Callable[[Fleet, str], Undo]:
    """Return what changes a number of an idle client's hash."""

    def spoil(fleet: Fleet, client_id: str) -> Undo:
        key, client = key_of(fleet, client_id, "grants"), redis_of(fleet)
        (granted,) = [field.decode() for field in client.hkeys(key) if field.startswith(b"g:")]
        field = name.format(grant=granted[2:])
        client.hincrby(key, field, by)
        return lambda: client.hincrby(key, field, -by)

    return spoil


def _gone(part: str) -> Callable[[Fleet, str], Undo]:
    """Return what deletes a key of an idle client."""

    def spoil(fleet: Fleet, client_id: str) -> Undo:
        key, client = key_of(fleet, client_id, part), redis_of(fleet)
        dumped = client.dump(key)
        client.delete(key)
        return lambda: client.restore(key, 0, dumped)

    return spoil


SPOIL: Final = {
    "available": _in_bucket(":1000000:0:0", ":1000001:0:0"),
    "spent": _in_bucket(":1000000:0:0", ":1000000:0:1"),
    "available as spent": _in_bucket(":1000000:0:0", ":999999:0:1"),
    "held": _in_bucket(":1000000:0:0", ":1000000:1:0"),
    "granted": _in_hash("g:{grant}", 1),
    "debt": _in_hash("s:0", 1),
    "hash gone": _gone("grants"),
    "bucket gone": _gone("bucket"),
}
#: The laws that do not hold then.
LAWS: Final = {
    "available": ("L2 bucket",),
    "spent": ("L2 bucket", "L2 spent"),
    "available as spent": ("L2 spent",),
    "held": ("L2 bucket", "L2 holds"),
    "granted": ("L2 bucket", "L2 grants"),
    "debt": ("L2 bucket", "L2 spent"),
    "hash gone": ("L2 bucket", "L2 grants"),
    "bucket gone": ("L2 spent",),
}


def _move_one_credit(fleet: Fleet, client_id: str, by: int) -> Undo:
    """Move a credit of a busy client from what is spent to what is available, in one step: it still adds up."""
    moved = """
        local bucket = redis.call('GET', KEYS[1])
        local head, available, held, spent, tail = string.match(bucket, '^(%d+ %d+ %d+:)(%d+):(%d+):(%d+)(.*)$')
        bucket = head .. string.format('%d', available + ARGV[1]) .. ':' .. held .. ':'
            .. string.format('%d', spent - ARGV[1]) .. tail
        return redis.call('SET', KEYS[1], bucket)
    """
    redis_of(fleet).execute_command("EVAL", moved, 1, key_of(fleet, client_id, "bucket"), by)
    return lambda: _move_one_credit(fleet, client_id, -by)


def _change_rollup(fleet: Fleet, client_id: str, by: int) -> Undo:
    """Change the credits of a busy client's latest rollup."""
    with psycopg.connect(fleet.settings.database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE usage_rollup SET credits = credits + %s WHERE (client_id, sku, hour) ="
            " (SELECT client_id, sku, hour FROM usage_rollup WHERE client_id = %s ORDER BY hour, sku LIMIT 1)",
            [by, client_id],
        )
    return lambda: _change_rollup(fleet, client_id, -by)


def _passes(fleet: Fleet, count: int) -> Status:
    """Wait until so many whole passes more have ended."""
    wanted = admin.reconciler_status(fleet.settings).passes + count + 1
    wait_until(
        lambda: admin.reconciler_status(fleet.settings).passes >= wanted,
        f"{count} passes",
        timeout_seconds=PATIENCE_SECONDS,
    )
    return admin.reconciler_status(fleet.settings)


def _found(fleet: Fleet) -> list[tuple[Any, ...]]:
    """Return every row that was written: law, client, grant, what it closes."""
    with psycopg.connect(fleet.settings.database_url) as connection:
        return connection.execute(
            "SELECT law, client_id, grant_id, closes FROM discrepancy ORDER BY discrepancy_id"
        ).fetchall()


def _named(fleet: Fleet) -> set[tuple[str, str]]:
    return {(client_id, law) for law, client_id, _, closes in _found(fleet) if closes is None}
