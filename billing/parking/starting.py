"""Starts parked tasks: hands their messages to the broker, in the order of parking, as far as their client can pay.

Guarantee: a task is marked as started only when a queue has its message; who dies between the two leaves it waiting,
and it is published again, as the same run. Clients have their turn one after the other, a bounded number of tasks each;
a node of Redis that is silent, a queue that takes nothing and a row that is unfit keep back their own clients (L10). It
holds no credits: the gate reserves, and a task that finds the credits gone comes back to its place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import celery
import sqlalchemy

from billing.connections import postgres
from billing.core.errors import Retryable, Unreachable
from billing.core.rounds import Rounds
from billing.core.shards import shard_of
from billing.credits.values import Balance
from billing.ledger.locks import Locked, waiting_briefly
from billing.parking.affordable import affordable
from billing.parking.handing_over import HandingOver, NotTaken
from billing.parking.message import handed_over
from billing.parking.parked import message_of
from billing.parking.services import Services
from billing.parking.statements import EXPIRE, FORGET, HEADS, MESSAGES, START_TURN, STARTED, UNDER_WAY, WAITING
from billing.schema.advisory import Guard

logger = logging.getLogger(__name__)

#: Clients that one round looks at, tasks of one client that it starts, and tasks in all (L9).
CLIENTS_MAX: Final = 200
TASKS_OF_ONE_CLIENT_MAX: Final = 50
TASKS_MAX: Final = 500
#: Tasks that one round ends as expired, and rows that it forgets.
EXPIRED_MAX: Final = 200
FORGOTTEN_MAX: Final = 500
#: Messages that no queue took, after which a round ends: each may cost a wait. The next one begins with other clients.
NOT_TAKEN_MAX: Final = 4
#: How long the credits of a task that was handed over are kept for it, unless it is known to have reserved them.
UNDER_WAY_MAX: Final = timedelta(minutes=10)
#: How long the row of an ended task is kept.
KEPT: Final = timedelta(days=7)


class Starter:
    """Starts the parked tasks of a fleet, a round at a time. Any number of processes may do so; one thread each."""

    def __init__(self, app: celery.Celery, services: Services) -> None:
        self._services = services
        self._publisher = HandingOver(app, services.settings)
        self._rounds = Rounds(lambda shard: services.buckets.node_of(shard), services.clock)  # noqa: PLW0108 - made later
        #: The client that had its turn last.
        self._after = ""

    def step(self) -> int:
        """Make one round; return how many tasks it started. Raises `Unreachable` while a server is away."""
        self._end_old()
        heads = self._next_heads()
        by_shard: dict[int, dict[str, tuple[str, int]]] = {}
        for client_id, sku, credits_ in heads:
            shard = shard_of(client_id, self._services.settings.shards)
            by_shard.setdefault(shard, {})[client_id] = (sku, credits_)
        able: list[str] = []
        self._rounds.visit(by_shard, lambda shard: self._look(by_shard[shard], able))
        return self._start(sorted(able))

    def close(self) -> None:
        """Throw the connection to the broker away."""
        self._publisher.close()

    def _end_old(self) -> None:
        now = self._services.clock.now()
        with postgres.reaching(self._services.settings), self._services.engine.begin() as connection:
            expired = connection.execute(EXPIRE, {"now": now, "count": EXPIRED_MAX}).rowcount
            connection.execute(FORGET, {"before": now - KEPT, "count": FORGOTTEN_MAX})
        if expired:
            logger.warning("billing: %d parked tasks waited too long for credits", expired)

    def _next_heads(self) -> Sequence[tuple[str, str, int]]:
        """Return the first waiting task of each client whose turn it is."""
        with postgres.reaching(self._services.settings), self._services.engine.connect() as connection:
            found = connection.execute(HEADS, {"after": self._after, "count": CLIENTS_MAX}).all()
        self._after = found[-1].client_id if len(found) == CLIENTS_MAX else ""
        return [(row.client_id, row.sku, row.credits) for row in found]

    def _look(self, heads: dict[str, tuple[str, int]], able: list[str]) -> int:
        """Add the clients of one shard that can pay their first task: of the others PostgreSQL is asked no more."""
        balances = self._services.buckets.balances(list(heads))
        found = [one for one, head in heads.items() if one in balances and affordable(balances[one], {}, [head])]
        able += found
        return len(found)

    def _start(self, able: Sequence[str]) -> int:
        started = not_taken = 0
        silent: set[str] = set()
        for client_id in able:
            if started >= TASKS_MAX or not_taken >= NOT_TAKEN_MAX:
                break
            node = self._services.buckets.node_of(shard_of(client_id, self._services.settings.shards))
            if node in silent:
                continue
            try:
                started += self._start_client(client_id, min(TASKS_OF_ONE_CLIENT_MAX, TASKS_MAX - started))
            except _Silent:
                silent.add(node)
            except NotTaken:
                not_taken += 1
            except Locked as error:
                logger.info("billing: parked tasks of client %s wait: %s", client_id, error)
            except Unreachable:
                raise
            except Exception:
                # A row that nobody can read or publish is its client's alone (L10).
                not_taken += 1
                logger.exception("billing: parked tasks of client %s wait", client_id)
            last = client_id
        else:
            return started
        # The next round goes on behind the last one that had its turn.
        self._after = last
        return started

    def _start_client(self, client_id: str, count: int) -> int:
        """Start what one client can pay, in order. Raises `NotTaken` once what was taken is marked."""
        services, now = self._services, self._services.clock.now()
        with (
            postgres.reaching(services.settings),
            services.engine.begin() as connection,
            waiting_briefly(connection),
        ):
            turn = {"guard": int(Guard.START_PARKED), "client": client_id}
            if not connection.execute(START_TURN, turn).scalar_one():
                return 0
            # Before the balance: a task that reserves meanwhile is then counted twice rather than not at all.
            since = {"client": client_id, "since": now - UNDER_WAY_MAX}
            under_way = {row.sku: row.credits for row in connection.execute(UNDER_WAY, since)}
            waiting = connection.execute(WAITING, {"client": client_id, "now": now, "count": count}).all()
            balance = self._balance(client_id)
            needs = [(row.sku, row.credits) for row in waiting]
            can = 0 if balance is None else affordable(balance, under_way, needs)
            chosen = {"parked": [row.parked_id for row in waiting[:can]]}
            rows = [dict(row) for row in connection.execute(MESSAGES, chosen).mappings()] if can else []
            started, error = self._hand_over(rows)
            self._mark(connection, started)
        if started:
            logger.info("billing: %d parked tasks of client %s are started", len(started), client_id)
        if error is not None:
            raise error
        return len(started)

    def _balance(self, client_id: str) -> Balance | None:
        try:
            return self._services.buckets.balances([client_id]).get(client_id)
        except Unreachable as error:
            raise _Silent(str(error)) from error

    def _hand_over(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], Unreachable | None]:
        """Publish messages in order; return whose were taken, and what ended that early."""
        taken: list[int] = []
        for row in rows:
            message = handed_over(message_of(row), row["times"], self._services.clock.now())
            try:
                self._publisher.publish(message)
            except Unreachable as error:
                if isinstance(error, NotTaken):
                    where = f"exchange {message.exchange!r}, routing key {message.routing_key!r}"
                    one = f"parked task {row['parked_id']} of client {row['client_id']}"
                    logger.warning("billing: %s waits: no queue took it (%s): %s", one, where, error)
                return taken, error
            taken.append(row["parked_id"])
        return taken, None

    def _mark(self, connection: sqlalchemy.Connection, started: Sequence[int]) -> None:
        """Say that queues have the messages of these tasks."""
        if started:
            connection.execute(STARTED, {"parked": list(started), "now": self._services.clock.now()})


class _Silent(Retryable):
    """The node of a client's bucket did not answer."""
