"""A bucket that was lost and opened anew, at the same epoch: it gives nothing back of what the lost one lent (L2)."""

from __future__ import annotations

import pytest

from billing.credits.terms import ClientTerms
from billing.credits.values import GrantOutcome, ReleaseOutcome, ReserveOutcome, SettleOutcome
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import Server

RUN = a_run()


@pytest.mark.parametrize(
    ("granted", "again", "limit"),
    [(100, 0, 0), (100, 100, 0), (0, 0, 60)],
    ids=["without its grant", "with a grant that holds less", "with an overdraft that lent less"],
)
def test_l2_what_a_bucket_never_lent_does_not_come_back_to_it(
    buckets: Verbs, server: Server, granted: int, again: int, limit: int
) -> None:
    """Given a hold of 50, its bucket lost, and a new one that lent 5: then the hold finds it corrupt, unchanged."""
    overdraft = ClientTerms(overdraft_limit=60)
    buckets.open_client("acme")
    if granted:
        a_client(buckets, granted)
    buckets.set_terms("acme", overdraft)
    assert buckets.reserve(a_hold(RUN, 50)).outcome is ReserveOutcome.HELD
    server.lose_bucket("acme")
    buckets.open_client("acme")
    if again:
        assert buckets.grant("acme", 1, again) is GrantOutcome.GRANTED
    if limit:
        buckets.set_terms("acme", ClientTerms(overdraft_limit=limit))
    if again or limit:
        assert buckets.reserve(a_hold(a_run(task_id="other"), 5)).outcome is ReserveOutcome.HELD
    before = buckets.balance("acme")
    assert before is not None

    assert buckets.release("acme", RUN, "first") is ReleaseOutcome.CORRUPT
    assert buckets.settle(a_settlement(RUN, 50)).outcome is SettleOutcome.CORRUPT
    after = buckets.balance("acme")
    assert after == before
    assert_laws(after)
    assert [hold.run_id for hold in buckets.held("acme") if hold.run_id == RUN] == [RUN]
