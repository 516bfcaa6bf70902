"""Who has a turn among what waits for its bucket: a few rows of each client, and shard by shard in turn (L10).

A node that is dead for long, or one client with many changes, would else fill every window with its oldest rows, and
nobody else's would be looked at.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Select, Table, func, select

from billing.core.limits import UNAPPLIED_OF_ONE_CLIENT_MAX
from billing.schema.tables import client


def in_turn(table: Table, number: Column[Any], limit: int) -> Select[Any]:
    """Select at most `limit` unapplied rows: the oldest of each shard, then the second oldest of each, and so on.

    Those of one client come in their order.
    """
    place = func.row_number().over(partition_by=table.c.client_id, order_by=number).label("place")
    waiting = select(number.label("number"), table.c.client_id, place).where(table.c.applied_at.is_(None)).subquery()
    turn = func.row_number().over(partition_by=client.c.shard, order_by=waiting.c.number).label("turn")
    few = waiting.c.place <= UNAPPLIED_OF_ONE_CLIENT_MAX
    turns = select(waiting.c.number, turn).join_from(waiting, client).where(few).subquery()
    found = select(table).join(turns, turns.c.number == number)
    return found.order_by(turns.c.turn, number).limit(limit)
