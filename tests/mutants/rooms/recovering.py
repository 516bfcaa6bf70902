"""Faults of the ledger, of postings in PostgreSQL, of rebuilds, of grants' ends, and of what guards the tables."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_REBUILD: Final = "tests/integration/test_recovery_rebuild.py"
_RACES: Final = "tests/integration/test_recovery_races.py"
_QUEUES: Final = "tests/integration/test_recovery_queues.py"
_SIMULATION: Final = "tests/simulation/test_simulation.py::test_every_law_holds"
_plan = faults(
    "billing/credits/rebuilding.py", "tests/unit/test_credits_rebuilding.py", "tests/unit/test_postings_rebuilt.py"
)
_writing = faults("billing/recovery/writing.py", _RACES, _REBUILD)
_rebuild = faults("billing/recovery/rebuild.py", _REBUILD, _QUEUES)
_flush = faults("billing/recovery/flush.py", _QUEUES)
_facts = faults("billing/recovery/facts.py", _REBUILD, _RACES)
_lapsing = faults("billing/recovery/lapsing.py", "tests/integration/test_postings_endings.py")
_endings = faults(
    "billing/ledger/endings.py", "tests/integration/test_postings_endings.py", "tests/integration/test_grant_terms.py"
)
_postings = faults("billing/ledger/postings.py", "tests/integration/test_postings.py")
_grants = faults(
    "billing/ledger/grants.py", "tests/integration/test_ledger.py", "tests/integration/test_client_changes.py"
)
_locks = faults("billing/ledger/locks.py", "tests/integration/test_ledger.py", _REBUILD)
_history = faults("billing/schema/migrations/versions/0002_usage_history.py", "tests/integration/test_partitions.py")
_guards = faults(
    "billing/schema/migrations/versions/0001_catalog_and_ledger.py", "tests/integration/test_usage_history_immutable.py"
)
_archive = faults("billing/schema/migrations/versions/0016_archive.py", "tests/integration/test_archive.py")
_privileges = faults("billing/schema/privileges.py", "tests/integration/test_roles.py")

RECOVERY: Final[tuple[Mutant, ...]] = (
    _writing(
        "a rebuild reads while batches write",
        "L2 L6",
        "        locks.lock_shard_exclusive(connection, shard)\n        verified, server",
        "        verified, server",
        _RACES,
        _REBUILD,
        "tests/integration/test_usage_log_faults.py",
    ),
    _writing(
        "a late rebuilder begins an epoch on an open shard",
        "L6",
        "        if verified == server:\n",
        "        if not server:\n",
    ),
    _writing(
        "a rebuilder opens what another one is rebuilding",
        "L6",
        "        if any(epochs.get(one.client_id) != one.epoch for one in planned):\n",
        "        if not epochs and planned:\n",
    ),
    _writing(
        "a hold whose run is in the log is held again",
        "L3 L4",
        "for hold in held if hold.run_id not in logged)",
        "for hold in held)",
    ),
    _rebuild(
        "a rebuild does not wait for running attempts",
        "L5 L6",
        "        self._wait(assertion_seconds(self._runtime.settings))\n",
        "",
        _QUEUES,
        _REBUILD,
        _SIMULATION,
    ),
    _rebuild(
        "a rebuild leaves what waits in outboxes", "L2 L6", "outboxes=True)", "outboxes=False)", _QUEUES, _SIMULATION
    ),
    _rebuild(
        "a trusted shard is closed before its queue is flushed",
        "L6 L10",
        "ready = set(self._flush.arrived(sorted(wanted), outboxes=False))",
        "ready = wanted",
    ),
    _rebuild("two rebuilders lead at once", "L6", "if not locks.try_lead_recovery(leader, 0):", "if not leader:"),
    _rebuild(
        "one shard that fails stops the rebuild of all",
        "L10",
        '            logger.exception("billing: shard %d could not be rebuilt; the others go on", shard)\n',
        "            raise\n",
        _QUEUES,
    ),
    _flush(
        "a queue counts as flushed before its marker is committed",
        "L3 L6",
        "for queue, token in waiting.items() if self._is_committed(token)]",
        "for queue, token in waiting.items() if token]",
        _QUEUES,
    ),
    _facts("a rebuild keeps the epoch", "L6", "epoch=client.c.epoch + 1", "epoch=client.c.epoch"),
    _facts(
        "an epoch may be older than the bucket's",
        "L6",
        "    _raise_to_buckets(connection, shard, bucket_epochs)\n    epochs",
        "    epochs",
    ),
    _facts(
        "of many holds the first ones alone are looked up in the log",
        "L3 L9",
        "        logged.update(",
        "        logged = dict(",
        "tests/integration/test_recovery_facts.py",
    ),
    _plan("an adjustment that a bucket missed is forgiven", "L2", "        self.adjusted_debt += missing\n", ""),
    _plan(
        "a rebuild lends overdraft above the limit",
        "L1",
        "max(0, self.known.client.overdraft_limit - self.room)",
        "max(0, self.known.client.overdraft_limit)",
    ),
    _plan(
        "a restricted grant repays in a rebuild",
        "L2",
        "            if not self.terms(grant).skus:\n",
        "            if grant:\n",
    ),
    _plan(
        "a rebuild lends what had ended when the hold was made",
        "L1 L2",
        "if not 0 < ends_ms <= created_ms)",
        "if created_ms >= 0)",
    ),
    _plan(
        "what has ended can be spent after a rebuild",
        "L1",
        "            if terms.ended_at(self.known.now_ms):\n",
        "            if not self.known:\n",
    ),
)

LEDGER: Final[tuple[Mutant, ...]] = (
    _grants(
        "the same key grants another amount",
        "L2 L3",
        "    if found.credits != amount:\n",
        "    if found.credits < 0:\n",
    ),
    _grants("a closed client is granted more", "L2", '    if state == "closed":\n', '    if state == "shut":\n'),
    _grants(
        "a grant has no ledger entry",
        "L2 L7",
        "    connection.execute(insert(ledger_entry).values(entry))\n",
        "    assert entry\n",
    ),
    _grants(
        "what is granted has no bound",
        "L9",
        "    bounds.check_grant(connection, [checked_id], amount, terms, used_up)\n",
        "    assert used_up\n",
    ),
    _locks(
        "a rebuild does not wait for batches",
        "L6",
        "select(func.pg_advisory_xact_lock(Guard.SHARD, shard))",
        "select(func.abs(Guard.SHARD + shard))",
        "tests/integration/test_ledger.py",
        "tests/integration/test_usage_log_faults.py",
    ),
    _locks(
        "who grants does not keep a rebuild out",
        "L6",
        "select(func.pg_advisory_xact_lock_shared(Guard.SHARD, shard))",
        "select(func.abs(Guard.SHARD + shard))",
    ),
    _postings(
        "a total that grew keeps its version",
        "L2",
        "    version = total.version + 1\n",
        "    version = total.version\n",
    ),
    _postings(
        "a total is written over",
        "L2",
        "SET credits = total.credits + excluded.credits,",
        "SET credits = excluded.credits,",
    ),
    _postings(
        "a posting to a grant that is on its way is told",
        "L2",
        "      AND NOT EXISTS (SELECT FROM credit_grant WHERE grant_id = own.grant_id AND applied_at IS NULL)\n",
        "",
    ),
    _postings(
        "an older total is noted as told",
        "L2",
        "  AND applied_version < applied.version AND applied.version <= posting.version",
        "  AND applied.version >= 0",
        "tests/integration/test_postings_rounds.py",
    ),
    _lapsing(
        "an end is entered while something is to be posted to the grant", "L2 L7", "not in waiting]", "not in ()]"
    ),
    _lapsing(
        "an end is entered while a batch writes",
        "L2 L7",
        "            locks.lock_shard_exclusive(connection, shard)\n",
        "",
    ),
    _endings(
        "an end is entered before an adjustment",
        "L2 L7",
        "if one.client_id not in waiting]",
        "if one.client_id]",
    ),
    _endings(
        "an end is entered whole again",
        "L2 L7",
        "entered.credits - ending.credits, lapsed.repaid",
        "-ending.credits, lapsed.repaid",
    ),
)

TABLES: Final[tuple[Mutant, ...]] = (
    _guards(
        "a row of the history can be deleted",
        "L7",
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON",
        "BEFORE UPDATE OR TRUNCATE ON",
    ),
    _guards(
        "a row of the history can be changed",
        "L7",
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON",
        "BEFORE DELETE OR TRUNCATE ON",
    ),
    _guards(
        "the history can be truncated", "L7", "BEFORE UPDATE OR DELETE OR TRUNCATE ON", "BEFORE UPDATE OR DELETE ON"
    ),
    _guards(
        "a replica's role may change the history",
        "L7",
        "ENABLE ALWAYS TRIGGER billing_append_only",
        "ENABLE TRIGGER billing_append_only",
    ),
    _history(
        "a new month is not guarded",
        "L7",
        "    PERFORM billing_make_append_only(quote_ident(partition)::regclass);\n",
        "",
        "tests/integration/test_usage_history_immutable.py",
        "tests/integration/test_partitions.py",
        explained="Months are made by billing_make_usage_months alone, which guards every partition at its end, in the "
        "same transaction: the guard of the one month is a second net.",
    ),
    _history(
        "an attached month stays without its guard",
        "L7",
        "        PERFORM billing_make_append_only(partition);\n",
        "        PERFORM partition;\n",
        "tests/integration/test_usage_history_immutable.py",
    ),
    _history(
        "a month that is archived is made again",
        "L3 L7",
        "            OR to_regclass('archive.' || quote_ident(partition)) IS NOT NULL THEN",
        "            THEN",
    ),
    _history(
        "an hour of a month has no partition",
        "L3",
        "month::timestamp) + interval '1 month') AT",
        "month::timestamp) + interval '1 month' - interval '1 hour') AT",
    ),
    _history(
        "two who make months at once fail",
        "L9",
        "BEGIN\n    PERFORM pg_advisory_xact_lock(1651076098, 0);\n",
        "BEGIN\n",
    ),
    _archive(
        "an archived month can be changed",
        "L7",
        "        EXECUTE format('ALTER TABLE usage_history DETACH PARTITION %s', found.partition::regclass);\n    END IF;\n    PERFORM billing_make_append_only(found.partition::regclass);\n",
        "        EXECUTE format('ALTER TABLE usage_history DETACH PARTITION %s', found.partition::regclass);\n    END IF;\n",
        "tests/integration/test_archive.py",
        "tests/integration/test_archive_moves.py",
        explained="A month brings its guard from the history, and keeps it; the call mends months that were moved by hand.",
    ),
    _privileges(
        "a consumer may change the history",
        "L7",
        '"usage_history": "SELECT, INSERT",',
        '"usage_history": "SELECT, INSERT, UPDATE",',
    ),
    _privileges(
        "the fleet may change what is append-only",
        "L7",
        '"SELECT, INSERT" if name in _ADDED_TO else',
        '"SELECT, INSERT, UPDATE" if name in _ADDED_TO else',
    ),
)
