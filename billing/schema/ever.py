"""The history and its archived months as one: the view `usage_ever`, as SQLAlchemy sees it.

It has metadata of its own: the migrations make it, and nothing that makes or compares tables may take it for one.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, MetaData, Table

from billing.schema.tables import usage_history

usage_ever: Final = Table(
    "usage_ever", MetaData(), *(Column(column.name, column.type) for column in usage_history.columns)
)
