"""Corrections of what runs were charged: written to the log and the books first, brought into the bucket second.

Each is idempotent by its key: the same key with the same content is the same correction, with other content a
`Conflict`. A bucket that cannot take it now gets it from the fulfillment worker within seconds.
"""

from __future__ import annotations

import re
import uuid
from typing import Final

import sqlalchemy

from billing.admin.access import runtime_for
from billing.connections import postgres
from billing.core.errors import InvalidValue, Retryable
from billing.core.settings import Settings
from billing.fulfillment import adjustments
from billing.fulfillment.adjustments import Adjustment
from billing.fulfillment.log import LogUnready
from billing.fulfillment.postgres_log import has_no_month
from billing.ledger import locks
from billing.recovery.postings import apply_to

#: What a correction waits for a consumer's batch, for a rebuild, and for other corrections of the client (L9).
_LOCK_SECONDS: Final = 15
#: Largest number of a line that the history's column can hold.
_LINE_MAX: Final = 2**15 - 1


def adjust_usage(
    settings: Settings,
    run: uuid.UUID | str,
    credits_: int,
    *,
    reason: str,
    line: int | None = None,
    key: str | None = None,
    again: bool = False,
) -> tuple[Adjustment, bool]:
    """Correct a line of the log; return the correction with whether the client's bucket has it already.

    `credits_` below 0 are returned to the grants that paid the line; above 0 they are charged more, to the client's
    grants in burn order. `run` is a run id, as text also with its line behind a colon; a run of one line needs none.
    `again` allows a further correction in a direction in which the line was corrected before. Raises `InvalidValue`,
    `Conflict`, and `Retryable` where the shard is being rebuilt for longer than 15 seconds.
    """
    run_id, number = _parsed(run, line)
    once = f"once-{uuid.uuid4()}" if key is None else key
    runtime = runtime_for(settings)
    try:
        with (
            postgres.reaching(settings),
            runtime.engine.begin() as connection,
            locks.waiting_briefly(connection, _LOCK_SECONDS),
        ):
            found, _ = adjustments.adjust(connection, run_id, number, credits_, reason=reason, key=once, again=again)
    except sqlalchemy.exc.IntegrityError as error:
        if has_no_month(error.orig):
            message = "usage_history: has no partition for the present month (see: billing partitions)"
            raise LogUnready(message) from error
        raise
    try:
        return found, apply_to(runtime, found.client_id, found.grants.keys())
    except Retryable:
        return found, False


def _parsed(run: uuid.UUID | str, line: int | None) -> tuple[uuid.UUID, int | None]:
    """Read RUN_ID[:LINE]; the line may stand behind a slash as well, as receipts write it."""
    text, number = str(run), line
    rule = "must be a run id, as 01a0f3c2-…, and behind a colon the number of its line"
    found = re.fullmatch(r"([0-9A-Fa-f-]{32,36})(?:[:/]([0-9]{1,9}))?", text)
    if found is None or (found[2] is not None and line is not None):
        raise InvalidValue("run_id", text, rule)
    if found[2] is not None:
        number = int(found[2])
    if number is not None and not 0 <= number <= _LINE_MAX:
        raise InvalidValue("line", number, f"must be from 0 to {_LINE_MAX}")
    try:
        return uuid.UUID(found[1]), number
    except ValueError:
        raise InvalidValue("run_id", text, rule) from None
