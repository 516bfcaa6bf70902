"""What one shard or run does not take keeps no other's hold from being renewed or asserted (L5, L6, L9, L10)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from billing.core.clock import SystemClock
from billing.core.errors import Refusing, Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.values import Hold, RenewOutcome
from billing.task.keeping import keep_holds
from billing.task.leases import LeaseKeeper
from billing.task.run import Run

SHARDS = 4
#: A client of each shard. Shards 0 and 2 are on one node, 1 and 3 on another.
CLIENTS = [next(name for name in map(str, range(100)) if shard_of(name, SHARDS) == shard) for shard in range(SHARDS)]


class Answers:
    """What each shard answers, and who was asserted."""

    def __init__(self) -> None:
        self.renewals: dict[int, RenewOutcome | Exception] = {}
        self.assertions: dict[int, Exception] = {}
        self.asserted: list[int] = []

    def node_of(self, shard: int) -> str:
        """Return the node of a shard."""
        return "even" if shard % 2 == 0 else "odd"

    def renew_each(self, items: Sequence[tuple[str, uuid.UUID, float | None]]) -> list[RenewOutcome | Exception]:
        """Answer."""
        return [self.renewals.get(shard_of(client, SHARDS), RenewOutcome.RENEWED) for client, _, _ in items]

    def assert_hold(self, hold: Hold) -> None:
        """Answer."""
        shard = shard_of(hold.client_id, SHARDS)
        self.asserted.append(shard)
        if shard in self.assertions:
            raise self.assertions[shard]


@pytest.fixture
def answers() -> Answers:
    """Return answers."""
    return Answers()


def a_run(shard: int) -> Run:
    """Return what is kept of a run."""
    client_id = CLIENTS[shard]
    hold = Hold(
        run_id=uuid.UUID(int=shard),
        client_id=client_id,
        sku="page",
        credits=1,
        token="a",
        price_version=1,
        attempt=1,
        head=b"",
        lines=b"",
    )
    run: Any = SimpleNamespace(hold=hold, identity=SimpleNamespace(run_id=hold.run_id, client_id=client_id))
    return run  # type: ignore[no-any-return]


def keep(answers: Answers, draft: Any = None) -> None:
    """Keep a hold of each shard."""
    runtime: Any = SimpleNamespace(buckets=answers, settings=Settings(shards=SHARDS), clock=SystemClock())
    keep_holds(runtime, [a_run(shard) for shard in range(SHARDS)], draft or (lambda _: b"draft"))


def test_l10_holds_are_asserted_although_another_shard_was_not_renewed(
    answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    answers.renewals = {0: Unreachable("no answer"), 1: RenewOutcome.RECOVERING, 3: RenewOutcome.RECOVERING}
    keep(answers)
    assert answers.asserted == [1, 3]
    assert "1 of 4 leases are not renewed: no answer" in caplog.text


def test_l9_a_node_that_falls_silent_is_waited_for_once(answers: Answers) -> None:
    answers.renewals = dict.fromkeys(range(SHARDS), RenewOutcome.RECOVERING)
    answers.assertions = {0: Unreachable("no answer"), 1: Refusing("takes no writes")}
    keep(answers)
    assert answers.asserted == [0, 1, 3], "not 2, which is on the node of 0; 3, since nobody waited for 1"


def test_l10_a_run_without_prices_keeps_no_other_from_being_asserted(
    answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    answers.renewals = dict.fromkeys(range(SHARDS), RenewOutcome.RECOVERING)
    answers.assertions = {1: ValueError("surprise")}

    def draft(run: Run) -> bytes:
        if run.identity.client_id == CLIENTS[0]:
            message = "price book: version 7 is not here yet"
            raise Unreachable(message)
        return b"draft"

    keep(answers, draft)
    assert answers.asserted == [1, 2, 3]
    assert "version 7 is not here yet" in caplog.text
    assert "surprise" in caplog.text


def test_l10_the_main_process_says_for_how_many_a_server_answered(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers.renewals = {0: Unreachable("no answer")}
    attachment: Any = SimpleNamespace(runtime=SimpleNamespace(buckets=answers))
    monkeypatch.setattr("billing.task.leases._identity", lambda request: request)
    identities = [SimpleNamespace(client_id=client, run_id=uuid.UUID(int=1)) for client in CLIENTS]
    assert LeaseKeeper(attachment).renew(identities) == SHARDS - 1
    assert "1 of 4 leases are not renewed" in caplog.text
