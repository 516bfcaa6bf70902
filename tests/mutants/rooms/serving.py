"""Faults of what clients and operators see: top-ups, parked tasks, alerts, webhooks, reconciliation, receipts, limits."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_TOP_UPS: Final = "tests/integration/test_top_ups.py"
_ANSWERS: Final = "tests/integration/test_top_ups_answers.py"
_ALERTS: Final = "tests/integration/test_alerts.py"
_WEBHOOKS: Final = "tests/integration/test_webhooks.py"
_STARTING: Final = "tests/integration/test_parked_starting.py"
_SPOILED: Final = "tests/integration/test_reconciliation_spoiled.py"
_MESSAGES: Final = "tests/unit/test_alert_messages.py"
_rule = faults("billing/top_ups/rule.py", "tests/unit/test_top_up_rule.py")
_asking = faults("billing/top_ups/statements.py", _TOP_UPS, _ANSWERS)
_finishing = faults("billing/top_ups/finishing.py", _ANSWERS, "tests/integration/test_top_ups_rules.py")
_affordable = faults("billing/parking/affordable.py", "tests/unit/test_parking_affordable.py")
_parking = faults("billing/parking/statements.py", _STARTING)
_storing = faults("billing/parking/storing.py", _STARTING)
_alerts = faults("billing/alerts/statements.py", _ALERTS, _WEBHOOKS)
_recording = faults("billing/alerts/recording.py", _ALERTS)
_signing = faults("billing/alerts/signing.py", _MESSAGES)
_answer = faults("billing/alerts/answer.py", _MESSAGES)
_courier = faults("billing/alerts/courier.py", "tests/integration/test_webhooks_hanging.py")
_url = faults("billing/core/webhook_url.py", _MESSAGES)
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

TOP_UPS: Final[tuple[Mutant, ...]] = (
    _rule(
        "what is on its way is not counted", "L9", "at_hand = balance.available + coming", "at_hand = balance.available"
    ),
    _rule(
        "a declined request is asked again at once",
        "L9",
        "rule.back_off_seconds * 2**doublings",
        "rule.back_off_seconds",
    ),
    _rule(
        "the rest after declines has no bound",
        "L9",
        "min(rule.back_off_max_seconds, rule.back_off_seconds * 2**doublings)",
        "rule.back_off_seconds * 2**doublings",
    ),
    _rule("credits that have expired count as usable", "L9", "        and not grant.expired\n", ""),
    _asking(
        "a request is asked for twice at once",
        "L3",
        "ORDER BY next_at, request_id LIMIT :count FOR UPDATE SKIP LOCKED",
        "ORDER BY next_at, request_id LIMIT :count",
        _TOP_UPS,
        _ANSWERS,
        "tests/integration/test_top_ups_hanging.py",
    ),
    _asking(
        "a shortfall that was seen before the rule moved is asked for",
        "L3",
        "WHERE rule.version = seen.version AND rule.quiet_until <= :now",
        "WHERE rule.quiet_until <= :now",
        _TOP_UPS,
        _ANSWERS,
        "tests/integration/test_top_ups_rules.py",
    ),
    _asking(
        "a request in doubt is asked for ever",
        "L9",
        "answer = '' AND attempts < :attempts_max AND",
        "answer = '' AND :attempts_max > 0 AND",
    ),
    _asking(
        "an answer to an earlier attempt counts",
        "L3",
        "state = 'asked' AND attempts = :attempts",
        "state = 'asked' AND attempts >= :attempts",
    ),
    _finishing(
        "a request that was paid is granted twice", "L2 L3", "    if found is not None:\n        return found\n", ""
    ),
    _finishing(
        "a rule asks again right after its grant",
        "L9",
        "            _rest(connection, held, 0, now + timedelta(seconds=held.rule.cool_off_seconds))\n",
        "            assert held\n",
        "tests/integration/test_top_ups.py",
        "tests/integration/test_top_ups_rules.py",
    ),
)

PARKING: Final[tuple[Mutant, ...]] = (
    _affordable(
        "a parked task starts that is one credit short",
        "L1",
        "if purse.has(sku) < credits_:",
        "if purse.has(sku) < credits_ - 1:",
    ),
    _affordable(
        "the credits of what was handed over are given again",
        "L1",
        "        purse.take(sku, min(credits_, purse.has(sku)))\n",
        "",
    ),
    _affordable(
        "a suspended client's tasks start",
        "L1",
        "if balance.terms.state is not ClientState.ACTIVE or room < 0:",
        "if room < 0:",
    ),
    _parking(
        "two starters start the same tasks",
        "L1",
        "pg_try_advisory_xact_lock(:guard, hashtext(:client))",
        "(:guard + hashtext(:client)) IS NOT NULL",
    ),
    _parking(
        "a task that waited too long starts",
        "L9",
        "AND state = 'waiting' AND expires_at > :now ORDER BY",
        "AND state = 'waiting' AND :now IS NOT NULL ORDER BY",
    ),
    _parking(
        "a later task overtakes",
        "L10",
        "AND expires_at > :now ORDER BY parked_id LIMIT",
        "AND expires_at > :now ORDER BY parked_id DESC LIMIT",
    ),
    _parking(
        "what was handed over is handed over again",
        "L1",
        "UPDATE parked_task SET state = 'started', ended_at = :now\n",
        "UPDATE parked_task SET state = 'waiting', ended_at = NULL\n",
    ),
    _storing(
        "an older copy of a message replaces the newer",
        "L4",
        "if delivery.times >= known.times:",
        "if delivery.times >= 0:",
    ),
    _storing(
        "a run that has ended is parked again",
        "L4",
        'if known.state not in ("waiting", "started"):',
        "if not known.state:",
        "tests/integration/test_parked_starting.py",
        "tests/integration/test_parked_outages.py",
        "tests/integration/test_parked_command_line.py",
        "tests/integration/test_parked_fleet.py",
    ),
    _storing(
        "a client may park any number of tasks",
        "L9",
        "    if connection.execute(IS_FULL, most).scalar_one():\n",
        "    if not most:\n",
        "tests/integration/test_parked_starting.py",
        "tests/integration/test_parked_fleet.py",
        "tests/integration/test_parked_outages.py",
    ),
)

ALERTS: Final[tuple[Mutant, ...]] = (
    _alerts("an alert that is recorded again is an error", "L9", "    ON CONFLICT (source) DO NOTHING\n", ""),
    _alerts(
        "two workers tell one alert",
        "L9",
        "        ORDER BY alert_id LIMIT :count FOR UPDATE SKIP LOCKED\n",
        "        ORDER BY alert_id LIMIT :count\n",
        _ALERTS,
        "tests/integration/test_alerts_resent.py",
    ),
    _alerts(
        "two workers call one webhook",
        "L9",
        "        ORDER BY next_attempt_at LIMIT :count FOR UPDATE SKIP LOCKED\n",
        "        ORDER BY next_attempt_at LIMIT :count\n",
        _WEBHOOKS,
    ),
    _alerts(
        "a client's later alert comes first",
        "L10",
        "older.client_id = due.client_id AND older.announced_at IS NULL AND older.alert_id < due.alert_id",
        "older.client_id = due.client_id AND older.announced_at IS NULL AND older.alert_id > due.alert_id",
    ),
    _alerts(
        "an answer of an earlier attempt closes a later one",
        "L9",
        "WHERE alert_id = :alert AND delivery = 'pending' AND attempts = :attempts",
        "WHERE alert_id = :alert AND delivery = 'pending' AND attempts >= :attempts",
        _WEBHOOKS,
        "tests/integration/test_webhooks_hanging.py",
    ),
    _alerts(
        "a webhook is called for ever",
        "L9",
        "AND (attempts >= :attempts_max OR NOT EXISTS",
        "AND (attempts < 0 * :attempts_max OR NOT EXISTS",
        explained="The answer to the last attempt closes the alert; this closes one whose worker died in that attempt.",
    ),
    _alerts(
        "alerts that wait are forgotten",
        "L9",
        "AND delivery <> 'pending' AND announced_at IS NOT NULL",
        "AND delivery IS NOT NULL",
        _ALERTS,
    ),
    _recording(
        "an alert is removed before it is recorded",
        "L9",
        "    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:\n        connection.execute(RECORD, given)\n    # Before",
        "    assert given\n    # Before",
    ),
    _signing(
        "a signature does not cover the body", "L10", "sign(message_id, at, body.decode())", 'sign(message_id, at, "")'
    ),
    _signing(
        "a signature is of another time than its header",
        "L10",
        '"webhook-timestamp": str(int(at.timestamp())),',
        '"webhook-timestamp": str(int(at.timestamp()) + 1),',
    ),
    _answer("a redirect counts as delivered", "L9", "200 <= self.status < 300", "200 <= self.status < 400"),
    _answer(
        "a receiver that is gone is called again", "L9", "self.delivered or self.status == _GONE", "self.delivered"
    ),
    _answer(
        "pauses grow without a bound",
        "L9",
        "min(_PAUSE_SECONDS_MAX, _FIRST_PAUSE_SECONDS * _GROWTH ** (attempts - 1))",
        "_FIRST_PAUSE_SECONDS * _GROWTH ** (attempts - 1)",
    ),
    _courier(
        "an answer may be without an end",
        "L9 L10",
        '        if not left:\n            raise httpx.ReadError("the answer does not end")\n',
        "",
        hangs=True,
    ),
    _url(
        "a webhook's URL may hold a password",
        "L10",
        "if parts.username is not None or parts.password is not None:",
        "if parts.username is not None and parts.password is None:",
    ),
    _url(
        "a webhook may be called without TLS",
        "L10",
        'parts.scheme == "http" and not insecure and not _is_loopback(host)',
        'parts.scheme == "http" and not insecure and not host',
    ),
)

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
