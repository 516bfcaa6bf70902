"""Faults of the life of a task: hold, settle, publish, what is owed, leases, the reaper, the relay, confirms."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_SIMULATION: Final = "tests/simulation/test_simulation.py::test_every_law_holds"
_ENDINGS: Final = "tests/integration/test_endings.py"
_lifecycle = faults("billing/task/lifecycle.py", "tests/unit/test_lifecycle.py", _SIMULATION)
_publishing = faults("billing/task/publishing.py", "tests/unit/test_publishing.py")
_pending = faults(
    "billing/task/pending.py",
    "tests/unit/pending/test_pending_settles.py",
    "tests/unit/pending/test_pending_ends.py",
    "tests/unit/pending/test_pending_entries.py",
)
_reaper = faults("billing/task/reaper.py", "tests/unit/test_reaper_silence.py", "tests/integration/test_reaper.py")
_renewal = faults("billing/task/renewal.py", "tests/unit/test_outside.py", "tests/integration/test_blocks.py")
_relay = faults("billing/events/relay.py", "tests/unit/test_relay_silence.py", "tests/integration/test_relay.py")
_confirms = faults("billing/events/confirms.py", "tests/integration/test_publisher.py")
_links = faults("billing/events/links.py", "tests/integration/test_publisher.py")
_direct = faults("billing/events/direct.py", "tests/unit/test_usage_event.py", _SIMULATION)

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
        "a direct charge leaves its hold",
        "L5",
        "        self.releases.add(run)\n        run.outcome, run.credits_charged",
        "        run.outcome, run.credits_charged",
        "tests/unit/test_lifecycle.py",
        _SIMULATION,
        "tests/integration/test_lost_charges.py",
    ),
    _lifecycle(
        "a direct charge that is interrupted counts as made",
        "L3",
        "        self.events.publish_direct(run, lines)\n        # The outcome last: where a time limit comes upon this, it still stands as pending, and is charged again.\n        self.releases.add(run)\n        run.outcome, run.credits_charged = Outcome.LATE, sum(line.credits for line in lines)\n",
        "        run.outcome, run.credits_charged = Outcome.LATE, sum(line.credits for line in lines)\n        self.events.publish_direct(run, lines)\n        self.releases.add(run)\n",
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

REAPER: Final[tuple[Mutant, ...]] = (
    _reaper(
        "the reaper believes no result",
        "L3",
        "if result.state != states.SUCCESS:",
        "if result.state == states.SUCCESS:",
    ),
    _reaper(
        "an earlier submission's success is charged",
        "L3 L4",
        "+ _CLOCKS_DIFFER_MS >= first_reserve_ms",
        "+ _CLOCKS_DIFFER_MS >= 0",
    ),
    _reaper("the hold of a run that waits for a retry expires", "L5", "frozenset({states.RETRY})", "frozenset[str]()"),
    _reaper(
        "what cannot be known expires at once",
        "L3 L5",
        "and not self._too_old(hold):\n            self._extend(hold)\n            return False\n        said",
        "and self._too_old(hold):\n            self._extend(hold)\n            return False\n        said",
    ),
    _reaper(
        "a hold is extended for ever",
        "L9",
        "return age > self._settings.hold_age_max_seconds * 1_000",
        "return age < 0",
    ),
    _reaper(
        "a result backend that is away is asked for each hold",
        "L9",
        "            self._results_away = True\n            return None",
        "            return None",
    ),
    _reaper("each sweep begins at the same shard", "L10", "(self._first_shard + 1) % shards", "0"),
    _reaper(
        "one hold that cannot be read stops the sweep",
        "L10",
        'logger.exception("billing: the hold of run %s cannot be resolved; it is tried again", hold.run_id)',
        "raise",
    ),
    _renewal(
        "a hold that nobody ended is renewed for ever",
        "L9",
        "            self.remove(abandoned)\n",
        "            pass\n",
    ),
    _renewal(
        "a run that has ended is renewed",
        "L5 L9",
        "        self._runs.pop(id(run), None)\n",
        "        self._runs.get(id(run))\n",
    ),
    _renewal(
        "one failed renewal ends the thread",
        "L5",
        '        except Retryable as error:\n            logger.warning("billing: %d leases are not renewed: %s", len(runs), error)\n        except Exception:\n            logger.exception("billing: %d leases are not renewed", len(runs))',
        "        except ZeroDivisionError:\n            pass",
    ),
)

RELAY: Final[tuple[Mutant, ...]] = (
    _relay(
        "the relay removes what was not confirmed",
        "L3",
        "self._forget(shard, entries[: error.confirmed])",
        "self._forget(shard, entries)",
    ),
    _relay(
        "without confirms the relay removes what it sent",
        "L3",
        "        if self._confirms:\n            if entries:",
        "        if True:\n            if entries:",
    ),
    _relay(
        "without confirms an entry is sent with each sweep",
        "L9",
        "        if not self._confirms:\n            entries = self._due(shard, entries)\n",
        "",
    ),
    _relay("the relay takes young entries from their workers", "L9", "round(after_seconds * 1_000)", "0"),
    _relay(
        "a silent queue is tried for each of its shards",
        "L9 L10",
        "            if queue in failed:\n                return None\n",
        "",
    ),
    _relay(
        "a busy shard is relayed one batch a sweep", "L10", "if count == self._settings.relay_batch]", "if count < 0]"
    ),
    _relay(
        "a broker that is away costs a wait per queue", "L9", "if len(failed) == FAILURES_MAX:", "if len(failed) < 0:"
    ),
    _confirms("a message that no queue takes counts as published", "L3", "mandatory=True", "mandatory=False"),
    _confirms(
        "the ack that follows a return confirms",
        "L3",
        "        if self._trouble is not None:\n            return  # the ack that follows a return confirms nothing\n",
        "",
    ),
    _confirms(
        "a refused message counts as published",
        "L3",
        '        self._fail(Unconfirmed, "it refused the message")\n',
        "        self._outstanding.discard(tag)\n",
        "tests/integration/test_publisher.py",
        "tests/integration/test_relay.py",
    ),
    _confirms(
        "one confirm of many confirms them all",
        "L3",
        "waiting for waiting in self._outstanding if waiting > tag",
        "waiting for waiting in self._outstanding if waiting < 0",
    ),
    _confirms(
        "a confirm is waited for without a bound",
        "L9",
        "            if remaining <= 0:\n",
        "            if remaining <= -1e9:\n",
        hangs=True,
    ),
    _links(
        "usage events are lost when RabbitMQ is restarted",
        "L3",
        '"delivery_mode": PERSISTENT, "type"',
        '"delivery_mode": 1, "type"',
    ),
    _links(
        "a message does not name its outbox entry",
        "L9",
        "return {SHARD_HEADER: outgoing.shard, ENTRY_HEADER: outgoing.entry_id}",
        "return {SHARD_HEADER: outgoing.shard}",
        "tests/integration/test_relay.py",
    ),
    _direct("a direct event says that a bucket has paid it", "L2 L6", "epoch=DIRECT_EPOCH,", "epoch=1,"),
    _direct("a direct event is not late", "L4", "late=mode is None,", "late=False,"),
)
