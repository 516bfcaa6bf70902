"""What the tests of top-ups share: clients with rules, and the worker that asks the shop for what they lack."""

from __future__ import annotations

from typing import Any

from billing import admin
from billing.core.settings import Settings
from billing.credits.values import ReserveOutcome
from billing.top_ups.asking import TopUps
from tests.integration.alerting import Scene
from tests.integration.topping_up import Shop
from tests.waiting import wait_until

HOUR = 3_600


class Market(Scene):
    """A scene whose clients top up, and the worker that asks for it."""

    def __init__(self, settings: Settings, shop: Shop) -> None:
        super().__init__(settings)
        self.shop = shop
        self.top_ups = TopUps(self.runtime)

    def topping_up(self, client_id: str, credits_: int = 500, *, left: int = 10, **rule: Any) -> None:
        """Make a client with a rule that has 100 credits, and spend them but for some."""
        self.client(client_id)
        rule.setdefault("below_percent", 20)
        admin.set_top_up(self.settings, client_id, credits_, **rule)
        if left < 100:
            assert self.take(client_id, 100 - left) is ReserveOutcome.HELD

    def work(self, steps: int = 3) -> None:
        """Step as a worker does, and wait for the answers."""
        for _ in range(steps):
            self.top_ups.step()
            self.top_ups.finish()

    def requests(self, client_id: str = "acme") -> list[tuple[str, str]]:
        """Return state and shortfall of each request of a client, the oldest first."""
        rows = admin.top_up(self.settings, client_id).requests
        return [(row.state, row.shortfall) for row in reversed(rows)]

    def available(self, client_id: str = "acme") -> int:
        """Return what a client has."""
        return admin.balance(self.settings, client_id).available

    def step_until_granted(self, client_id: str) -> None:
        """Step as the loop does, which never waits for the hook, until a client's request is granted."""

        def granted() -> bool:
            self.top_ups.step()
            return self.requests(client_id)[-1:] == [("granted", "low")]

        wait_until(granted, f"{client_id} is topped up", timeout_seconds=120)

    def later(self, seconds: float) -> None:
        """Let time go by."""
        self.clock.move(seconds)
