"""What a block of `billing.reserve` orders: checked before anything is asked of a server. Pure.

It is declared as a task is, so that holds, prices and events are made by the same code. With a key the run id is the
same for ever; without one each block is a run of its own.
"""

from __future__ import annotations

import dataclasses
import inspect
import secrets
from collections.abc import Mapping
from typing import Final

from billing.core import ids
from billing.core.credits import check_amount
from billing.core.errors import InvalidValue
from billing.core.identifiers import check_client_id, check_sku
from billing.task.definition import Definition
from billing.task.headers import Identity

#: What usage events name as their task. The reaper knows by it that no result was ever stored of such a run.
TASK: Final = "billing.reserve"
_KEY_LENGTH_MAX: Final = 255
_NONE: Final = inspect.Signature()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Who pays, for how much of what; at most `most` (of several SKUs, by name), once per `key`."""

    client_id: str
    sku: str
    quantity: int
    most: int | Mapping[str, int] | None
    key: str | None

    def __post_init__(self) -> None:
        check_client_id(self.client_id)
        check_sku(self.sku)
        check_amount("quantity", self.quantity, minimum=0)
        if self.most is not None and not isinstance(self.most, Mapping):
            check_amount("reserve", self.most, minimum=0)
        if self.key is not None:
            _check_key(self.key)

    @property
    def definition(self) -> Definition:
        """The order as a task would declare it; it takes no arguments."""
        return Definition(
            task=TASK, sku=self.sku, client="client_id", quantity=self.quantity, reserve=self.most, signature=_NONE
        )

    def identity(self, now_milliseconds: int) -> Identity:
        """Return the run that the key names, or a new one."""
        name, at = (secrets.token_hex(16), now_milliseconds) if self.key is None else (self.key, None)
        # Named like the task, so that it is never the run of a task that has the key as its id.
        run_id = ids.run_id(self.client_id, name, nesting=0, nonce=TASK, at_milliseconds=at)
        return Identity(run_id=run_id, client_id=self.client_id, submitted_at=now_milliseconds)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """What takes the place of a task's request: the key, else the run id, is what people find the run by."""

    id: str
    root_id: str
    headers: None = None
    retries: int = 0
    replaced_task_nesting: int = 0


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not 1 <= len(key) <= _KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidValue("key", key, f"must be 1 to {_KEY_LENGTH_MAX} printable characters")
