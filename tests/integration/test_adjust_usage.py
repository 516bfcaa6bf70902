"""A correction of usage is a row that names the row it corrects; log, sums and bucket agree (L2, L6, L7)."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from billing import admin
from billing.core.credits import CREDITS_MAX
from billing.core.errors import Conflict, InvalidValue
from billing.recovery.lapsing import lapse_grants
from tests.integration.adjusting import charge, correct, logged, spent
from tests.integration.consuming import execute, query
from tests.integration.granting import balance_of, end, grant, rebuild
from tests.integration.posting import assert_at_work, sums
from tests.integration.recovering import Business
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def test_a_correction_is_a_row_that_names_the_row_it_corrects_and_the_last_payer_gets_back_first(
    business: Business,
) -> None:
    """L7: the original stays as it was; the row is of the same client, SKU and workflow, and of no quantity."""
    first, second = grant(business, 30, "k", priority=1), grant(business, 100, "l")
    run = charge(business, 70, "a")
    before = query(business.settings, "SELECT * FROM usage_history")

    found = correct(business, run, -50, reason="the page was empty", key="ticket-1")

    assert query(business.settings, f"SELECT * FROM usage_history WHERE run_id = '{run}'") == before
    assert found.grants == {second.grant_id: -40, first.grant_id: -10}
    [row] = query(
        business.settings,
        "SELECT line, client_id, sku, correlation_id, root_id, task, quantity, credits, grants, epoch, price_version,"
        f" corrects, corrects_line, mode FROM usage_history WHERE run_id = '{found.run_id}'",
    )
    shares = [{"grant": second.grant_id, "credits": -40}, {"grant": first.grant_id, "credits": -10}]
    assert row == (0, "acme", "page", "a", "a", "task", 0, -50, shares, 0, 1, run, 0, None)
    kept = query(business.settings, "SELECT run_id, corrects, corrects_line, credits, reason FROM usage_correction")
    assert kept == [(found.run_id, run, 0, -50, "the page was empty")]
    assert sums(assert_at_work(business)) == (110, 0, 20, 0)
    assert spent(business) == logged(business) == {first.grant_id: 20}
    # Usage is told apart from what was returned, and counts no run twice.
    assert query(business.settings, "SELECT sum(credits), sum(returned) FROM usage_rollup") == [(20, 50)]
    [total] = admin.usage_totals(business.settings, ["acme"])
    assert (total.spent, total.rows, total.runs) == (20, 2, 1)


def test_debt_is_returned_first_and_what_repaid_it_is_usable_again(business: Business) -> None:
    """L2: a debt that is none any more is paid back to the grant that had repaid it."""
    row = grant(business, 30, "k")
    run = charge(business, 70, "a")
    assert sums(balance_of(business)) == (0, 0, 70, 40)
    found = correct(business, run, -25)
    assert found.grants == {0: -25}
    assert sums(assert_at_work(business)) == (0, 0, 45, 15)
    grant(business, 100, "later")
    assert sums(balance_of(business)) == (85, 0, 45, 0)
    assert correct(business, run, -45, again=True).grants == {0: -15, row.grant_id: -30}
    assert sums(assert_at_work(business)) == (130, 0, 0, 0)
    assert spent(business) == logged(business) == {}
    with business.consuming():
        rebuild(business)
    assert sums(assert_at_work(business, epoch=2)) == (130, 0, 0, 0)


def test_what_is_charged_more_is_paid_in_burn_order_and_the_rest_is_debt(business: Business) -> None:
    first, second = grant(business, 50, "k"), grant(business, 20, "l")
    run = charge(business, 60, "a")
    found = correct(business, run, 25)
    assert found.grants == {second.grant_id: 10, 0: 15}
    assert sums(assert_at_work(business)) == (0, 0, 85, 15)
    # Whoever paid more gets back, too: debt first, then the last payer.
    assert correct(business, run, -40).grants == {0: -15, second.grant_id: -20, first.grant_id: -5}
    assert sums(assert_at_work(business)) == (25, 0, 45, 0)
    assert spent(business) == logged(business) == {first.grant_id: 45}
    with business.consuming():
        rebuild(business)
    assert sums(assert_at_work(business, epoch=2)) == (25, 0, 45, 0)


@pytest.mark.parametrize("entered", [False, True], ids=["end not entered", "end entered"])
@pytest.mark.parametrize("how", ["expired", "voided"])
def test_what_comes_back_to_a_grant_that_has_ended_is_lost_as_the_rest_of_it_was(
    business: Business, how: str, *, entered: bool
) -> None:
    """L2: it counts as expired or voided, whether or not the ledger has entered the end; a rebuild says the same."""
    row = grant(
        business, 50, "k", priority=1, expires_at=datetime(2100, 1, 1, tzinfo=UTC) if how == "expired" else None
    )
    grant(business, 50, "l")
    run = charge(business, 60, "a")
    if how == "expired":
        end(business, row)
    else:
        admin.void(business.settings, row.grant_id)
    if entered:
        wait_until(lambda: lapse_grants(business.runtime) == 1, "its end is entered")
    correct(business, run, -60)
    if entered:
        assert lapse_grants(business.runtime) == 1, "a further entry has what came back"
    balance = assert_at_work(business)
    assert (balance.available, balance.spent, balance.expired, balance.voided) == (
        (50, 0, 50, 0) if how == "expired" else (50, 0, 0, 50)
    )
    with business.consuming():
        rebuild(business)
    again = assert_at_work(business, epoch=2)
    assert (again.available, again.spent, again.expired + again.voided) == (50, 0, 50)


def test_the_same_key_is_the_same_correction_and_nothing_else(business: Business) -> None:
    """Given a key, then a repetition makes no second row; with other content it is refused; so is a grant's key."""
    grant(business, 100, "k")
    run, other = charge(business, 40, "a"), charge(business, 40, "b")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: correct(business, run, -10, key="once"), range(8)))
    assert len({one.run_id for one in made}) == 1
    for wanted, credits_ in ((run, -11), (run, 10), (other, -10)):
        with pytest.raises(Conflict, match=rf"^key: 'once': was used for a correction of {run}:0 by -10, so it"):
            correct(business, wanted, credits_, key="once")
    with pytest.raises(Conflict, match=r"^key: 'k': was used for a grant of 100 credits, so it cannot be a correction"):
        correct(business, run, -5, key="k", again=True)
    with pytest.raises(Conflict, match=r"^key: 'once': was used for a correction"):
        admin.grant(business.settings, "acme", 5, key="once")
    with pytest.raises(Conflict, match=r"^key: 'once': was used for a correction"):
        admin.adjust_credits(business.settings, "acme", -5, key="once")
    assert sums(assert_at_work(business)) == (30, 0, 70, 0)


