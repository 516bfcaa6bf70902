"""The simulated fleet: clients, processes, broker, Redis (the twin), PostgreSQL, and the fulfillment worker's loops.

One step lets one of them do one thing, chosen by chance; a fault is a step, too. `quiesce` lets everything come to
rest without further faults, and the auditor checks the laws then.
"""

from __future__ import annotations

import collections
import uuid
from collections.abc import Callable
from typing import Final

from celery.states import FAILURE, SUCCESS

from billing.catalog.price_book import Price, PriceBook
from billing.core.clock import from_milliseconds
from billing.core.errors import BillingError
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.task.reaper import StoredResult
from billing.task.run import Run
from tests.simulation.auditor import Auditor
from tests.simulation.books import Books
from tests.simulation.broken import LawBroken
from tests.simulation.broker import Broker, Message
from tests.simulation.chance import BEGINNING_MS, Chance
from tests.simulation.faults import Killed, Late, Rates, Wire
from tests.simulation.fulfillment import Fulfillment
from tests.simulation.log import Log
from tests.simulation.mishaps import FAULTS, Mishaps
from tests.simulation.process import Process, Results
from tests.simulation.redis import Redis
from tests.simulation.steps import LOOPS, STEPS, WORKING
from tests.simulation.sync.kernel import Kernel
from tests.simulation.workload import PRICES, Workload

CLIENTS: Final = 6
PROCESSES: Final = 3
#: A world that is not at rest after so many quiet steps never will be.
_QUIETSTEPS_MAX: Final = 40_000
_LOOK_EVERY: Final = 20
#: Under which what happened to all runs is told.
_EVERYBODY: Final = uuid.UUID(int=0)
_TOLD_MAX: Final = 40


