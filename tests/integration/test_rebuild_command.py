"""`billing rebuild` asks, waits, and says how far it is; who rebuilds is a fulfillment worker (L6)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from billing import admin
from billing.admin import Rebuilding
from billing.admin.access import runtime_for as admin_runtime
from billing.core.errors import InvalidValue, UnknownClient, Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.ledger import locks
from tests.integration.consuming import execute, until_rows
from tests.integration.recovering import SHARDS, Business, business_on
from tests.terminal import Terminal
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def business(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business."""
    with business_on(database, redis_url, broker_url) as business:
        yield business


def asked_for(settings: Settings) -> dict[int, str]:
    """Return the shards whose rebuild is asked for, with the reason."""
    with psycopg.connect(settings.database_url) as connection:
        return dict(connection.execute("SELECT shard, reason FROM shard_rebuild").fetchall())


def epochs(business: Business, *client_ids: str) -> list[int]:
    """Return the epoch of each client's bucket, held to L2."""
    return [business.balance(client_id).epoch for client_id in client_ids]


def test_a_clients_shard_is_rebuilt_and_its_books_stay(business: Business) -> None:
    """Given a holding client with history, when its rebuild is asked for, then a new epoch, and the same credits."""
    business.client("acme", 100)
    business.client("bolt", 7)
    with business.consuming():
        hold = business.hold("acme", 30, "running")
        business.hold("acme", 20, "done")
        business.settle("acme", 12, "done")
        until_rows(business.settings, 1)
        seen: list[Rebuilding] = []
        with working(business):
            found = admin.rebuild(business.settings, "acme", wait_seconds=60, tell=seen.append)

    shard = shard_of("acme", SHARDS)
    assert (found.shards, found.waiting, found.done) == ((shard,), (), True)
    assert seen[0].waiting == (shard,)
    assert any(look.led for look in seen)
    assert asked_for(business.settings) == {}
    assert epochs(business, "acme", "bolt") == [2, 1]
    balance = business.balance("acme")
    assert (balance.available, balance.held, balance.spent) == (58, 30, 12)
    assert [held.run_id for held in business.runtime.buckets.held("acme")] == [hold.run_id]


def test_all_shards_are_rebuilt_as_often_as_it_is_asked(business: Business) -> None:
    """Given clients of several shards, when all are rebuilt twice, then two epochs more, and the same credits."""
    clients = [business.client(f"client-{number}", 10 * number + 1) for number in range(4)]
    before = [business.balance(client_id).available for client_id in clients]
    with business.consuming(), working(business):
        for _ in range(2):
            assert admin.rebuild(business.settings, None, wait_seconds=60).done

    assert epochs(business, *clients) == [3] * 4
    assert [business.balance(client_id).available for client_id in clients] == before


def test_without_a_worker_it_ends_in_time_and_stays_asked_for(business: Business) -> None:
    """Given nobody who rebuilds, when the wait is over, then it says so; the next worker does it (L9)."""
    business.client("acme", 100)
    looks: list[Rebuilding] = []
    pauses: list[float] = []

    # A clock that only the pauses move: how often it looks does not depend on how fast the machine is.
    found = admin.rebuild(
        business.settings,
        "acme",
        wait_seconds=1.25,
        tell=looks.append,
        pause=pauses.append,
        now=lambda: sum(pauses),
    )
    again = admin.rebuild(business.settings, "acme", wait_seconds=0)

    shard = shard_of("acme", SHARDS)
    assert found == again == Rebuilding(shards=(shard,), waiting=(shard,), led=False)
    assert pauses == [0.5, 0.5, 0.25]
    assert looks == [found] * 4
    assert asked_for(business.settings) == {shard: "asked for, for client acme"}
    assert business.balance("acme").available == 100
    with business.consuming():
        assert business.rebuilder.step() == 1
    assert epochs(business, "acme") == [2]


