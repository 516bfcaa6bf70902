"""Billing's Redis loses something in the middle of a loaded fleet: nothing is admitted until all is as it was (L1-L6).

The fleet is one for the whole module, in confirm mode: workers, a fulfillment worker, and processes in blocks, on real
servers. Its holds stay open through every loss and are charged at the end. `make loss` runs it with 10,000 clients and
1,000 holds; the suite runs it small. What must be there afterwards is in the test's own books.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest

from billing import admin
from billing.embedded.stack import Stack
from tests.chaos.conftest import LOSS_SIZE
from tests.chaos.loaded import LoadedFleet, Size
from tests.chaos.losing import Losing
from tests.chaos.wave import Wave
from tests.fleet.fixtures import make_fleet, module_servers

SMALL = Size(
    clients=300, short=30, blocks=56, gated=4, tasks=240, shards=8, lease_seconds=6, block_processes=2, wait_seconds=120
)
FULL = Size(
    clients=10_000,
    short=250,
    blocks=992,
    gated=8,
    tasks=3_000,
    shards=64,
    lease_seconds=15,
    block_processes=4,
    wait_seconds=1_800,
)
SIZE = {"small": SMALL, "full": FULL}[os.environ.get(LOSS_SIZE, "small")]

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3 * SIZE.wait_seconds)]
Lose = Callable[..., Wave]


@pytest.fixture(scope="module")
def loaded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedFleet]:
    """Run a fleet with all its holds open."""
    directory = tmp_path_factory.mktemp("loaded")
    with module_servers(stack) as servers, make_fleet(servers | SIZE.environment, directory) as fleet:
        made = LoadedFleet(fleet, SIZE)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def losing(loaded: LoadedFleet, stack: Stack) -> Iterator[Losing]:
    """Give what the fleet's Redis can lose, a snapshot of its beginnings kept."""
    losing = Losing(stack.valkey)
    losing.keep_snapshot()
    yield losing
    losing.note_seconds(noted=False)


@pytest.fixture
def lose(loaded: LoadedFleet, losing: Losing) -> Lose:
    """Return what loses something in the middle of a wave and holds the fleet to the laws afterwards."""

    def lose(loss: Callable[[], None], *, only: str | None = None) -> Wave:
        number, tasks = loaded.next_tasks()
        wave = Wave(loaded=loaded, number=number, tasks=tasks)
        before = holds_of(loaded)
        losing.note_seconds()
        with loaded.prober.also(only) if only else nullcontext():
            wave.lose(loss)
            wave.end()
        loaded.wait_quiet()
        print(f"{dict(wave.put_off())}, {len(loaded.books.charges())} lines charged")  # noqa: T201
        assert wave.admitted_while_closed(only) == []
        after = holds_of(loaded)
        assert after == {key: hold for key, hold in before.items() if key in loaded.books.open}
        assert_books(loaded)
        return wave

    return lose


def holds_of(loaded: LoadedFleet) -> dict[str, tuple[object, ...]]:
    """Return who holds what under which run id, of the holds in the books; each is lent all that it asked for."""
    stored = loaded.stored_holds()
    assert stored.keys() >= loaded.books.open.keys()
    found: dict[str, tuple[object, ...]] = {}
    for key, known in loaded.books.open.items():
        hold = stored[key]
        assert (hold.client_id, hold.sku, hold.credits) == (known.client_id, known.sku, known.credits)
        assert sum(hold.grants.values()) == known.credits, hold
        found[key] = (hold.run_id, hold.client_id, hold.sku, hold.credits)
    return found


def assert_books(loaded: LoadedFleet) -> None:
    """Hold history and buckets to the test's books, to the unit and the row, and to billing's own laws."""
    books = loaded.books
    assert loaded.rows() == books.charges()
    balances = loaded.balances()
    probes = set(loaded.probes)
    standing = {name: (found.available, found.held) for name, found in balances.items() if name not in probes}
    assert standing == {name: amounts for name, amounts in books.standing().items() if name not in probes}
    for name, balance in balances.items():
        assert balance.granted == books.granted[name]
        assert balance.granted == balance.available + balance.held + balance.spent, balance
        assert balance.owed == 0, balance
    report = admin.reconcile(loaded.fleet.settings, stripe=False)
    assert report.ok, [finding.text for finding in report.findings() if not finding.holds]


def test_an_emptied_redis(loaded: LoadedFleet, losing: Losing, lose: Lose) -> None:
    """Given tasks and open holds, when Redis is emptied, then every credit comes back, and no event is lost (L6)."""
    lose(losing.everything)


def test_a_killed_redis_without_its_last_second(losing: Losing, lose: Lose) -> None:
    """Given a Redis that comes back without what it was last told, then nothing is admitted on that (L1, L6)."""
    cut: list[bytes] = []

    def kill() -> None:
        losing.process()
        cut.append(losing.last_second())
        losing.restart()

    lose(kill)
    assert b"bucket:client-" in cut[0]


@pytest.mark.every_loss
def test_a_lost_bucket(loaded: LoadedFleet, losing: Losing, lose: Lose) -> None:
    """Given a client with an open hold whose bucket alone is lost, then it waits for a rebuild, and no other does."""
    victim = next(hold.client_id for hold in loaded.books.open.values() if hold.client_id in loaded.short)
    epochs = loaded.epochs()
    lose(lambda: losing.bucket(victim, loaded.size.shards), only=victim)
    risen = {loaded.shard_of(name) for name, epoch in loaded.epochs().items() if epoch > epochs[name]}
    assert risen == {loaded.shard_of(victim)}


@pytest.mark.every_loss
def test_an_old_snapshot(losing: Losing, lose: Lose) -> None:
    """Given a Redis that comes back as it was waves ago, then none of its old balances and holds count (L1, L6)."""

    def kill() -> None:
        losing.process()
        losing.all_since_the_snapshot()
        losing.restart()

    lose(kill)


def test_the_holds_are_charged_after_all(loaded: LoadedFleet) -> None:
    """Given holds that were open through every loss, when their work ends, then each success is charged once (L3)."""
    books = loaded.books
    kept = dict(books.open)
    blocks = {order.key: order.succeeds for order in loaded.orders if order.key in kept}
    for gate in sorted({order.gate for order in loaded.orders}):
        loaded.open_gate(gate)
    loaded.wait_ended([key for key in kept if key not in blocks])
    loaded.wait(lambda: len(loaded.left("end")) == sum(order.gate == "end" for order in loaded.orders), "all have left")
    books.close([key for key in kept if blocks.get(key, True)], succeeded=True)
    books.close([key for key in kept if not blocks.get(key, True)], succeeded=False)

    loaded.wait_quiet()
    assert all(hold.client_id in loaded.probes for hold in loaded.stored_holds().values())
    assert_books(loaded)
