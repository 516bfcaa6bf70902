"""What one call says differently from its task's declaration: keywords of `apply_async`, carried as headers. Pure.

Headers stay with a message through retries and redeliveries, so that what was said when it was submitted holds for
every delivery; a `replace()` is another call and has its own. Refuses a keyword that it does not know, and a value that
the option would not take.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from billing.core.credits import check_amount
from billing.core.errors import InvalidValue
from billing.task.definition import OTHERS_ONLY, Definition, check_reserve
from billing.task.headers import CLIENT, QUANTITY, RESERVE, WRONG

#: What a call may say, each the keyword and the header.
KEYWORDS: Final = (CLIENT, QUANTITY, RESERVE)
_PREFIX: Final = "billing_"


def carried(task: str, options: dict[str, Any], *, refuses: bool = True) -> dict[str, Any]:
    """Return the options of a publish with what the call says of billing in its headers.

    Raises `InvalidValue` for a keyword `billing_*` that there is not, and for a client other than the header's. Where
    it must not, a header says so, and `as_called` raises.
    """
    named = [name for name in options if name.startswith(_PREFIX)]
    if not named:
        return options
    # A stamp is Celery's to carry; of the same name as a keyword it says the same.
    stamps = set(options.get("stamped_headers") or ())
    rest, headers = dict(options), dict(options.get("headers") or {})
    for name in named:
        wrong: InvalidValue | None = None
        value = _stamp(rest[name]) if name in stamps else rest.pop(name)
        if name not in KEYWORDS and name not in stamps:
            wrong = InvalidValue(f"task {task}", name, f"is no option of a call{_meant(name)}")
        elif name == CLIENT and value is not None and headers.get(name, value) != value:
            wrong = InvalidValue(name, value, f"names another client than the header {name}: {headers[name]!r}")
        elif name in KEYWORDS and value is not None:
            headers[name] = value
        if wrong is not None and refuses:
            raise wrong
        if wrong is not None:
            headers[WRONG] = str(wrong)
    return rest | {"headers": headers}


def carry_over(headers: MutableMapping[str, Any], properties: MutableMapping[str, Any]) -> None:
    """Put what a call says into the headers of a message about to be published by name, where no task has done so."""
    for name in KEYWORDS:
        value = properties.pop(name, None)
        if value is not None:
            headers.setdefault(name, value)


def as_called(definition: Definition, headers: Mapping[str, Any]) -> Definition:
    """Return the declaration as a call's headers change it, or raise `InvalidValue` for a value that is none."""
    if WRONG in headers:
        raise InvalidValue(WRONG, headers[WRONG], "the call cannot be billed")
    quantity, reserve = headers.get(QUANTITY), headers.get(RESERVE)
    changes: dict[str, Any] = {}
    if quantity is not None:
        check_amount(QUANTITY, quantity, minimum=0)
        if definition.credits is not None:
            raise InvalidValue(QUANTITY, quantity, f"must not be given: task {definition.task} fixes its credits")
        changes |= {"quantity": quantity, "holds_default": True}
    if reserve is not None:
        check_reserve(RESERVE, reserve, definition.sku)
        if definition.credits is not None and (not isinstance(reserve, Mapping) or definition.sku in reserve):
            raise InvalidValue(RESERVE, reserve, OTHERS_ONLY)
        # A message from anywhere must not start work that its client cannot pay for (L1).
        changes |= {"reserve": reserve, "holds_default": True}
    return dataclasses.replace(definition, **changes) if changes else definition


def _stamp(value: Any) -> Any:
    """Return the value of a stamp, which Celery may have put into a list."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, KEYWORDS, n=1)
    return f": did you mean {close[0]}?" if close else f": there are {', '.join(KEYWORDS)}"
