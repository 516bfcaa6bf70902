"""Faults of the consumer: batches, acks, what is refused, and the decoder's checks."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_HERE: Final = "billing/fulfillment/"
_batch = faults(_HERE + "batch.py", "tests/unit/test_batch.py")
_commit = faults(_HERE + "commit.py", "tests/unit/test_commit.py")
_consumer = faults(_HERE + "consumer.py", "tests/integration/test_consumer_outages.py")
_intake = faults(
    _HERE + "intake.py", "tests/integration/test_consumer.py", "tests/integration/test_consumer_outages.py"
)
_refusals = faults(_HERE + "refusals.py", "tests/unit/test_refusals.py")
_decoder = faults(_HERE + "decoder.py", "tests/unit/test_decoder.py")

CONSUMING: Final[tuple[Mutant, ...]] = (
    _batch(
        "a full batch waits for one event more",
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
        "a consumer subscribes while PostgreSQL is away",
        "L9 L10",
        """        with postgres.connect(self._settings, autocommit=True) as connection, postgres.reaching(self._settings):
            connection.execute("SELECT 1")
""",
        "        assert postgres\n",
        "tests/integration/test_consumer_outages.py",
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
    ),
    _commit(
        "a stop acks what was not written",
        "L3",
        "                raise Stopped\n",
        "                return Written(events=0, rows=0, duplicates=0, dead_letters=0)\n",
    ),
    _commit(
        "a batch that is refused is tried for ever",
        "L9 L10",
        "if tries >= tries_max:",
        "if tries < 0:",
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
