"""A loaded fleet: many clients, many open holds, waves of tasks, and the books that are kept beside it.

Holds are of both kinds: tasks that run in worker processes, and blocks of `billing.reserve` in processes without
Celery. Some clients are short of credits: how many tasks they can still pay for after a loss is known to the unit.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import psycopg
from celery import states

from billing.admin import bulk
from billing.core.shards import shard_of
from billing.credits.values import Balance, StoredHold
from billing.events.usage_event import decode_head
from billing.ledger import rebuilds
from billing.recovery.flush import Flush
from tests.chaos.books import Books, Charge, Held, Work, mixed
from tests.chaos.probing import Prober
from tests.fleet.harness import PRICES, Fleet
from tests.fleet.holders import Order, write_orders
from tests.fleet.tasks import OTHER_SKU, SKU, noted
from tests.waiting import wait_until

#: A client that is short gets this with each wave: one task before the loss, and one after it; two more are refused.
SHORT: Final = 25
#: In two grants, so that a hold or a charge may lie across both.
PLENTY: Final = (700, 20_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How large the fleet is, and how long one waits for it at most."""

    clients: int
    #: Of them, those that are short of credits.
    short: int
    blocks: int
    gated: int
    tasks: int
    shards: int
    lease_seconds: int
    block_processes: int
    wait_seconds: int
    #: Blocks that end while Redis is lost, for each wave.
    leaving: int = 4
    children: int = 3

    @property
    def environment(self) -> dict[str, str]:
        """The settings of its processes."""
        return {
            "BILLING_SHARDS": str(self.shards),
            "BILLING_LEASE_SECONDS": str(self.lease_seconds),
            # A rebuild waits for a renewal with all its tries: an idle process may be late by five seconds.
            "BILLING_REDIS_TIMEOUT_SECONDS": "2",
            "FLEET_NOTES_ADMISSIONS": "1",
            # Gates stay closed through every loss; the fixture's end opens them all.
            "FLEET_WAIT_SECONDS": "36000",
        }


