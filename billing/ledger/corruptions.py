"""A corrupted key of a client is told to the operator once, and its bucket is rebuilt from the ledger (L6, L10).

Every verb refuses such a bucket by itself, so that many tasks see one corruption. A rebuild begins a new epoch: client
and epoch name a corruption, and it lasts for as long as PostgreSQL is at that epoch.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from billing.core.clock import from_milliseconds
from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.credits.verbs import Verbs
from billing.ledger.rebuilds import request_rebuild

logger = logging.getLogger(__name__)

#: What names a corruption for ever: PostgreSQL's epoch, since the bucket's cannot be read.
_SOURCE: Final = "'corrupt:' || client.epoch || ':' || client.client_id"

#: How a client's corruption is named, unless it is told already.
_UNTOLD: Final = text(f"""
    SELECT {_SOURCE} FROM client
    WHERE client_id = :client AND NOT EXISTS (SELECT FROM alert WHERE alert.source = {_SOURCE})
""")  # noqa: S608 - text of our own
#: Tell it. The operator is whom it concerns: it is delivered to no webhook.
_TELL: Final = text("""
    INSERT INTO alert (client_id, kind, threshold_percent, available, granted, source, occurred_at, delivery,
                       redis_key, found)
    VALUES (:client, 'corrupt', 0, 0, 0, :source, :occurred_at, 'none', :redis_key, :found)
    ON CONFLICT (source) DO NOTHING
""")
#: What lasts, the oldest first.
_LASTING: Final = text(f"""
    SELECT client_id, redis_key, found FROM alert JOIN client USING (client_id)
    WHERE alert.kind = 'corrupt' AND alert.source = {_SOURCE} ORDER BY alert_id LIMIT :count
""")  # noqa: S608 - see above


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Corruption:
    """A key in Redis that billing did not write, and what it has."""

    client_id: str
    redis_key: str
    found: str


def rebuild_lost(connection: Connection, buckets: Verbs, client_id: str, reason: str) -> None:
    """Ask for the rebuild of a bucket that no verb takes. If it is corrupt, and not missing, tell so, once."""
    request_rebuild(connection, shard_of(client_id, buckets.shards), reason)
    # Named before it is looked at: what a rebuild has written since is not taken for the corruption that it ended.
    source = connection.execute(_UNTOLD, {"client": client_id}).scalar_one_or_none()
    if source is None:
        return
    try:
        reading = buckets.audit([client_id])[client_id]
    except Unreachable as error:
        # Whoever is refused next looks again.
        logger.warning("billing: whether the bucket of client %s is corrupt is not known: %s", client_id, error)
        return
    if reading.corruption is None:
        return
    redis_key, found = reading.corruption
    given = {"client": client_id, "source": source, "redis_key": redis_key, "found": found}
    if connection.execute(_TELL, {**given, "occurred_at": from_milliseconds(reading.at_ms)}).rowcount:
        rule = "nothing is admitted for this client until it is rebuilt"
        logger.error("billing: client %s: the key %s is corrupt, %s: %s", client_id, redis_key, rule, found)


def lasting(connection: Connection, limit: int) -> Sequence[Corruption]:
    """Return the corruptions that are not rebuilt yet, the oldest first."""
    return [Corruption(**row) for row in connection.execute(_LASTING, {"count": limit}).mappings()]
