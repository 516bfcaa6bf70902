"""How every law stands, for whoever shows it: a doctor, a page, a metric."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection

from billing.observability.laws import recording
from billing.observability.laws.compared import read_compared
from billing.observability.laws.law import Checked
from billing.observability.metrics.catalogue import CHECKED


def read_laws(connection: Connection) -> dict[str, Checked | None]:
    """Return the last check of each law, in their order; None: it was never checked.

    What reconciliation compares is read from its own rows, so that it is true also before `law_check` follows.
    """
    found: dict[str, Checked | None] = dict.fromkeys(CHECKED)
    found |= recording.read(connection)
    for verdict in read_compared(connection):
        found[verdict.law] = Checked(**dataclasses.asdict(verdict))
    return found
