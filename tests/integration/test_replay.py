"""`billing replay` on a real fleet: each row is billed once, however often the replay is interrupted and started."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery.backends.base import DisabledBackend

from billing import admin
from billing.core.clock import SystemClock
from billing.core.errors import Conflict, Fatal, InvalidValue
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.workload.charges import count_of
from billing.workload.identity import Identity
from billing.workload.replay import wait_for_worker
from tests.fleet.harness import Fleet
from tests.fleet.tasks import SKU
from tests.integration.replaying import charged, command, endings, replay
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: Two rows of `acme` are no rows, and `tight` can pay for three of its five.
SMALL = """client,sku,quantity
acme,page,2
tight,page,300
acme,page,1.5
acme,call,7
tight,page,300
free,page,0
tight,page,300
tight,page,300
no client,page,1
tight,page,300
acme,page,4
"""


@pytest.fixture
def fleet_settings(stripe_sandbox: SandboxControl) -> dict[str, str]:
    """Point the fleet at the stand-in."""
    return {"BILLING_STRIPE_SANDBOX_URL": stripe_sandbox.url, "BILLING_STRIPE_PERIODS": "calendar"}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Write a small file."""
    path = tmp_path / "small.csv"
    path.write_text(SMALL)
    return path


def running(fleet: Fleet) -> Fleet:
    """Start a consumer and a worker of two processes."""
    fleet.consumer(wait=False)
    fleet.worker()
    return fleet


