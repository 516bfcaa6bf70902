"""Postings: what the log says beyond a bucket's settles, taken or given back, each law by a case (L1, L2)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.core.shards import shard_of
from billing.credits.posting import Posting, PostOutcome
from billing.credits.terms import GrantTerms
from billing.credits.values import GrantBalance, GrantOutcome, ReserveOutcome
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.passing import spoil
from tests.contract.servers import FUTURE_MS, SHARDS, Server
from tests.contract.test_terms import balance_of

SHARD = shard_of("acme", SHARDS)


def post(
    buckets: Verbs, *totals: tuple[int, int, int], restored: int = 0, entered: int = 0, epoch: int = 1
) -> PostOutcome:
    """Post (grant, version, credits) totals; `restored` and `entered` go with each of them."""
    rows = [
        Posting(grant_id=grant, version=version, credits=credits_, restored=restored, entered=entered)
        for grant, version, credits_ in totals
    ]
    return buckets.post("acme", epoch, rows)


def accounts(buckets: Verbs, grant_id: int) -> tuple[int, int, int, int]:
    """Return what a grant has available, held, spent and repaid."""
    grant = grant_of(buckets, grant_id)
    return grant.available, grant.held, grant.spent, grant.repaid


def grant_of(buckets: Verbs, grant_id: int) -> GrantBalance:
    """Return one grant of a balance that keeps L2."""
    return next(grant for grant in balance_of(buckets).grants if grant.grant_id == grant_id)


def test_what_the_log_says_of_a_grant_is_taken_as_spent_once(buckets: Verbs) -> None:
    """Given a total, when it is posted twice and then a larger one, then the bucket has taken the larger one, once."""
    a_client(buckets, 100, 50)
    assert post(buckets, (1, 1, 30), (2, 1, 5)) is PostOutcome.POSTED
    assert post(buckets, (1, 1, 30), (2, 1, 5)) is PostOutcome.ALREADY
    assert (accounts(buckets, 1), accounts(buckets, 2)) == ((70, 0, 30, 0), (45, 0, 5, 0))
    assert post(buckets, (1, 3, 45), (2, 1, 5)) is PostOutcome.POSTED
    assert post(buckets, (1, 2, 40)) is PostOutcome.ALREADY
    assert accounts(buckets, 1) == (55, 0, 45, 0)
    assert balance_of(buckets).posted[1].credits == 45


def test_the_same_posting_by_many_at_once_is_taken_once(buckets: Verbs) -> None:
    a_client(buckets, 1_000)
    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda _: post(buckets, (1, 1, 30)), range(40)))
    assert outcomes.count(PostOutcome.POSTED) == 1
    assert set(outcomes) == {PostOutcome.POSTED, PostOutcome.ALREADY}
    assert accounts(buckets, 1) == (970, 0, 30, 0)


def test_l6_a_posting_of_another_epoch_or_on_a_closed_shard_changes_nothing(buckets: Verbs) -> None:
    a_client(buckets, 100)
    assert post(buckets, (1, 1, 30), epoch=2) is PostOutcome.STALE
    assert buckets.post("nobody", 1, [Posting(grant_id=1, version=1, credits=1)]) is PostOutcome.UNKNOWN_CLIENT
    buckets.close(SHARD)
    assert post(buckets, (1, 1, 30)) is PostOutcome.RECOVERING
    assert buckets.verify(SHARD, expected=None)
    assert accounts(buckets, 1) == (100, 0, 0, 0)


def test_a_version_that_was_seen_with_other_totals_is_refused_and_a_later_one_is_taken(buckets: Verbs) -> None:
    """Given a PostgreSQL that lost its last transactions, when it uses a version again, then the bucket says so."""
    a_client(buckets, 100, 50)
    assert post(buckets, (1, 2, 30)) is PostOutcome.POSTED
    assert post(buckets, (2, 1, 5), (1, 2, 20)) is PostOutcome.REUSED
    assert post(buckets, (1, 2, 30), restored=1) is PostOutcome.REUSED
    assert (accounts(buckets, 1), accounts(buckets, 2)) == ((70, 0, 30, 0), (50, 0, 0, 0))
    assert post(buckets, (1, 1, 20)) is PostOutcome.ALREADY
    assert post(buckets, (1, 3, 20)) is PostOutcome.POSTED
    assert accounts(buckets, 1) == (80, 0, 20, 0)


def test_what_a_grant_has_no_more_is_debt_that_others_repay_and_the_bucket_tells_which(buckets: Verbs) -> None:
    """Given a grant of which most is held, then the posting takes the rest, and another one repays the debt."""
    a_client(buckets, 100, 50)
    buckets.reserve(a_hold(a_run(), 90))
    assert post(buckets, (1, 1, 25)) is PostOutcome.POSTED
    balance = balance_of(buckets)
    assert (accounts(buckets, 1), accounts(buckets, 2)) == ((0, 90, 10, 0), (35, 0, 0, 15))
    assert (balance.beyond, balance.debt, balance.owed) == ({1: 15}, 15, 0)
    assert buckets.audit(["acme"])["acme"].balance == balance


def test_what_nobody_covers_is_owed_and_blocks_until_a_grant_pays(buckets: Verbs) -> None:
    a_client(buckets, 10)
    assert post(buckets, (1, 1, 25), (0, 1, 5)) is PostOutcome.POSTED
    balance = balance_of(buckets)
    assert (balance.owed, balance.debt, balance.beyond) == (20, 20, {1: 15})
    assert buckets.reserve(a_hold(a_run(), 1)).outcome is ReserveOutcome.INSUFFICIENT
    buckets.grant("acme", 2, 30)
    assert accounts(buckets, 2) == (10, 0, 0, 20)


def test_debt_in_the_log_is_debt_in_the_bucket_and_repaid_at_once(buckets: Verbs) -> None:
    a_client(buckets, 10, 20)
    assert post(buckets, (0, 1, 15)) is PostOutcome.POSTED
    assert (accounts(buckets, 1), accounts(buckets, 2)) == ((0, 0, 0, 10), (15, 0, 0, 5))
    assert (balance_of(buckets).debt, balance_of(buckets).beyond) == (15, {})


def test_a_restricted_grant_repays_no_debt_that_is_posted(buckets: Verbs) -> None:
    buckets.open_client("acme")
    buckets.grant("acme", 1, 50, GrantTerms(skus=("page",)))
    assert post(buckets, (0, 1, 5), (1, 1, 60)) is PostOutcome.POSTED
    assert (accounts(buckets, 1), balance_of(buckets).owed) == ((0, 0, 50, 0), 15)
    assert post(buckets, (0, 1, 5), (1, 2, 20)) is PostOutcome.POSTED
    assert (accounts(buckets, 1), balance_of(buckets).owed) == ((30, 0, 20, 0), 5)


def test_what_was_taken_twice_comes_back_to_the_grant_that_paid(buckets: Verbs) -> None:
    """Given a run that was settled twice, then its second charge goes back, and the version keeps it from more."""
    a_client(buckets, 100)
    buckets.settle(a_settlement(a_run(), 30))
    buckets.settle(a_settlement(a_run(task_id="again"), 30))
    assert post(buckets, (1, 1, -30)) is PostOutcome.POSTED
    assert post(buckets, (1, 1, -30)) is PostOutcome.ALREADY
    assert accounts(buckets, 1) == (70, 0, 30, 0)


def test_what_comes_back_pays_debt_first(buckets: Verbs) -> None:
    a_client(buckets, 30)
    buckets.settle(a_settlement(a_run(), 30))
    buckets.settle(a_settlement(a_run(task_id="again"), 20))
    assert post(buckets, (1, 1, -30)) is PostOutcome.POSTED
    assert accounts(buckets, 1) == (10, 0, 0, 20)
    assert balance_of(buckets).owed == 0


def test_a_used_up_grant_comes_back_at_its_place_with_its_terms(buckets: Verbs) -> None:
    """Given a grant that has left the string, when it gets something back, then it burns where it did, for its SKUs."""
    buckets.open_client("acme")
    terms = GrantTerms(priority=50, expires_ms=FUTURE_MS, skus=("page",))
    buckets.grant("acme", 1, 30, terms)
    buckets.grant("acme", 2, 50, GrantTerms(priority=10))
    buckets.settle(a_settlement(a_run(), 80, skus=["page"]))
    buckets.grant("acme", 3, 40)
    assert balance_of(buckets).order == (3,)
    assert post(buckets, (1, 1, -12), (2, 1, -5)) is PostOutcome.POSTED
    balance = balance_of(buckets)
    assert (balance.order, balance.grant_terms[1]) == ((2, 1, 3), terms)
    assert (accounts(buckets, 1), accounts(buckets, 2)) == ((12, 0, 18, 0), (5, 0, 45, 0))
    assert buckets.reserve(a_hold(a_run(task_id="image"), 46, sku="image")).outcome is ReserveOutcome.INSUFFICIENT


def test_giving_back_undoes_first_what_was_debt_and_pays_its_payers_back(buckets: Verbs) -> None:
    """Given a debt that another grant repaid, when its cause is given back, then that grant has its credits again."""
    a_client(buckets, 10, 20, 30)
    buckets.settle(a_settlement(a_run(), 10))
    assert post(buckets, (1, 1, 25)) is PostOutcome.POSTED
    assert (accounts(buckets, 2), accounts(buckets, 3)) == ((0, 0, 0, 20), (25, 0, 0, 5))
    assert post(buckets, (1, 2, 15)) is PostOutcome.POSTED
    assert (accounts(buckets, 2), accounts(buckets, 3)) == ((5, 0, 0, 15), (30, 0, 0, 0))
    assert post(buckets, (1, 3, -4)) is PostOutcome.POSTED
    assert (accounts(buckets, 1), accounts(buckets, 2)) == ((4, 0, 6, 0), (20, 0, 0, 0))
    balance = balance_of(buckets)
    assert (balance.debt, balance.beyond, balance.order) == (0, {}, (1, 2, 3))


def test_debt_that_is_given_back_pays_back_first_who_can_still_use_it(buckets: Verbs) -> None:
    """Given debt that two grants repaid, of which the last one has ended since, then the other one comes first."""
    a_client(buckets, 10)
    buckets.settle(a_settlement(a_run(), 40))
    buckets.grant("acme", 2, 15)
    buckets.grant("acme", 3, 25)
    assert (grant_of(buckets, 2).repaid, grant_of(buckets, 3).repaid) == (15, 15)
    buckets.void("acme", 3)
    assert post(buckets, (0, 1, -18)) is PostOutcome.POSTED
    assert (accounts(buckets, 2), accounts(buckets, 3)) == ((15, 0, 0, 0), (0, 0, 0, 12))
    assert grant_of(buckets, 3).voided == 13


def test_a_grant_that_is_paid_back_pays_first_what_the_log_says_that_it_paid(buckets: Verbs) -> None:
    """Given a grant that had repaid debt when the log said that it paid more, when the debt goes, then it pays that."""
    buckets.open_client("acme")
    buckets.settle(a_settlement(a_run(), 20))
    buckets.grant("acme", 1, 20)
    assert post(buckets, (1, 1, 5)) is PostOutcome.POSTED
    buckets.grant("acme", 2, 30)
    assert (accounts(buckets, 1), accounts(buckets, 2)) == ((0, 0, 0, 20), (25, 0, 0, 5))
    assert post(buckets, (0, 1, -20)) is PostOutcome.POSTED
    assert (accounts(buckets, 1), accounts(buckets, 2)) == ((15, 0, 5, 0), (30, 0, 0, 0))
    assert (balance_of(buckets).debt, balance_of(buckets).beyond) == (0, {})


def test_a_bucket_with_64_usable_grants_takes_one_that_comes_back_and_no_new_one_until_there_is_room(
    buckets: Verbs,
) -> None:
    """L9: what was spent is never refused when it comes back; a new grant waits in the ledger; the doctor tells."""
    a_client(buckets, 10)
    buckets.settle(a_settlement(a_run(), 10))
    for grant in range(2, 66):
        assert buckets.grant("acme", grant, 10) is GrantOutcome.GRANTED
    assert post(buckets, (1, 1, -4)) is PostOutcome.POSTED
    assert len(balance_of(buckets).order) == 65
    assert buckets.grant("acme", 66, 10) is GrantOutcome.TOO_MANY
    buckets.settle(a_settlement(a_run(task_id="again"), 14))
    assert buckets.grant("acme", 66, 10) is GrantOutcome.GRANTED


def test_debt_that_is_given_back_pays_back_whoever_repaid_it(buckets: Verbs) -> None:
    a_client(buckets, 10, 20)
    buckets.settle(a_settlement(a_run(), 40))
    buckets.grant("acme", 3, 15)
    assert accounts(buckets, 3) == (5, 0, 0, 10)
    assert post(buckets, (0, 1, -7)) is PostOutcome.POSTED
    assert accounts(buckets, 3) == (12, 0, 0, 3)
    assert (balance_of(buckets).debt, balance_of(buckets).owed) == (3, 0)


def test_more_than_was_ever_spent_is_not_given_back(buckets: Verbs) -> None:
    a_client(buckets, 10)
    buckets.settle(a_settlement(a_run(), 15))
    for grant, credits_ in ((1, -11), (0, -6), (9, -1)):
        assert post(buckets, (grant, 1, credits_)) is PostOutcome.UNCOVERED
    assert post(buckets, (9, 1, 0), restored=1) is PostOutcome.UNCOVERED
    assert (accounts(buckets, 1), balance_of(buckets).debt, balance_of(buckets).posted) == ((0, 0, 10, 0), 5, {})


def test_what_the_bucket_never_knew_is_debt_of_that_grant(buckets: Verbs) -> None:
    a_client(buckets, 10)
    assert post(buckets, (9, 1, 4)) is PostOutcome.POSTED
    assert (balance_of(buckets).beyond, accounts(buckets, 1)) == ({9: 4}, (6, 0, 0, 4))
    assert post(buckets, (9, 2, 1)) is PostOutcome.POSTED
    assert (balance_of(buckets).beyond, accounts(buckets, 1)) == ({9: 1}, (9, 0, 0, 1))


def test_no_sum_of_a_bucket_passes_what_a_double_counts_to(buckets: Verbs) -> None:
    a_client(buckets, CREDITS_MAX - 5)
    assert post(buckets, (0, 1, 6)) is PostOutcome.TOO_LARGE
    assert post(buckets, (0, 1, 5)) is PostOutcome.POSTED
    assert balance_of(buckets).debt == 5


def test_what_was_lost_is_put_back_without_being_spent_and_taken_away_again(buckets: Verbs, server: Server) -> None:
    """Given a bucket that lost 10 credits and one that has 10 too many, when restored, then each adds up again (L2)."""
    a_client(buckets, 100)
    spoil(server.client(), "acme", "1:100:0:0", "1:90:0:0")
    assert post(buckets, (1, 1, 0), restored=10) is PostOutcome.POSTED
    assert accounts(buckets, 1) == (100, 0, 0, 0)
    spoil(server.client(), "acme", "1:100:0:0", "1:4:0:106")
    assert post(buckets, (1, 2, 0), restored=0) is PostOutcome.POSTED
    balance = balance_of(buckets)
    assert (accounts(buckets, 1), balance.beyond, balance.owed) == ((0, 0, 100, 0), {1: 6}, 6)


def test_a_posting_alerts_as_a_settle_does_and_arms_again_as_a_release_does(buckets: Verbs) -> None:
    a_client(buckets, 100)
    post(buckets, (1, 1, 85))
    assert [alert.percent for alert in buckets.alerts(count=10)] == [20]
    post(buckets, (1, 2, 20))
    post(buckets, (1, 3, 85))
    assert [alert.percent for alert in buckets.alerts(count=10)] == [20, 20]
    post(buckets, (1, 4, 100))
    assert [alert.percent for alert in buckets.alerts(count=10)] == [20, 20, 0]


def test_a_posting_is_refused_that_no_bucket_could_mean(buckets: Verbs) -> None:
    a_client(buckets, 100)
    for rows in (
        [Posting(grant_id=1, version=1, credits=1), Posting(grant_id=1, version=2, credits=2)],
        [Posting(grant_id=0, version=1, credits=0, restored=1)],
        [Posting(grant_id=1, version=0, credits=1)],
        [Posting(grant_id=1, version=1, credits=-CREDITS_MAX - 1)],
    ):
        with pytest.raises(InvalidValue):
            buckets.post("acme", 1, rows)


def test_l2_debt_next_to_the_largest_sum_comes_down_to_the_unit(buckets: Verbs) -> None:
    """Given a client that owes 2^53 - 1, when the log's total is 20 after all, then it owes 20."""
    buckets.open_client("acme")
    assert post(buckets, (7, 1, CREDITS_MAX)) is PostOutcome.POSTED
    assert balance_of(buckets).owed == CREDITS_MAX
    assert post(buckets, (7, 2, 20)) is PostOutcome.POSTED
    assert balance_of(buckets).owed == 20
