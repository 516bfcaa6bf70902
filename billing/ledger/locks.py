"""Transaction-long advisory locks: a shard's, shared by consumer batches and taken alone by its rebuild (L6).

They are taken first in a transaction and in the order of their numbers, so that two sessions never wait for each
other in a circle. A row lock would not do: `FOR SHARE` by a stream of batches starves the rebuild for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import OperationalError

from billing.connections import postgres
from billing.core.errors import Retryable
from billing.schema.advisory import Guard

_BRIEFLY: Final = text("SELECT set_config('lock_timeout', :seconds || 's', true)")


class Locked(Retryable):
    """A row or a shard is locked by somebody else, and was not to be had in time."""


@contextmanager
def waiting_briefly(connection: Connection, seconds: int = 2) -> Iterator[None]:
    """Wait so long at most for each lock of this transaction, else raise `Locked`: others have their turn (L10)."""
    connection.execute(_BRIEFLY, {"seconds": str(seconds)})
    try:
        yield
    except OperationalError as error:
        if postgres.is_locked(error):
            raise Locked("somebody else has locked it") from error
        raise


def lock_shards_shared(connection: Connection, shards: Iterable[int]) -> None:
    """Wait until no rebuild of these shards runs, and let none begin before this transaction ends."""
    for shard in sorted(set(shards)):
        connection.execute(select(func.pg_advisory_xact_lock_shared(Guard.SHARD, shard)))


def lock_shard_exclusive(connection: Connection, shard: int) -> None:
    """Wait until no batch of this shard is being written, and let none begin before this transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(Guard.SHARD, shard)))


def try_lead_recovery(connection: Connection, shard: int) -> bool:
    """Return whether this transaction is now the one that leads the shard's recovery, without waiting."""
    return bool(connection.execute(select(func.pg_try_advisory_xact_lock(Guard.RECOVERY, shard))).scalar_one())


def try_tell_corruption(connection: Connection, client_id: str) -> bool:
    """Return whether this transaction is now the one that looks at a client's corrupt bucket, without waiting."""
    which = func.hashtext(client_id)
    return bool(connection.execute(select(func.pg_try_advisory_xact_lock(Guard.CORRUPTION, which))).scalar_one())
