"""A law that breaks in a running fleet: told within the minute by the worker that is there, and mended again."""

from __future__ import annotations

import pytest
import redis

from billing import admin
from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.observability.doctor.laws import examine_laws
from billing.observability.laws import recording
from tests.fleet.harness import Fleet
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def fleet_settings() -> dict[str, str]:
    """Compare every bucket each second."""
    return {"BILLING_RECONCILE_PASS_SECONDS": "1"}


def violations(fleet: Fleet, law: str) -> int | None:
    """Return how a law stands in the table."""
    with fleet.runtime.engine.connect() as connection:
        found = recording.read(connection).get(law)
    return None if found is None else found.violations


def test_drift_is_in_the_table_told_once_and_gone_again(fleet: Fleet) -> None:
    """Given a number in a bucket that nobody wrote, then law, alert, log and doctor say so; put back, it is over."""
    fleet.client("acme", 100)
    keys = shard_keys(shard_of("acme", fleet.settings.shards))
    fleet.consumer("one")
    wait_until(lambda: violations(fleet, "L2 bucket") == 0, "the law is known to hold")
    (grant,) = fleet.balance("acme").grants
    with redis.Redis.from_url(fleet.settings.redis_url) as client:
        client.hincrby(keys.grants + "acme", f"g:{grant.grant_id}", 1)
        wait_until(lambda: violations(fleet, "L2 bucket"), "the law is known to be broken")
        failed = [found.seen for found in examine_laws(fleet.runtime) if found.verdict.value == "fail"]
        assert any(seen.startswith("L2 bucket: ") and "client acme" in seen for seen in failed)
        client.hincrby(keys.grants + "acme", f"g:{grant.grant_id}", -1)
    wait_until(lambda: violations(fleet, "L2 bucket") == 0, "the law holds again")
    told = [row.found for row in admin.alerts(fleet.settings) if row.kind == "law_broken"]
    assert len([found for found in told if found.startswith("L2 bucket: client acme: granted 101 ")]) == 1
    assert "billing: L2 bucket: " in (fleet.directory / "one.log").read_text()
