"""Many clients at once, for tests of what must hold over all of them: by SQL and a rebuild, in seconds."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from billing.core.shards import shard_of
from billing.recovery.writing import write_shard
from tests.fleet.harness import Fleet


def add_crowd(fleet: Fleet, client_ids: Sequence[str], credits: int) -> None:
    """Add clients with a grant each, and have their buckets written from the ledger. No worker may run yet."""
    shards = {client_id: shard_of(client_id, fleet.settings.shards) for client_id in client_ids}
    with psycopg.connect(fleet.settings.database_url) as connection:
        with connection.cursor().copy("COPY client (client_id, shard) FROM STDIN") as copy:
            for row in shards.items():
                copy.write_row(row)
        connection.execute(
            "WITH granted AS (INSERT INTO credit_grant (client_id, credits, key)"
            "                 SELECT client_id, %(credits)s, 'crowd' FROM client WHERE client_id = ANY(%(ids)s)"
            "                 RETURNING client_id, grant_id)"
            " INSERT INTO ledger_entry (client_id, grant_id, kind, credits)"
            " SELECT client_id, grant_id, 'grant', %(credits)s FROM granted",
            {"credits": credits, "ids": list(client_ids)},
        )
    for shard in sorted(set(shards.values())):
        fleet.buckets.close(shard)
        write_shard(fleet.runtime, shard)
