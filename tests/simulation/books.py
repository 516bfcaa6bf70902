"""What becomes of the fleet's usage: the stage of the simulated sync, whose rows are those that the fleet's log wrote.

While the fleet works, beat's tasks of the sync come between its steps. While it rests, hours pass: increments are
planned, sent, doubted and confirmed, periods end, customers go.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from tests.simulation.sync.auditor import Auditor
from tests.simulation.sync.chances import DAY, HOUR, Rates
from tests.simulation.sync.kernel import Kernel
from tests.simulation.sync.stage import Size, Stage

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How long the fleet rests.
_RESTS: Final = ((4, (HOUR, 6 * HOUR)), (3, (6 * HOUR, 20 * HOUR)), (1, (20 * HOUR, 60 * HOUR)))
#: About how long a rest is, in ms: a world of so many rests has clients with plans for so many days.
_REST_MS: Final = 12 * HOUR


class Books(Stage):
    """The stand-in, the increments, and the sync's tasks, beside a fleet."""

    def __init__(self, world: World, kernel: Kernel, *, clients: int, rests: int) -> None:
        days = max(4, rests * _REST_MS // DAY)
        size = Size(clients=clients, days=days, deleted_once_in=3 * clients)
        # There are few increments: of their calls and tasks more go wrong than in a simulation of the sync alone.
        super().__init__(world.chance, kernel, size, rates=Rates(call=5, dropped=60, killed=150))
        self.auditor = Auditor(self)
        self.open()

    def rest(self) -> None:
        """Let hours pass in which the fleet does nothing, and check what holds at any time."""
        least, most = self.chance.weighted(_RESTS)
        self.live_until(self.kernel.ms + self.chance.whole(least, most))
        self.auditor.check()

    def close(self) -> None:
        """Let nothing go wrong any more until all is settled, and check where each unit is."""
        # The end of the fleet is the end of usage, but whoever is linked later is billed, too.
        self.live_until(max(self.kernel.ms, *(client.linked_ms + 1 for client in self.clients)))
        self.end_ms = self.kernel.ms
        self.settle()
        self.auditor.check_end()

    def faults(self) -> collections.Counter[str]:
        """Return what went wrong here, by kind."""
        found = collections.Counter(
            {
                name.replace("fault: ", "Stripe: "): number
                for name, number in self.server.counts.items()
                if name.startswith("fault: ")
            }
        )
        found["sync tasks killed"] = self.fleet.mortal.killed
        found["sync tasks run twice at once"] = self.counts["twins"]
        found["days without beat"] = self.counts["silent days"]
        return found
