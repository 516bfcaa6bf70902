"""The hold of a run that a direct event has charged is given back once its bucket knows the charge (L1, L5, L9)."""

from __future__ import annotations

import math
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.credits.values import ReleaseOutcome
from billing.task import releasing
from billing.task.pending import Pending
from billing.task.releasing import PAUSE_SECONDS, Releases
from billing.task.renewal import Renewal


class Servers:
    """PostgreSQL and Redis, as far as they are asked; and the clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.told: set[uuid.UUID] = set()
        self.asked: list[list[uuid.UUID]] = []
        self.away = False
        self.outcome: ReleaseOutcome | Exception = ReleaseOutcome.RELEASED
        self.released: list[uuid.UUID] = []

    def monotonic(self) -> float:
        """Return the time."""
        return self.seconds

    def told_charges(self, runs: list[tuple[str, uuid.UUID]]) -> set[uuid.UUID]:
        """Answer of which runs the buckets know."""
        self.asked.append([run_id for _, run_id in runs])
        if self.away:
            raise Unreachable("billing_database_url: away")
        return self.told & set(self.asked[-1])

    def node_of(self, _: int) -> str:
        """Return the one node."""
        return ""

    def release(self, _client_id: str, run_id: uuid.UUID, token: str) -> ReleaseOutcome:
        """Give a hold back."""
        self.released.append(run_id)
        if token == "stale":
            return ReleaseOutcome.STALE
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def servers() -> Servers:
    """Return servers that answer."""
    return Servers()


@pytest.fixture
def renewal(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Renewal:
    """Return what is renewed, without a thread."""
    made = Renewal(20, lambda _: None, servers)  # type: ignore[arg-type]
    monkeypatch.setattr(made, "_start", lambda: None)
    return made


@pytest.fixture
def releases(servers: Servers, renewal: Renewal, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """Return the holds of a process."""
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    runtime: Any = SimpleNamespace(settings=Settings(), clock=servers, records=servers, buckets=servers)
    return Releases(runtime, Pending(lambda entries: entries, servers.node_of), renewal.remove)


def charged(releases: Releases, renewal: Renewal, number: int = 1, *, token: str = "a") -> Any:
    """Have a direct event charge a run."""
    run: Any = SimpleNamespace(
        settlement_id=f"{number} {token}",
        identity=SimpleNamespace(run_id=uuid.UUID(int=number), client_id="acme"),
        hold=SimpleNamespace(token=token),
        renewed_until=math.inf,
    )
    renewal.add(run)
    releases.add(run)
    return run


def test_l1_a_hold_is_kept_until_its_bucket_knows_the_charge(
    releases: Releases, renewal: Renewal, servers: Servers
) -> None:
    """Given a charge on its way, then its hold is renewed and nothing comes back; once it is told, it does."""
    run = charged(releases, renewal)
    releases.release()
    assert servers.released == []
    assert list(renewal._runs.values()) == [run]

    servers.told.add(uuid.UUID(int=1))
    releases.release()
    releases.release()

    assert servers.released == [uuid.UUID(int=1)]
    assert (len(releases), list(renewal._runs.values())) == (0, [])


@pytest.mark.parametrize("outcome", [ReleaseOutcome.RECOVERING, ReleaseOutcome.CORRUPT, Unreachable("away")])
def test_l6_a_bucket_that_is_not_back_is_asked_again_and_postgresql_is_not(
    releases: Releases, renewal: Renewal, servers: Servers, outcome: ReleaseOutcome | Exception
) -> None:
    """Given a charge in the log and a bucket that is away, then the hold waits for the bucket alone."""
    charged(releases, renewal)
    servers.told.add(uuid.UUID(int=1))
    servers.outcome = outcome
    releases.release()
    releases.release()
    assert (len(servers.asked), len(servers.released), len(releases), len(renewal._runs)) == (1, 2, 1, 1)

    servers.outcome = ReleaseOutcome.NOTHING
    releases.release()
    assert (len(servers.asked), len(releases), len(renewal._runs)) == (1, 0, 0)


def test_l9_a_node_that_is_silent_is_waited_for_once(releases: Releases, renewal: Renewal, servers: Servers) -> None:
    """Given several holds on a node that does not answer, then one of them is tried."""
    for number in range(3):
        charged(releases, renewal, number)
    servers.told |= {uuid.UUID(int=number) for number in range(3)}
    servers.outcome = Unreachable("away")
    releases.release()
    assert len(servers.released) == 1


def test_l9_a_postgresql_that_is_away_is_asked_seldom(releases: Releases, renewal: Renewal, servers: Servers) -> None:
    """Given a PostgreSQL that does not answer, then it is left alone for a while, and asked again."""
    charged(releases, renewal)
    servers.away = True
    for _ in range(5):
        releases.release()
    assert len(servers.asked) == 1
    servers.seconds += PAUSE_SECONDS
    releases.release()
    assert len(servers.asked) == 2


def test_l9_no_hold_waits_for_ever_nor_do_too_many(
    releases: Releases, renewal: Renewal, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given charges that no bucket learns of, then their holds are left to their leases, past a number or an age."""
    monkeypatch.setattr(releasing, "HOLDS_MAX", 2)
    runs = [charged(releases, renewal, number) for number in range(3)]
    assert list(renewal._runs.values()) == runs[1:]
    assert len(releases) == 2

    servers.seconds += Settings().hold_age_max_seconds
    releases.release()
    assert (len(releases), list(renewal._runs.values()), servers.released) == (0, [], [])


def test_l4_of_two_deliveries_of_a_run_the_one_that_holds_gives_back(
    releases: Releases, renewal: Renewal, servers: Servers
) -> None:
    """Given a run that two deliveries have ended, the later one without the hold, then the hold is given back."""
    charged(releases, renewal)
    charged(releases, renewal, token="stale")
    servers.told.add(uuid.UUID(int=1))
    releases.release()
    releases.release()
    assert servers.released == [uuid.UUID(int=1)] * 2
    assert (len(releases), len(renewal._runs)) == (0, 0)
