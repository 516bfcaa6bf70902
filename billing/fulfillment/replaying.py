"""Replays dead letters: their bytes, decoded as today's version does, through the transaction that consumers write by.

Guarantee: a letter is marked in the transaction that writes its rows, so that a replay which is killed anywhere is
whole or not there, and the log's key makes a second one a duplicate (L3). A letter that is refused again stays as it
was, with its new reason, and keeps no other waiting (L10). One that was refused for its signature is written only where
that is asked for in so many words, and stays marked so whatever else it is refused for. Nothing follows a commit:
postings and requests for rebuilds are rows of the same transaction, and the outbox entry of a message went when its
letter was committed.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import psycopg
from sqlalchemy import Engine, text

from billing.core.errors import InvalidValue, Retryable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.events.signing import REASON
from billing.events.usage_event import UsageEvent
from billing.fulfillment import letter_statements, letters
from billing.fulfillment.decoder import decode
from billing.fulfillment.delivery import Delivered, Marker, Poison
from billing.fulfillment.letter import Outcome, ReplayedLetter, State
from billing.fulfillment.log import BatchReport
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.fulfillment.verdicts import Sorting

logger = logging.getLogger(__name__)

Cursor = psycopg.Cursor[tuple[Any, ...]]
Connect = Callable[[], psycopg.Connection[tuple[Any, ...]]]

#: What `remark` says of a letter that was replayed.
_REMARKS: Final[dict[Outcome, str]] = {
    "written": "written",
    "duplicate": "duplicate: its run was in the usage history",
    "marker": "a marker of a rebuild",
    "dropped": "a dry run of an unknown client, which no log has",
}


#: What it says besides of one whose signature did not hold.
_UNVERIFIED: Final = "; its signature was not verified"


class Letter(Delivered, frozen=True, kw_only=True, gc=False):
    """A stored message. `unverified`: nobody knows who wrote it, since it was refused for its signature."""

    letter_id: int
    unverified: bool = False


class ReplayLog(PostgresUsageLog):
    """The usage log for batches of letters: what becomes of each is marked in the batch's own transaction.

    `replayed` has what was committed, in the order of the batches.
    """

    def __init__(self, connect: Connect, *, shards: int, discarded: bool = False) -> None:
        super().__init__(connect, shards=shards)
        self._shard_count = shards
        self._discarded = discarded
        self._noted: dict[int, tuple[Outcome, str]] = {}
        self._of_batch: list[ReplayedLetter] = []
        self.replayed: list[ReplayedLetter] = []

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write a batch of letters, and note what became of each once that is committed."""
        report = super().write(batch)
        self.replayed += self._of_batch
        self._of_batch = []
        return report

    def _write(self, cursor: Cursor, batch: Sequence[Delivered], *, look: bool) -> BatchReport:
        """Lock what a consumer might write meanwhile, have the log write, and mark the letters."""
        given = [message for message in batch if isinstance(message, Letter)]
        decoded = [letter.decoded for letter in given]
        shards = sorted({shard_of(e.client_id, self._shard_count) for e in decoded if isinstance(e, UsageEvent)})
        cursor.execute(letter_statements.LOCK_SHARDS_ALONE, [shards])
        cursor.execute(letter_statements.LOCK_LETTERS, [[letter.letter_id for letter in given]])
        states: dict[int, State] = {row[0]: row[1] for row in cursor.fetchall()}
        allowed = [letter for letter in given if self._discarded or states[letter.letter_id] != "discarded"]
        self._noted = {letter.letter_id: ("discarded", "") for letter in given}
        self._noted |= {letter.letter_id: _unless_an_event(letter) for letter in allowed}
        report = super()._write(cursor, allowed, look=look)
        self._of_batch = [
            _replayed(letter, states[letter.letter_id], *self._noted[letter.letter_id]) for letter in given
        ]
        unverified = {letter.letter_id for letter in given if letter.unverified}
        marks = [
            (each.letter_id, _REMARKS[each.outcome] + (_UNVERIFIED if each.letter_id in unverified else ""))
            for each in self._of_batch
            if each.outcome in _REMARKS
        ]
        if marks:
            cursor.execute(letter_statements.MARK, [list(column) for column in zip(*marks, strict=True)])
        return report

    def _write_events(
        self, cursor: Cursor, sorting: Sorting, *, look: bool
    ) -> tuple[list[UsageEvent], tuple[int, ...], tuple[str, ...]]:
        """Write the events, and note which of them were new: of two copies of one run, the first."""
        written = super()._write_events(cursor, sorting, look=look)
        new = {event.run_id for event in written[0]}
        for message, event in sorting.events:
            self._note(message, "written" if event.run_id in new else "duplicate")
            new.discard(event.run_id)
        for message, reason in sorting.letters:
            self._note(message, "refused", reason)
        return written

    def _keep(self, cursor: Cursor, letters: Sequence[tuple[Delivered, str]]) -> None:
        """Keep what is refused again, marked as it was: another reason must not make it look signed."""
        super()._keep(cursor, [(message, _marked(message, reason)) for message, reason in letters])

    def _note(self, message: Delivered, outcome: Outcome, reason: str = "") -> None:
        if isinstance(message, Letter):
            self._noted[message.letter_id] = (outcome, reason)


