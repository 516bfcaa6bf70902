"""Leads processes through rounds of random operations, kills their server meanwhile, and checks at every rest.

A round has clients of its own, and one that lives on. Somewhere in it the server dies and comes back as it was, without
the last commands or bytes of its append-only file, or empty; at its end Redis is flushed, and the old clients are gone.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from billing.credits.values import OpenOutcome
from tests.contract.faulty import checks, files
from tests.contract.faulty.calls import Calls
from tests.contract.faulty.fleet import Fleet
from tests.contract.faulty.ledger import Ledger
from tests.contract.faulty.recovery import Recovery
from tests.contract.faulty.values import SHARDS, AtRest, Breach, Describe, Described, Forget, Go, Rest
from tests.contract.servers import Server

#: How a server comes back.
KINDS: Final = ("as it was", "without its last commands", "without its last bytes", "empty")
HOT: Final = "hot"
#: Of so many calls one has its connection cut, unless a run says otherwise.
CUT_EVERY: Final = 150
#: How many operations a client has, on average.
_PER_CLIENT: Final = 100
#: How far back the end of a file goes: operations, or bytes.
_COMMANDS: Final = (60, 150)
_BYTES: Final = (2_000, 40_000)
_WAIT_SECONDS: Final = 0.01
#: So many times its operations a round is given before the server dies.
_FAR: Final = 1_000
#: A client whose ceiling is so near shows a hold too many, on average.
_NEAR: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class _Noted:
    """How long a file was, after so many operations."""

    path: Path
    size: int
    at: int


class Conductor:
    """One run: so many operations by so many processes on a server."""

    def __init__(self, server: Server, seed: int, processes: int, *, cut_every: int = CUT_EVERY) -> None:
        self.server, self._seed = server, seed
        # One for each purpose: how often the others are asked depends on how fast the machine is.
        self._kills, self._passing = random.Random(f"{seed} kills"), random.Random(f"{seed} passing")
        self.ledger = Ledger()
        self.fleet = Fleet(seed, processes, server.port, self.ledger, cut_every)
        self.calls = Calls(server.port, random.Random(f"{seed} cuts"), self.fleet.trusted, cut_every)
        self.recovery = Recovery(self.calls, self.ledger, self.fleet)
        self.counts: Counter[str] = Counter()
        self._kinds = itertools.cycle(self._kills.sample(KINDS, len(KINDS)))
        self._round = 0

    def close(self) -> None:
        """End the processes and all connections."""
        self.fleet.stop()
        self.calls.close()

    def begin(self) -> None:
        """Open the server, and the client that lives on."""
        for number in range(SHARDS):
            self.fleet.trusted[number] = 1
            assert self.calls.surely(self.calls.buckets.verify, number, expected=None)
        self.open_client(HOT)

    def so_far(self) -> str:
        """Return how far it has come."""
        done, events, counts = sum(self.fleet.done), self.ledger.events, self.counts
        points, clients = counts["quiescent points"], counts["clients"]
        return f"{done:,} operations on {clients:,} clients, {events:,} events, {points} quiescent points"

    def end(self) -> Counter[str]:
        """End the processes; return what was done and met."""
        counts = self.fleet.end() + self.calls.door.cuts + self.recovery.counts + self.counts
        counts["operations"] = sum(self.fleet.done)
        counts["events in the log's queue"] = self.ledger.events
        counts["rows of the log"] = self.ledger.rows
        counts["duplicates in the log's queue"] = self.ledger.log.duplicates
        return counts

    def round(self, operations: int) -> None:
        """Work on new clients and the hot one, with one death of the server, and check. Raises `Breach`."""
        try:
            self._go_round(operations)
        except Breach as breach:
            raise Breach(f"round {self._round}: {breach}{self._described(breach)}") from breach
        self._round += 1

    def _described(self, breach: Breach) -> str:
        """Return what the processes know of the run by which a breach was seen."""
        if breach.run_id is None:
            return ""
        told = [one.text for one in self.fleet.ask(Describe(run_id=breach.run_id), Described)]
        event = self.ledger.log.history.get(breach.run_id)
        return "".join(f"\n  {one}" for one in (*told, event) if one)

    def _go_round(self, operations: int) -> None:
        count = max(len(self.fleet.pipes), operations // _PER_CLIENT)
        clients = [f"{self._seed:x}-{self._round}-{number}" for number in range(count)]
        for client_id in clients:
            self.open_client(client_id)
        self.counts["clients"] += count
        self.work(clients, operations)
        told = self.check()
        self.fleet.tell(Forget(hot=HOT))
        self.ledger.forget(HOT, told.holds)
        self.server.flush()
        self.counts["flushes"] += 1
        self.recovery.recover(range(SHARDS))
        self.check()

    def work(self, clients: list[str], operations: int) -> None:
        """Let the processes work, and kill the server meanwhile, after what will then be the end of its file."""
        begun = list(self.fleet.done)
        share = operations // len(begun)
        kill_at = sum(begun) + operations * self._kills.randint(35, 65) // 100
        note_at = kill_at - self._kills.randint(*_COMMANDS)
        noted: _Noted | None = None
        killed = False
        # More than they come to: the server dies amid their work, however late that is due to be seen.
        self.go(clients, [operations * _FAR] * len(begun))
        while not killed or any(self.left(begun, share)):
            self.fleet.hear(_WAIT_SECONDS)
            now = sum(self.fleet.done)
            if noted is None and now >= note_at:
                path = files.last_file(self.server.folder)
                noted = _Noted(path=path, size=path.stat().st_size, at=now)
            is_due = noted is not None and now >= max(kill_at, noted.at + _COMMANDS[0])
            if is_due and not killed:
                killed = True
                self.kill(noted)
                self.check()
                self.go(clients, self.left(begun, share))
            self.in_passing()

    def left(self, begun: Sequence[int], share: int) -> list[int]:
        """Return how many operations each process has still to do."""
        return [max(0, before + share - done) for done, before in zip(self.fleet.done, begun, strict=True)]

    def open_client(self, client_id: str) -> None:
        """Add a client, with an empty bucket."""
        self.ledger.log.add_client(client_id)
        outcome = self.calls.surely(self.calls.buckets.open_client, client_id)
        assert outcome in (OpenOutcome.OPENED, OpenOutcome.ALREADY), outcome

    def go(self, clients: list[str], operations: list[int]) -> None:
        """Let the processes work."""
        count = len(self.fleet.pipes)
        for number, pipe in enumerate(self.fleet.pipes):
            owned = tuple(clients[number::count])
            leads = number == 0
            pipe.send(Go(clients=tuple(clients), owned=owned, hot=HOT, leads=leads, operations=operations[number]))

    def in_passing(self) -> None:
        """Do one thing of the fulfillment worker's: relay an outbox, or post."""
        number = self._passing.randrange(4 * SHARDS)
        if number < SHARDS:
            self.recovery.relay(number)
        elif number == SHARDS:
            self.recovery.post()

    def kill(self, noted: _Noted | None) -> None:
        """Kill the server amid its work, and have it come back, in one way or another."""
        kind, lost_bytes = next(self._kinds), self._kills.randint(*_BYTES)
        self.server.end(signal.SIGKILL)
        for number in range(SHARDS):
            self.fleet.trusted[number] = 0
        path = files.last_file(self.server.folder)
        size = path.stat().st_size
        match kind:
            case "without its last commands" if noted is not None and noted.path == path:
                self.counts["bytes cut off"] += files.cut_to(path, noted.size)
            case "without its last commands" | "without its last bytes":
                self.counts["bytes cut off"] += files.cut_to(path, max(0, size - lost_bytes))
            case "empty":
                files.remove(self.server.folder)
        self.server.start()
        self.restarted()
        lost = self.recovery.recover(range(SHARDS))
        self.counts[f"killed, and back {kind}"] += 1
        if kind.startswith("without"):
            self.counts["answered commands that truncations lost"] += lost

    def restarted(self) -> None:
        """Do what a test does to a server that has come back, and is not recovered."""

    def rested(self) -> None:
        """Do what a test does to what is about to be checked."""

    def check(self) -> AtRest:
        """Have everything come to rest, and check every law. Raises `Breach`."""
        recoveries = -1
        while recoveries < self.recovery.counts["recoveries"]:  # one for a posting may have found what is to be ended
            recoveries = self.recovery.counts["recoveries"]
            told = checks.together(self.fleet.ask(Rest(), AtRest))
            self.recovery.settle_down()
        self.rested()
        checks.check_log(self.ledger, told)
        buckets, surely = self.calls.buckets, self.calls.surely
        held = [hold for number in range(SHARDS) for hold in surely(buckets.held, None, number)]
        checks.check_holds(held, told)
        for client_id in self.ledger.log.epochs:
            after_ms, balance, before_ms = (
                surely(buckets.time_ms),
                surely(buckets.balance, client_id),
                surely(buckets.time_ms),
            )
            own = [hold for hold in held if hold.client_id == client_id]
            left = checks.check_client(self.ledger, told, balance, own, (after_ms, before_ms))
            self.counts["clients checked"] += 1
            self.counts[f"clients within {_NEAR} credits of their ceiling"] += left <= _NEAR
            self.counts["clients whose overdraft was lent"] += any(0 in hold.grants for hold in own)
        self.counts["quiescent points"] += 1
        return told