def test_what_breaks_a_rule_is_refused_with_field_value_and_rule_and_changes_nothing(business: Business) -> None:
    grant(business, 100, "k")
    run = charge(business, 40, "a")
    returned_ = correct(business, run, -15)
    free = charge(business, 0, "free")
    before = query(business.settings, "SELECT * FROM usage_history ORDER BY run_id")
    unknown = uuid.uuid4()
    refused: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((unknown, -1), {}, rf"^run_id: '{unknown}': is not in the usage history, nor in its archive"),
        (("run", -1), {}, r"^run_id: 'run': must be a run id"),
        ((f"{run}:0", -1), {"line": 0}, r"^run_id: .*: must be a run id"),
        ((f"{run}:3", -1), {}, rf"^line: 3: run {run} has the lines 0 to 0"),
        ((run, -1), {"line": 40_000}, r"^line: 40000: must be from 0 to 32767"),
        ((returned_.run_id, -1), {}, rf"^run_id: '{returned_.run_id}:0': is a correction itself, of {run}; "),
        ((run, 0), {}, r"^credits: 0: must be a whole number from 1 to 9007199254740991, or the same below 0"),
        ((run, -CREDITS_MAX - 1), {}, r"^credits: -9007199254740992: must be a whole number"),
        ((run, -1.5), {}, r"^credits: -1.5: must be a whole number"),
        ((run, -10), {}, rf"^credits: -10: line {run}:0 was corrected by -15 before, as {returned_.run_id}; "),
        ((run, -26), {"again": True}, rf"^credits: -26: must be at least -25: line {run}:0 was charged 40 credits and"),
        ((run, 56), {}, rf"^credits: 56: must be at most 55: line {run}:0 was charged 40 credits and corrected by -15"),
        ((free, -1), {}, rf"^credits: -1: line {free}:0 was charged 0 credits; there is nothing to correct"),
        ((run, -1), {"reason": " "}, r"^reason: ' ': must be 1 to 500 printable characters"),
        ((run, -1), {"reason": "a\nb"}, r"^reason: 'a\\nb': must be 1 to 500"),
        ((run, -1), {"key": ""}, r"^key: '': must be 1 to 255"),
    ]
    for arguments, options, message in refused:
        with pytest.raises(InvalidValue, match=message) as caught:
            correct(business, *arguments, **options)
        assert "\n" not in str(caught.value)
    assert query(business.settings, "SELECT * FROM usage_history ORDER BY run_id") == before
    assert sums(assert_at_work(business)) == (75, 0, 25, 0)


