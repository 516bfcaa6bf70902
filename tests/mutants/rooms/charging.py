"""Faults of what becomes of an event: verdicts, allotments, corrections, and the log's SQL."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_HERE: Final = "billing/fulfillment/"
_VERDICTS: Final = "tests/unit/test_verdicts.py"
_ONCE: Final = "tests/contract/log/test_once.py -k postgres"
_LOG: Final = "tests/integration/test_usage_log.py"
_verdicts = faults(_HERE + "verdicts.py", _VERDICTS)
_log = faults(_HERE + "postgres_log.py", _ONCE)
_sql = faults(_HERE + "log_statements.py", _ONCE)
_doubts = faults(_HERE + "doubts.py", "tests/integration/test_postings.py")
_allotment = faults(_HERE + "allotment.py", "tests/unit/test_allotment.py")
_compensation = faults(_HERE + "compensation.py", "tests/unit/test_compensation.py")
_rows = faults(_HERE + "usage_rows.py", "tests/unit/test_usage_rows.py", _ONCE)

VERDICTS: Final[tuple[Mutant, ...]] = (
    _verdicts(
        "what is new is taken although the bucket has paid it",
        "L2 L3",
        "        if settled.epoch == epoch:\n            return Verdict.NOTHING",
        "        if settled.epoch == epoch:\n            return Verdict.TAKE",
    ),
    _verdicts(
        "what is new is never taken",
        "L2 L6",
        "Verdict.TAKE if settled.epoch < epoch",
        "Verdict.NOTHING if settled.epoch < epoch",
    ),
    _verdicts(
        "what was charged twice is never given back",
        "L2 L3",
        "return Verdict.GIVE_BACK if",
        "return Verdict.NOTHING if",
    ),
    _verdicts(
        "a settlement is known by its id alone",
        "L2 L6",
        "if stored == settled or settled.epoch < epoch:",
        "if stored.settlement_id == settled.settlement_id or settled.epoch < epoch:",
    ),
    _verdicts(
        "the charges of an unknown client are dropped",
        "L3",
        "if event.client_id not in clients and event.mode == DRY_RUN:",
        "if event.client_id not in clients:",
    ),
    _verdicts(
        "a run of the far future reaches the history",
        "L9",
        "elif latest < milliseconds_of(event.run_id) < LEGACY_MILLISECONDS:",
        "elif latest > LEGACY_MILLISECONDS:",
    ),
    _verdicts(
        "the last settlement of a batch stands",
        "L3",
        "first.setdefault(event.run_id, event)",
        "first[event.run_id] = event",
        _ONCE,
        _LOG,
    ),
    _verdicts("what is taken off is added", "L2", "+ sign * share.credits", "+ share.credits"),
    _doubts("what was charged twice is taken again", "L2 L3", "event, -1)", "event, 1)"),
    _doubts(
        "a direct event that is there already is allotted again",
        "L2 L3",
        "if event.run_id not in there]",
        "if event.run_id]",
        "tests/integration/test_postings.py",
        "tests/integration/test_postings_endings.py",
        "tests/contract/log/test_once.py",
    ),
    _allotment(
        "a grant pays for work that finished after its end",
        "L1 L2",
        "0 < terms.expires_ms <= at_ms",
        "0 < terms.expires_ms < at_ms",
    ),
    _allotment("a direct event is paid by a grant of another SKU", "L2", "grant.terms.fits(line.sku) and not", "not"),
    _allotment("one credit pays two direct events of a batch", "L2", "            grant.credits -= part\n", ""),
    _compensation(
        "a line is returned more often than it was charged", "L3 L7", "room = charged + net if", "room = charged if"
    ),
    _compensation(
        "what is returned goes to the first payer first", "L2", "for grant in reversed(left) if", "for grant in left if"
    ),
)

LOG: Final[tuple[Mutant, ...]] = (
    _log("sums are not written with their rows", "L8", "        if inserted:\n", "        if False:\n"),
    _log(
        "what is refused is acked and kept nowhere",
        "L3",
        "        if sorting.letters:\n",
        "        if False:\n",
        "tests/contract/log/test_refused.py -k postgres",
    ),
    _log(
        "markers are acked and kept nowhere",
        "L6",
        "        if sorting.markers:\n",
        "        if False:\n",
        "tests/contract/log/test_refused.py -k postgres",
    ),
    _log(
        "a batch is never committed",
        "L3",
        "                report = self._write(cursor, batch, look=True)\n        connection.commit()\n",
        "                report = self._write(cursor, batch, look=True)\n",
    ),
    _log(
        "a month that is missing makes a dead letter of each event",
        "L3 L10",
        "            if has_no_month(error):\n                message",
        "            if False:\n                message",
        "tests/integration/test_partitions.py",
        "tests/integration/test_archive.py",
    ),
    _log(
        "another number of shards takes other locks",
        "L6",
        "if known.shard != shard_of(client_id, self._shards):",
        "if known.shard < 0:",
        "tests/integration/test_usage_log_faults.py",
    ),
    _log(
        "a duplicate is not looked up",
        "L2 L3",
        "if len(inserted) < len(sorting.events):",
        "if not inserted:",
        _ONCE,
        _LOG,
    ),
    _sql(
        "a batch does not keep rebuilds out",
        "L2 L6",
        "count(pg_advisory_xact_lock_shared({int(Guard.SHARD)}, shard))",
        "count(shard + {int(Guard.SHARD)})",
        "tests/integration/test_usage_log_faults.py",
    ),
    _sql("a duplicate is an error", "L3", "ON CONFLICT (run_id, line) DO NOTHING\n", ""),
    _sql(
        "a rollup is written over",
        "L8",
        "SET credits = rollup.credits + excluded.credits,",
        "SET credits = excluded.credits,",
    ),
    _sql(
        "what a grant has paid is written over",
        "L2 L6",
        "SET credits = spent.credits + excluded.credits",
        "SET credits = excluded.credits",
    ),
    _sql(
        "a quantity is counted once per hour",
        "L8",
        "quantity = rollup.quantity + excluded.quantity",
        "quantity = excluded.quantity",
    ),
    _sql(
        "a settlement is given back each time it comes",
        "L2 L3",
        "ON CONFLICT DO NOTHING\nRETURNING run_id, settlement_id, epoch",
        "ON CONFLICT (run_id, settlement_id, epoch) DO UPDATE SET client_id = excluded.client_id\nRETURNING run_id, settlement_id, epoch",
        "tests/integration/test_postings.py",
    ),
    _sql(
        "an older event takes a client's epoch back",
        "L6",
        "client.client_id = seen.client_id AND client.epoch < seen.epoch",
        "client.client_id = seen.client_id AND client.epoch <> seen.epoch",
        _LOG,
    ),
    _sql(
        "a direct event is paid by credits that were adjusted away",
        "L2 L7",
        " - coalesce(entered.credits, 0))::bigint",
        ")::bigint",
        "tests/integration/test_postings.py",
        "tests/integration/test_postings_endings.py",
    ),
    _sql(
        "the second line of a run is dropped",
        "L3",
        "WHERE line > 0 ORDER BY run_id, line",
        "WHERE line > 1 ORDER BY run_id, line",
    ),
    _rows(
        "a rollup is of the hour after",
        "L8",
        "event.occurred_at - event.occurred_at % _HOUR",
        "event.occurred_at - event.occurred_at % _HOUR + _HOUR",
    ),
)
