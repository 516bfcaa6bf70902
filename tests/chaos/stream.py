"""A small stream of usage, settled in real buckets, with everything in it that a consumer can meet, and its books.

The books are the test's own: what was settled once costs once, whatever is delivered how often.
"""

from __future__ import annotations

import collections
import uuid
from collections.abc import Callable
from typing import Final

import msgspec
import redis
from sqlalchemy.exc import OperationalError

from billing.alerts.announcing import Announcer
from billing.alerts.recording import record_and_announce
from billing.core.errors import Retryable
from billing.core.settings import Settings
from billing.credits.keys import shard_keys
from billing.credits.values import SettleOutcome
from billing.events.direct import encode_direct
from billing.events.links import Outgoing
from billing.events.marker import encode_marker
from billing.events.usage_event import UsageLine, decode_head, encode_fragment
from billing.integration.services import make_consumer, make_relay
from billing.ledger import postings
from billing.reconciliation.reconcile import reconcile
from billing.recovery.postings import apply_postings
from billing.task.outside import Order
from billing.task.runtime import Runtime
from tests.amqp import waiting
from tests.chaos.processes import BLOCKS, SKU
from tests.integration.consuming import execute, letters, query, rows, running
from tests.integration.recovering import Business, a_settlement, the_run
from tests.waiting import wait_until

CLIENTS: Final = ("acme", "brook")
#: What each client is granted: by what it uses of that, it crosses one threshold of its alerts.
GRANTED: Final = 170
PRICE: Final = 7
#: What the run costs that no bucket has paid.
DIRECT: Final = 5
#: Messages in each batch of the consumer.
BATCH: Final = 10
_REFUSED: Final = "refused by the database"


