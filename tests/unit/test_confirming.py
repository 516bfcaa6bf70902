"""What the readings of a bucket come to together: to agree with one of them is to agree."""

from __future__ import annotations

from billing.core.settings import Settings
from billing.reconciliation.repair.confirming import Confirming
from billing.reconciliation.repair.corrections import Correction
from billing.task.runtime import Runtime

AGREES = Correction(client_id="acme", shard=3, epoch=1)
#: As a reading says that was taken before a grant, or an event's posting, which PostgreSQL has meanwhile.
BEHIND = Correction(client_id="acme", shard=3, epoch=1, rebuild="grant 7: Redis says nothing, credit_grant says 100")


def test_given_two_readings_that_ask_for_a_rebuild_when_a_later_one_agrees_then_nothing_is_done() -> None:
    confirming = Confirming(Runtime(Settings))
    assert confirming._decide([BEHIND]) is None
    assert confirming._decide([BEHIND, BEHIND]) == BEHIND
    assert confirming._decide([BEHIND, BEHIND, AGREES]) == AGREES
