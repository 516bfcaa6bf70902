"""`make operations`: a million random operations on buckets and their twin, by many processes on one server.

Each process walks in segments: some new clients, in shards that no other process touches, are compared with their twin
after each operation, replies and state. Between these operations all processes work on one hot client, which is
compared at the end, in the server's own order (`hot.py`). A difference names the seed of its segment, and
`make operations SEED=<it> OPERATIONS=2000 PROCESSES=1` walks that segment again. `ARGS=--faults` is another run,
without a twin: `faulty/running.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import multiprocessing
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from billing.core.shards import shard_of
from tests.contract.differential import SENT_AGAIN, Difference, Pair
from tests.contract.faulty.running import run as faulty
from tests.contract.hot import Done, HotClient, check
from tests.contract.operations import Operation, Operations
from tests.contract.servers import BINARIES, Server, started

#: Shard 0 is the hot client's; the others belong to groups, and a segment's seed says which group's it uses.
SHARDS: Final = 65
GROUPS: Final = 8
SEGMENT: Final = 2_000
#: New clients of a segment: a million operations are on 10,000.
CLIENTS: Final = 20
#: Of an answer in so many it is as if it were lost: the call is sent again.
LOST_EVERY: Final = 3
#: After so many operations a process does one on the hot client.
HOT_EVERY: Final = 5
#: A process tells how far it is after so many segments.
TOLD_EVERY: Final = 25
HOT: Final = next(name for name in map("hot-{}".format, itertools.count()) if shard_of(name, SHARDS) == 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What one process is to do: so many operations that are compared step by step, and some more on the hot client."""

    port: int
    seed: int
    process: int
    operations: int
    lost_answers: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Walked:
    """What it did; `difference` is the end of a walk that found one."""

    compared: int
    done: Counter[str]
    hot: Sequence[Done]
    difference: str = ""


def segment_seed(seed: int, process: int, number: int) -> int:
    """Return the seed of a segment: its lowest bits are the group of shards. The very first is the seed itself."""
    if not process and not number:
        return seed
    digest = hashlib.sha256(f"{seed} {process} {number}".encode()).digest()
    return int.from_bytes(digest[:8]) // GROUPS * GROUPS + (seed + process) % GROUPS


def clients_of(seed: int) -> list[str]:
    """Return the clients of a segment, all in the shards of its group."""
    own = set(range(1 + seed % GROUPS, SHARDS, GROUPS))
    names = (f"{seed:x}-{number}" for number in itertools.count())
    return list(itertools.islice((name for name in names if shard_of(name, SHARDS) in own), CLIENTS))


def walk(task: Task) -> Walked:
    """Walk segment after segment, with the hot client in between."""
    server = Server("", "", port=task.port, shards=SHARDS)
    hot = HotClient(server, HOT, segment_seed(task.seed, task.process, -1), task.process)
    pair = Pair(server, (), shards=SHARDS, verified=False)
    compared = 0
    for number, first in enumerate(range(0, task.operations, SEGMENT)):
        seed = segment_seed(task.seed, task.process, number)
        clients = clients_of(seed)
        operations = iter(Operations(seed, clients, shards=SHARDS))
        walked = itertools.islice(operations, min(SEGMENT, task.operations - first))
        for step, operation in enumerate(itertools.chain(walked, ending(pair, clients))):
            again = task.lost_answers and step % LOST_EVERY == 0 and operation.verb in SENT_AGAIN
            try:
                (pair.step_again if again else pair.step)(operation)
            except AssertionError as error:
                difference = f"seed {seed}, step {step}: {operation}\n{error}"
                return Walked(compared=compared, done=pair.done, hot=hot.done, difference=difference)
            compared += 1
            if step % HOT_EVERY == 0:
                hot.step()
        if number % TOLD_EVERY == TOLD_EVERY - 1:
            print(f"  process {task.process}: {compared} operations, all equal", flush=True)  # noqa: T201
    return Walked(compared=compared, done=pair.done, hot=hot.done)


def ending(pair: Pair, clients: Sequence[str]) -> Iterator[Operation]:
    """End what is held at the end of a segment, and empty the outboxes; the clients stay."""
    for client_id in clients:
        shard = shard_of(client_id, SHARDS)
        yield Operation("verify", client_id, (shard,), {"expected": None})
        for hold in pair.twin.held(client_id):
            yield Operation("end_lease", client_id, (client_id, hold.run_id))
            yield Operation("expire", client_id, (client_id, hold.run_id))
        yield Operation("forget_oldest", client_id, (shard, 1_000))


def run(seed: int, operations: int, processes: int, kind: str, *, lost_answers: bool = False) -> bool:
    """Start a server, walk, and print what was compared; return whether all was equal."""
    print(f"seed {seed}, {operations} operations, {processes} processes, {kind}", flush=True)  # noqa: T201
    binary = BINARIES[kind]()
    if binary is None:
        print(f"{kind}: is not installed")  # noqa: T201
        return False
    with started(binary) as server:
        server.shards = SHARDS
        server.buckets()
        shares = [operations // processes + (process < operations % processes) for process in range(processes)]
        tasks = [
            Task(port=server.port, seed=seed, process=process, operations=share, lost_answers=lost_answers)
            for process, share in enumerate(shares)
        ]
        walked: list[Walked] = []
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for one in pool.imap_unordered(walk, tasks):
                walked.append(one)
                print(f"  {one.compared} operations of one process: {one.difference or 'equal'}", flush=True)  # noqa: T201
        done: Counter[str] = sum((one.done for one in walked), Counter())
        for name, count in sorted(done.items()):
            print(f"  {count:>9}  {name}")  # noqa: T201
        differences = [one.difference for one in walked if one.difference]
        try:
            hot = check(server, HOT, [one for part in walked for one in part.hot])
        except Difference as error:
            hot = 0
            differences.append(f"hot client, seed {seed}: {error}")
    compared = sum(one.compared for one in walked)
    print(f"{compared} operations compared step by step, {hot} on one client in the server's order")  # noqa: T201
    for difference in differences:
        print(difference)  # noqa: T201
    return not differences


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments and walk; 1 where something was not equal."""
    parser = argparse.ArgumentParser(prog="make operations", description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, help="64 bits; a random one unless told")
    parser.add_argument("--processes", type=int, default=2, choices=range(1, GROUPS + 1))
    parser.add_argument("--kind", choices=list(BINARIES), default="valkey")
    parser.add_argument("--lost-answers", action="store_true", help="send each third call twice")
    parser.add_argument("--faults", action="store_true", help="kill the server, cut connections, lose what it wrote")
    options = parser.parse_args(arguments)
    seed = secrets.randbits(64) if options.seed is None else options.seed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # its server ends with it
    if options.faults:
        return 0 if faulty(seed, options.operations, options.processes, options.kind) else 1
    walked = run(seed, options.operations, options.processes, options.kind, lost_answers=options.lost_answers)
    return 0 if walked else 1


if __name__ == "__main__":
    sys.exit(main())
