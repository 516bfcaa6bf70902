"""Faults of the life of a task: hold, settle, publish, and what is owed after it."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_SIMULATION: Final = "tests/simulation/test_simulation.py::test_every_law_holds"
_ENDINGS: Final = "tests/integration/test_endings.py"
_DIRECT: Final = "tests/unit/test_lifecycle_direct.py"
_lifecycle = faults("billing/task/lifecycle.py", "tests/unit/test_lifecycle.py", _DIRECT, _SIMULATION)
_publishing = faults("billing/task/publishing.py", "tests/unit/test_publishing.py")
_pending = faults(
    "billing/task/pending.py",
    "tests/unit/pending/test_pending_settles.py",
    "tests/unit/pending/test_pending_ends.py",
    "tests/unit/pending/test_pending_entries.py",
)

TASKS: Final[tuple[Mutant, ...]] = (
    _lifecycle(
        "a run that waits for a retry gives its hold back",
        "L4 L5",
        "            if state == RETRY:\n",
        "            if state is None:\n",
        "tests/unit/hooks/test_hooks_runs.py",
        _SIMULATION,
        "tests/unit/test_testing.py",
        _ENDINGS,
    ),
    _lifecycle(
        "every task runs without a hold while Redis is away",
        "L1",
        "if isinstance(error, Unreachable) and is_metered(run.definition, self.runtime.settings):",
        "if isinstance(error, Unreachable):",
        "tests/unit/modes/test_modes_metered_runs.py",
        "tests/unit/test_lifecycle.py",
        "tests/unit/test_waits.py",
        _ENDINGS,
    ),
    _lifecycle(
        "a settle that a rebuild refuses is forgotten",
        "L3 L6",
        "        if reply.outcome is SettleOutcome.RECOVERING:\n            raise Recovering(",
        "        if reply.outcome is SettleOutcome.RECOVERING:\n            return\n            raise Recovering(",
    ),
    _lifecycle(
        "a settle that Redis did not answer is forgotten",
        "L3",
        "            if run.outcome is Outcome.PENDING:\n",
        "            if run.outcome is None:\n",
    ),
    _lifecycle(
        "a charge whose hold may be gone waits for Redis",
        "L3",
        "            if isinstance(away, Unreachable) and self.runtime.clock.monotonic() < run.held_until:\n",
        "            if isinstance(away, Unreachable):\n",
    ),
    _lifecycle(
        "a direct charge leaves its hold",
        "L5",
        "        self.releases.add(run)\n        run.outcome, run.credits_charged",
        "        run.outcome, run.credits_charged",
        _DIRECT,
        "tests/unit/test_lifecycle.py",
        _SIMULATION,
        "tests/integration/test_lost_charges.py",
    ),
    _lifecycle(
        "a direct charge that is interrupted counts as made",
        "L3",
        "        self.events.publish_direct(run, lines)\n        # The outcome last: where a time limit comes upon this, it still stands as pending, and is charged again.\n        self.releases.add(run)\n        run.outcome, run.credits_charged = Outcome.LATE, sum(line.credits for line in lines)\n",
        "        run.outcome, run.credits_charged = Outcome.LATE, sum(line.credits for line in lines)\n        self.events.publish_direct(run, lines)\n        self.releases.add(run)\n",
        _DIRECT,
        "tests/unit/test_lifecycle.py",
        "tests/integration/test_lost_charges.py",
    ),
    _lifecycle(
        "a later attempt is charged at later prices",
        "L3",
        "            run.price_as_of(reply.price_version, first.priced_at, first.fixed)\n",
        "",
        "tests/unit/test_fixed_credits.py",
        "tests/integration/test_quotes.py",
        _ENDINGS,
    ),
    _lifecycle(
        "what an earlier attempt recorded is charged",
        "L3",
        "            book_of(self.runtime, run)\n            self._stage(run)\n",
        "            book_of(self.runtime, run)\n",
        _DIRECT,
        "tests/unit/test_lifecycle.py",
        "tests/unit/test_usage_recorder.py",
        "tests/unit/test_testing.py",
        _ENDINGS,
    ),
    _lifecycle(
        "entries that could not ride are never removed",
        "L9",
        "        self.pending.give_back(reply.left)\n",
        "",
    ),
    _publishing(
        "an event that is not confirmed is forgotten",
        "L3",
        '            logger.warning("billing: an event of client %s waits for the broker: %s", client_id, error)\n            self._keep(message)\n',
        '            logger.warning("billing: an event of client %s waits for the broker: %s", client_id, error)\n',
    ),
    _publishing(
        "an interrupted publish loses its event",
        "L3",
        "            # A time limit, or Ctrl-C, came upon it.\n            self._keep(message)\n",
        "",
    ),
    _publishing(
        "what was not confirmed leaves the outbox",
        "L3",
        "self._confirmed(messages[:confirmed])",
        "self._confirmed(messages)",
    ),
    _publishing(
        "what was not confirmed is kept no longer", "L3", "self._forget(messages[:confirmed])", "self._forget(messages)"
    ),
    _publishing(
        "a process keeps any number of events",
        "L9",
        "while len(self._kept) > EVENTS_MAX or",
        "while len(self._kept) > 10 * EVENTS_MAX or",
    ),
    _publishing("each try of a direct event is another one", "L3", "if run.direct is None:", "if run.head:"),
    _publishing("a silent queue keeps back the others", "L10", "if failures == FAILURES_MAX:", "if failures:"),
    _publishing(
        "without confirms an outbox entry goes",
        "L3",
        "        if broker.confirms(self._runtime.settings):\n            for",
        "        if messages:\n            for",
    ),
    _pending(
        "any number of settles is kept",
        "L9",
        "if len(self._settles) >= SETTLES_MAX:",
        "if len(self._settles) >= 10 * SETTLES_MAX:",
    ),
    _pending(
        "what is owed when a process ends is forgotten",
        "L3",
        "        for kept in left:\n            kept.resort()\n",
        "",
    ),
    _pending(
        "one silent server keeps back all settles",
        "L10",
        "            silent.add(node)\n            return False\n",
        "            raise\n",
    ),
    _pending("a settle that never works is tried for ever", "L9", "if kept.tries < TRIES_MAX:", "if kept.tries:"),
    _pending(
        "a settle that is given up is forgotten",
        "L3",
        "                return False\n            kept.resort()\n",
        "                return False\n",
    ),
    _pending(
        "a payment and an end pay the same settle", "L3", "if not is_paid and not kept.is_over:", "if not is_paid:"
    ),
)