def replay(
    log: ReplayLog,
    engine: Engine,
    settings: Settings,
    *,
    letter_ids: Sequence[int] | None = None,
    reason: str = "",
    discarded: bool = False,
    unverified: bool = False,
) -> Iterator[Sequence[ReplayedLetter]]:
    """Replay letters (None: all that are open, with a text in their reason), batch by batch; yield what became of them.

    `discarded`: those that were discarded, too; `unverified`: those that were refused for their signature, which may be
    forged. Raises `InvalidValue` for an id that is no letter's, and for one that needs such a word and lacks it,
    before anything is written; `Retryable` when no letter is to blame.
    """
    states = _check(engine, letter_ids, discarded=discarded, unverified=unverified)
    asked: dict[str, object] = {
        "ids": None if letter_ids is None else list(letter_ids),
        "states": states,
        "unverified": unverified,
        "reason": letters.check_text("reason", reason),
        "events": settings.batch_events,
        "bytes": settings.batch_bytes,
    }
    with engine.connect() as connection:
        last = connection.execute(text(letter_statements.LAST)).scalar_one()
    after = 0
    while True:
        with engine.connect() as connection:
            found = connection.execute(text(letter_statements.NEXT), {**asked, "after": after, "last": last}).all()
        if not found:
            return
        after = found[-1].letter_id
        _write_all(log, [_letter(row) for row in found])
        yield log.replayed
        log.replayed = []


def _letter(row: Any) -> Letter:
    body = bytes(row.body)
    return Letter(letter_id=row.letter_id, queue=row.queue, body=body, decoded=decode(body), unverified=row.unverified)


def _check(engine: Engine, letter_ids: Sequence[int] | None, *, discarded: bool, unverified: bool) -> list[State]:
    """Refuse letters that may not be replayed; return the states of those that may."""
    also: list[State] = ["discarded"] if discarded else []
    if letter_ids is None:
        return ["open", *also]
    with engine.connect() as connection:
        for letter_id, state in sorted(letters.states_of(connection, letter_ids).items()):
            if state == "discarded" and not discarded:
                rule = "was discarded; give --discarded to replay it all the same"
                raise InvalidValue("letter_id", letter_id, rule)
        asked = {"ids": list(letter_ids)}
        first = connection.execute(text(letter_statements.READ_UNVERIFIED), asked).scalar_one()
        if first is not None and not unverified:
            rule = "was refused for its signature: it may be forged; give --unverified to write it all the same"
            raise InvalidValue("letter_id", first, rule)
    return ["open", "replayed", *also]


def _write_all(log: ReplayLog, batch: Sequence[Letter]) -> None:
    """Write a batch; where the log refuses one of its letters, halve it until that one stands alone (L10)."""
    try:
        log.write(batch)
    except Retryable:
        raise
    except Exception as error:
        if len(batch) > 1:
            middle = len(batch) // 2
            _write_all(log, batch[:middle])
            _write_all(log, batch[middle:])
            return
        if isinstance(batch[0].decoded, Poison):
            raise  # even as a dead letter it is refused: that is no fault of the letter
        logger.warning("billing: dead letter %d is refused: %s", batch[0].letter_id, error)
        poison = Poison(reason=f"refused by the log: {_line(error)}")
        log.write([msgspec.structs.replace(batch[0], decoded=poison)])


def _marked(message: Delivered, reason: str) -> str:
    unmarked = isinstance(message, Letter) and message.unverified and not reason.startswith(REASON)
    return f"{REASON}not verified; {reason}" if unmarked else reason


def _unless_an_event(letter: Letter) -> tuple[Outcome, str]:
    """Return what becomes of a letter that no event is written for: an event that is not noted later was dropped."""
    if isinstance(letter.decoded, Poison):
        return "refused", letter.decoded.reason
    return ("marker" if isinstance(letter.decoded, Marker) else "dropped"), ""


def _replayed(letter: Letter, before: State, outcome: Outcome, reason: str) -> ReplayedLetter:
    run_id: uuid.UUID | None = letter.decoded.run_id if isinstance(letter.decoded, UsageEvent) else None
    return ReplayedLetter(letter_id=letter.letter_id, before=before, outcome=outcome, run_id=run_id, reason=reason)


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:400]
