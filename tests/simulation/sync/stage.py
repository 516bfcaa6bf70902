"""Where the sync is played: the stand-in and its customers, the tasks of the sync by beat, and their mishaps.

Whoever makes usage drives it: `World` of this folder draws it from the seed, the simulated fleet has its tasks make it.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from tests.simulation.chance import BEGINNING_MS, Chance
from tests.simulation.sync import population
from tests.simulation.sync.account import Account
from tests.simulation.sync.chances import DAY, HOUR, MINUTE, Outage, Rates, happens, outages
from tests.simulation.sync.fleet import Fleet
from tests.simulation.sync.kernel import Kernel, Turns
from tests.simulation.sync.memory_log import MemoryLog
from tests.simulation.sync.memory_usage import MemoryUsage
from tests.simulation.sync.population import CREDITS_PER_UNIT, METER_OF, Client
from tests.simulation.sync.server import Server

#: What beat sends, and how often.
BEAT: Final = (
    ("plan", 4 * HOUR),
    ("close", 15 * MINUTE),
    ("push", 15 * MINUTE),
    ("confirm", 15 * MINUTE),
    ("errors", HOUR),
)
#: How wrong a machine's clock may be. More than five minutes ahead, Stripe refuses what it stamps: it lies in the
#: future. More than ten behind (`periods.CLOSING_MARGIN`), it sends for a period whose invoice is final.
BEHIND_SECONDS: Final = 480
AHEAD_SECONDS: Final = 240
#: How long it may take at most until all is settled after the last fault.
SETTLING_DAYS: Final = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How large a simulation is, and what the stand-in, and we, assume."""

    clients: int = 60
    days: int = 30
    knobs: dict[str, object] = dataclasses.field(default_factory=dict)
    late_usage: str = "carry_forward"
    grace_hours: int = 1
    habits: population.Habits = population.HABITS
    #: One customer in so many is deleted at some time; 0: none.
    deleted_once_in: int = 25
    #: Whether the sums of a deleted customer are refused: the stand-in shows them.
    refuses_sums: bool = False


class Stage:
    """All but usage, from one source of chance and by one clock."""

    def __init__(
        self,
        chance: Chance,
        kernel: Kernel,
        size: Size,
        *,
        rates: Rates | None = None,
        given: Sequence[Outage] | None = None,
    ) -> None:
        self.chance, self.kernel, self.size, self._given = chance, kernel, size, given
        self.rates = Rates() if rates is None else rates
        self.usage = MemoryUsage()
        self.usage.meters = {name: each for name, each in CREDITS_PER_UNIT.items() if each != 1}
        self.usage.meter_of = dict(METER_OF)
        self.log = MemoryLog(self.usage, lock=Turns(self.kernel))
        self.server = Server(self.kernel, self.chance, self.rates)
        self.server.state.turn({"invoice_grace_seconds": size.grace_hours * 3_600, **size.knobs})
        self.server.refuses_sums = size.refuses_sums
        self.account = Account(self.server)
        self.fleet = Fleet(self)
        self.clocks_were_wrong = bool(self.rates.clock)
        self.counts: collections.Counter[str] = collections.Counter()
        #: What was used, in credits, by client and meter: the auditor's own books.
        self.logged: collections.Counter[tuple[str, str]] = collections.Counter()
        self.clients = population.clients(
            self.chance, size.clients, size.days, habits=size.habits, deleted_once_in=size.deleted_once_in
        )
        self._numbers = itertools.count()
        self._actions: list[tuple[int, int, Callable[[], None]]] = []
        self.end_ms = BEGINNING_MS + size.days * DAY

    def open(self) -> None:
        """Begin: the account, the clients, the sink's outages, and beat."""
        self.account.open()
        for number, client in enumerate(self.clients):
            self.begin_client(number, client)
        self.server.outages = self._outages()
        self.server.is_open = True
        for name, every in BEAT:
            self.at(BEGINNING_MS + self.chance.whole(MINUTE, 10 * MINUTE), functools.partial(self._beat, name, every))
        self.at(BEGINNING_MS + DAY, self._a_day)

    def _outages(self) -> list[Outage]:
        if self._given is None:
            return outages(self.chance, self.rates, begin=BEGINNING_MS + DAY // 4, end=self.end_ms)
        return [
            dataclasses.replace(one, begin=BEGINNING_MS + one.begin, end=BEGINNING_MS + one.end) for one in self._given
        ]

    def settle(self, look: Callable[[], None] | None = None) -> None:
        """Let nothing go wrong any more, until all that can be settled is."""
        self.rates.calm()
        self.server.outages.clear()
        self.fleet.set_clocks_right()
        for day in range(1, SETTLING_DAYS + 1):
            self.live_until(self.end_ms + day * DAY)
            if look is not None:
                look()
            if day > 1 and self.fleet.is_settled():
                break
        self.live_until(self.kernel.ms + HOUR)

    def at(self, ms: int, action: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._actions, (ms, next(self._numbers), action))

    def live_until(self, ms: int) -> None:
        """Let everything happen that is due before a time, and go there."""
        while self._actions and self._actions[0][0] < ms:
            at, _, action = heapq.heappop(self._actions)
            self.kernel.run_until(at)
            action()
        self.kernel.run_until(ms)

    @property
    def day(self) -> int:
        """How many days have passed."""
        return (self.kernel.ms - BEGINNING_MS) // DAY

    # Clients.

    def begin_client(self, number: int, client: Client) -> None:
        """Have a client come, be linked, and perhaps go; what it uses is up to those who come after."""
        del number
        self.at(client.begins_ms, lambda: self._subscribe(client))
        self.at(client.linked_ms, lambda: self.usage.link(client.client_id, client.customer_id))
        if client.cancels_ms is not None:
            self.at(client.cancels_ms, lambda: self._cancel(client))
        if client.deleted_ms is not None:
            self.at(client.deleted_ms, lambda: self._delete(client))

    def _subscribe(self, client: Client) -> None:
        client.customer_id = self.account.subscribe(client.client_id, client.anchor_after_ms // 1_000)

    def _cancel(self, client: Client) -> None:
        if not client.is_deleted:
            self.counts["cancelled"] += 1
            self.account.cancel_at_period_end(client.customer_id)

    def _delete(self, client: Client) -> None:
        self.counts["deleted"] += 1
        client.is_deleted = True
        self.account.delete(client.customer_id)

    # The beat.

    def _beat(self, name: str, every: int) -> None:
        begins = self.kernel.ms
        self.at(begins + every, lambda: self._beat(name, every))
        if begins < self.fleet.silent_until_ms:
            return
        self.fleet.begin(name, at_ms=begins)
        if happens(self.chance, self.rates.twin):
            self.counts["twins"] += 1
            self.fleet.begin(name, at_ms=begins + self.chance.whole(0, 30_000))

    def _a_day(self) -> None:
        """Let the beat be silent for a day, or a machine's clock be set."""
        self.at(self.kernel.ms + DAY, self._a_day)
        if happens(self.chance, self.rates.silent_day):
            self.counts["silent days"] += 1
            self.fleet.silent_until_ms = self.kernel.ms + DAY
        if self.rates.clock:
            self.fleet.set_a_clock(timedelta(seconds=self.chance.whole(-BEHIND_SECONDS, AHEAD_SECONDS)))
