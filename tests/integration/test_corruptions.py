"""A corrupted key is quarantined: its client alone waits, the operator is told once, a rebuild ends it (L6, L10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest
import redis
import sqlalchemy

import billing
from billing import admin
from billing.alerts.announcing import announce
from billing.alerts.deliveries import Deliveries
from billing.core.errors import Recovering, Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.auditing import BucketReading
from billing.credits.values import ReserveOutcome, SettleOutcome
from billing.ledger import postings, rebuilds
from billing.observability.doctor.corruptions import examine_corruptions
from billing.reconciliation.continuous.reconciler import Reconciler
from billing.recovery.changes import apply_changes
from billing.recovery.grants import apply_grants
from billing.recovery.postings import apply_postings
from billing.task.refusals import refusal
from tests.hearing import hearing
from tests.integration.recovering import SHARDS, Business, a_hold, a_settlement, business_on
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SHARD = shard_of("acme", SHARDS)
NEIGHBOUR = next(name for name in map(str, range(1_000)) if shard_of(name, SHARDS) == SHARD)
BUCKET, GRANTS = (f"{{billing:{SHARD}}}:{kind}:acme" for kind in ("bucket", "grants"))


@pytest.fixture
def business(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business with two clients on one shard; one of them has a webhook."""
    prompt = dataclasses.replace(database, reconcile_pass_seconds=0.001, reconcile_load_percent=100)
    with business_on(prompt, redis_url, broker_url) as opened:
        opened.client("acme", 30)
        opened.client(NEIGHBOUR, 10)
        admin.set_webhook(opened.settings, "acme", "https://acme.example/hook")
        yield opened


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Listen for corruptions."""
    with hearing(billing.alerts.corrupt) as heard:
        yield heard


def spoil(business: Business, key: str, fields: dict[str, str] | None = None) -> None:
    """Write what billing would not: another text, or fields that are no numbers."""
    with redis.Redis.from_url(business.settings.redis_url) as client:
        if fields is None:
            client.set(key, "spoiled")
        else:
            client.hset(key, mapping=fields)


def refuse(business: Business, task_id: str) -> None:
    """Have a task of the spoiled client refused."""
    hold = a_hold("acme", 1, task_id)
    reply = business.runtime.buckets.reserve(hold)
    assert reply.outcome is ReserveOutcome.CORRUPT
    assert isinstance(refusal(business.runtime, hold, reply), Recovering)


def told(business: Business) -> list[tuple[str, str, str]]:
    """Return the alerts of corruptions: key, what was found, delivery."""
    found = [row for row in admin.alerts(business.settings) if row.kind == "corrupt"]
    return [(row.redis_key, row.found, row.delivery) for row in found]


def examined(business: Business) -> list[tuple[str, str]]:
    """Return what the doctor says."""
    return [(finding.verdict.value, finding.seen) for finding in examine_corruptions(business.runtime)]


@pytest.fixture
def looks(business: Business, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note who is looked at, which reads all holds of a shard, and that the shard's request is not locked then."""
    noted: list[list[str]] = []
    audit = business.runtime.buckets.audit

    def look(client_ids: Sequence[str]) -> dict[str, BucketReading]:
        with business.runtime.engine.begin() as connection:
            # Others who are refused have it for a moment; whoever looked while it had it would never give it back.
            connection.execute(sqlalchemy.text("SET LOCAL lock_timeout = '20s'"))
            requests = sqlalchemy.text("SELECT shard FROM shard_rebuild FOR UPDATE")
            assert list(connection.execute(requests).scalars()) == [SHARD]
        noted.append(list(client_ids))
        return audit(client_ids)

    monkeypatch.setattr(business.runtime.buckets, "audit", look)
    return noted


def settle_refused(business: Business, expected: SettleOutcome) -> None:
    """Have a settle refused, as its process tries again later what it keeps."""
    outcome = business.runtime.buckets.settle(a_settlement("acme", 5, "task")).outcome
    assert outcome is expected
    corrupt = outcome is SettleOutcome.CORRUPT
    assert isinstance(business.runtime.records.without_bucket("acme", missing=True, corrupt=corrupt), Recovering)


def test_l10_a_corrupt_bucket_is_looked_at_once_however_many_ask(business: Business, looks: list[list[str]]) -> None:
    """Given 20 refusals at once, a settle that is kept, a grant and a change, then its shard's holds are read once."""
    spoil(business, BUCKET)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: refuse(business, f"task-{number}"), range(20)))
    settle_refused(business, SettleOutcome.CORRUPT)
    assert not admin.grant(business.settings, "acme", 12, key="more")[1]
    admin.adjust_credits(business.settings, "acme", -5, key="minus")
    assert apply_grants(business.runtime) == apply_changes(business.runtime) == 0
    assert looks == [["acme"]]
    assert told(business) == [(BUCKET, "b'spoiled'", "none")]


