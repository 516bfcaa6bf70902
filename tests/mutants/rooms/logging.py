"""Faults of the fulfillment log: verdicts, batches, the consumer's acks, dead letters, the decoder, the log's SQL."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_HERE: Final = "billing/fulfillment/"
_VERDICTS: Final = "tests/unit/test_verdicts.py"
_ONCE: Final = "tests/contract/log/test_once.py -k postgres"
_LOG: Final = "tests/integration/test_usage_log.py"
_verdicts = faults(_HERE + "verdicts.py", _VERDICTS)
_batch = faults(_HERE + "batch.py", "tests/unit/test_batch.py")
_commit = faults(_HERE + "commit.py", "tests/integration/test_consumer_refused.py")
_consumer = faults(_HERE + "consumer.py", "tests/integration/test_consumer_outages.py")
_intake = faults(
    _HERE + "intake.py", "tests/integration/test_consumer.py", "tests/integration/test_consumer_outages.py"
)
_refusals = faults(_HERE + "refusals.py", "tests/unit/test_refusals.py")
_decoder = faults(_HERE + "decoder.py", "tests/unit/test_decoder.py")
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

CONSUMING: Final[tuple[Mutant, ...]] = (
    _batch(
        "a batch is one event too large",
        "L9",
        "len(self._waiting) >= self._events_max or",
        "len(self._waiting) > self._events_max or",
    ),
    _batch(
        "a batch may be of any number of bytes",
        "L9",
        "if taken and size + length > self._bytes_max:",
        "if taken and size > self._bytes_max:",
    ),
    _batch("the bytes of what was written are still waiting", "L9", "        self._bytes -= size\n", ""),
    _batch(
        "what came on a lost channel is written and acked on the next",
        "L3",
        "        self._waiting.clear()\n        self._came.clear()\n",
        "        self._came.clear()\n",
    ),
    _consumer(
        "a message is acked before its row is committed",
        "L3",
        """        future = self._background.submit(lambda: self._commit_one(batch))
        self._writing = _Writing(batch=batch, intake=self._intake, since""",
        """        if self._intake is not None:
            self._intake.ack(batch)
        future = self._background.submit(lambda: self._commit_one(batch))
        self._writing = _Writing(batch=batch, intake=None, since""",
        "tests/integration/test_consumer.py",
        "tests/integration/test_consumer_outages.py",
    ),
    _consumer(
        "a batch is acked on another channel than it came from",
        "L3",
        "        if self._writing is not None:\n            self._writing.intake = None\n        if intake",
        "        if intake",
    ),
    _consumer(
        "a consumer subscribes while PostgreSQL is away",
        "L9 L10",
        '            connection.execute("SELECT 1")\n',
        "            pass\n",
        "tests/integration/test_consumer_outages.py",
        explained="",
    ),
    _consumer(
        "a consumer empties its queues into the dead letters",
        "L9",
        "        if reason is not None:\n            raise Fatal(reason)\n",
        "",
        "tests/integration/test_consumer_refused.py",
    ),
    _consumer(
        "a batch waits for the database for ever",
        "L9 L10",
        "if now - self._writing.since > GIVE_BACK_SECONDS:",
        "if now < self._writing.since:",
    ),
    _intake("the broker takes a message for acked when it is sent", "L3", "no_ack=False", "no_ack=True"),
    _intake("of a batch its last message alone is acked", "L9", "multiple=True)", "multiple=False)"),
    _intake(
        "the broker sends ahead without a bound",
        "L9",
        "channel.basic_qos(0, ahead(self._settings), False)",
        "channel.basic_qos(0, 0, False)",
    ),
    _commit(
        "a batch of two that is refused loses one of them",
        "L3 L10",
        "if len(batch) > 1:",
        "if len(batch) > 2:",
        "tests/integration/test_consumer_refused.py",
    ),
    _commit(
        "a stop acks what was not written",
        "L3",
        "                raise Stopped\n",
        "                return Written(events=0, rows=0, duplicates=0, dead_letters=0)\n",
        "tests/integration/test_consumer.py",
    ),
    _commit(
        "a batch that is refused is tried for ever",
        "L9 L10",
        "if tries >= tries_max:",
        "if tries < 0:",
        "tests/integration/test_consumer_refused.py",
        hangs=True,
    ),
    _refusals(
        "one client's refused events stop the consumer for all",
        "L10",
        "return refused - sum(max(0.0, count - most) for count in of.values())",
        "return float(refused)",
    ),
    _refusals(
        "the cap on refusals in a row is one too high",
        "L9",
        "if counted < self._run_max:",
        "if counted <= self._run_max:",
    ),
    _refusals("refusals of long ago still count", "L9", "            self._refused -= gone_refused\n", ""),
)

DECODER: Final[tuple[Mutant, ...]] = (
    _decoder("a message may be of any length", "L9", "if len(body) > BYTES_MAX:", "if len(body) > 2 * BYTES_MAX:"),
    _decoder(
        "the shares of a line need not be what it cost", "L2 L8", "if paid != line.credits:", "if paid > line.credits:"
    ),
    _decoder(
        "a run may be ahead of its work", "L9", "if at > occurred_at + _DAY and", "if at > occurred_at + 400 * _DAY and"
    ),
    _decoder(
        "any version is taken for this one",
        "L3",
        "if event.version != usage_event.VERSION:",
        "if event.version < usage_event.VERSION:",
    ),
    _decoder(
        "the lines together may pass what a double counts to",
        "L2 L9",
        "if total > CREDITS_MAX:",
        "if total > 256 * CREDITS_MAX:",
    ),
    _decoder(
        "an event may have any number of lines", "L9", "if not 1 <= len(lines) <= LINES_MAX:", "if not 1 <= len(lines):"
    ),
    _decoder(
        "a dry run may cost something", "L3", "if event.mode == DRY_RUN and any(", "if event.mode != DRY_RUN and any("
    ),
    _decoder(
        "a run outside the ceiling may name a bucket's epoch",
        "L6",
        "if event.epoch != DIRECT_EPOCH:",
        "if event.epoch < DIRECT_EPOCH:",
    ),
    _decoder("text may have what PostgreSQL does not store", "L10", 'and "\\x00" not in "".join(texts) and', "and"),
    _decoder(
        "a credit of a line may be below zero",
        "L2 L8",
        "if not 0 <= line.credits <= CREDITS_MAX:",
        "if line.credits > CREDITS_MAX:",
    ),
    _decoder(
        "nesting without end stops the consumer",
        "L10",
        "(msgspec.MsgspecError, ValueError, RecursionError)",
        "(msgspec.MsgspecError, ValueError)",
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
        explained="A batch names a client's epoch only where it is newer than the one that it has read under the shard's lock.",
    ),
    _sql(
        "a direct event is paid by credits that have expired",
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
