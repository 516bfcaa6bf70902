"""The hold of a run that a direct event has charged is given back once its bucket knows the charge (L1, L5, L9)."""

from __future__ import annotations

import math
import threading
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
from tests.waiting import LIMIT_SECONDS, wait_until


class Servers:
    """PostgreSQL and Redis, as far as they are asked; and the clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.told: set[uuid.UUID] = set()
        self.asked: list[list[uuid.UUID]] = []
        self.away = False
        self.answers = threading.Event()
        self.answers.set()
        self.failing: set[uuid.UUID] = set()
        self.outcome: ReleaseOutcome | Exception = ReleaseOutcome.RELEASED
        self.released: list[uuid.UUID] = []

    def monotonic(self) -> float:
        """Return the time."""
        return self.seconds

    def told_charges(self, runs: list[tuple[str, uuid.UUID]]) -> set[uuid.UUID]:
        """Answer of which runs the buckets know."""
        self.asked.append([run_id for _, run_id in runs])
        self.answers.wait(LIMIT_SECONDS)
        if self.away:
            raise Unreachable("billing_database_url: away")
        return self.told & set(self.asked[-1])

    def node_of(self, _: int) -> str:
        """Return the one node."""
        return ""

    def release(self, _client_id: str, run_id: uuid.UUID, token: str) -> ReleaseOutcome:
        """Give a hold back."""
        self.released.append(run_id)
        if run_id in self.failing:
            raise ValueError("surprise")
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
    """Return the holds of a process that asks PostgreSQL at once."""
    monkeypatch.setattr(Releases, "_start", lambda _, question: question())
    return made(servers, renewal, monkeypatch)[0]


def made(servers: Servers, renewal: Renewal, monkeypatch: pytest.MonkeyPatch) -> tuple[Releases, Pending]:
    """Return the holds of a process, and its debts, which are paid only when the test says so."""
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    runtime: Any = SimpleNamespace(settings=Settings(), clock=servers, records=servers, buckets=servers)
    pending = Pending(lambda _: [], servers.node_of)
    return Releases(runtime, pending, renewal.remove), pending


def charged(releases: Releases, renewal: Renewal, number: int = 1, *, token: str = "a", client_id: str = "acme") -> Any:
    """Have a direct event charge a run."""
    run: Any = SimpleNamespace(
        settlement_id=f"{number} {token}",
        identity=SimpleNamespace(run_id=uuid.UUID(int=number), client_id=client_id),
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


def test_l10_a_postgresql_that_stands_still_keeps_holds_and_nothing_else(
    renewal: Renewal, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a PostgreSQL that never answers, then it is asked once, other debts are paid, and the process can end."""
    releases, pending = made(servers, renewal, monkeypatch)
    servers.told |= {uuid.UUID(int=1), uuid.UUID(int=2)}
    servers.outcome = ReleaseOutcome.RECOVERING
    charged(releases, renewal, 1)
    releases.release()
    wait_until(lambda: uuid.UUID(int=1) in releases._told, "the first charge is known")
    charged(releases, renewal, 2)
    servers.answers.clear()
    paid: list[str] = []

    def pay() -> None:
        for number in range(3):
            pending.settle_later(lambda: paid.append("settle"), lambda: paid.append("resort"))
            pending.confirmed((0, f"{number}-0"))
            pending.pay()
        servers.outcome = ReleaseOutcome.RELEASED
        pending.close(0)

    end = threading.Thread(target=pay, daemon=True)
    end.start()
    try:
        end.join(LIMIT_SECONDS)
        assert not end.is_alive()
        assert paid == ["settle"] * 3
        assert pending.take_confirmed() == []
        # The hold of the charge that was known is back, the other one waits.
        assert list(renewal._runs.values()) == list(releases._runs.values())
        assert [run.identity.run_id for run in releases._runs.values()] == [uuid.UUID(int=2)]
        assert len(servers.asked) == 2
    finally:
        servers.answers.set()
    wait_until(lambda: releases._told, "the answer has come")
    releases.release()
    assert (len(releases), len(renewal._runs), releases._told) == (0, 0, set())


def test_l10_a_hold_whose_release_fails_keeps_back_no_other(
    releases: Releases, renewal: Renewal, servers: Servers
) -> None:
    """Given an error that nobody foresaw, then the holds behind it come back; it is told, and tried again."""
    for number in range(3):
        charged(releases, renewal, number)
    servers.told |= {uuid.UUID(int=number) for number in range(3)}
    servers.failing.add(uuid.UUID(int=0))
    with pytest.raises(ValueError, match="surprise"):
        releases.release()
    assert (len(releases), servers.released) == (1, [uuid.UUID(int=number) for number in range(3)])
    servers.failing.clear()
    releases.release()
    assert (len(releases), len(renewal._runs)) == (0, 0)


def test_l10_a_client_with_many_holds_pushes_out_its_own(
    releases: Releases, renewal: Renewal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given one client whose charges its bucket never learns of, then others' older holds go on waiting."""
    monkeypatch.setattr(releasing, "HOLDS_MAX", 3)
    other = charged(releases, renewal, 0, client_id="globex")
    runs = [charged(releases, renewal, number) for number in range(1, 6)]
    assert list(releases._runs.values()) == [other, *runs[-2:]]


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


def test_l9_a_process_that_ends_asks_no_more_and_waits_for_the_question_under_way(
    renewal: Renewal, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a question under way, when its process ends, then its connection is not left to whoever closes the pool."""
    releases, _ = made(servers, renewal, monkeypatch)
    charged(releases, renewal)
    servers.answers.clear()
    releases.release()
    wait_until(lambda: len(servers.asked) == 1, "PostgreSQL is asked")
    threading.Timer(0.05, servers.answers.set).start()
    releases.close(LIMIT_SECONDS)
    asking = releases._asking
    assert asking is not None
    assert not asking.is_alive()

    servers.seconds = 2 * PAUSE_SECONDS
    releases.release()
    assert len(servers.asked) == 1
