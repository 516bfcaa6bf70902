"""The table of corrections: who wrote a compensating row of the usage history, to which line, and why.

It is append-only, as the history is (L7), and keeps what each correction returned to which grant, or took from it: what
is left to correct of a line is known here, also when the month of an earlier correction is out of service.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, SmallInteger, Table, Text, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from billing.schema.columns import METADATA, NOW, amount, instant, words

usage_correction: Final = Table(
    "usage_correction",
    METADATA,
    Column("run_id", Uuid, primary_key=True, comment="of the compensating row; its line is 0"),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    words("key"),
    Column("corrects", Uuid, nullable=False),
    Column("corrects_line", SmallInteger, nullable=False),
    amount("credits", comment="< 0: returned to the client; > 0: charged to it"),
    Column("grants", JSONB, nullable=False, comment="of which grant how much; grant 0 is debt"),
    words("reason"),
    instant("created_at", default=NOW),
    UniqueConstraint("client_id", "key"),
    CheckConstraint("credits <> 0", name="credits"),
    Index(None, "corrects", "corrects_line"),
)