class Stream:
    """Runs of two clients on one queue: what is sent, and what must have become of it."""

    def __init__(self, business: Business) -> None:
        self._business = business
        self._batches: list[list[bytes]] = []
        self.alerts: list[tuple[str, int]] = []
        self.rows: dict[tuple[uuid.UUID, int], tuple[str, int]] = {}
        self.letters: set[bytes] = set()
        self.spent: collections.Counter[str] = collections.Counter()

    def settle(self, number: int, *amounts: int, again: bool = False) -> bytes:
        """Settle a run, of one line or of several, and return its event; `again`: once more, after it was forgotten."""
        client_id, task_id = CLIENTS[number % 2], f"run-{number}"
        run = the_run(client_id, task_id)
        costs = amounts or (PRICE,)
        settlement = a_settlement(client_id, costs[0], task_id)
        lines = tuple(encode_fragment(UsageLine(sku=SKU, quantity=1, credits=cost)) for cost in costs)
        if again:
            self._forget(run)
        told = msgspec.structs.replace(settlement, fragments=lines, amounts=costs)
        reply = self._business.runtime.buckets.settle(told)
        assert reply.outcome is SettleOutcome.SETTLED
        assert reply.event is not None
        self.expect(client_id, run, *costs)
        return reply.event

    def expect(self, client_id: str, run: uuid.UUID, *costs: int) -> None:
        """Note what a run costs, once however often."""
        if (run, 0) not in self.rows:
            self.spent[client_id] += sum(costs)
        self.rows |= {(run, line): (client_id, cost) for line, cost in enumerate(costs)}

    def expect_blocks(self) -> None:
        """Note the blocks of a publisher."""
        for client_id, key in BLOCKS:
            order = Order(client_id=client_id, sku=SKU, quantity=1, most=None, key=key)
            self.expect(client_id, order.identity(0).run_id, PRICE)

    def settle_all(self) -> None:
        """Settle four batches of runs, and leave their events in the outbox. One run is settled twice."""
        first = [self.settle(number) for number in range(BATCH)]
        again = self.settle(1, again=True)
        self._batches = [
            first,
            [again],
            *([self.settle(10 * batch + number) for number in range(BATCH)] for batch in (1, 2, 3)),
        ]
        # What a client has left has fallen below a fifth, once.
        self.alerts = [(client_id, 20) for client_id in CLIENTS]

    def send_all(self) -> None:
        """Have four batches in the queue and not in the outbox: plain, with all kinds, with a refused one, plain."""
        first, [again], second, third, fourth = self._batches
        poison = [b"poison", b'{"version": 1, "run_id": "no uuid"}']
        direct, refused = self._direct("direct", DIRECT), self._direct(_REFUSED, 1)
        self.expect("acme", the_run("acme", "direct"), DIRECT)
        self.letters.update((*poison, refused))
        rule = f"CHECK (correlation_id <> '{_REFUSED}')"
        execute(self._settings, f"ALTER TABLE usage_history ADD CONSTRAINT refusing {rule}")
        several = self.settle(40, 5, 6)
        kinds = [
            second[0],
            second[1],
            second[1],
            first[3],
            several,
            *poison,
            direct,
            again,
            encode_marker(uuid.uuid4(), 0),
        ]
        rest = [*third[:6], refused, *third[6:9], *fourth, *second[2:], third[9]]
        outgoing = [Outgoing(body=body, shard=0, entry_id=None) for body in (*first, *kinds, *rest)]
        self._runtime.publisher.publish_batch(0, outgoing)
        entries = self._runtime.buckets.outbox(0, older_than_ms=0, count=1_000)
        self._runtime.buckets.forget([(0, entry.entry_id) for entry in entries])

    def consume(self) -> None:
        """Have the log take what is in the queue."""
        with running(make_consumer(self._runtime, [0])):
            self._wait_for_the_log()

    def wait_for_second_batch(self) -> None:
        """Wait until the second batch is committed, seen from outside."""
        until(lambda: rows(self._settings) > BATCH, "the second batch is committed")

    def bring_home(self) -> None:
        """Run everything as ever, until nothing is under way any more."""
        relay = make_relay(self._runtime)

        def relayed() -> bool:
            relay.sweep()
            return self._runtime.buckets.outbox_depth(0) == 0

        def posted() -> bool:
            apply_postings(self._runtime)
            with self._runtime.engine.connect() as connection:
                return not postings.waiting(connection, 10)

        with running(make_consumer(self._runtime, [0])):
            until(relayed, "the outbox is empty")
            self._wait_for_the_log()
            until(posted, "the buckets know what the log says")
        announcer = Announcer(self._runtime)
        record_and_announce(self._runtime, announcer)
        announcer.finish()

    def check(self) -> None:
        """Nothing is lost and nothing is there twice: rows, sums, dead letters, buckets, alerts, and every law."""
        settings = self._settings
        found = query(settings, "SELECT run_id, line, client_id, credits FROM usage_history ORDER BY 1, 2")
        assert found == [(run, line, *paid) for (run, line), paid in sorted(self.rows.items())], len(found)
        spent = sorted(self.spent.items())
        for table in ("usage_rollup", "grant_spent"):
            sums = query(settings, f"SELECT client_id, sum(credits)::bigint FROM {table} GROUP BY 1 ORDER BY 1")
            assert sums == spent, (table, sums)
        assert sorted(body for body, _ in letters(settings)) == sorted(self.letters)
        alerts = query(settings, "SELECT client_id, threshold_percent FROM alert ORDER BY 1")
        assert alerts == self.alerts, alerts
        for client_id in CLIENTS:
            balance, cost = self._business.balance(client_id), self.spent[client_id]
            assert (balance.spent, balance.held, balance.owed, balance.available) == (cost, 0, 0, GRANTED - cost)
            assert balance.epoch == 1, "no bucket was lost"
        assert (waiting(settings, 0), self._runtime.buckets.outbox_depth(0)) == (0, 0)
        report = reconcile(self._runtime, stripe=False, record=False)
        assert report.ok, report.findings()

    @property
    def _runtime(self) -> Runtime:
        return self._business.runtime

    @property
    def _settings(self) -> Settings:
        return self._business.settings

    def _wait_for_the_log(self) -> None:
        """Wait until a marker, published behind everything, is committed."""
        token = uuid.uuid4()
        marker, statement = encode_marker(token, 0), f"SELECT FROM recovery_marker WHERE token = '{token}'"

        def marked() -> bool:
            self._runtime.publisher.publish(0, marker, shard=0, entry_id=None)
            return True

        until(marked, "a marker is behind all events")
        until(lambda: bool(query(self._settings, statement)), "the log has all that is in the queue")

    def _direct(self, task_id: str, cost: int) -> bytes:
        """Return the event of a run that no bucket has settled."""
        head = decode_head(a_settlement("acme", cost, task_id).head)
        line = UsageLine(sku=SKU, quantity=1, credits=cost)
        return encode_direct(head, [line], settlement_id=task_id, occurred_at=1_790_000_000_005)

    def _forget(self, run: uuid.UUID) -> None:
        """Let the retention of a settled run be over."""
        with redis.Redis.from_url(self._settings.redis_url) as client:
            assert client.delete(shard_keys(0).run + run.hex)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, also while a server comes back."""

    def holds() -> bool:
        try:
            return condition()
        except (Retryable, OperationalError):
            return False

    wait_until(holds, what)
