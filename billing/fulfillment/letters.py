"""Reads dead letters, and discards them: what stays of a discarded one is all of it, with the reason as its remark.

Pages are bounded (L9). It refuses ids that are no letters', and to discard what a replay has written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text

from billing.core.errors import InvalidValue
from billing.fulfillment import letter_statements
from billing.fulfillment.letter import STATES, DeadLetter, LetterPage, OpenedLetter, State

#: L9: letters that one page shows, reasons that are counted apart, letters that one call names.
PAGE_MAX: Final = 1_000
REASONS_MAX: Final = 20
NAMED_MAX: Final = 10_000
TEXT_LENGTH_MAX: Final = 500
#: Beyond every id.
_NEWEST: Final = 2**63 - 1


def page(
    connection: Connection,
    *,
    state: State | None,
    reason: str,
    queue: str,
    before: int | None,
    limit: int,
) -> LetterPage:
    """Return the newest letters in a state (None: in any) whose reason has a text in it, older than a letter."""
    if state is not None and state not in STATES:
        raise InvalidValue("state", state, f"must be one of: {', '.join(STATES)}")
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidValue("limit", limit, f"must be from 1 to {PAGE_MAX}")
    if before is not None and not 0 <= before <= _NEWEST:
        raise InvalidValue("before", before, "must be the id of a letter")
    asked = {"state": state, "reason": check_text("reason", reason), "queue": check_text("queue", queue)}
    place = {"before": _NEWEST if before is None else before, "limit": limit + 1}
    found = connection.execute(text(letter_statements.PAGE), asked | place).mappings().all()
    states = connection.execute(text(letter_statements.STATES), asked).all()
    reasons = connection.execute(text(letter_statements.REASONS), asked | {"limit": REASONS_MAX}).all()
    return LetterPage(
        letters=[DeadLetter(**row) for row in found[:limit]],
        states={row.state: row.letters for row in sorted(states, key=lambda row: STATES.index(row.state))},
        reasons={row.kind: row.letters for row in reasons},
        more=len(found) > limit,
    )


def open_letter(connection: Connection, letter_id: int) -> OpenedLetter:
    """Return a letter with its bytes. Raises `InvalidValue`."""
    _check_ids([letter_id])
    row = connection.execute(text(letter_statements.OPEN), {"letter_id": letter_id}).mappings().one_or_none()
    if row is None:
        raise _unknown(letter_id)
    known = dict(row)
    digest, body = bytes(known.pop("digest")), bytes(known.pop("body"))
    return OpenedLetter(letter=DeadLetter(**known), digest=digest, body=body)


def states_of(connection: Connection, letter_ids: Iterable[int]) -> Mapping[int, State]:
    """Return the states of letters. Raises `InvalidValue` for an id that is no letter's."""
    return _states(connection, letter_statements.READ_NAMED, _check_ids(letter_ids))


def discard(connection: Connection, letter_ids: Iterable[int], *, reason: str) -> Sequence[DeadLetter]:
    """Discard letters: all of them, or none; return them. One that was discarded before keeps its first reason.

    Raises `InvalidValue` for an id that is no letter's, for a letter that was replayed, and without a reason.
    """
    remark = check_text("reason", reason).strip()
    if not remark:
        raise InvalidValue("reason", reason, "must say why")
    ids = _check_ids(letter_ids)
    states = _states(connection, letter_statements.LOCK_NAMED, ids)
    for letter_id in ids:
        if states[letter_id] == "replayed":
            raise InvalidValue("letter_id", letter_id, "was replayed: what it says is in the usage history")
    connection.execute(text(letter_statements.DISCARD), {"ids": ids, "remark": remark})
    found = connection.execute(text(letter_statements.NAMED), {"ids": ids}).mappings()
    return [DeadLetter(**row) for row in found]


def check_text(field: str, value: str) -> str:
    """Return a text that PostgreSQL takes. Raises `InvalidValue`."""
    if len(value) > TEXT_LENGTH_MAX or not all(character.isprintable() for character in value):
        raise InvalidValue(field, value[:80], f"must be at most {TEXT_LENGTH_MAX} printable characters")
    return value


def _states(connection: Connection, statement: str, ids: Sequence[int]) -> Mapping[int, State]:
    found: dict[int, Any] = {row.letter_id: row.state for row in connection.execute(text(statement), {"ids": ids})}
    for letter_id in ids:
        if letter_id not in found:
            raise _unknown(letter_id)
    return found


def _check_ids(letter_ids: Iterable[int]) -> list[int]:
    """Return the ids once each, in their order."""
    ids = sorted(set(letter_ids))
    if not 1 <= len(ids) <= NAMED_MAX:
        raise InvalidValue("letter_id", len(ids), f"name 1 to {NAMED_MAX} letters")
    for letter_id in ids:
        if not 0 < letter_id <= _NEWEST:
            raise _unknown(letter_id)
    return ids


def _unknown(letter_id: int) -> InvalidValue:
    return InvalidValue("letter_id", letter_id, "is not a dead letter (see: billing dead-letters list)")