def test_l10_a_missing_bucket_is_looked_at_by_nobody(business: Business, looks: list[list[str]]) -> None:
    """Given a bucket that is gone, then a refusal, a settle that is kept, a grant, a change, a posting read no hold."""
    admin.adjust_credits(business.settings, "acme", -5, key="before")
    with business.runtime.engine.begin() as connection:
        postings.add(connection, "acme", 1, {0: 5})
    with redis.Redis.from_url(business.settings.redis_url) as client:
        client.delete(BUCKET)
    hold = a_hold("acme", 1)
    for _ in range(3):
        assert isinstance(refusal(business.runtime, hold, business.runtime.buckets.reserve(hold)), Recovering)
        settle_refused(business, SettleOutcome.UNKNOWN_CLIENT)
    assert not admin.grant(business.settings, "acme", 12, key="more")[1]
    admin.adjust_credits(business.settings, "acme", -5, key="minus")
    recovered = [apply(business.runtime) for apply in (apply_grants, apply_changes, apply_postings)]
    assert recovered == [0, 0, 0]
    assert looks == []
    with business.runtime.engine.connect() as connection:
        assert "unknown_client" in rebuilds.requested(connection)[SHARD]


def test_l10_what_a_verb_calls_corrupt_and_nobody_finds_is_looked_at_once_a_while(
    business: Business, looks: list[list[str]]
) -> None:
    """Given a bucket that does not fit one run, then a settle that is kept does not read all holds each time."""
    business.hold("acme", 10)
    with redis.Redis.from_url(business.settings.redis_url) as client:
        whole = client.get(BUCKET)
        assert isinstance(whole, bytes)
        client.set(BUCKET, whole.replace(b":20:10:", b":30:0:"))
    for _ in range(3):
        settle_refused(business, SettleOutcome.CORRUPT)
    assert looks == [["acme"]]
    assert told(business) == []


def test_l10_a_corrupt_bucket_is_looked_at_again_where_its_server_was_silent(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(business, BUCKET)

    def silent(_: Sequence[str]) -> NoReturn:
        raise Unreachable("billing_redis_url: does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(business.runtime.buckets, "audit", silent)
        refuse(business, "first")
    assert told(business) == []
    refuse(business, "second")
    assert told(business) == [(BUCKET, "b'spoiled'", "none")]


def test_l10_a_corrupted_key_is_alerted_once_however_many_tasks_it_refuses(
    business: Business, heard: list[tuple[str, dict[str, Any]]]
) -> None:
    """Given a bucket that cannot be parsed, when 20 tasks are refused at once, then one alert names key and content.

    Its client's webhook gets no call, its neighbour works on, the doctor shows it until it is rebuilt, and the next
    corruption is another alert.
    """
    spoil(business, BUCKET)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: refuse(business, f"task-{number}"), range(20)))
    business.hold(NEIGHBOUR, 5)
    business.settle(NEIGHBOUR, 5, "task", publish=False)
    assert told(business) == [(BUCKET, "b'spoiled'", "none")]
    assert examined(business) == [("fail", f"client acme: the key {BUCKET} is corrupt: b'spoiled'")]
    for _ in range(2):
        announce(business.runtime)
        Deliveries(business.runtime).step()
    ((row,),) = (admin.alerts(business.settings, client_id="acme"),)
    assert (row.attempts, row.delivery) == (0, "none")
    expected = {"client_id": "acme", "redis_key": BUCKET, "found": "b'spoiled'", "alert_id": row.alert_id}
    assert heard == [("billing_corrupt", {**expected, "occurred_at": row.occurred_at})]

    with business.consuming():
        assert business.rebuilder.step() == 1
    assert examined(business) == []
    business.hold("acme", 30)
    spoil(business, BUCKET)
    refuse(business, "again")
    assert len(told(business)) == 2


def test_l10_a_hash_that_cannot_be_parsed_is_alerted_by_whoever_needs_it(business: Business) -> None:
    """Given a grant, an adjustment and a settle that need the hash, then each waits for the rebuild; one alert."""
    spoil(business, GRANTS, {"g": "many", "g:1": "x"})
    assert not admin.grant(business.settings, "acme", 12, key="more")[1]
    admin.adjust_credits(business.settings, "acme", -5, key="minus")
    assert business.runtime.buckets.settle(a_settlement("acme", 50, "task")).outcome is SettleOutcome.CORRUPT
    ((key, found, _),) = told(business)
    assert key == GRANTS
    assert "many" in found
    with business.consuming():
        assert business.rebuilder.step() == 1
    rebuilt = business.runtime.buckets.balance("acme")
    assert rebuilt is not None
    assert (rebuilt.available, rebuilt.voided) == (30 + 12 - 5, 5)
    assert examined(business) == []


def test_a_missing_bucket_is_rebuilt_and_is_no_corruption(business: Business) -> None:
    with redis.Redis.from_url(business.settings.redis_url) as client:
        client.delete(BUCKET)
    assert isinstance(business.runtime.records.without_bucket("acme", missing=True), Recovering)
    assert told(business) == []


def test_given_an_idle_client_when_its_key_is_corrupted_then_the_reconciler_alerts_and_has_it_rebuilt(
    business: Business,
) -> None:
    """Before any task of it is refused; and a pass later it is still one alert."""
    spoil(business, BUCKET)
    reconciler = Reconciler(business.runtime)
    try:
        with business.runtime.engine.connect() as connection:
            passes = sqlalchemy.text("SELECT coalesce(sum(passes), 0) FROM reconciler")

            def passed() -> bool:
                reconciler.step()
                with business.runtime.engine.connect() as connection:
                    return bool(connection.execute(passes).scalar_one() >= 2)

            wait_until(passed, "two passes")
            assert list(rebuilds.requested(connection)) == [SHARD]
    finally:
        reconciler.close()
    assert told(business) == [(BUCKET, "b'spoiled'", "none")]
