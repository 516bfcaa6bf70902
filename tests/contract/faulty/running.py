"""`make operations ARGS=--faults`: a million random operations while their server is killed and loses what it was told.

Processes work on one hot client and on 10,000 others, each with billing's own client, through a connection that is cut
by chance, with a clock that jumps; calls come twice; the server is SIGKILLed amid its work, and comes back as it was,
without the end of its append-only file, or empty. After each recovery, and after each round, L1 to L4 and L6 are
checked over all of it, and that nothing is held but by a run that a process knows of; no lease ends by itself (L5), and
no rebuilder dies. What each process asks comes from its seed and its answers, and after how many operations of a round
the server is to die is of the seed; how far each process has come when it does is not: a seed is no interleaving.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from tests.contract.faulty.conductor import CUT_EVERY, KINDS, Conductor
from tests.contract.faulty.door import Cut
from tests.contract.faulty.values import Breach
from tests.contract.servers import BINARIES, started

ROUND: Final = 20_000
#: As a server of billing's runs.
OPTIONS: Final = ("--appendfsync", "everysec")
#: After so many rounds it is said how far it has come.
_TOLD_EVERY: Final = 5
#: What must have happened, or the run has proved nothing.
ASKED_FOR: Final = (
    *(f"killed, and back {kind}" for kind in KINDS),
    *(cut.value for cut in Cut),
    "connections refused",
    "answered commands that truncations lost",
    "refused while recovering",
    "duplicated commands",
    "clock jumps",
    "direct events",
    "events published twice",
    "events relayed from the outbox",
    "post POSTED",
)


def missing(counts: Mapping[str, int]) -> list[str]:
    """Return the faults that were asked for and never happened."""
    return [name for name in ASKED_FOR if not counts.get(name)]


def run(seed: int, operations: int, processes: int, kind: str, *, cut_every: int = CUT_EVERY) -> bool:
    """Start a server, work, and print what happened; return whether every law held and every fault came."""
    print(f"seed {seed}, {operations} operations with faults, {processes} processes, {kind}", flush=True)  # noqa: T201
    binary = BINARIES[kind]()
    if binary is None:
        print(f"{kind}: is not installed")  # noqa: T201
        return False
    per_round = min(ROUND, max(1, operations // len(KINDS)))
    rounds = max(1, operations // per_round)
    with started(binary, *OPTIONS) as server:
        conductor = Conductor(server, seed, processes, cut_every=cut_every)
        try:
            conductor.begin()
            for number in range(1, rounds + 1):
                conductor.round(per_round)
                if number % _TOLD_EVERY == 0:
                    print(f"  {number} of {rounds} rounds: {conductor.so_far()}", flush=True)  # noqa: T201
            counts = conductor.end()
        except Breach as breach:
            numbers = f"SEED={seed} OPERATIONS={operations} PROCESSES={processes}"
            print(f"{breach}\nmake operations {numbers} ARGS='--faults --kind {kind}'")  # noqa: T201
            return False
        finally:
            conductor.close()
    _print(counts)
    for name in missing(counts):
        print(f"never happened: {name}")  # noqa: T201
    return not missing(counts)


def _print(counts: Counter[str]) -> None:
    for name, count in sorted(counts.items()):
        print(f"  {count:>9}  {name}")  # noqa: T201
    points, clients = counts["quiescent points"], counts["clients checked"]
    print(f"L1 to L4, L6 and L5's holds were right at {points} quiescent points, over {clients} buckets")  # noqa: T201