def test_l10_a_shard_that_does_not_answer_is_named_and_the_others_are_rebuilt(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given two shards on nodes of their own, one dead, when all are asked for, then one is done, one is named."""
    dead, other = shard_of(business.client("acme", 100), SHARDS), shard_of(business.client("bolt", 7), SHARDS)
    buckets, asked = admin_runtime(business.settings).buckets, list[int]()
    server_of = buckets.server_of

    def answered(shard: int) -> tuple[str | None, str]:
        asked.append(shard)
        if shard == dead:
            raise Unreachable("billing_redis_url: 'redis+cluster://n:1': the server does not answer (TimeoutError)")
        return server_of(shard)

    def rebuilds_the_other(_: Rebuilding) -> None:
        execute(business.settings, f"DELETE FROM shard_rebuild WHERE shard = {other}")

    monkeypatch.setattr(buckets, "server_of", answered)
    monkeypatch.setattr(buckets, "node_of", str)
    pauses: list[float] = []
    found = admin.rebuild(
        *(business.settings, None),
        wait_seconds=1.25,
        tell=rebuilds_the_other,
        pause=pauses.append,
        now=lambda: sum(pauses),
    )
    assert (found.waiting, found.silent, found.done) == ((dead,), (dead,), False)
    assert asked.count(dead) == 1, "it is waited for at the end alone"


def test_a_rebuild_that_began_before_is_not_the_one_that_was_asked_for(business: Business) -> None:
    """Given a rebuild whose reading has begun, when another is asked for, then that is done after it."""
    business.client("acme", 100)
    business.request("acme")
    done: list[Rebuilding] = []
    with business.consuming(), business.runtime.engine.begin() as batch:
        # As a consumer's batch does: the rebuild waits for it, with the shard closed.
        locks.lock_shards_shared(batch, [shard_of("acme", SHARDS)])
        with working(business):
            wait_until(lambda: not business.is_open("acme"), "the rebuild has closed the shard")
            asking = threading.Thread(
                target=lambda: done.append(admin.rebuild(business.settings, "acme", wait_seconds=60))
            )
            asking.start()
            wait_until(lambda: "client acme" in str(asked_for(business.settings)), "it is asked for")
            batch.rollback()
            asking.join(120)

    assert done[0].done
    assert business.balance("acme").epoch in (2, 3)


def test_a_shard_that_is_closed_is_not_done(business: Business) -> None:
    """Given a rebuild that has committed and could not open its shard, then it is waited for (L6)."""
    business.client("acme", 100)

    def commits(_: Rebuilding) -> None:
        business.close_shard("acme")
        execute(business.settings, "DELETE FROM shard_rebuild")

    found = admin.rebuild(business.settings, "acme", wait_seconds=0.01, tell=commits)

    assert asked_for(business.settings) == {}
    assert found.waiting == (shard_of("acme", SHARDS),)


def test_what_cannot_be_asked_for_is_refused(business: Business) -> None:
    """Given nobody, or a wait without end, then nothing is asked for."""
    business.client("acme", 100)
    with pytest.raises(UnknownClient):
        admin.rebuild(business.settings, "nobody")
    for seconds in (-1, float("inf"), float("nan")):
        with pytest.raises(InvalidValue, match="wait_seconds"):
            admin.rebuild(business.settings, "acme", wait_seconds=seconds)
    assert asked_for(business.settings) == {}


class Working:
    """A thread that rebuilds as the fulfillment worker's loop does, until it is told to stop."""

    def __init__(self, business: Business) -> None:
        self._rebuilder = business.rebuilder
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._rebuilder.stop()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _loop(self) -> None:
        while not self._stopped.wait(0.1):
            self._rebuilder.step()


working: Callable[[Business], Working] = Working


def test_the_command_waits_and_says_what_to_do(shop: Terminal) -> None:
    """Given no worker, then 1, and the advice; with --wait 0 it only asks; a wrong call asks for nothing."""
    shard = shard_of("acme", Settings().shards)

    shop.type("rebuild").refused(2, "--all")
    shop.type("rebuild", "acme", "--all").refused(2, "--all")
    shop.type("rebuild", "nobody").refused(2, "nobody")
    before = shop.type("rebuild", "acme", "--wait", "0")
    assert (before.code, before.out.splitlines()[-1]) == (
        0,
        f"asked for: shard {shard}; a fulfillment worker rebuilds it",
    )
    waited = shop.type("rebuild", "--all", "--wait", "0.1")
    assert waited.code == 1
    assert f"still asked for: shard {shard}" in waited.out
    assert "celery -A <app> worker --fulfillment" in waited.out
    answer = shop.type("rebuild", "acme", "--wait", "0", "--json")
    assert answer.json() == {"shards": [shard], "waiting": [shard], "silent": [], "done": False}
    shop.type("rebuild", "acme", BILLING_DATABASE_URL="postgresql://127.0.0.1:1/x").refused(1, "does not answer")