def test_a_dry_run_a_sum_that_no_bucket_could_count_and_a_line_that_is_not_named_are_refused(
    business: Business,
) -> None:
    grant(business, CREDITS_MAX - 20, "k")
    run = charge(business, 40, "a")
    correct(business, run, 10)
    with pytest.raises(
        InvalidValue, match=r"^credits: 30: must be at most 10: what a client was granted and ever owed"
    ):
        correct(business, run, 30, again=True)
    copied = (
        "INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt,"
        " sku, quantity, credits, grants, epoch, price_version, occurred_at, mode)"
        " SELECT '{run}', {line}, settlement_id, client_id, correlation_id, root_id, task, attempt, sku, quantity, 0,"
        " '[]', epoch, price_version, occurred_at, {mode} FROM usage_history WHERE corrects IS NULL AND line = 0"
        f" AND run_id = '{run}'"
    )
    dry = uuid.UUID(int=run.int + 1)
    execute(business.settings, copied.format(run=dry, line=0, mode="'dry_run'"))
    with pytest.raises(InvalidValue, match=rf"^run_id: '{dry}:0': was a dry run: it was charged nothing"):
        correct(business, dry, -1)
    execute(business.settings, copied.format(run=run, line=1, mode="NULL"))
    with pytest.raises(InvalidValue, match=rf"^run_id: '{run}': has 2 lines: name one of them, as {run}:0"):
        correct(business, run, -1)
    assert correct(business, f"{run}/0", -1).corrects_line == 0


@pytest.mark.parametrize("state", ["suspended", "closed"])
def test_a_client_that_may_start_nothing_is_corrected_all_the_same(business: Business, state: Any) -> None:
    """The books are put right whoever may work: the receipt, and what Stripe is told, depend on it."""
    grant(business, 100, "k")
    run = charge(business, 40, "a")
    admin.set_client_state(business.settings, "acme", state)
    correct(business, run, -40)
    assert sums(assert_at_work(business)) == (100, 0, 0, 0)


@pytest.mark.parametrize("milliseconds", [2**48 - 1, 1_000_000_000_000], ids=["legacy", "early"])
def test_a_row_in_a_partition_at_either_end_is_corrected(business: Business, milliseconds: int) -> None:
    grant(business, 100, "k")
    run = charge(business, 40, "a")
    moved = uuid.UUID(int=milliseconds << 80 | run.int & (2**80 - 1))
    execute(
        business.settings,
        "CREATE TEMPORARY TABLE moved AS SELECT * FROM usage_history;"
        f"UPDATE moved SET run_id = '{moved}', grants = '[]', credits = 0;"
        'UPDATE moved SET credits = 7, grants = \'[{"grant": 0, "credits": 7}]\';'
        "INSERT INTO usage_history SELECT * FROM moved;"
        "UPDATE usage_rollup SET credits = credits + 7, quantity = quantity + 1;"
        "INSERT INTO grant_spent VALUES ('acme', 0, 7);"
        "INSERT INTO posting VALUES ('acme', 1, 0, 7, 0, 1)",
    )
    assert correct(business, moved, -7).grants == {0: -7}
    assert sums(assert_at_work(business)) == (60, 0, 40, 0)
