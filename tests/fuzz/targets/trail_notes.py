"""What a shard's trail has is a note that can be told on one line, or is passed over."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from billing.explaining.steps import _of_note
from billing.task.trail import Note, decode_note, encode_note
from tests.fuzz.laws import check_line, hold
from tests.fuzz.target import Target


def check(data: bytes) -> None:
    """Read a note, and tell it as `billing explain` does."""
    note = decode_note(data)
    if note is None:
        return
    again = decode_note(encode_note(note))
    hold(that=again is not None and again.task_id == note.task_id and again.at == note.at, but=note)
    datetime.fromtimestamp(note.at / 1_000, UTC)
    if again is not None:
        for one in (note, again):
            step = _of_note(one)
            check_line(f"{step.what} {step.detail}")


def seeds() -> Iterator[bytes]:
    """Yield a refusal, a wait, and what the reaper notes."""
    run = uuid.UUID("0192f0c1-2d4e-7000-8000-000000000000")
    yield encode_note(Note(kind="refused", at=1_795_305_600_000, task_id="task-1"))
    yield encode_note(
        Note(
            kind="waits",
            at=1_795_305_600_000,
            task_id="task-1",
            run_id=run,
            client_id="acme",
            task="shop.capture",
            sku="page",
            credits=5,
            available=-3,
            attempt=2,
            waits=7,
            reason="has 3 credits",
            error="InsufficientCredits",
            worker="w1@host",
            more=4,
        )
    )
    yield encode_note(Note(kind="settled", at=1, task_id="task-1", run_id=run, reason="its stored result says SUCCESS"))


TARGET = Target(check=check, seeds=seeds, words=tuple(f'"{name}":'.encode() for name in Note.__struct_fields__))
