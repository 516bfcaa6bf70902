"""What the report to Stripe costs: a plan, the push of an increment, its confirmation; statements and requests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from billing.connections import postgres
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.calling.pusher import Pusher
from billing.sinks.sync.postgres.log import PostgresLog
from tests.cost.place import Place
from tests.cost.wires import Counts
from tests.integration.syncing import NOON, Syncing, TestClock

MANY = 10


def measure(place: Place) -> dict[str, Counts]:
    """Plan, push and confirm for one client, then for ten, by one thread: the difference is what nine more cost."""
    settings = place.settings(stripe_periods="calendar")
    with SandboxControl(place.stack.endpoints.stripe_sandbox_url) as control:
        control.set_time(int(NOON.timestamp()))
    with Gateway(settings) as gateway:
        gateway.setup()
    engine = postgres.engine(settings)
    syncing = Syncing(engine=engine, settings=settings, clock=TestClock())
    found: dict[str, Counts] = {}

    def counted(name: str, work: Callable[[], object]) -> None:
        counts = place.wires.counted(work, "sql", "stripe")
        found[name] = {what: count for what, count in counts.items() if "bytes" not in what}

    def pusher() -> Pusher:
        return Pusher(
            *(PostgresLog(engine), syncing.clock, syncing.gateway),
            books=KeyKind.STAND_IN.value,
            threads=1,
            between=lambda low, _: low,
        )

    try:
        syncing.customer("warm")
        for count in (1, MANY):
            for number in range(count):
                syncing.planned(f"warm-{count}-{number}", 1)
            syncing.pusher().push(most=100)
        _pass(place, syncing)
        syncing.confirmer().confirm()
        for count in (1, MANY):
            for number in range(count):
                syncing.use(_linked(syncing, count, number), 7)
            counted(f"plan.{count}", lambda: syncing.planner().plan())
            counted(f"push.{count}", lambda: pusher().push(most=100))
            _pass(place, syncing)
            counted(f"confirm.{count}", lambda: syncing.confirmer().confirm())
        states = syncing.states()
        assert states.keys() == {"confirmed"}, states
    finally:
        engine.dispose()
    return found


def _pass(place: Place, syncing: Syncing) -> None:
    """Let two hours pass, here and at the stand-in: what was sent shows in its sums."""
    syncing.clock.advance(timedelta(hours=2))
    with SandboxControl(place.stack.endpoints.stripe_sandbox_url) as control:
        control.set_time(int(syncing.clock.now().timestamp()))


def _linked(syncing: Syncing, count: int, number: int) -> str:
    """Add a linked client."""
    client_id = f"client-{count}-{number}"
    syncing.customer(client_id)
    return client_id
