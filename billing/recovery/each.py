"""Applies what the ledger has and the buckets have not, row by row: what fails keeps nobody else waiting (L10)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from sqlalchemy.exc import IntegrityError

from billing.core.errors import Refusing, Unreachable
from billing.core.shards import shard_of

logger = logging.getLogger(__name__)

#: Shards that do not answer before a pass ends: each costs its wait (L9). PostgreSQL being away ends it so as well.
AWAY_MAX: Final = 4
#: The shards that did not answer this process the last time. Their rows have their turn after the others', or the
#: oldest ones, of a node that is dead, would end every pass before it came to anybody else's.
_SILENT: Final[set[int]] = set()


class Row(Protocol):
    """A grant or a change of one client."""

    @property
    def client_id(self) -> str:
        """Whose bucket it belongs into."""
        ...


R = TypeVar("R", bound=Row)


def apply_each(rows: Iterable[R], apply: Callable[[R], bool], *, shards: int) -> int:
    """Apply each row; return how many were applied. Raises the last `Unreachable` where no row found its servers.

    A shard whose Redis does not answer is not asked for its other rows, and is asked last the next time. A row that the
    ledger itself refuses (the bucket knows of a grant that the ledger lacks) is logged, with the later ones of its
    client left for another time.
    """
    applied, reached = 0, False
    away: Unreachable | None = None
    left_out: set[int] = set()
    refused: set[str] = set()
    silent: set[int] = set()
    for row in sorted(rows, key=lambda row: shard_of(row.client_id, shards) in _SILENT):
        shard = shard_of(row.client_id, shards)
        if shard in left_out or row.client_id in refused:
            continue
        try:
            applied += apply(row)
            reached = True
            _SILENT.discard(shard)
        except Refusing as error:
            left_out.add(shard)
            away = error
        except Unreachable as error:
            left_out.add(shard)
            silent.add(shard)
            _SILENT.add(shard)
            away = error
            if len(silent) >= AWAY_MAX:
                break
        except IntegrityError as error:
            refused.add(row.client_id)
            reached = True
            logger.warning("billing: %s is not applied: the ledger refuses it (%s)", row, type(error.orig).__name__)
    if away is not None:
        if not reached:
            raise away
        logger.warning("billing: %d shards did not take what waits for them: %s", len(left_out), away)
    return applied
