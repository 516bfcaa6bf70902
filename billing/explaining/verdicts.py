"""The one sentence of a story: was it charged, where is the money, why was it refused. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from celery import states

from billing.core.printable import printable
from billing.credits.values import StoredHold
from billing.events.usage_event import DRY_RUN, METER_ONLY
from billing.explaining.evidence import Books, Evidence, Parked, Result
from billing.explaining.runs import Run
from billing.explaining.wording import credits_, increment, quoted, span
from billing.task.trail import Kind, Note

#: Where a task is looked for, as it is said of one of which there is no trace.
_SOURCES: Final = "the usage history and its archive, parked tasks, dead letters, holds, outbox and notes in Redis"

#: What is said of a run of which the last that is known is a note.
_NOTED: Final[dict[Kind, str]] = {
    "refused": "refused: {why}",
    "waits": "waiting in the broker to be tried again: {why}",
    "parked": "parked: {why}",
    "given_back": "given back to the broker: {why}",
    "released": "failed, and is not charged: its {amount} went back ({why})",
    "retries": "waited for a retry ({why}); what came of it is not known",
    "expired": "killed, and is not charged: its hold expired and {amount} went back ({why})",
    "settled": "charged from its stored result after its worker had died, up to {amount}; it is on its way",
    "attempt": "delivered again after a worker had died; what came of it is not known",
}


#: What Celery raises where a task is replaced, or says that it is to be forgotten.
_IGNORED: Final = "Ignore"


def verdict_of(found: Evidence, runs: Sequence[Run]) -> str:
    """Return the sentence of a whole task; of several runs, one after the other."""
    told = [_of_run(found, run) for run in runs]
    if not told:
        told = [_without_a_run(found)]
    text = told[0] if len(told) == 1 else f"{len(told)} runs: " + "; ".join(f"({n}) {t}" for n, t in enumerate(told, 1))
    if found.unanswered:
        text += f" - as far as is known: {len(found.unanswered)} of the sources did not answer"
    return text


def _of_run(found: Evidence, run: Run) -> str:
    books = found.books or Books()
    if run.lines:
        return _charged(books, run)
    letter = next((letter for letter in books.letters if letter.state == "open"), None)
    if letter is not None and run.held is None:
        return (
            f"not logged: its usage event is dead letter {letter.letter_id}: {printable(letter.reason)} "
            f"(billing dead-letters show {letter.letter_id})"
        )
    if run.waiting is not None or run.settled is not None:
        return _settled(run)
    if run.held is not None:
        return _held(found, run, run.held.hold)
    parked, last = run.parked, run.notes[-1] if run.notes else None
    if parked is not None and (last is None or last.kind == "parked" or parked.state == "waiting"):
        return _parked(parked)
    return "not known" if last is None else _noted(last, found.result)


def _settled(run: Run) -> str:
    if run.waiting is None:
        return "charged; its usage event is on its way to the usage history"
    amount = sum(line.credits for line in run.waiting.lines)
    return f"charged {credits_(amount)}; its usage event is in the outbox, and not in the usage history yet"


def _charged(books: Books, run: Run) -> str:
    modes = {line.mode for line in run.lines}
    amount = sum(line.credits for line in run.lines)
    if DRY_RUN in modes:
        return "a dry run: nothing was charged"
    late = " late" if any(line.late for line in run.lines) else ""
    outside = ", while Redis was away" if METER_ONLY in modes else ""
    text = f"charged {credits_(amount)}{late}{outside}"
    if run.corrections:
        left = amount + sum(line.credits for line in run.corrections)
        text += f", corrected to {left:,}"
    return f"{text}, {_money(books, run)}" if amount else text


def _money(books: Books, run: Run) -> str:
    carrying = list(dict.fromkeys(part.increment_id for line in run.lines for part in line.reported))
    told = [increment(books.sent[each].increment) for each in carrying if each in books.sent]
    unreported = sum(line.credits - sum(part.credits for part in line.reported) for line in run.lines)
    if unreported:
        of_all = "" if not told else f"{unreported:,} of them "
        missing = "" if run.client_id in books.linked else ": its client has no Stripe customer (billing client link)"
        told.append(f"{of_all}not reported to Stripe yet{missing}")
    return ", ".join(told)


def _held(found: Evidence, run: Run, hold: StoredHold) -> str:
    now: datetime = (found.buckets.now if found.buckets else None) or found.now
    amount, left = credits_(hold.credits), hold.deadline_ms / 1_000 - now.timestamp()
    state = found.result.state if found.result else ""
    if left <= 0:
        return f"its worker is gone: {amount} are held, and its lease ended {span(-left)} ago; the reaper resolves it"
    lease = f"{amount} are held, its lease ends in {span(left)}"
    if state == states.RETRY or (run.notes and run.notes[-1].kind == "retries"):
        return f"waiting for its retry: {lease}"
    return f"succeeded, and not settled yet: {lease}" if state == states.SUCCESS else f"running: {lease}"


def _parked(row: Parked) -> str:
    lacks = f"client {quoted(row.client_id)} had {row.available:,} of the {credits_(row.credits)} that it needs"
    if row.state == "waiting":
        return f"parked: {lacks}; a grant that makes it affordable starts it (billing parked list)"
    if row.state == "started":
        return "started again after it was parked" + ("" if row.begun_at else ", and not seen running yet")
    return f"refused: it was parked and {row.state}: {lacks}"


def _noted(note: Note, result: Result | None) -> str:
    why = note.reason
    if note.kind == "released" and why == _IGNORED:
        return f"not charged: it was ignored or replaced, and its {credits_(note.credits or 0)} went back"
    if note.kind == "released":
        why = why or (result.error if result else "") or "it ended without success"
    return _NOTED[note.kind].format(amount=credits_(note.credits or 0), why=printable(why))


def _without_a_run(found: Evidence) -> str:
    result = found.result
    if found.books and found.books.letters:
        letter = found.books.letters[-1]
        return f"not logged: dead letter {letter.letter_id} names it: {printable(letter.reason)}"
    if result is None:
        looked = _SOURCES if not found.no_result else f"{_SOURCES}; not in its result, since {found.no_result}"
        return f"not known: no trace of task {quoted(found.task_id)} in {looked}"
    if result.client_id and result.state == states.FAILURE:
        return f"refused: {printable(result.error)}"
    if result.state == states.FAILURE:
        return f"failed: {printable(result.error)}; there is no trace of a charge"
    if result.state == states.SUCCESS:
        return "succeeded, and there is no trace of a charge: not a billed task, or its event is on its way (try again)"
    return f"its result says {result.state}; there is no trace of a hold or a charge"
