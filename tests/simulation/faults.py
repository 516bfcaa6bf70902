"""What goes wrong on the way to a server: a call that does not arrive, an answer that does not, a caller that dies.

A `Wire` stands between a process and a server. Each call through it is an effect, and before and after each effect
the process may die or the connection break; so a crash comes between any two effects of the project's own code.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from billing.core.errors import BillingError, Unreachable
from tests.simulation.chance import Chance


class Killed(BaseException):
    """The process that makes this call is no more. No `except Exception` of the project may live on."""


#: Answered without a server.
_ASKS_NOBODY: Final = frozenset({"node_of"})
#: Verbs of many that return the failure of each: entries that were not removed, an error in each one's place.
_TELLS: Final[dict[str, Callable[[Sequence[Any], Unreachable], list[Any]]]] = {
    "forget_reached": lambda entries, _: list(entries),
    "renew_each": lambda items, error: [error] * len(items),
}
#: The longest that calls take which come late.
_DELAYS_MS: Final = ((6, 5_000), (3, 60_000), (1, 300_000))


@dataclass(kw_only=True)
class Rates:
    """How often each fault comes: once in so many calls; 0 is never."""

    unreachable: int = 60
    lost_answer: int = 60
    late: int = 120
    killed: int = 150
    slow_disk: int = 15
    #: What went wrong, by kind.
    tally: collections.Counter[str] = field(default_factory=collections.Counter)

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.unreachable = self.lost_answer = self.late = self.killed = self.slow_disk = 0


class Late:
    """Calls that reach their server after their callers gave up and went on. A restart ends what was under way."""

    def __init__(self, chance: Chance, elapsed_ms: Callable[[], int], connection: Callable[[], object]) -> None:
        """Begin with nothing. `connection`: another one once the server has ended all; None while it is away."""
        self._chance, self._elapsed_ms, self._connection = chance, elapsed_ms, connection
        self._calls: list[tuple[int, object, Callable[[], object]]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def send(self, call: Callable[[], object]) -> None:
        """Let a call arrive later: within seconds as a rule, now and then past a lease."""
        delay_ms = self._chance.weighted(_DELAYS_MS)
        due_ms = self._elapsed_ms() + self._chance.whole(delay_ms // 10, delay_ms)
        self._calls.append((due_ms, self._connection(), call))

    def arrive(self) -> None:
        """Let those arrive whose time has come; nobody hears what they are answered."""
        now_ms, waiting = self._elapsed_ms(), self._calls
        self._calls = [call for call in waiting if call[0] > now_ms]
        for due_ms, connection, call in sorted(waiting, key=lambda found: found[0]):
            if due_ms <= now_ms and connection == self._connection():
                with contextlib.suppress(BillingError):
                    call()


class Wire:
    """A server as one process sees it; `can_die` is False for callers whose death the world arranges itself.

    `late`: where calls go that arrive later; without it none does.
    """

    def __init__(
        self,
        server: object,
        chance: Chance,
        rates: Rates,
        *,
        is_up: Callable[[], bool] = lambda: True,
        can_die: bool = True,
        late: Late | None = None,
    ) -> None:
        #: How often a verb has raised.
        self.failures: collections.Counter[str] = collections.Counter()
        self._late = late
        self._server, self._chance, self._rates, self._is_up, self._can_die = server, chance, rates, is_up, can_die

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the server; a method with its faults."""
        found = getattr(self._server, name)
        if not callable(found) or name in _ASKS_NOBODY:
            return found
        return functools.partial(self._told if name in _TELLS else self._call, name, found)

    def _told(self, name: str, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        """Call a verb that raises nothing, and returns what failed."""
        try:
            return self._call(name, function, items)
        except Unreachable as error:
            return _TELLS[name](items, error)

    def _call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return self._try(name, function, *args, **kwargs)
        except Unreachable:
            self.failures[name] += 1
            raise

    def _try(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._perhaps_die()
        if not self._is_up():
            raise Unreachable(f"{name}: the server does not answer")
        if self._happens(self._rates.unreachable):
            self._rates.tally["calls that did not arrive"] += 1
            raise Unreachable(f"{name}: the server does not answer")
        if self._late is not None and self._happens(self._rates.late):
            self._rates.tally["calls that arrived after their callers went on"] += 1
            self._late.send(functools.partial(function, *args, **kwargs))
            raise Unreachable(f"{name}: the server does not answer in time")
        answer = function(*args, **kwargs)
        self._perhaps_die()
        if self._happens(self._rates.lost_answer):
            self._rates.tally["answers lost"] += 1
            raise Unreachable(f"{name}: the server's answer was lost")
        return answer

    def _perhaps_die(self) -> None:
        if self._can_die and self._happens(self._rates.killed):
            self._rates.tally["deaths between two effects"] += 1
            raise Killed

    def _happens(self, once_in: int) -> bool:
        return once_in > 0 and self._chance.once_in(once_in)