def test_given_a_file_when_it_is_replayed_again_and_again_then_each_row_is_charged_once(
    fleet: Fleet, small: Path
) -> None:
    """L1, L3, L8: exact counts in the account, the buckets, the log and at Stripe; nothing changes the second time."""
    running(fleet)
    first = replay(fleet, small)

    account = first.account
    assert (account.lines, account.charged, account.refused, account.malformed, account.failed) == (11, 7, 2, 2, 0)
    assert [entry.line for entry in account.first_malformed] == [4, 10]
    assert first.ok, first.ended.findings
    assert charged(fleet) == {"acme": 3, "tight": 3, "free": 1}
    stood = {standing.name: standing for standing in first.ended.standings}
    assert [(s.spent, s.available, s.succeeded, s.rejected, s.stripe_units) for s in stood.values()] == [
        (13, 987, 3, 0, 13),
        (0, 1_000, 1, 0, 0),
        (900, 100, 3, 2, 900),
    ]
    assert endings(fleet) == {"SUCCESS": 7, "FAILURE": 2}

    # Its results are stored: everything is taken from them.
    second = replay(fleet, small)
    assert (second.account.known, second.account.sentence()) == (9, account.sentence())
    assert second.ended == first.ended

    # The results are gone: the log knows what was charged, and what was refused is tried again.
    backend: Any = fleet.app.backend
    backend.client.flushdb()
    third = replay(fleet, small)
    assert (third.account.known, third.account.sentence()) == (7, account.sentence())
    assert third.ok
    assert charged(fleet) == {"acme": 3, "tight": 3, "free": 1}
    assert endings(fleet) == {"FAILURE": 2}
    assert third.ended.standings == first.ended.standings


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_given_a_replay_that_is_interrupted_when_it_is_started_again_then_nothing_is_billed_twice(
    fleet: Fleet, tmp_path: Path, number: signal.Signals
) -> None:
    """L1, L3: rows, credits and task endings are exact, with more rows than were in flight."""
    rows, grant = 2_800, 800
    file = tmp_path / "many.csv"
    # Every fourth row is of a client whose 5-credit rows outlast its grant: 160 of its 700.
    lines = [f"{'short,call,5' if row % 4 == 0 else f'client-{row % 4},page,1'}\n" for row in range(rows)]
    file.write_text("client,sku,quantity\n" + "".join(lines))
    expected = Counter({f"client-{n}": rows // 4 for n in (1, 2, 3)}) + Counter(short=grant // 5)
    running(fleet)

    with command(fleet, str(file), "--grant", str(grant)) as first:
        # By their results: the log has them later, and on a busy machine all at once.
        wait_until(
            lambda: first.poll() is not None or sum(endings(fleet).values()) >= 60,
            "some rows are charged",
            timeout_seconds=120,
        )
        first.send_signal(number)
        shown = first.communicate()[0]
    assert charged(fleet).total() < expected.total()
    if number == signal.SIGINT:
        assert first.returncode == 130, shown
        assert "the same command goes on where it ended, and bills nothing twice" in shown

    with command(fleet, str(file), "--grant", str(grant)) as second:
        shown = second.communicate()[0]
    assert second.returncode == 0, shown
    assert "2,800 rows = 2,260 charged + 540 refused for credits + 0 malformed" in shown
    assert "all laws hold" in shown
    assert charged(fleet) == expected
    assert {name: fleet.balance(name).spent for name in expected} == {"short": 800} | {
        f"client-{n}": 700 for n in (1, 2, 3)
    }
    assert endings(fleet) == {"SUCCESS": 2_260, "FAILURE": 540}


def test_given_prices_when_a_replay_says_others_then_it_is_refused_before_anything_is_made(
    fleet: Fleet, small: Path
) -> None:
    """The same value is left alone, another is refused in one line; so are a SKU not in the file, another grant."""
    admin.set_price(fleet.settings, "page", 2, "page")
    with pytest.raises(InvalidValue, match=r"--price: 'page=3': costs 2 credits already"):
        replay(fleet, small, price=("3",))
    with pytest.raises(InvalidValue, match=r"--price: 'other': is no SKU of the file"):
        replay(fleet, small, price=("other=3",))
    with psycopg.connect(fleet.settings.database_url) as connection:
        for table in ("client", "recorded_workload"):
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)

    running(fleet)
    outcome = replay(fleet, small, price=("page=2", "call=3"))
    assert outcome.ok
    assert {price.sku: price.credits_per_unit for price in admin.prices(fleet.settings)}["call"] == 3
    assert {name: fleet.balance(name).spent for name in ("acme", "free", "tight")} == {
        "acme": 2 * 2 + 7 * 3 + 4 * 2,
        "free": 0,
        "tight": 600,
    }
    with pytest.raises(Conflict, match="was used for a grant of 1000 credits"):
        replay(fleet, small, grant=2_000)


def test_given_a_price_that_changed_between_two_starts_then_the_books_still_hold(fleet: Fleet, small: Path) -> None:
    """L3: what was charged is what its own price version makes of it, whatever a unit costs now."""
    running(fleet)
    first = replay(fleet, small)
    admin.set_price(fleet.settings, "page", 2, "unit")
    second = replay(fleet, small)
    assert second.ok, second.ended.findings
    assert (second.account.known, second.ended.standings) == (9, first.ended.standings)


def test_given_another_task_of_the_same_millisecond_when_runs_are_counted_then_it_is_none_of_them(
    fleet: Fleet, small: Path
) -> None:
    running(fleet)
    replay(fleet, small)
    with psycopg.connect(fleet.settings.database_url) as connection:
        query = b"SELECT digest, started_at FROM recorded_workload"
        ((digest, started_at),) = connection.execute(query).fetchall()
        identity = Identity(digest=digest, started_at=started_at)
        admin.set_price(fleet.settings, SKU, 1, "unit")
        sent = fleet.app.tasks["works"].apply_async(("acme",), headers=identity.headers)
        sent.get(timeout=120)
        (other,) = [row for row in fleet.wait_for_rows(4, "acme") if row.correlation_id == sent.id]
        assert other.sku == SKU
        assert count_of(connection, identity) == 7


def test_given_a_stripe_that_refuses_the_key_when_the_work_is_done_then_the_books_are_still_shown(
    fleet: Fleet, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L10: what was charged is not hidden by what Stripe says of a key."""
    running(fleet)

    def refused(_settings: object, **_: object) -> None:
        raise Fatal("Stripe: 'api.stripe.com': the key is refused")

    monkeypatch.setattr(admin, "stripe_setup", refused)
    outcome = replay(fleet, small)
    assert outcome.account.complete
    assert {standing.name: standing.spent for standing in outcome.ended.standings} == {
        "acme": 13,
        "free": 0,
        "tight": 900,
    }


def test_given_results_that_cannot_be_asked_for_when_a_replay_starts_then_nothing_is_made(
    fleet: Fleet, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(fleet.app), "backend", DisabledBackend(app=fleet.app))
    with pytest.raises(Fatal, match="must be one that answers for many tasks at once"):
        replay(fleet, small)
    with psycopg.connect(fleet.settings.database_url) as connection:
        for table in ("client", "recorded_workload", "credit_grant"):
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)


def test_given_no_worker_when_one_is_waited_for_then_one_line_says_so(fleet: Fleet) -> None:
    with pytest.raises(Fatal, match=r"no worker of queue 'tasks' answers: start one"):
        wait_for_worker(fleet.app, SystemClock(), seconds=0.0)


def test_given_a_row_that_was_changed_on_its_way_when_it_runs_then_it_is_not_charged(fleet: Fleet) -> None:
    """The body verifies the row's own checksum; a row that is not the one that was sent fails."""
    running(fleet)
    fleet.client("acme", 100)
    sent = fleet.app.tasks["billing.workload.row"].apply_async(("acme", "unit", 2, 5, None, "0" * 16))
    with pytest.raises(Exception, match="did not come as it was sent"):
        sent.get(timeout=120)
    # The caller hears of the failure before the hold goes back.
    wait_until(lambda: fleet.balance("acme").available == 100, "the hold went back")
    assert charged(fleet).total() == 0
