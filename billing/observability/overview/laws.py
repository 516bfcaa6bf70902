"""How each law's last check came out, as a page and the metrics have it: every law, also one nobody has looked at."""

from __future__ import annotations

from sqlalchemy import Connection

from billing.observability.laws import reading
from billing.observability.overview.values import LawState


def read_laws(connection: Connection) -> tuple[LawState, ...]:
    """Return every law with its last check."""
    return tuple(
        LawState(law=law, checked_at=None, examined=0, violations=0, found="")
        if found is None
        else LawState(
            law=law,
            checked_at=found.checked_at,
            examined=found.examined,
            violations=found.violations,
            found=found.found,
        )
        for law, found in reading.read_laws(connection).items()
    )
