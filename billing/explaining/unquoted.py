"""Evidence for those who are to see no argument of a task: what may quote one is named by its class alone. Pure.

An error's text is whoever raised it's: it may quote anything. Only those of billing's own errors are kept that are
made of a client, a SKU and numbers, which is shown anyway.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import msgspec

from billing.core import errors
from billing.explaining.evidence import Evidence, Result
from billing.task.trail import Note

#: Errors whose texts quote no argument but those that say who pays, and for what.
_SAFE: Final = frozenset(
    kind.__name__
    for kind in (
        errors.InsufficientCredits,
        errors.ParkedTooLong,
        errors.Cancelled,
        errors.ClientInactive,
        errors.UnknownClient,
        errors.UnknownSku,
        errors.Unreachable,
        errors.Refusing,
        errors.Recovering,
        errors.Corrupt,
        errors.OutboxFull,
    )
)


def unquoted(found: Evidence) -> Evidence:
    """Return the evidence without the texts of errors that may quote an argument."""
    result, buckets = found.result, found.buckets
    if buckets is not None:
        buckets = dataclasses.replace(buckets, notes=tuple(_note(note) for note in buckets.notes))
    return dataclasses.replace(found, result=None if result is None else _result(result), buckets=buckets)


def _result(result: Result) -> Result:
    # Billing's own kinds by name are not enough here: anybody's error may be called so.
    is_safe = bool(result.client_id) and result.kind in _SAFE
    return result if is_safe else dataclasses.replace(result, error=result.kind)


def _note(note: Note) -> Note:
    return note if not note.error or note.error in _SAFE else msgspec.structs.replace(note, reason=note.error)
