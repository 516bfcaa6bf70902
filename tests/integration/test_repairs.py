"""`billing reconcile --repair`, beside a fleet: what differs is posted or rebuilt, recorded, and never done twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import text

from billing.core.errors import Retryable
from billing.reconciliation.reconcile import reconcile
from billing.reconciliation.repair.repair import Plan, Repaired, plan_repair, repair
from billing.schema.advisory import Guard
from tests.fleet.busy import busy
from tests.fleet.harness import Fleet
from tests.fleet.keys import key_of, redis_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WHO: Final = "tester@here"
#: A moment of a bucket's first grant by hand, in one step: a client may be at work.
BY_HAND: Final = """
    local bucket = redis.call('GET', KEYS[1])
    local head, available, held, spent, tail = string.match(bucket, '^(%d+ %d+ %d+:)(%d+):(%d+):(%d+)(.*)$')
    bucket = head .. string.format('%d', available + ARGV[1]) .. ':' .. string.format('%d', held + ARGV[2]) .. ':'
        .. string.format('%d', spent + ARGV[3]) .. tail
    return redis.call('SET', KEYS[1], bucket)
"""


@pytest.fixture
def patient(running_fleet: Fleet) -> Fleet:
    """Return the fleet; its reconciliation waits a second for events before it suspects anybody."""
    running_fleet.runtime.settings = dataclasses.replace(running_fleet.settings, reconcile_wait_seconds=1.0)
    return running_fleet


def test_given_credits_changed_by_hand_when_repaired_beside_a_working_fleet_then_the_books_agree(
    patient: Fleet,
) -> None:
    """L2, L7: each kind is posted to the unit, once; the log is not touched, and a second repair does nothing."""
    kinds = {
        "spent-short": ((1, 0, -1), (1, 0)),
        "spent-over": ((-1, 0, 1), (-1, 0)),
        "made": ((1, 0, 0), (0, -1)),
        "lost": ((-1, 0, 0), (0, 1)),
        "spent-lost": ((0, 0, -1), (1, 1)),
        "spent-made": ((0, 0, 1), (-1, -1)),
    }
    for name in kinds:
        patient.client(name, 1_000)
        for _ in range(3):
            patient.send("lines", name, 2)
    patient.wait_for_rows(6 * len(kinds))
    with busy(patient, ("spent-short", "made"), waiting=20):
        for name, (by_hand, _) in kinds.items():
            _change(patient, name, *by_hand)
        shown: dict[str, object] = {}
        posted, left = set(), tuple(kinds)
        for _ in range(5):
            # Clients at work may move between what is shown and what is done: then a repair says "repair again".
            plan = _plan(patient, *left)
            done = repair(patient.runtime, plan, made_by=WHO)
            shown |= {made.client_id: _posted(made) for made in plan.corrections}
            posted |= {made.client_id for made in done.posted}
            left = tuple(one.client_id for one in done.left if one.client_id is not None)
            if not left:
                break
        again = _plan(patient, *kinds)

    expected = {name: of_kind for name, (_, of_kind) in kinds.items()}
    assert shown == expected
    assert done.ok, done
    assert posted == set(kinds)
    assert again.report.ok, again.report.discrepancies
    assert again.corrections == ()
    assert _repairs(patient, *kinds) == sorted((name, "posted", *of_kind, WHO) for name, of_kind in expected.items())
    assert repair(patient.runtime, again, made_by=WHO).ok
    assert len(_repairs(patient, *kinds)) == len(kinds)


def test_given_what_no_posting_expresses_when_repaired_then_the_shard_is_rebuilt_and_the_books_agree(
    patient: Fleet,
) -> None:
    """L6: a hold's credits, a grant's amount, debt of nobody, a bucket that is corrupt or gone."""
    kinds: dict[str, Callable[[Fleet, str], object]] = {
        "held": lambda fleet, name: _change(fleet, name, 0, 1, 0),
        "granted": lambda fleet, name: redis_of(fleet).hincrby(key_of(fleet, name, "grants"), _granted(fleet, name), 1),
        "debt": lambda fleet, name: redis_of(fleet).hincrby(key_of(fleet, name, "grants"), "s:0", 1),
        "corrupt": lambda fleet, name: redis_of(fleet).set(key_of(fleet, name, "bucket"), "rubbish and more"),
        "missing": lambda fleet, name: redis_of(fleet).delete(key_of(fleet, name, "bucket")),
    }
    for name in kinds:
        patient.client(name, 1_000)
        patient.send("ok", name)
    wait_until(lambda: all(patient.rows(name) for name in kinds), "the fleet works")
    for name, spoil in kinds.items():
        spoil(patient, name)

    done = repair(patient.runtime, _plan(patient, *kinds), made_by=WHO)

    assert not done.ok
    assert {made.client_id for made in done.rebuilds} == set(kinds)
    assert done.posted == ()
    assert [row[:2] for row in _repairs(patient, *kinds)] == [(name, "rebuild") for name in sorted(kinds)]
    wait_until(
        lambda: reconcile(patient.runtime, client_ids=list(kinds), stripe=False).ok, "rebuilt", timeout_seconds=120
    )
    assert repair(patient.runtime, _plan(patient, *kinds), made_by=WHO).ok
    assert len(_repairs(patient, *kinds)) == len(kinds)


def test_given_a_difference_within_postgresql_when_repaired_then_nothing_is_changed_and_a_person_is_told(
    patient: Fleet,
) -> None:
    """Neither log nor ledger is repaired by a program, and no bucket by a log that is in doubt."""
    changes = {
        "sum": "UPDATE grant_spent SET credits = credits + 1 WHERE client_id = %s",
        "rollup": "UPDATE usage_rollup SET credits = credits + 1 WHERE client_id = %s",
        "grant": "UPDATE credit_grant SET credits = credits + 1 WHERE client_id = %s",
    }
    for name in changes:
        patient.client(name, 1_000)
        patient.send("ok", name)
    wait_until(lambda: all(patient.rows(name) for name in changes), "the fleet works")
    for name, statement in changes.items():
        _sql(patient, statement, name)
    before = {name: redis_of(patient).get(key_of(patient, name, "bucket")) for name in changes}

    done = repair(patient.runtime, _plan(patient, *changes), made_by=WHO)

    assert not done.ok
    assert (done.posted, done.rebuilds, _repairs(patient, *changes)) == ((), (), [])
    told = {name: " ".join(one.why for one in done.left if one.client_id == name) for name in changes}
    assert "grant_spent" in told["sum"]
    assert "usage_rollup" in told["rollup"]
    assert "credit_grant and ledger_entry" in told["grant"]
    assert {name: redis_of(patient).get(key_of(patient, name, "bucket")) for name in changes} == before
    for name, statement in changes.items():
        _sql(patient, statement.replace("+ 1", "- 1"), name)


def test_given_a_plan_when_something_has_moved_since_then_only_what_was_shown_is_done(patient: Fleet) -> None:
    """A person has agreed to these numbers, and to no others."""
    for name in ("moved", "mended"):
        patient.client(name, 1_000)
        _change(patient, name, 1, 0, 0)
    plan = _plan(patient, "moved", "mended")
    _change(patient, "moved", 1, 0, 0)
    _change(patient, "mended", -1, 0, 0)

    done = repair(patient.runtime, plan, made_by=WHO)

    assert [(one.client_id, one.found) for one in done.left] == [("moved", "has changed since it was shown")]
    assert (done.posted, _repairs(patient, "moved", "mended")) == ((), [])
    last = repair(patient.runtime, _plan(patient, "moved"), made_by=WHO)
    assert [_posted(made) for made in last.posted] == [(0, -2)]
    assert last.ok


def test_given_a_repair_under_way_when_another_begins_then_it_is_refused(patient: Fleet) -> None:
    """Two that post the same correction would post it twice."""
    patient.client("twice", 1_000)
    _change(patient, "twice", 1, 0, 0)
    plan = _plan(patient, "twice")
    with patient.runtime.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:guard, 0)"), {"guard": int(Guard.REPAIR)})
        with pytest.raises(Retryable, match="another repair"):
            repair(patient.runtime, plan, made_by=WHO)
    assert repair(patient.runtime, plan, made_by=WHO).ok
    assert _is_nothing_to_do(repair(patient.runtime, plan, made_by=WHO))


def test_given_a_repair_that_is_written_when_it_is_changed_then_postgresql_refuses(patient: Fleet) -> None:
    """L7."""
    for statement in ("UPDATE repair SET credits = 0", "DELETE FROM repair", "TRUNCATE repair"):
        with pytest.raises(psycopg.errors.DatabaseError, match="append-only"):
            _sql(patient, statement)


def _is_nothing_to_do(done: Repaired) -> bool:
    return done.ok and not done.posted


def _plan(fleet: Fleet, *client_ids: str) -> Plan:
    return plan_repair(fleet.runtime, client_ids=list(client_ids), stripe=False)


def _posted(made: Any) -> tuple[int, int]:
    (one,) = made.postings
    return one.credits, one.restored


def _repairs(fleet: Fleet, *client_ids: str) -> list[tuple[Any, ...]]:
    """Return what was recorded, by client: action, credits, restored, who."""
    rows = _sql(fleet, "SELECT client_id, action, credits, restored, made_by FROM repair ORDER BY 1")
    return [row for row in rows if row[0] in client_ids]


def _sql(fleet: Fleet, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(fleet.settings.database_url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def _granted(fleet: Fleet, client_id: str) -> str:
    fields = [field.decode() for field in redis_of(fleet).hkeys(key_of(fleet, client_id, "grants"))]
    (granted,) = [field for field in fields if field.startswith("g:")]
    return str(granted)


def _change(fleet: Fleet, client_id: str, available: int, held: int, spent: int) -> None:
    redis_of(fleet).execute_command("EVAL", BY_HAND, 1, key_of(fleet, client_id, "bucket"), available, held, spent)
