"""Faults of the calls to Stripe: what may be sent, what an answer means, and what its sums prove."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_HERE: Final = "billing/sinks/sync/"
_OUTCOMES: Final = "tests/unit/test_stripe_outcomes.py"
_SENDING: Final = "tests/unit/test_sync_sending.py"
_MODEL: Final = "tests/unit/test_increment_model.py"
_LOG: Final = "tests/contract/increments/test_log.py"
_DIFFERENTIAL: Final = "tests/contract/increments/test_differential.py"
_PUSHER: Final = "tests/integration/test_stripe_pusher.py"
_ENDS: Final = "tests/integration/test_stripe_pusher_ends.py"
_SIMULATION: Final = "tests/simulation/sync/test_sync_simulation.py"
_CONFIRMER: Final = "tests/integration/test_stripe_confirmer.py"
_DOUBTS: Final = "tests/integration/test_sync_restored_doubts.py"
_protocol = faults(_HERE + "protocol.py", _SENDING, _OUTCOMES, _MODEL, _ENDS, _PUSHER, _SIMULATION)
_looks = faults(_HERE + "looks.py", _MODEL, _CONFIRMER, "tests/integration/test_stripe_doubt.py", _SIMULATION)
_increment = faults(_HERE + "increment.py", _MODEL, _LOG, _PUSHER)
_push = faults(_HERE + "postgres/push_statements.py", _LOG, _DIFFERENTIAL)
_pusher = faults(_HERE + "calling/pusher.py", _PUSHER)
_told = faults(_HERE + "restored/told.py", _DOUBTS)
_adopting = faults(_HERE + "restored/adopting.py", _DOUBTS)
_budget = faults(_HERE + "calling/budget.py", "tests/integration/test_stripe_budget.py")
_answers = faults("billing/sinks/stripe/answers.py", _OUTCOMES)

CALLS: Final[tuple[Mutant, ...]] = (
    _protocol(
        "an increment is sent again after Stripe forgot its name",
        "L8",
        "timedelta(hours=22, minutes=30)",
        "timedelta(hours=48)",
    ),
    _protocol(
        "a duplicate is a refusal", "L8", "if answer in (Answer.TAKEN, Answer.DUPLICATE):", "if answer is Answer.TAKEN:"
    ),
    _protocol("silence is taken for a refusal", "L8", "if doubted or answer is Answer.UNKNOWN:", "if doubted:"),
    _protocol(
        "a refusal in doubt is believed",
        "L8",
        "if doubted or answer is Answer.UNKNOWN:",
        "if answer is Answer.UNKNOWN:",
    ),
    _protocol(
        "what was not executed is rejected",
        "L8",
        "return State.PENDING if answer in NOT_EXECUTED else State.REJECTED",
        "return State.REJECTED",
    ),
    _protocol(
        "it is sent though its invoice is final",
        "L8",
        "increment.closes_at is not None and now >= increment.closes_at",
        "increment.closes_at is not None and now > increment.closes_at + LEASE",
    ),
    _protocol(
        "it is sent to other books than before",
        "L8",
        "if increment.sent_to not in (None, books) or is_closed(increment, now):",
        "if is_closed(increment, now):",
    ),
    _protocol(
        "each attempt begins the 22 hours anew",
        "L8",
        "first_attempt_at=increment.first_attempt_at or now,",
        "first_attempt_at=now,",
    ),
    _protocol(
        "a pusher that lives is taken for dead",
        "L8",
        "(lease is None or lease < now or",
        "(lease is None or lease > now or",
    ),
    _protocol(
        "who died is taken not to have called",
        "L8",
        "return dataclasses.replace(increment, state=State.AMBIGUOUS, lease_until=None, reason=reason)",
        "return dataclasses.replace(increment, state=State.PENDING, first_attempt_at=None, sent_to=None, lease_until=None, reason=reason)",
    ),
    _protocol(
        "an answer to an earlier attempt counts",
        "L8",
        "if increment.attempts != attempt or not heard:",
        "if not heard:",
        _MODEL,
        _ENDS,
        _SIMULATION,
    ),
    _protocol(
        "an increment has any number of generations",
        "L9",
        "increment.generation >= GENERATIONS_MAX:",
        "increment.generation > 100 * GENERATIONS_MAX:",
        "tests/unit/test_sync_reissuing.py",
    ),
    _protocol(
        "one look that finds nothing is enough",
        "L8",
        "ABSENCE_CHECKS: Final = 2",
        "ABSENCE_CHECKS: Final = 1",
        _CONFIRMER,
        "tests/integration/test_stripe_doubt.py",
        _SIMULATION,
    ),
    _looks(
        "looks of one hour prove an absence",
        "L8",
        "ABSENT_FOR: Final = timedelta(hours=24)",
        "ABSENT_FOR: Final = timedelta(hours=1)",
        _CONFIRMER,
        "tests/integration/test_stripe_doubt.py",
        _SIMULATION,
    ),
    _looks(
        "any sum confirms",
        "L8",
        "    if shown != increment.units:\n",
        "    if shown < 0:\n",
        _CONFIRMER,
        "tests/integration/test_stripe_doubt.py",
        "tests/integration/test_stripe_found.py",
        _SIMULATION,
    ),
    _looks(
        "a look during a call counts",
        "L8",
        "if latest is not None and now < latest + LEASE:",
        "if latest is None:",
        _CONFIRMER,
        _MODEL,
        "tests/integration/test_stripe_doubt.py",
        _SIMULATION,
    ),
    _looks(
        "sums of other books prove something",
        "L8",
        "if increment.first_attempt_at is None or increment.sent_to != books:",
        "if increment.first_attempt_at is None:",
        _CONFIRMER,
        _DIFFERENTIAL,
        _ENDS,
    ),
    _increment(
        "an idempotency key is used twice",
        "L8",
        'return f"{self.identifier}#{self.attempts}"',
        "return self.identifier",
    ),
    _push(
        "two increments of a customer are in flight",
        "L8",
        "other.event_name = free.event_name AND other.state = 'sending'",
        "other.event_name = free.event_name AND other.state = 'none'",
    ),
    _push(
        "two pushers decide for one customer",
        "L8",
        "WHERE client_id = (SELECT client_id FROM stripe_increment WHERE increment_id = :increment_id)\nFOR UPDATE SKIP LOCKED",
        "WHERE client_id = (SELECT client_id FROM stripe_increment WHERE increment_id = :increment_id)",
        _LOG,
        _PUSHER,
    ),
    _push(
        "what failed most comes first",
        "L10",
        "'), attempts, increment_id LIMIT :most",
        "'), attempts DESC, increment_id LIMIT :most",
    ),
    _push("what is held comes first", "L10", "ORDER BY starts_with(reason, '{HELD}'), attempts", "ORDER BY attempts"),
    _told(
        "a Redis that refuses stops the report",
        "L10",
        "except redis.RedisError as error:",
        "except ZeroDivisionError as error:",
    ),
    _adopting("a sum that moves is adopted", "L8", "if changed or _told", "if _told"),
    _adopting("usage is taken for another system's units", "L8", "if beyond and self._ours else", "if beyond else"),
    _push(
        "a closed period's increment is found to be sent",
        "L8",
        "  AND (closes_at IS NULL OR closes_at > :now) AND",
        "  AND",
        _DIFFERENTIAL,
    ),
    _push(
        "an attempt is not on record before its call",
        "L8",
        "INSERT INTO stripe_attempt (increment_id, attempt, idempotency_key, started_at)\nVALUES (:increment_id, :attempt, :idempotency_key, :started_at)\n",
        "INSERT INTO stripe_attempt (increment_id, attempt, idempotency_key, started_at)\nSELECT :increment_id, :attempt, :idempotency_key, CAST(:started_at AS timestamptz) WHERE false\n",
    ),
    _pusher(
        "a meter that takes nothing rejects its increments",
        "L8 L10",
        '            return dataclasses.replace(reply, answer=Answer.FORBIDDEN, reason=f"{error}; {reply.reason}")\n',
        "            return reply\n",
        "tests/integration/test_stripe_meters.py",
        _PUSHER,
    ),
    _budget(
        "the fleet calls more often than it may", "L9", "seconds=SPREAD / per_second", "seconds=SPREAD / per_second / 2"
    ),
    _budget(
        "a turn that was missed is used",
        "L9",
        "if clock.monotonic() - asked - seconds <= LAPSE_SECONDS:",
        "if clock.monotonic() - asked >= 0:",
    ),
    _answers("an HTTP 500 is a refusal", "L8", "if status not in _CLIENT_ERRORS or", "if"),
    _answers(
        "any HTTP 400 with that sentence is a duplicate",
        "L8",
        "return DUPLICATE_SENTENCE in said and identifier in said",
        "return DUPLICATE_SENTENCE in said",
    ),
    _answers(
        "a lost connection carried nothing",
        "L8",
        "return Answer.UNREACHED if never_made else Answer.UNKNOWN",
        "return Answer.UNREACHED",
    ),
    _answers(
        "too many requests is a refusal",
        "L8 L10",
        "(HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.CONFLICT)",
        "(HTTPStatus.CONFLICT,)",
    ),
)
