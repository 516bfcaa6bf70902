"""Whether a run was charged before, for as long as there is a log: Redis remembers settled runs for an hour only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import ARRAY, Connection, Text, Uuid, bindparam, exists, select, text

from billing.schema.ever import usage_ever

#: The runs that the log has, of clients whose buckets were told all that the log says beyond their own settles. What a
#: run's event is to tell its bucket was committed with it; a rebuild that began later has read the log.
_TOLD: Final = text("""
SELECT run_id FROM unnest(:clients, :runs) AS asked (client_id, run_id)
WHERE EXISTS (SELECT FROM usage_ever WHERE usage_ever.run_id = asked.run_id)
  AND NOT EXISTS (SELECT FROM posting JOIN client USING (client_id, epoch)
                  WHERE client_id = asked.client_id AND applied_version < version)
""").bindparams(bindparam("clients", type_=ARRAY(Text)), bindparam("runs", type_=ARRAY(Uuid)))


def is_charged(connection: Connection, run_id: uuid.UUID) -> bool:
    """Return whether the run was ever charged. One look at one index of one month."""
    found = exists().where(usage_ever.c.run_id == run_id)
    return bool(connection.execute(select(found)).scalar_one())


def told_charges(connection: Connection, runs: Sequence[tuple[str, uuid.UUID]]) -> set[uuid.UUID]:
    """Return which of these (client, run) the log has charged and the client's bucket has learned of, or will anew."""
    clients, run_ids = zip(*runs, strict=True)
    rows = connection.execute(_TOLD, {"clients": list(clients), "runs": list(run_ids)})
    return set(rows.scalars())
