"""One client that all processes work on at once, checked in the order in which the server did their operations.

Each operation goes to the server in a transaction with the increment of a counter, so that its number is its place in
the server's own order, and with the time. All that was done is then done to a twin in that order: every reply, event
and alert must be the twin's, and so must all that the client has at the end. That is linearizability of the verbs of
runs, grants, adjustments, postings and terms on one bucket, for the interleavings that came about. Not in it: sweeps (`overdue`,
`lapse`), ends by time, and losses, which the step-by-step walks have.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from billing.credits.buckets import Buckets
from billing.credits.scripts import Command, Scripts
from tests.contract.differential import Difference, SetClock, apply, moment, same
from tests.contract.operations import Operation, Operations
from tests.contract.servers import Server
from tests.contract.snapshots import ServerReader, Snapshot, TwinReader
from tests.contract.twins import TwinServer

#: What is not one command on one bucket, or is about time that has passed.
_WITHOUT: Final = ("expire", "overdue", "forget", "end_grant", "lapse")
#: No lease or settled id ends by itself, and no outbox gets full.
_OPTIONS: Final[Mapping[str, Any]] = {
    "lease_seconds": 86_400.0,
    "settled_retention_seconds": 86_400.0,
    "outbox_entries_max": 10**9,
}
#: Ids of grants that one process may give.
_IDS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Done:
    """An operation as the server did it: its place in the order, when it was, and the reply."""

    number: int
    at_ms: int
    operation: Operation
    reply: object


class _Numbered(Scripts):
    """Sends each command in a transaction that also tells the time and counts."""

    def __init__(self, client: Any, counter: str) -> None:
        super().__init__(client)
        self._counter = counter
        self.number = 0
        self.at_ms = 0

    def run(self, command: Command) -> Any:
        """Send one command."""
        pipeline: Any = self.client.pipeline(transaction=True)
        pipeline.execute_command("TIME")
        pipeline.execute_command(*command)
        pipeline.execute_command("INCR", self._counter)
        time, answer, self.number = pipeline.execute()
        self.at_ms = int(time[0]) * 1_000 + int(time[1]) // 1_000
        return answer

    def run_each(self, commands: Sequence[Command], *, any_type: bool = False) -> list[Any]:
        """Send the commands one by one: a renewal is one."""
        return [self.run(command) for command in commands]


class HotClient:
    """One process' work on the client."""

    def __init__(self, server: Server, client_id: str, seed: int, process: int) -> None:
        self._server = server
        self._buckets = server.buckets(**_OPTIONS, verified=False)
        self._buckets.balance(client_id)  # loads the library
        counter = f"{server.tag_of(client_id)}hot-operations"
        self._buckets._scripts = self._scripts = _Numbered(self._buckets._scripts.client, counter)
        self._operations = iter(
            Operations(
                seed,
                [client_id],
                losses=False,
                shards=server.shards,
                rich=False,
                without=_WITHOUT,
                first_id=process * _IDS,
            )
        )
        self.done: list[Done] = []

    def step(self) -> None:
        """Do the next operation."""
        operation = next(self._operations)
        reply = apply(self._server, self._buckets, operation)
        self.done.append(Done(self._scripts.number, self._scripts.at_ms, operation, reply))


def check(server: Server, client_id: str, done: Sequence[Done]) -> int:
    """Do everything to a twin, in the server's order, and compare; return how much it was. Raises `Difference`."""
    clock = SetClock()
    keeper = TwinServer(clock, shards=server.shards)
    clock.ms = min((one.at_ms for one in done), default=0)
    twin = keeper.buckets(**_OPTIONS)
    ordered = sorted(done, key=lambda one: one.number)
    for expected, one in zip(itertools.count(1), ordered, strict=False):
        if one.number != expected:
            raise Difference(f"operation {expected} of the server's order is in nobody's log")
        clock.ms = moment(one.reply, one.at_ms)
        same(f"operation {expected}, {one.operation}", one.reply, apply(keeper, twin, one.operation))
    ours = TwinReader(keeper, twin).read(client_id)
    buckets: Buckets = server.buckets(**_OPTIONS, verified=False)
    _, theirs = ServerReader(buckets).read(client_id, list(ours.holds))
    for what in Snapshot.__slots__:
        same(f"{what} of the hot client", getattr(theirs, what), getattr(ours, what))
    return len(ordered)
