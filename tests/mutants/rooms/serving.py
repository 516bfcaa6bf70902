"""Faults of what acts for clients: top-ups, parked tasks, alerts and webhooks."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_TOP_UPS: Final = "tests/integration/test_top_ups.py"
_ANSWERS: Final = "tests/integration/test_top_ups_answers.py"
_ALERTS: Final = "tests/integration/test_alerts.py"
_WEBHOOKS: Final = "tests/integration/test_webhooks.py"
_STARTING: Final = "tests/integration/test_parked_starting.py"
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
        "tests/integration/test_top_ups_hanging.py",
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
        "        assert sku\n",
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
        "tests/integration/test_webhooks_hanging.py",
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
