"""The doctor's look at who was seen: beat, and the consumers of the usage queues."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import text

from billing.connections import postgres
from billing.observability.doctor.finding import Finding
from billing.observability.liveness import seen
from billing.observability.liveness.judging import judge
from billing.task.runtime import Runtime

_HAS_CHARGED: Final = text("SELECT EXISTS (SELECT FROM grant_spent)")


def examine_liveness(runtime: Runtime) -> Iterator[Finding]:
    """Say when beat and each consumer were last seen."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        rows = seen.read(connection)
        has_charged = bool(connection.execute(_HAS_CHARGED).scalar_one())
    yield from judge(rows, runtime.settings.usage_queues, has_charged=has_charged)
