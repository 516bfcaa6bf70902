"""What the fleet's owner and clients do: tasks that are sent, and grants that are bought."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from billing.core.shards import shard_of
from billing.credits.terms import ORDINARY, GrantTerms
from tests.simulation.broker import Message
from tests.simulation.log import Locked

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Credits of a unit of each SKU. The meters that count them are in `sync.population`.
PRICES: Final = {"search": 3, "page": 1, "token": 37}
#: The most that a grant has.
GRANT_MAX: Final = 1_500


class Workload:
    """Each of its methods is a step."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.tasks = 0

    def submit(self) -> None:
        """Publish a new task."""
        self.tasks += 1
        world, chance = self._world, self._world.chance
        quantity = chance.whole(1, 5)
        outcomes = chance.weighted(
            ((8, ("success",)), (2, ("failure",)), (2, ("retry", "success")), (1, ("retry", "retry", "failure")))
        )
        headers = {"billing_at": world.clock.ms, "billing_nonce": f"{chance.whole(0, 2**60):x}"}
        world.broker.send(
            Message(
                task_id=f"task-{self.tasks}",
                client_id=chance.one_of(world.client_ids),
                sku=chance.one_of(tuple(PRICES)),
                quantity=quantity,
                recorded=chance.weighted(((4, None), (2, chance.whole(0, quantity)), (1, chance.whole(quantity, 9)))),
                outcomes=outcomes,
                headers=headers,
                root_id=f"task-{self.tasks}",
            )
        )

    def correct(self) -> None:
        """Give back some of what a run was charged."""
        world = self._world
        if not world.observed.rows:
            return
        run_id = world.chance.one_of(world.observed.runs)
        row = world.observed.rows[run_id]
        left = row.credits + sum(one.credits for one in world.log.corrections.get(run_id, ()))
        if left > 0:
            with contextlib.suppress(Locked):
                made = world.log.correct(run_id, -world.chance.whole(1, left), world.clock.ms)
                world.observed.corrected(run_id, made.credits, made.grants)

    def grant(self) -> None:
        """Grant something, now and then."""
        world = self._world
        client_id = world.chance.one_of(world.client_ids)
        if shard_of(client_id, world.settings.shards) not in world.log.locked and world.chance.once_in(3):
            world.log.add_grant(client_id, world.chance.whole(1, GRANT_MAX), self._terms())

    def void(self) -> None:
        """Take a grant back."""
        grants = self._world.log.grants
        if grants:
            row = grants[self._world.chance.whole(1, len(grants))]
            if shard_of(row.client_id, self._world.settings.shards) not in self._world.log.locked:
                self._world.log.endings.void(row, self._world.clock.ms)

    def _terms(self) -> GrantTerms:
        """Draw terms: as a rule ordinary ones, or a priority, an end, or some SKUs alone."""
        chance = self._world.chance
        if not chance.once_in(3):
            return ORDINARY
        lasts = chance.weighted(
            ((2, 0), (3, chance.whole(60_000, 1_000_000)), (2, chance.whole(3_600_000, 200_000_000)))
        )
        return GrantTerms(
            priority=chance.one_of((10, 100, 200)),
            expires_ms=self._world.clock.ms + lasts if lasts else 0,
            skus=tuple(chance.one_of(((), (), ("search",), ("page", "token")))),
        )