class World:
    """Everything there is, from one seed."""

    def __init__(self, seed: int, *, rests: int = 1) -> None:
        self.seed = seed
        self.chance, self.clock, self.rates = Chance(seed), Kernel(), Rates()
        self.books = Books(self, self.clock, clients=CLIENTS, rests=rests)
        self.client_ids = tuple(client.client_id for client in self.books.clients)
        # A settle that Redis has forgotten is a new one: it remembers longer than a process may stand still.
        self.settings = Settings(
            shards=4, usage_queues=2, lease_seconds=60.0, settled_retention_seconds=2_400.0, hold_age_max_seconds=900.0
        )
        begun = from_milliseconds(BEGINNING_MS - 86_400_000)
        prices = [
            Price(sku=sku, version=number, credits_per_unit=price, unit="unit", effective_at=begun)
            for number, (sku, price) in enumerate(PRICES.items(), start=1)
        ]
        self.book = PriceBook(prices)
        self.log = Log(shards=self.settings.shards, usage=self.books.usage)
        self.broker = Broker(usage_queues=self.settings.usage_queues)
        self.results = Results()
        self.redis = Redis(self.settings, self.clock)
        self.observed = Auditor(self, self.redis.buckets)
        self.log.tell = self.observed.row_written
        self.redis_up = True
        #: When Redis is lost while the broker is away.
        self.doom_ms: int | None = None
        #: What is on its way to each server, though its sender has given it up.
        self.late_to_redis = Late(
            self.chance, lambda: self.clock.elapsed_ms, lambda: self.redis.server if self.redis_up else None
        )
        self.late_to_broker = Late(self.chance, lambda: self.clock.elapsed_ms, lambda: self.broker.up or None)
        self.unacked: set[Message] = set()
        #: Runs of which PostgreSQL has said that their buckets know them.
        self.told: set[uuid.UUID] = set()
        #: Batches that a consumer has taken and not acked, by queue.
        self.batches: list[list[bytes]] = [[] for _ in range(self.settings.usage_queues)]
        self.counts: collections.Counter[str] = collections.Counter()
        self._stories: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
        self._due = dict.fromkeys(LOOPS, 0)
        for client_id in self.client_ids:
            self.log.add_client(client_id)
            self.redis.buckets.open_client(client_id)
        for shard in range(self.settings.shards):
            self.redis.buckets.verify(shard, expected=None)
        self.processes = [Process(self, number) for number in range(PROCESSES)]
        self.workload = Workload(self)
        self._parts = (self, self.workload, Fulfillment(self), Mishaps(self))

    # The world's steps.

    def step(self) -> None:
        """Let one thing happen."""
        self._pass(400)
        name: str = self.chance.weighted(STEPS)
        self.counts[name] += 1
        self._do(name)

    def quiesce(self) -> None:
        """Let everything come to rest without faults, and check the laws."""
        before = vars(self.rates).copy()
        self.rates.calm()
        self.redis_up = self.broker.up = True
        self.doom_ms = None
        for step in range(_QUIETSTEPS_MAX):
            self._pass(2_000)
            self._do(self.chance.weighted(WORKING))
            if step % _LOOK_EVERY == 0 and not self._unrest():
                break
        else:
            raise LawBroken(f"L9: not at rest after {_QUIETSTEPS_MAX} quiet steps: {self._unrest()}")
        self.observed.check()
        vars(self.rates).update(before)
        self.counts["quiescent points"] += 1
        self.books.rest()

    def close(self) -> None:
        """Come to the end: what is not billed yet is."""
        self.books.close()

    def faults(self) -> collections.Counter[str]:
        """Return what went wrong, by kind."""
        steps = collections.Counter({told: self.counts[name] for name, told in FAULTS.items()})
        return steps + self.rates.tally + self.books.faults()

    def came_to(self) -> collections.Counter[str]:
        """Return what it came to, for whoever wants to know that something happened."""
        observed, increments = self.observed, self.books.auditor.counts
        found = collections.Counter(
            {
                "reserves admitted": observed.admitted,
                "reserves refused": observed.refused,
                "runs in the log": len(self.log.history),
                "charged late": observed.late,
                "events that were duplicates": self.log.duplicates,
                "rebuilds": self.counts["rebuilds"],
                "postings": self.counts["posted"],
                "quiescent points": self.counts["quiescent points"],
                "days": self.books.day,
            }
        )
        found.update({name: number for name, number in self.counts.items() if name.startswith("excused")})
        return found + collections.Counter({f"increments, {name}": number for name, number in increments.items()})

    def _do(self, name: str) -> None:
        part = next(part for part in self._parts if hasattr(part, name))
        getattr(part, name)()

    def _pass(self, most_ms: int) -> None:
        """Let some time pass, and the loops come round."""
        self.books.live_until(self.clock.ms + self.chance.whole(0, most_ms))
        self.late_to_redis.arrive()
        self.late_to_broker.arrive()
        for name, interval_ms in LOOPS.items():
            if self.clock.elapsed_ms >= self._due[name]:
                self._due[name] = self.clock.elapsed_ms + interval_ms
                self._do(name)

    def work(self) -> None:
        """Let a process do one thing."""
        number = self.chance.whole(0, PROCESSES - 1)
        if self.processes[number].stalled_until_ms > self.clock.elapsed_ms:
            return
        try:
            self.processes[number].step()
        except Killed:
            self.kill(number)

    # What the parts of the world ask of it.

    def to_redis(self, reaches: Callable[[], bool] = lambda: True) -> Wire:
        """Return Redis as one client of it sees it."""
        is_up = lambda: self.redis_up and reaches()  # noqa: E731 - one line
        return Wire(self.observed, self.chance, self.rates, is_up=is_up, late=self.late_to_redis)

    def to_broker(self, reaches: Callable[[], bool] = lambda: True) -> Wire:
        """Return the broker as one client of it sees it."""
        is_up = lambda: self.broker.up and reaches()  # noqa: E731 - one line
        return Wire(self.broker, self.chance, self.rates, is_up=is_up, late=self.late_to_broker)

    def next_message(self) -> Message | None:
        """Return a task's message that is due, and remember that it is not acked."""
        due = [message for message in self.broker.tasks if message.not_before_ms <= self.clock.elapsed_ms]
        if not due or not self.broker.up:
            return None
        message = self.chance.one_of(due)
        self.broker.tasks.remove(message)
        self.unacked.add(message)
        return message

    def send(self, message: Message) -> None:
        """Publish a task's message."""
        self.broker.send(message)

    def ack(self, message: Message) -> None:
        """Be done with a message."""
        self.unacked.discard(message)

    def succeeded(self, run: Run, message: Message, process: Process) -> None:
        """Store the result of a body that has come to its end."""
        quantity = message.quantity if message.recorded is None else message.recorded
        self.observed.finished(run.identity.run_id, quantity * PRICES[message.sku], process)
        self.tell(run.identity.run_id, f"{message.task_id} succeeded")
        self.results.store(message.task_id, StoredResult(state=SUCCESS, stored_at=process.clock.now()))

    def store(self, message: Message, state: str) -> None:
        """Store a result that is no success."""
        self.results.store(message.task_id, StoredResult(state=state, stored_at=self.clock.now()))

    def refused(self, message: Message, error: BillingError) -> None:
        """Fail a task whose delivery was refused."""
        self.counts[f"refused: {type(error).__name__}"] += 1
        self.store(message, FAILURE)
        # The same run may have succeeded before, in a process that was killed before it settled.
        if message.run_id in self.observed.succeeded:
            self.observed.excuses.look()

    def bucket_missing(self, client_id: str) -> None:
        """Ask for the rebuild of a known client that has no bucket."""
        self.log.request_rebuild(shard_of(client_id, self.settings.shards))

    def chance_uuid(self) -> uuid.UUID:
        """Return an id made by chance."""
        return uuid.UUID(int=self.chance.whole(0, 2**128 - 1))

    def tell_of_all(self, what: str) -> None:
        """Remember what happened to all runs."""
        self.tell(_EVERYBODY, what)

    def story(self, run_id: uuid.UUID) -> str:
        """Return what is known of a run."""
        told = self._stories[str(run_id)] + self._stories[str(_EVERYBODY)]
        return "; ".join(what for _, what in sorted(told))

    # Below: the parts.

    def tell(self, run_id: uuid.UUID, what: str) -> None:
        """Remember what happened to a run, for whoever has to find out."""
        told = self._stories[str(run_id)]
        if len(told) < _TOLD_MAX:
            told.append((self.clock.elapsed_ms, f"{self.clock.elapsed_ms} ms: {what}"))

    def kill(self, number: int) -> None:
        """Kill a process: what it owed and was not safe may be lost."""
        self.counts["killed processes"] += 1
        self.replace(number, killed=True)

    def replace(self, number: int, *, killed: bool) -> None:
        """Let a process be no more, and another be in its place: what was not acked comes again."""
        process = self.processes[number]
        for message in process.unacked():
            # Another delivery of it may have been acked: then it is not given back, as with any broker.
            if message in self.unacked:
                self.unacked.discard(message)
                self.broker.tasks.append(message)
        self.processes[number] = Process(self, number)
        self.observed.excuses.ended(process, killed=killed)

    def _unrest(self) -> str:
        """Return what is still going on, an empty text if nothing is."""
        buckets, shards = self.redis.buckets, range(self.settings.shards)
        found = {
            "tasks": len(self.broker.tasks) + len(self.unacked),
            "events": sum(map(len, self.broker.usage)) + sum(map(len, self.batches)),
            "processes": sum(not process.is_idle for process in self.processes),
            "grants": len(self.log.unapplied),
            "voids": len(self.log.endings.voids),
            "late calls": len(self.late_to_redis) + len(self.late_to_broker),
            "postings": len(self.log.waiting()),
            "rebuilds": len(self.log.rebuilds) + len(self.log.locked),
        }
        if not any(found.values()):
            untrusted = [shard for shard in shards if len(set(buckets.server_of(shard))) > 1]
            found |= {
                "untrusted shards": len(untrusted),
                "outboxes": sum(buckets.outbox_depth(shard) for shard in shards),
                "holds": sum(len(buckets.held(None, shard)) for shard in shards),
                "missing buckets": 0 if untrusted else sum(map(self._is_missing, self.log.epochs)),
            }
        return ", ".join(f"{number} {name}" for name, number in found.items() if number)

    def _is_missing(self, client_id: str) -> bool:
        if self.redis.buckets.balance(client_id) is not None:
            return False
        self.bucket_missing(client_id)
        return True
