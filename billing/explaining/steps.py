"""The steps of a story, in the order in which they happened. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from billing.core.printable import printable
from billing.credits.trail import NOTES_MAX
from billing.events.usage_event import UsageEvent
from billing.explaining.evidence import Books, Evidence, Letter, Line, Parked, Result, Sent
from billing.explaining.runs import Run
from billing.explaining.story import Step
from billing.explaining.wording import credits_, increment, instant, quoted, shares
from billing.parking.starting import KEPT
from billing.sinks.sync.increment import State
from billing.task.trail import Note

_FIRST: Final = datetime.min.replace(tzinfo=UTC)
#: How a note is called among the steps.
_NOTED: Final = {
    "refused": "refused",
    "waits": "put off",
    "parked": "parked",
    "given_back": "given back",
    "released": "released",
    "retries": "retry",
    "attempt": "delivered again",
    "expired": "expired",
    "settled": "settled by reaper",
}


def steps_of(found: Evidence, runs: Sequence[Run]) -> tuple[Step, ...]:
    """Return what happened: to each run apart, then to the task; of one run all of it in one order.

    What nobody noted the time of stands behind what came before it.
    """
    of_task = [*_of_letters(found), *([] if found.result is None else [_of_result(found.result)])]
    told = [_of_run(found, run) for run in runs]
    steps = told[0] + of_task if len(told) == 1 else of_task
    before = [] if len(told) == 1 else [step for each in told for step in _in_order(each)]
    return (*before, *_in_order(steps), *_missing(found), *([] if runs or of_task else _kept()))


def _of_run(found: Evidence, run: Run) -> list[Step]:
    books = found.books or Books()
    steps = [
        *_submitted(run),
        *(_of_note(note) for note in run.notes),
        *([] if run.parked is None else _of_parked(run.parked)),
        *_of_hold(run, books),
        *([] if run.waiting is None or run.lines else _of_waiting(run.waiting)),
        *_of_settled(run),
        *(step for line in run.lines for step in _of_line(line, books)),
        *_of_increments(run.lines, books),
        *(step for line in run.corrections for step in _of_correction(line, books)),
        *_of_increments(run.corrections, books),
    ]
    return [Step(step.at, step.what, step.detail, run.run_id) for step in steps]


def _of_letters(found: Evidence) -> Iterator[Step]:
    for letter in found.books.letters if found.books else ():
        yield from _of_letter(letter)


def _missing(found: Evidence) -> Iterator[Step]:
    """Yield what was not kept, and what was not looked at."""
    if found.buckets is not None and found.buckets.notes_dropped:
        more = f"{found.buckets.notes_dropped:,} more notes on deliveries of this client: too many"
        yield Step(None, "not kept", more)
    for limit in (*(found.books.limits if found.books else ()), *(found.buckets.limits if found.buckets else ())):
        yield Step(None, "not looked at", limit)


def _kept() -> Iterator[Step]:
    """Yield for how long what is kept, where nothing was found."""
    yield Step(None, "not begun", "a task that no worker has begun leaves no trace: it may be in its queue")
    yield Step(None, "usage", "is kept for ever; months that are out of service are not read (billing partitions list)")
    notes = f"of what was refused, failed or expired: the newest {NOTES_MAX:,} of each shard, since Redis was emptied"
    yield Step(None, "notes", notes)
    yield Step(
        None, "parked tasks", f"are kept for {KEPT.days} days after they were started, expired or were cancelled"
    )


def _in_order(steps: list[Step]) -> list[Step]:
    """Return steps by their time; one without a time stays behind the one before it."""
    at, keyed = _FIRST, []
    for step in steps:
        at = step.at or at
        keyed.append((at, step))
    return [step for _, step in sorted(keyed, key=lambda pair: pair[0])]


def _submitted(run: Run) -> Iterator[Step]:
    if run.run_id is not None:
        named = f"task {printable(run.task)}, " if run.task else ""
        client = f"client {quoted(run.client_id)}, " if run.client_id else ""
        yield Step(run.submitted_at, "submitted", f"{named}{client}run {run.run_id}")


def _of_note(note: Note) -> Step:
    amount = "" if note.credits is None else f"{credits_(note.credits)} of {printable(note.sku)}"
    tried = [f"attempt {note.attempt}" if note.attempt > 1 else "", f"wait {note.waits + 1}" if note.waits else ""]
    where = f"by {printable(note.worker)}" if note.worker else ""
    reason = printable(note.reason)
    parts = [part for part in (amount if note.kind != "refused" else "", reason, *tried, where) if part]
    return Step(datetime.fromtimestamp(note.at / 1_000, UTC), _NOTED[note.kind], ", ".join(parts))


def _of_parked(row: Parked) -> Iterator[Step]:
    lacks = f"{credits_(row.credits)} of {printable(row.sku)} needed, {row.available:,} available"
    times = f", {row.times} times by now" if row.times > 1 else ""
    yield Step(row.parked_at, "parked", f"parked task {row.parked_id}: {lacks}{times}; until {instant(row.expires_at)}")
    if row.ended_at is not None:
        yield Step(row.ended_at, "unparked", f"parked task {row.parked_id} was {row.state}")
    if row.begun_at is not None:
        yield Step(row.begun_at, "started", "the message that was handed over has reserved its credits")


def _of_hold(run: Run, books: Books) -> Iterator[Step]:
    if run.held is None:
        return
    hold = run.held.hold
    at = datetime.fromtimestamp(hold.created_ms / 1_000, UTC)
    until = instant(datetime.fromtimestamp(hold.deadline_ms / 1_000, UTC))
    lent = f" ({shares(hold.grants, books.grants)})" if hold.grants else ""
    amount = f"{credits_(hold.credits)} of {printable(hold.sku)}{lent}"
    yield Step(at, "reserved", f"{amount}, attempt {hold.attempt}, epoch {hold.epoch}; its lease ends {until}")


def _of_waiting(event: UsageEvent) -> Iterator[Step]:
    at = datetime.fromtimestamp(event.occurred_at / 1_000, UTC)
    amount = credits_(sum(line.credits for line in event.lines))
    yield Step(at, "settled", f"{amount}, settlement {event.settlement_id}")
    yield Step(
        None, "in outbox", "a second after the broker has confirmed its event it leaves; else the relay publishes it"
    )


def _of_settled(run: Run) -> Iterator[Step]:
    if run.settled is not None and run.waiting is None and not run.lines:
        yield Step(None, "settled", f"settlement {run.settled.settlement_id}, as Redis remembers")
        yield Step(None, "published", "its event has left the outbox, and is in RabbitMQ or with the consumer")


def _of_line(line: Line, books: Books) -> Iterator[Step]:
    marks = [f"attempt {line.attempt}", *(["late"] if line.late else []), *([line.mode] if line.mode else [])]
    used = f"{line.quantity:,} of {printable(line.sku)} = {credits_(line.credits)}"
    yield Step(line.occurred_at, "settled", f"{used}, price book {line.price_version}, {', '.join(marks)}")
    if line.grants:
        yield Step(line.occurred_at, "paid", shares(line.grants, books.grants))
    yield Step(line.recorded_at, "logged", f"line {line.line} of the usage history, settlement {line.settlement_id}")
    if line.credits:
        hour = f"{line.occurred_at.astimezone(UTC):%Y-%m-%d %H:00} UTC"
        yield Step(line.recorded_at, "rolled up", f"{credits_(line.credits)} into {printable(line.sku)}, hour {hour}")


def _of_increments(lines: tuple[Line, ...], books: Books) -> Iterator[Step]:
    carried: dict[int, int] = {}
    for line in lines:
        for part in line.reported:
            carried[part.increment_id] = carried.get(part.increment_id, 0) + part.credits
    for increment_id, amount in carried.items():
        if increment_id in books.sent:
            yield from _of_sent(books.sent[increment_id], amount)


def _of_sent(sent: Sent, amount: int) -> Iterator[Step]:
    found = sent.increment
    name = f"increment {found.increment_id}"
    units = f"{found.units:,} units of meter {found.event_name}, customer {found.customer_id}"
    yield Step(
        found.planned_at,
        "planned",
        f"{amount:,} of its {credits_(found.units * found.credits_per_unit)}: {name}, {units}",
    )
    if found.last_attempt_at is not None:
        yield Step(found.last_attempt_at, "sent", f"{name}, call {found.attempts}, {found.identifier}")
    if found.confirmed_at is not None:
        yield Step(found.confirmed_at, "confirmed", f"{name}: Stripe's own sums show it")
    period = f"the invoice of {found.period_start:%Y-%m-%d} to {found.period_end:%Y-%m-%d}"
    if found.state is not State.WRITTEN_OFF:
        yield Step(None, "invoice", f"{name} is for {period}")
    if found.state is not State.CONFIRMED:
        reason = f": {printable(found.reason)}" if found.reason else ""
        command = f" ({sent.next.command})" if sent.next.command else ""
        yield Step(None, "next", f"{increment(found)}{reason}; {sent.next.what}{command}")


def _of_correction(line: Line, books: Books) -> Iterator[Step]:
    reason = f": {printable(line.reason)}" if line.reason else ""
    yield Step(line.occurred_at, "corrected", f"by {line.credits:+,}{reason}; row {line.run_id}")
    yield Step(line.occurred_at, "returned" if line.credits < 0 else "paid", shares(line.grants, books.grants))


def _of_letter(letter: Letter) -> Iterator[Step]:
    yield Step(letter.received_at, "dead letter", f"{letter.letter_id}: {printable(letter.reason)}")
    if letter.ended_at is not None:
        remark = f": {printable(letter.remark)}" if letter.remark else ""
        yield Step(letter.ended_at, letter.state, f"dead letter {letter.letter_id}{remark}")


def _of_result(result: Result) -> Step:
    error = f": {printable(result.error)}" if result.error else ""
    where = f", by {printable(result.worker)}" if result.worker else ""
    return Step(result.stored_at, "result", f"{printable(result.state)}{error}{where}")
