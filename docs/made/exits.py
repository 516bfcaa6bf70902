"""Exit codes, and the errors that lead to them."""

from __future__ import annotations

import inspect
import os

from billing.core import errors
from docs.made.markdown import code, table


def codes() -> str:
    """Return both tables."""
    meanings = (
        ("0", "done; every check holds"),
        ("1", "a law or a check does not hold, or a server does not answer"),
        ("2", "bad usage, or a value that is refused"),
        (str(os.EX_SOFTWARE), "a fulfillment worker stopped: too many events were refused"),
    )
    found = (each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.BillingError))
    rows = (
        (code(each.__name__), "2" if issubclass(each, errors.Rejected) else "1", inspect.getdoc(each) or "")
        for each in sorted(found, key=lambda each: (issubclass(each, errors.Rejected), each.__name__))
    )
    return table(("code", "means"), meanings) + "\n\n" + table(("error", "code of a command", "when"), rows)
