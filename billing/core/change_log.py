"""One line of the log for each change of state: a word, and the ids and numbers that it is about.

As text `billing: charged run_id=… client_id=acme credits=25`; as fields on the record (`change`, `client_id`, …), which
a formatter may write apart (`observability/logs`). Guarantee: no value breaks a line or passes for another field, and
each is bounded (L9); a logger that is off costs one look, one that is broken stops nothing. It takes ids, numbers and
words of ours: never an argument of a task, a key, a secret, a URL.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded

from billing.core.printable import printable, shown

#: What happens to a run: reserved, taken_over, charged, late, pending, released, expired, refused, parked, put_off, …
RUNS: Final = logging.getLogger("billing.runs")
INCREMENTS: Final = logging.getLogger("billing.increments")
ALERTS: Final = logging.getLogger("billing.alerts")
DEAD_LETTERS: Final = logging.getLogger("billing.dead_letters")
REBUILDS: Final = logging.getLogger("billing.rebuilds")
GRANTS: Final = logging.getLogger("billing.grants")

_LENGTH_MAX: Final = 300
#: Beyond it a number is written as text: JSON knows no infinity, and many readers no longer integers.
_NUMBER_MAX: Final = 2**63

#: What a line may say of anything; None says nothing.
Value = str | int | float | object | None


def log_change(logger: logging.Logger, change: str, level: int = logging.INFO, /, **fields: Value) -> None:
    """Write the line of a change, if the logger is on."""
    if not logger.isEnabledFor(level):
        return
    said = {name: _shown(value) for name, value in fields.items() if value is not None}
    text = " ".join(("billing:", change, *(f"{name}={_quoted(value)}" for name, value in said.items())))
    try:
        logger.log(level, "%s", text, extra={"change": change, **said}, stacklevel=2)
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # noqa: BLE001 - somebody's filter or handler; the change is made all the same
        _complain(type(error).__name__)


@functools.cache
def _complain(kind: str) -> None:
    """Say once for each kind that lines are lost, on the standard error that Celery has not made a log of, too."""
    with contextlib.suppress(Exception):
        print(f"billing: a line of the log is lost: a filter or handler raised {kind}", file=sys.__stderr__)


def _shown(value: object) -> int | float | str:
    """Return a number that is one in JSON too as it is, and anything else as bounded text."""
    if isinstance(value, int | float) and -_NUMBER_MAX <= value <= _NUMBER_MAX:
        return value
    return printable(value[:_LENGTH_MAX]) if isinstance(value, str) else _text(value)


def _text(value: object) -> str:
    try:
        return printable(str(value)[:_LENGTH_MAX])
    except Exception:  # noqa: BLE001 - a number of too many digits, nesting without end: the change is made all the same
        return shown(value)


def _quoted(value: float | str) -> str:
    """Return a value as it stands behind its name: in quotes where it could pass for more than one."""
    if isinstance(value, str) and (not value or any(char in value for char in ' "=')):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