class LoadedFleet:
    """The processes, the clients, and what the test knows of them."""

    def __init__(self, fleet: Fleet, size: Size) -> None:
        self.fleet, self.size, self.books = fleet, size, Books()
        names = [f"client-{number:05}" for number in range(size.clients)]
        self.short, self.rich = names[: size.short], names[size.short :]
        self.probes = list(_one_of_each_shard(size.shards))
        self.prober = Prober(fleet.settings, self.probes)
        self.orders: list[Order] = []
        self._random = random.Random(20_261_121)
        self._waves = itertools.count()
        self._numbers = itertools.count()

    def start(self) -> None:
        """Add the clients, start the processes, and wait until all holds are held."""
        settings, clients = self.fleet.settings, [*self.rich, *self.short, *self.probes]
        self.fleet.consumer(wait=False)
        self.fleet.start("short", children=self.size.children)
        self.fleet.start("gated", children=self.size.gated, options=("-Q", "gated", "-O", "fair"))
        bulk.add_clients(settings, clients)
        for number, credits_ in enumerate(PLENTY):
            self._grant([*self.rich, *self.probes], credits_, f"plenty-{number}")
        for name in ("consumer", "short", "gated"):
            self.fleet.wait_ready(name)
        self._hold()
        self.prober.start()

    def stop(self) -> None:
        """Stop trying, and let everything that waits go on, so that the processes can end."""
        self.prober.stop()
        for gate in [*dict.fromkeys(order.gate for order in self.orders), "end"]:
            self.open_gate(gate)

    def send(self, work: Sequence[Work], *, queue: str = "tasks") -> list[str]:
        """Send tasks, and return their ids."""
        app = self.fleet.app
        with app.producer_or_acquire() as producer:
            ids = [
                app.tasks[piece.task]
                .apply_async((piece.client_id, *piece.args), producer=producer, queue=queue, ignore_result=False)
                .id
                for piece in work
            ]
        self.books.work.update(zip(ids, work, strict=True))
        return ids

    def next_tasks(self) -> tuple[int, list[Work]]:
        """Return the number of a new wave and its tasks, and give those who are short what they spend in it."""
        number = next(self._waves)
        self._grant(self.short, SHORT if number == 0 else SHORT - 5, f"wave-{number}")
        return number, [
            mixed(self.rich[n % len(self.rich)], n) for n in itertools.islice(self._numbers, self.size.tasks)
        ]

    def states(self, ids: Sequence[str]) -> collections.Counter[str]:
        """Return how many tasks are in which state; an exception's name in the place of a failure."""
        return collections.Counter(self.states_of(ids).values())

    def states_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the state of each task, read in bulk."""
        backend: Any = self.fleet.app.backend
        found = {}
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            values = backend.mget([backend.get_key_for_task(task_id) for task_id in part])
            for task_id, value in zip(part, values, strict=True):
                meta = backend.decode_result(value) if value else {"status": states.PENDING}
                failed = meta["status"] == states.FAILURE
                found[task_id] = type(meta["result"]).__name__ if failed else meta["status"]
        return found

    def wait_ended(self, ids: Sequence[str], *, share: float = 1.0) -> None:
        """Wait until so many of some tasks have ended."""
        wanted, left = int(share * len(ids)), list(ids)

        def ended() -> bool:
            left[:] = [task_id for task_id, state in self.states_of(left).items() if state == states.PENDING]
            return len(ids) - len(left) >= wanted

        self.wait(ended, f"{wanted} of {len(ids)} tasks ended")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition as long as this size may take, and take a small part of a core to look at it."""
        resting = [time.monotonic()]

        def rested() -> bool:
            began = time.monotonic()
            if began < resting[0]:
                return False
            found = bool(condition())
            resting[0] = time.monotonic() + 10 * (time.monotonic() - began)
            return found

        wait_until(rested, what, timeout_seconds=self.size.wait_seconds)

    def left(self, gate: str) -> dict[str, str]:
        """Return the blocks that have left at a gate, with their outcomes."""
        return dict(line.split() for line in noted(self.fleet.directory, f"{gate}.left"))

    def open_gate(self, gate: str) -> None:
        """Let tasks or blocks go on."""
        (self.fleet.directory / gate).touch()

    def stored_holds(self) -> dict[str, StoredHold]:
        """Return the holds that Redis has, by what their rows would be found with."""
        held = (hold for shard in range(self.size.shards) for hold in self.fleet.buckets.held(None, shard))
        return {decode_head(hold.head).correlation_id: hold for hold in held}

    def epochs(self) -> dict[str, int]:
        """Return the epoch of each client, as PostgreSQL has it."""
        with psycopg.connect(self.fleet.settings.database_url) as connection:
            return dict(connection.execute("SELECT client_id, epoch FROM client").fetchall())

    def shard_of(self, client_id: str) -> int:
        """Return the shard of a client."""
        return shard_of(client_id, self.size.shards)

    def balances(self) -> dict[str, Balance]:
        """Return the bucket of each client."""
        return self.fleet.buckets.balances(list(self.books.granted))

    def rows(self) -> list[Charge]:
        """Return the usage history."""
        with psycopg.connect(self.fleet.settings.database_url) as connection:
            found = connection.execute("SELECT client_id, correlation_id, sku, quantity, credits FROM usage_history")
            rows = [
                Charge(client_id=client, correlation_id=key, sku=sku, quantity=quantity, credits=credits_)
                for client, key, sku, quantity, credits_ in found
            ]
        return sorted(rows, key=lambda row: (row.correlation_id, row.sku))

    def row_count(self) -> int:
        """Return how many lines the usage history has."""
        with psycopg.connect(self.fleet.settings.database_url) as connection:
            found = connection.execute("SELECT count(*) FROM usage_history").fetchone()
        return int(found[0]) if found else 0

    def wait_quiet(self) -> None:
        """Wait until nothing is on its way any more, in the queues neither: a marker has come through each."""
        self.wait(self.is_quiet, "nothing is on its way any more")
        flush = Flush(self.fleet.runtime, time.sleep, marker_seconds=self.size.wait_seconds)
        assert set(flush.arrived(range(self.size.shards), outboxes=False)) == set(range(self.size.shards))
        self.wait(self.is_quiet, "nothing came of what was in the queues")

    def is_quiet(self) -> bool:
        """Whether nothing is on its way: no shard closed, no rebuild wanted, no event waits, no hold but the known."""
        buckets = self.fleet.buckets
        with self.fleet.runtime.engine.connect() as connection:
            if rebuilds.requested(connection):
                return False
        for shard in range(self.size.shards):
            verified, current = buckets.server_of(shard)
            if verified != current or buckets.outbox_depth(shard):
                return False
        return self.row_count() >= len(self.books.charges()) and self.foreign_holds() == 0

    def foreign_holds(self) -> int:
        """Return how many holds the books know nothing of; a probe's does not count while the prober goes on."""
        found = self.stored_holds().items()
        return sum(key not in self.books.open for key, hold in found if hold.client_id not in self.probes)

    def _grant(self, client_ids: Sequence[str], credits_: int, key: str) -> None:
        bulk.grant_each(self.fleet.settings, client_ids, credits_, key=key)
        self.books.grant(client_ids, credits_)

    def _hold(self) -> None:
        """Have tasks and blocks hold credits, the blocks of those who are short among them."""
        gated = self.rich[: self.size.gated]
        work = [Work(client_id=name, task="gated", args=("end",), used={SKU: 1}) for name in gated]
        for task_id, piece in zip(self.send(work, queue="gated"), work, strict=True):
            self.books.hold(task_id, piece, Held(client_id=piece.client_id, sku=SKU, credits=PRICES[SKU]))
        orders = self.orders = self._orders()
        for name in {order.client_id for order in orders if order.client_id in set(self.short)}:
            credits_ = sum(order.most * PRICES[order.sku] for order in orders if order.client_id == name)
            self._grant([name], credits_, "block")
        processes = self.size.block_processes
        for number in range(processes):
            path = self.fleet.directory / f"orders-{number}.json"
            write_orders(path, sorted(orders[number::processes], key=lambda order: order.gate))
            self.fleet.run_module(f"blocks-{number}", "tests.fleet.holders", str(path))
        directory = self.fleet.directory
        self.wait(lambda: len(noted(directory, "end.started")) == len(gated), "the gated tasks run")
        self.wait(lambda: len(noted(directory, "blocks.held")) == processes, "all blocks are entered")

    def _orders(self) -> list[Order]:
        """Return the blocks: a third is of clients that are short; some leave while Redis is lost, gate by gate."""
        waves, leaving = 5, self.size.leaving
        third = self.size.blocks // 3
        names = self._random.sample(self.short, third) if third <= len(self.short) else self.short
        names = [*names, *self._random.sample(self.rich[self.size.gated :], self.size.blocks - len(names))]
        last = [_order(number, name, "end") for number, name in enumerate(names)]
        early = [
            _order(len(names) + number, self.rich[-1 - number], f"at-{number // leaving}")
            for number in range(waves * leaving)
        ]
        for order in [*early, *last]:
            work = Work(client_id=order.client_id, task="", used={order.sku: order.used})
            held = Held(client_id=order.client_id, sku=order.sku, credits=order.most * PRICES[order.sku])
            self.books.hold(order.key, work, held)
        return [*early, *last]


def _order(number: int, client_id: str, gate: str) -> Order:
    """Return a block: of one SKU or the other, and every fourth fails."""
    sku, most = ((SKU, 3), (OTHER_SKU, 7))[number % 2]
    key = f"block-{number}"
    return Order(
        gate=gate, key=key, client_id=client_id, sku=sku, most=most, used=number % 3 + 1, succeeds=number % 4 != 3
    )


def _one_of_each_shard(shards: int) -> Iterator[str]:
    found: set[int] = set()
    for number in itertools.count():
        shard = shard_of(name := f"probe-{number}", shards)
        if shard not in found:
            found.add(shard)
            yield name
        if len(found) == shards:
            return
