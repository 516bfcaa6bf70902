"""One check of every law, as beat asks for it: each within its own time; one that cannot look hides no other (L9)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from billing.connections import postgres
from billing.core.errors import BillingError
from billing.observability.laws import recording
from billing.observability.laws.append_only import AppendOnly
from billing.observability.laws.ceiling import Ceiling
from billing.observability.laws.compared import note_compared
from billing.observability.laws.law import Checked, Law, Place, after
from billing.observability.laws.liveness import Liveness
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: How long a law may look before it begins nothing more: all of them together keep a worker for about a minute.
LAW_SECONDS: Final = 20.0

LAWS: Final[tuple[Law, ...]] = (Ceiling(), AppendOnly(), Liveness())


def check_laws(runtime: Runtime, *, seconds: float = LAW_SECONDS, laws: Sequence[Law] = LAWS) -> dict[str, int]:
    """Check the next slice of each law; return the violations of those that could be looked at, by law.

    Raises `Unreachable` when PostgreSQL does not answer.
    """
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        before = recording.read(connection)
    found = {}
    for law in laws:
        checked = _check(runtime, law, before.get(law.name), seconds)
        if checked is not None:
            found[law.name] = checked.violations
    note_compared(runtime)
    return found


def _check(runtime: Runtime, law: Law, before: Checked | None, seconds: float) -> Checked | None:
    place = Place(
        resume_after=before.resume_after if before else "",
        remembered=before.remembered if before else {},
        until=runtime.clock.monotonic() + seconds,
    )
    try:
        one = law.check(runtime, place)
    except BillingError as error:
        # Its age says that it is not checked; what keeps it from being, is somebody else's finding.
        logger.warning("billing: %s is not checked: %s", law.name, error)
        return None
    except Exception:
        logger.exception("billing: %s cannot be checked", law.name)
        return None
    now = runtime.clock.now()
    return recording.write(runtime, law.name, lambda stands: after(stands, law.name, one, now))
