"""Dead letters: what the log refused, kept with its bytes and the reason, so that nothing about money is lost (L10).

A letter is known by the SHA-256 of its bytes: a message that is refused again is the same letter, which counts it and
takes the new reason; but bytes that a sender once signed stay so, whoever sends a copy without. What was decided of
those bytes stands: a replayed or discarded letter stays so. A letter is never deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import psycopg
import sqlalchemy
from sqlalchemy import func, select

from billing.events.signing import REASON
from billing.fulfillment.delivery import Delivered
from billing.schema.dead_letters import dead_letter

#: L9: characters of a reason that are kept.
_REASON_LENGTH_MAX: Final = 1_000

#: Keep letters, in the order of their digests; those that are there already count one refusal more.
_KEEP: Final = f"""
INSERT INTO dead_letter AS letter (digest, body, reason, queue)
SELECT * FROM unnest(%s::bytea[], %s::bytea[], %s::text[], %s::text[])
ON CONFLICT (digest) DO UPDATE
SET refusals = least(letter.refusals, 2147483646) + 1, refused_at = now(),
    reason = CASE WHEN starts_with(excluded.reason, '{REASON}') AND NOT starts_with(letter.reason, '{REASON}')
             THEN letter.reason ELSE excluded.reason END
"""  # noqa: S608 - a constant


def keep(cursor: psycopg.Cursor[Any], letters: Sequence[tuple[Delivered, str]]) -> None:
    """Write refused messages with their reasons, in the transaction of their batch."""
    rows = sorted(
        {
            hashlib.sha256(message.body).digest(): (message.body, _storable(reason), _storable(message.queue))
            # Of two copies in one batch the reason of the one that was signed stands.
            for message, reason in sorted(letters, key=lambda letter: not letter[1].startswith(REASON))
        }.items()
    )
    columns = [[digest for digest, _ in rows], *([row[column] for _, row in rows] for column in range(3))]
    cursor.execute(_KEEP, columns)


def count_open(connection: sqlalchemy.Connection) -> int:
    """Return how many letters wait for somebody's decision."""
    waiting = select(func.count()).select_from(dead_letter).where(dead_letter.c.state == "open")
    return int(connection.execute(waiting).scalar_one())


def count_unverified(connection: sqlalchemy.Connection) -> int:
    """Return how many of them were refused for their signature."""
    unverified = select(func.count()).select_from(dead_letter)
    unverified = unverified.where(dead_letter.c.state == "open", func.starts_with(dead_letter.c.reason, REASON))
    return int(connection.execute(unverified).scalar_one())


def _storable(text: str) -> str:
    """Return text that PostgreSQL takes: bounded, without NUL and lone surrogates."""
    return text[:_REASON_LENGTH_MAX].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
