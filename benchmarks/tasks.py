"""A `BillableTask` against the same task unbilled: empty, and waiting for 20 ms; publishing by worker and by relay.

Three workers stand ready, unbilled, `confirm` and `relay`, and take the same burst in turns; a round gives one ratio
per mode, the row is their median. It refuses to quote a rate whose books are wrong: every task must be charged, no hold
be left, and each outbox be empty at the end. The relay's process runs while its side is measured, shares its cores, and
stands still meanwhile otherwise. A rate is until the last task's end; how long the outbox then takes stands beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.fleet import SKU
from benchmarks.rows import Row, alternated
from benchmarks.servers import Servers
from benchmarks.workers import Burst, Worker, wait_until
from billing import admin
from billing.core.settings import Settings
from billing.core.shards import queue_of, shard_of
from billing.task.runtime import Runtime

CLIENTS: Final = 16
CREDITS: Final = 10**9
#: Tasks that every child has run, about, when its memory is looked at.
MEMORY_TASKS: Final = 1_000
MEMORY_TASKS_QUICK: Final = 200
OUTBOX_SECONDS: Final = 20.0
UNBILLED, CONFIRM, RELAY = "unbilled", "confirm", "relay"
MODES: Final = (UNBILLED, CONFIRM, RELAY)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is measured: a task on so many children, and the least of the unbilled rate that each mode should reach."""

    name: str
    task: str
    children: int
    tasks: int
    rounds: int
    marks: dict[str, float]


