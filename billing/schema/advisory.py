"""The numbers of billing's advisory locks, all in one place, so that no two uses collide.

A lock is a pair: what it guards, and which one of them (a shard's number, a hash of a name, else 0). The first half
begins with the bytes `bil`, to stay clear of other users of the same database. Every lock here lasts until its
transaction ends.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

_BASE: Final = 0x62696C00


class Guard(IntEnum):
    """What an advisory lock guards."""

    MIGRATE = _BASE + 1
    #: Also written out in the migration that defines `billing_make_usage_month`.
    PARTITIONS = _BASE + 2
    PRICE_BOOK = _BASE + 3
    SHARD = _BASE + 4
    RECOVERY = _BASE + 5
    STRIPE_PLAN = _BASE + 6
    #: One step of the continuous reconciler; a repair of buckets.
    RECONCILER = _BASE + 10
    REPAIR = _BASE + 11
    #: By a client's hash: who looks at its corrupt bucket.
    CORRUPTION = _BASE + 12
    #: By a client's hash: who parks a task of its, and who starts those that it has parked.
    PARK = _BASE + 13
    START_PARKED = _BASE + 14
    #: By a client's hash: who corrects its usage.
    CORRECTION = _BASE + 20
