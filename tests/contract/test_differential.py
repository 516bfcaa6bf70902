"""Random walks: after each operation a server's buckets and their twin have answered the same and have the same.

A failing walk prints its seed and its step; `make operations SEED=…` walks it again.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest

from billing.credits.values import SettleReply
from tests.contract.differential import SENT_AGAIN, Difference, Pair
from tests.contract.hot import HotClient, check
from tests.contract.operations import Operation, Operations
from tests.contract.servers import Server

pytestmark = pytest.mark.raw("a twin beside a server; alone it would be compared with itself")
CLIENTS = ("acme", "globex", "initech")
STEPS = 1_000


def walked(pair: Pair, operations: Operations, steps: int = STEPS) -> set[str]:
    """Walk, and return what was done, each with its outcome."""
    for number, operation in enumerate(itertools.islice(operations, steps)):
        try:
            pair.step(operation)
        except AssertionError as error:
            error.add_note(f"seed {operations.seed}, step {number}: {operation}")
            raise
    return set(pair.done)


@pytest.mark.parametrize("seed", range(3))
def test_buckets_and_twin_agree_after_each_random_operation(server: Server, seed: int) -> None:
    server.flush()
    seen = walked(Pair(server, CLIENTS), Operations(seed, CLIENTS))
    assert {"reserve HELD", "reserve TAKEN_OVER", "reserve INSUFFICIENT", "reserve SETTLED"} <= seen
    assert {"settle SETTLED", "settle SETTLED late", "settle SETTLED debt", "settle ALREADY"} <= seen
    assert {"release RELEASED", "release STALE", "expire EXPIRED", "grant GRANTED", "void VOIDED"} <= seen
    assert {"adjust ADJUSTED", "adjust ALREADY", "lapse True", "assert_hold ASSERTED"} <= seen
    assert {"post POSTED", "post ALREADY", "post STALE", "post UNCOVERED"} <= seen
    assert {"rebuild_as REBUILT", "reserve RECOVERING", "settle UNKNOWN_CLIENT"} <= seen


@pytest.mark.parametrize(("seed", "percents"), [(5, (20, 5)), (5, (99, 80, 50, 1))])
def test_they_agree_on_ordinary_grants_and_alerts(server: Server, seed: int, percents: Sequence[int]) -> None:
    server.flush()
    pair = Pair(server, CLIENTS, alert_percents=percents)
    walked(pair, Operations(seed, CLIENTS, terms=False, losses=False))
    assert {*percents, 0} == {alert.percent for alert in pair.twin.alerts(count=10_000)}


@pytest.mark.parametrize("seed", range(2))
def test_they_agree_though_answers_are_lost_and_the_server_is_killed(own_server: Server, seed: int) -> None:
    """Given each third call sent twice, and a server killed each 250, then all is as if each had come once (L1, L2)."""
    pair = Pair(own_server, CLIENTS)
    for number, operation in enumerate(itertools.islice(Operations(seed, CLIENTS), STEPS)):
        try:
            if number % 250 == 249:
                own_server.end(signal.SIGKILL)
                own_server.start()
                pair.restarted(own_server)
            if number % 3 == 0 and operation.verb in SENT_AGAIN:
                pair.step_again(operation)
            else:
                pair.step(operation)
        except AssertionError as error:
            error.add_note(f"seed {seed}, step {number}: {operation}")
            raise
    twice = {what.split()[0] for what in pair.done if what.endswith("sent twice")}
    assert {"reserve", "settle", "release", "grant", "void", "adjust", "post"} <= twice


def test_a_difference_is_found_in_the_step_that_made_it(server: Server) -> None:
    """Given a bucket that only the server has lost, when its client is compared, then the walk ends there."""
    server.flush()
    pair = Pair(server, CLIENTS)
    walked(pair, Operations(1, CLIENTS, losses=False), 100)
    server.lose_bucket("globex")
    with pytest.raises(Difference, match="reading"):
        pair.step(Operation("endings_due", "globex"))


@pytest.mark.parametrize("seed", [1])
def test_one_client_of_many_connections_is_as_if_each_operation_came_alone(server: Server, seed: int) -> None:
    """Given 4 connections that work on one client at once, then a twin answers the same in the server's order."""
    server.flush()
    server.buckets()
    hot = [HotClient(server, "acme", 10 * seed + number, number) for number in range(4)]

    def work(one: HotClient) -> None:
        for _ in range(150):
            one.step()

    with ThreadPoolExecutor(len(hot)) as threads:
        list(threads.map(work, hot))
    done = [one for client in hot for one in client.done]
    assert check(server, "acme", done) == 600

    with pytest.raises(Difference, match="in nobody's log"):
        check(server, "acme", done[1:])
    charge, reply = next((one, one.reply) for one in done if isinstance(one.reply, SettleReply) and one.reply.debt)
    lied = replace(charge, reply=msgspec.structs.replace(reply, debt=reply.debt + 1))
    with pytest.raises(Difference, match=f"operation {charge.number}"):
        check(server, "acme", [lied if one is charge else one for one in done])
