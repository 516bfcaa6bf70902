"""What a run asks of the records in PostgreSQL: whether its client exists, and whether it was charged before.

Everything else that a run needs is in the buckets and the price book. Under test something else may answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from billing.catalog.clients import Client, get_client
from billing.connections import postgres
from billing.core.errors import BillingError, ClientInactive, InvalidValue, Recovering, UnknownClient, Unreachable
from billing.core.shards import shard_of
from billing.ledger.corruptions import tell_corruption
from billing.ledger.rebuilds import request_rebuild
from billing.task.charged import is_charged, told_charges

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

T = TypeVar("T")


class Records(Protocol):
    """What is asked."""

    def check_client(self, client_id: str) -> None:
        """Raise `UnknownClient` unless there is the client."""
        ...

    def check_active(self, client_id: str) -> None:
        """Raise `UnknownClient` unless there is the client, and `ClientInactive` if it may start nothing."""
        ...

    def is_charged(self, run_id: uuid.UUID) -> bool:
        """Return whether the usage history has the run."""
        ...

    def told_charges(self, runs: Sequence[tuple[str, uuid.UUID]]) -> set[uuid.UUID]:
        """Return which of these (client, run) the usage history has, their bucket having learned of it."""
        ...

    def without_bucket(self, client_id: str, *, missing: bool, corrupt: bool = False) -> BillingError:
        """Return why there is no bucket to take from. `missing`: on an open shard; `corrupt`: a verb said so."""
        ...


class StoredRecords:
    """The records of a runtime's database."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def check_client(self, client_id: str) -> None:
        """Raise `UnknownClient` unless the catalog has the client."""
        self._asked(lambda: self._client(client_id))

    def check_active(self, client_id: str) -> None:
        """Raise `UnknownClient` unless there is the client, and `ClientInactive` if it may start nothing."""
        state = self._asked(lambda: self._client(client_id)).state
        if state != "active":
            raise ClientInactive(client_id, state)

    def is_charged(self, run_id: uuid.UUID) -> bool:
        """Return whether the usage history has the run."""
        with postgres.reaching(self._runtime.settings), self._runtime.engine.connect() as connection:
            return is_charged(connection, run_id)

    def told_charges(self, runs: Sequence[tuple[str, uuid.UUID]]) -> set[uuid.UUID]:
        """Return which of these (client, run) the usage history has, their bucket having learned of it."""
        with postgres.reaching(self._runtime.settings), self._runtime.engine.connect() as connection:
            return told_charges(connection, runs)

    def without_bucket(self, client_id: str, *, missing: bool, corrupt: bool = False) -> BillingError:
        """Return why there is no bucket to take from: only the catalog knows whether the client exists.

        A known client whose bucket is missing, or is not one that billing wrote, has lost it: its shard is rebuilt, and
        the task waits (L6). While a shard is known to come back, PostgreSQL is not asked with each delivery that is put
        off: a client that it does not know is refused once the shard is open. It is waited for within
        `billing_database_timeout_seconds`, also where it stands still (L9).
        """
        settings, coming_back = self._runtime.settings, self._runtime.coming_back
        computed = shard_of(client_id, settings.shards)
        if not missing and computed in coming_back:
            return _recovering(client_id)

        def answered() -> BillingError:
            why = self._why(client_id, missing=missing, corrupt=corrupt)
            if isinstance(why, Recovering):
                coming_back.add(computed)
            return why

        try:
            return self._runtime.questions.ask(answered, seconds=settings.database_timeout_seconds)
        except UnknownClient as unknown:
            return unknown
        except (Unreachable, SQLAlchemyError) as error:
            return Recovering(f"client {client_id!r}: has no bucket, and the catalog does not answer: {error}")

    def _why(self, client_id: str, *, missing: bool, corrupt: bool) -> BillingError:
        """Return what PostgreSQL says; a bucket that is missing is wanted back. Raises `UnknownClient`."""
        settings = self._runtime.settings
        computed = shard_of(client_id, settings.shards)
        with postgres.reaching(settings), self._runtime.engine.begin() as connection:
            shard = get_client(connection, client_id).shard
            if shard != computed:
                on = f"on shard {computed}, the catalog has it on {shard}"
                rule = f"puts client {client_id!r} {on}: it was changed"
                return InvalidValue("billing_shards", settings.shards, rule)
            if missing:
                reason = f"the bucket of client {client_id} is {'corrupt' if corrupt else 'missing'}"
                request_rebuild(connection, shard, reason)
        if corrupt:
            tell_corruption(self._runtime, client_id)
        return _recovering(client_id)

    def _client(self, client_id: str) -> Client:
        with postgres.reaching(self._runtime.settings), self._runtime.engine.connect() as connection:
            return get_client(connection, client_id)

    def _asked(self, question: Callable[[], T]) -> T:
        """Return an answer, waited for within `billing_database_timeout_seconds`, also where PostgreSQL stands still.

        Raises `Unreachable` past the bound (L9).
        """
        seconds = self._runtime.settings.database_timeout_seconds
        return self._runtime.questions.ask(question, seconds=seconds)


def _recovering(client_id: str) -> Recovering:
    return Recovering(f"client {client_id!r}: its shard is being rebuilt; nothing is admitted until then")
