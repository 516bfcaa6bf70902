"""Faults of what finishes the work of others: the reaper, renewals, the relay and publisher confirms."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_SIMULATION: Final = "tests/simulation/test_simulation.py::test_every_law_holds"
_reaper = faults("billing/task/reaper.py", "tests/unit/test_reaper_silence.py", "tests/integration/test_reaper.py")
_renewal = faults("billing/task/renewal.py", "tests/unit/test_renewal.py")
_relay = faults("billing/events/relay.py", "tests/unit/test_relay_silence.py", "tests/integration/test_relay.py")
_confirms = faults("billing/events/confirms.py", "tests/unit/test_confirms.py", "tests/integration/test_publisher.py")
_links = faults("billing/events/links.py", "tests/integration/test_publisher.py")
_direct = faults("billing/events/direct.py", "tests/unit/test_usage_event.py")

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
        "headers[ENTRY_HEADER] = outgoing.entry_id",
        "pass",
        "tests/integration/test_relay.py",
    ),
    _direct("a direct event says that a bucket has paid it", "L2 L6", "epoch=DIRECT_EPOCH,", "epoch=1,"),
    _direct("a direct event is not late", "L4", "late=mode is None,", "late=False,"),
)
