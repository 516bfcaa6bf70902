"""Faults of what is compared, shown and refused: reconciliation, receipts, amounts and settings."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_DIFFERENCES: Final = "tests/unit/test_reconciliation_differences.py"
_SPOILED: Final = "tests/integration/test_reconciliation_spoiled.py"
_bucket = faults("billing/reconciliation/laws/bucket.py", _SPOILED)
_held = faults("billing/reconciliation/laws/holds.py", _SPOILED)
_orphans = faults("billing/reconciliation/laws/orphans.py", _SPOILED)
_granted = faults("billing/reconciliation/laws/grants.py", _SPOILED)
_sums = faults("billing/reconciliation/laws/sums.py", _SPOILED)
_spent = faults("billing/reconciliation/laws/spent.py", "tests/unit/test_reconciliation_pursuit.py")
_queries = faults("billing/reconciliation/queries.py", _SPOILED)
_planned = faults(
    "billing/reconciliation/laws/planned.py",
    "tests/integration/test_invoices.py",
    "tests/integration/test_invoices_planned.py",
)
_tally = faults("billing/reconciliation/tally.py", "tests/unit/test_reconciliation_report.py")
_parts = faults("billing/admin/receipt_parts.py", "tests/unit/test_receipt_parts.py")
_summary = faults("billing/receipts/summary.py", "tests/unit/test_receipt_summary.py")
_amounts = faults("billing/core/credits.py", "tests/unit/test_credits_amounts.py")
_rating = faults("billing/catalog/rating.py", "tests/unit/test_rating.py")
_parsers = faults("billing/core/parsers.py", "tests/unit/test_settings.py")
_settings = faults("billing/core/settings.py", "tests/unit/test_settings.py")

RECONCILIATION: Final[tuple[Mutant, ...]] = (
    _bucket(
        "one credit that is missing in a bucket is not seen",
        "L2",
        "    if grant.granted != used:\n",
        "    if abs(grant.granted - used) > 1:\n",
    ),
    _bucket(
        "the sum of a client is not compared",
        "L2",
        "if balance.granted + balance.owed != used:",
        "if balance.granted > 2**60:",
    ),
    _held(
        "what holds were lent is not compared",
        "L2 L5",
        "        if in_bucket != lent:\n",
        "        if in_bucket < lent:\n",
    ),
    _orphans(
        "a hold may be late for ever", "L5", "if late_seconds > LEASES_MAX * lease_seconds:", "if late_seconds < 0:"
    ),
    _granted(
        "a grant that the bucket has not is no difference",
        "L2",
        "if in_redis != credits_ and not on_its_way:",
        "if in_redis is not None and in_redis != credits_ and not on_its_way:",
        _DIFFERENCES,
    ),
    _sums("a rollup that differs is not named", "L8", "        if logged != spent:\n", "        if logged > spent:\n"),
    _sums(
        "a line that its grants did not pay is not named",
        "L2",
        "    if log.unpaid_lines:\n",
        "    if log.unpaid_lines is None:\n",
    ),
    _spent(
        "what was settled after the reading counts", "L2", "charged.at_ms >= at_ms:", "charged.at_ms > at_ms + 10**15:"
    ),
    _spent(
        "an event of the very millisecond excuses any difference",
        "L2",
        "if not min(low, high) <= said <= max(low, high):",
        "if not min(low, high) <= said:",
    ),
    _queries(
        "another hour's rollup is not compared",
        "L8",
        "IS DISTINCT FROM (rolled.credits, rolled.quantity, rolled.returned) AS differs",
        "IS DISTINCT FROM (logged.credits, logged.quantity, logged.returned) AS differs",
    ),
    _queries(
        "a run of two settlements is one charge",
        "L3",
        "OR settlement <> other_settlement AS is_broken",
        "AS is_broken",
        _SPOILED,
        "tests/integration/test_reconciliation.py",
    ),
    _planned(
        "what is planned need not be what increments carry",
        "L8",
        "    if invoice.planned != carried:\n",
        "    if invoice.planned < carried - 10**15:\n",
        _DIFFERENCES,
    ),
    _tally(
        "a law that was not compared holds",
        "L6",
        "Verdict.NOT_COMPARED if left_out else Verdict.HOLDS",
        "Verdict.HOLDS",
    ),
)

RECEIPTS: Final[tuple[Mutant, ...]] = (
    _parts(
        "a line is carried by the increment after its own",
        "L8",
        "bisect.bisect_right(parts, low,",
        "bisect.bisect_left(parts, low - 1,",
    ),
    _parts(
        "two increments carry the same credits of a line",
        "L8",
        "overlap = min(high, part.high) - max(low, part.low)",
        "overlap = min(high, part.high) - low",
    ),
    _parts(
        "what is returned is carried as used",
        "L8",
        "signed = overlap if credits_ > 0 else -overlap",
        "signed = overlap",
    ),
    _summary(
        "a day is of the receiver's time", "L8", "line.occurred_at.astimezone(UTC).date()", "line.occurred_at.date()"
    ),
    _summary(
        "a grant is said to have paid whole lines",
        "L2",
        ".add(line.quantity, credits_)",
        ".add(line.quantity, line.credits)",
    ),
    _summary(
        "dry runs are among the corrections",
        "L8",
        "        if line.mode == DRY_RUN:\n            self._dry_runs",
        "        if line.mode == DRY_RUN:\n            self._corrections",
    ),
    _summary(
        "what is reported counts as unreported",
        "L8",
        "self._unreported.add(line.quantity, line.unreported)",
        "self._unreported.add(line.quantity, line.credits)",
    ),
)

LIMITS: Final[tuple[Mutant, ...]] = (
    _amounts(
        "an amount may pass what a double counts to",
        "L2 L9",
        "CREDITS_MAX: Final = 2**53 - 1",
        "CREDITS_MAX: Final = 2**53",
    ),
    _amounts(
        "true is one credit",
        "L2",
        "    if isinstance(value, bool) or not isinstance(value, int):\n",
        "    if not isinstance(value, int):\n",
    ),
    _amounts(
        "an amount may be below its minimum",
        "L2",
        "if not minimum <= value <= CREDITS_MAX:",
        "if not minimum - 1 <= value <= CREDITS_MAX:",
    ),
    _rating(
        "a cost may pass what a double counts to",
        "L2 L9",
        "    if cost > CREDITS_MAX:\n",
        "    if cost > 2 * CREDITS_MAX:\n",
    ),
    _rating(
        "a quantity may be below zero",
        "L2",
        'check_amount("quantity", quantity, minimum=0)',
        'check_amount("quantity", quantity, minimum=-1)',
    ),
    _parsers(
        "a number of seconds has no maximum",
        "L9",
        "not isinstance(value, int | float) or not minimum <= value <= maximum:",
        "not isinstance(value, int | float) or not minimum <= value:",
    ),
    _parsers(
        "a whole number has no minimum",
        "L9",
        "not isinstance(value, int) or not minimum <= value <= maximum:",
        "not isinstance(value, int) or not value <= maximum:",
    ),
    _parsers(
        "a refused key is shown",
        "L10",
        'raise InvalidValue(key, "…", "must be a Stripe secret',
        'raise InvalidValue(key, value, "must be a Stripe secret',
    ),
    _parsers("the same percentage may be there twice", "L9", "if len(set(found)) != len(value) or not", "if not"),
    _settings("an unknown key is let pass", "L9", "            raise _unknown(key, value)\n", "            continue\n"),
    _settings(
        "a live key charges without a word",
        "L8",
        'if "_live_" in settings.stripe_api_key[:8] and not settings.stripe_live:',
        "if not settings.stripe_meter:",
    ),
    _settings(
        "the configuration wins over the environment",
        "L9",
        "        if variable in environment:\n",
        "        if variable in environment and name not in given:\n",
    ),
)