EMPTY: Final = Case(
    name="empty BillableTask, 4 children",
    task="empty",
    children=4,
    tasks=5_000,
    rounds=5,
    marks={CONFIRM: 0.32, RELAY: 0.55},
)
WAITING: Final = Case(
    name="BillableTask that waits 20 ms, 8 children",
    task="wait",
    children=8,
    tasks=1_600,
    rounds=5,
    marks={CONFIRM: 0.92, RELAY: 0.95},
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One side of the comparison: its worker, and the settings that it bills under (None: it does not)."""

    worker: Worker
    settings: Settings | None
    relay: Worker | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One turn of every mode."""

    bursts: dict[str, Burst]
    #: By mode, the seconds from the last task's end until every event was published and gone from the outbox.
    drained: dict[str, float]

    def whole_rate(self, mode: str) -> float:
        """Return tasks per second until the outbox was empty."""
        burst = self.bursts[mode]
        return burst.tasks / (burst.seconds + self.drained[mode])

    def ratio(self, mode: str) -> float:
        """Return the rate of a mode, over the unbilled one of this round."""
        return self.bursts[mode].rate / self.bursts[UNBILLED].rate


def rows(servers: Servers) -> list[Row]:
    """Measure both cases, and the memory that billing costs a worker process."""
    measured: list[Row] = []
    for case in (EMPTY, WAITING):
        quick = dataclasses.replace(case, tasks=case.tasks // 4, rounds=2)
        measured += _measure(servers, quick if servers.quick else case)
        servers.empty()
    return measured


def client_ids(settings: Settings) -> list[str]:
    """Return clients on many shards, none of whose events go to the last usage queue."""
    numbered = (f"client-{number}" for number in range(10 * CLIENTS))
    last = settings.usage_queues - 1
    return [
        client_id
        for client_id in numbered
        if queue_of(shard_of(client_id, settings.shards), settings.usage_queues) != last
    ][:CLIENTS]


def rows_of(case: Case, rounds: Sequence[Round]) -> list[Row]:
    """Return one row per mode: the median of the rounds' ratios."""
    found = []
    for mode, mark in case.marks.items():
        ratio = statistics.median(one.ratio(mode) for one in rounds)
        unbilled = statistics.median(one.bursts[UNBILLED].rate for one in rounds)
        ours = statistics.median(one.bursts[mode].rate for one in rounds)
        drained = statistics.median(one.drained[mode] for one in rounds)
        whole = statistics.median(one.whole_rate(mode) for one in rounds)
        outbox = f"its outbox empty {drained:.1f} s after a burst, {whole:,.0f}/s until then"
        found.append(
            Row(
                name=f"{case.name}, {mode}",
                value=ratio,
                unit="x the rate",
                against=f"unbilled, late ack: {unbilled:,.0f}/s (billed: {ours:,.0f}/s; {outbox})",
                mark=mark,
                met=ratio >= mark,
                raw={
                    "rates": [one.bursts[mode].rate for one in rounds],
                    "unbilled_rates": [one.bursts[UNBILLED].rate for one in rounds],
                    "seconds_until_the_outbox_was_empty": [one.drained[mode] for one in rounds],
                    "tasks": case.tasks,
                },
            )
        )
    return found


def _measure(servers: Servers, case: Case) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, contextlib.ExitStack() as stack:
        sides = {mode: stack.enter_context(_side(servers, mode, case.children, Path(directory))) for mode in MODES}
        clients = client_ids(Settings())
        each = MEMORY_TASKS_QUICK if servers.quick else MEMORY_TASKS
        warm_up = case.children * (each if case.task == EMPTY.task else 10)
        _turn(sides, case.task, clients, warm_up, 1)
        found = [_memory_row(sides, case.children, each)] if case.task == EMPTY.task else []
        rounds = [_turn(sides, case.task, clients, case.tasks, 2 + number) for number in range(case.rounds)]
        for side in sides.values():
            if side.settings is not None:
                _check_books(side, side.settings, clients, warm_up + case.tasks * case.rounds)
    return rows_of(case, rounds) + found


@contextlib.contextmanager
def _side(servers: Servers, mode: str, children: int, directory: Path) -> Iterator[Side]:
    """Start the worker of one mode, and its relay where that is the one who publishes."""
    with contextlib.ExitStack() as stack:
        environment = {"BILLING_RESULT_URL": servers.endpoints.result_url, "BENCHMARK_BILLED": "no"}
        settings = None
        if mode == UNBILLED:
            environment["BILLING_BROKER_URL"] = stack.enter_context(servers.virtual_host(mode))
        else:
            settings = stack.enter_context(
                servers.deployment(mode, redis_database=MODES.index(mode), prices=[(SKU, 1)])
            )
            for client_id in client_ids(settings):
                admin.add_client(settings, client_id)
                admin.grant(settings, client_id, CREDITS, key="first")
            environment |= {
                "BILLING_REDIS_URL": settings.redis_url,
                "BILLING_DATABASE_URL": settings.database_url,
                "BILLING_BROKER_URL": settings.broker_url,
                "BILLING_PUBLISH": mode,
                "BENCHMARK_BILLED": "yes",
            }
        relay = None
        if settings is not None and mode == RELAY:
            relay = stack.enter_context(Worker("relay-loop", environment, directory))
            # The consumer is measured by itself: here it has the one queue that no event goes to.
            relay.start("-P", "solo", f"--fulfillment={settings.usage_queues - 1}")
        worker = stack.enter_context(Worker(mode, environment, directory))
        worker.start("-P", "prefork", "-c", str(children))
        if relay is not None:
            relay.pause()
        yield Side(worker=worker, settings=settings, relay=relay)


def _turn(sides: dict[str, Side], task: str, clients: Sequence[str], count: int, number: int) -> Round:
    """Give every side the same burst, one side after the other."""
    calls = [clients[index % len(clients)] for index in range(count)]
    bursts, drained = {}, {}
    for mode, side in alternated(sides.items(), number):
        if side.relay is not None:
            side.relay.resume()
        bursts[mode] = side.worker.run(number, task, calls)
        if side.settings is not None:
            drained[mode] = _wait_for_outbox(side.settings, mode)
        if side.relay is not None:
            side.relay.pause()
    return Round(bursts=bursts, drained=drained)


def _wait_for_outbox(settings: Settings, mode: str) -> float:
    """Wait until every event of a burst is published and gone from its outbox; return the seconds that it took."""
    started = time.perf_counter()
    runtime = Runtime(lambda: settings)
    shards = range(settings.shards)
    try:
        wait_until(
            lambda: not any(runtime.buckets.outbox_depth(shard) for shard in shards),
            f"the outbox of {mode} is empty",
            OUTBOX_SECONDS,
        )
        return time.perf_counter() - started
    finally:
        runtime.close()


def _memory_row(sides: dict[str, Side], children: int, tasks: int) -> Row:
    """Measure what a billed child holds more than an unbilled one, after the same tasks."""
    pss = {mode: sides[mode].worker.pss_bytes() for mode in MODES}
    more = max(pss[mode] - pss[UNBILLED] for mode in (CONFIRM, RELAY)) / 2**20
    return Row(
        name=f"memory of a worker process after {tasks:,} tasks",
        value=more,
        unit="MB more",
        against=f"unbilled: {pss[UNBILLED] / 2**20:.1f} MB (PSS, {children} children)",
        mark=15.0,
        met=more <= 15.0,
        raw={"pss_bytes": pss},
    )


def _check_books(side: Side, settings: Settings, clients: Sequence[str], runs: int) -> None:
    """Refuse a rate that billing has not earned: every task charged once, nothing held."""
    balances = [admin.balance(settings, client_id) for client_id in clients]
    spent, held = sum(balance.spent for balance in balances), sum(balance.held for balance in balances)
    if spent != runs or held:
        said = " | ".join(side.worker.last_lines())
        raise RuntimeError(f"{runs} tasks ran, but {spent} credits are spent and {held} held; the worker: {said}")
