"""What Redis keeps of calls to Stripe is a key that PostgreSQL can be asked for and a time, or accuses nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from billing.core.errors import Unreachable
from billing.sinks.sync.restored.told import CALLS_MAX, Told
from tests.fuzz.laws import hold
from tests.fuzz.target import Target


class Answering:
    """A Redis that has the members and scores of bytes, by lines: flat, and as RESP3 has them."""

    def __init__(self, pairs: list[tuple[bytes, bytes | float]], *, flat: bool) -> None:
        self._pairs, self._flat = pairs, flat
        self.removed: list[bytes] = []

    def execute_command(self, *command: Any) -> Any:
        """Answer ZRANGE; keep what ZREM removes."""
        if command[0] == "ZREM":
            self.removed += command[2:]
            return len(command) - 2
        return [part for pair in self._pairs for part in pair] if self._flat else [list(pair) for pair in self._pairs]


def check(data: bytes) -> None:
    """Read members and scores, which are parted by lines: a score that Redis cannot have is no answer of its."""
    lines = data.split(b"\n")
    # Members of a set are not there twice.
    scores: dict[bytes, bytes | float] = dict(zip(lines[::2], lines[1::2], strict=False))
    for flat in (True, False):
        pairs: list[tuple[bytes, bytes | float]] = []
        for member, score in scores.items():
            with suppress(ValueError):
                pairs.append((member, score if flat else float(score)))
        client = Answering(pairs, flat=flat)
        with suppress(Unreachable):
            _check_calls(Told(client, "redis://h:1/0", "stand-in"), client, pairs)  # type: ignore[arg-type]


def _check_calls(told: Told, client: Answering, pairs: list[tuple[bytes, bytes | float]]) -> None:
    calls = told.calls()
    hold(that=len(calls) <= CALLS_MAX, but=len(calls))
    hold(that=not any("\0" in key for key in calls), but=calls)
    kept = [member for member, _ in pairs if member not in set(client.removed)]
    hold(that=kept == [key.encode() for key in calls], but=(kept, calls))


def seeds() -> Iterator[bytes]:
    """Yield a few calls, more than are kept, and what others wrote."""
    yield b"i1-0a#1\n1795305600.25\ni1-0b#2\n1795305601"
    yield b"\n".join(b"i1-%d#1\n%d" % (number, number) for number in range(CALLS_MAX + 9))
    yield b"i1-0a#1\ninf\ni1-0b#1\n-inf\ni1-0c#1\n1e300\n\xff\n5\n\0\n6"
    yield b""


TARGET = Target(check=check, seeds=seeds, words=(b"\ninf", b"\n-inf", b"\n1e20", b"#1\n"), length_max=16_384)
