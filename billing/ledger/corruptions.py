"""A corrupted key of a client is told to the operator once, and its bucket is rebuilt from the ledger (L6, L10).

Every verb refuses such a bucket by itself, so that many tasks see one corruption. A rebuild begins a new epoch: client
and epoch name a corruption, and it lasts for as long as PostgreSQL is at that epoch.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from sqlalchemy import Connection, Engine, text

from billing.connections import postgres
from billing.core.clock import from_milliseconds
from billing.core.errors import Unreachable
from billing.core.lately import Lately
from billing.core.settings import Settings
from billing.credits.verbs import Verbs
from billing.ledger import locks

logger = logging.getLogger(__name__)

#: Where nothing was found, how long nobody of this process looks again, and at how many (L9).
LOOK_AGAIN_SECONDS: Final = 60.0
LOOKED_MAX: Final = 1_000

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


class Services(Protocol):
    """What a process has to look at a bucket, and to tell of it."""

    @property
    def settings(self) -> Settings:
        """The settings."""
        ...

    @property
    def engine(self) -> Engine:
        """The billing database."""
        ...

    @property
    def buckets(self) -> Verbs:
        """The credit buckets."""
        ...

    @property
    def looked(self) -> Lately:
        """The corruptions at which nothing was found."""
        ...


def tell_corruption(services: Services, client_id: str) -> None:
    """Tell, once, of a bucket that a verb called corrupt. Its rebuild is asked for, and committed, already.

    Looking reads the holds of a whole shard in one step: that is done once for each corruption (L10), and under no lock
    that anybody waits for.
    """
    with postgres.reaching(services.settings), services.engine.begin() as connection:
        # Whoever does not get it is refused for what another looks at right now.
        if not locks.try_tell_corruption(connection, client_id):
            return
        # Named before it is looked at: what a rebuild has written since is not taken for the corruption that it ended.
        source = connection.execute(_UNTOLD, {"client": client_id}).scalar_one_or_none()
        if source is None or source in services.looked:
            return
        try:
            reading = services.buckets.audit([client_id])[client_id]
        except Unreachable as error:
            # Whoever is refused next looks again.
            logger.warning("billing: whether the bucket of client %s is corrupt is not known: %s", client_id, error)
            return
        if reading.corruption is None:
            # A run that it does not fit, say, or it is rebuilt. Each settle that is kept would look again.
            services.looked.add(source)
            return
        redis_key, found = reading.corruption
        given = {"client": client_id, "source": source, "redis_key": redis_key, "found": found}
        new = connection.execute(_TELL, {**given, "occurred_at": from_milliseconds(reading.at_ms)}).rowcount
    if new:
        rule = "nothing is admitted for this client until it is rebuilt"
        logger.error("billing: client %s: the key %s is corrupt, %s: %s", client_id, redis_key, rule, found)


def lasting(connection: Connection, limit: int) -> Sequence[Corruption]:
    """Return the corruptions that are not rebuilt yet, the oldest first."""
    return [Corruption(**row) for row in connection.execute(_LASTING, {"count": limit}).mappings()]
