"""The table of dead letters: what the log refused, with its bytes, the reason, and what became of it.

None is ever deleted, and its bytes never change: triggers refuse both for every role.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Integer, LargeBinary, Table, text

from billing.schema.columns import METADATA, NOW, instant, words

dead_letter: Final = Table(
    "dead_letter",
    METADATA,
    Column("letter_id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "digest",
        LargeBinary,
        nullable=False,
        unique=True,
        comment="SHA-256 of the body: a message that is delivered again is kept once",
    ),
    Column("body", LargeBinary, nullable=False),
    words("reason", comment="why it was refused, as was said last"),
    words("queue"),
    instant("received_at", default=NOW, comment="when it was refused first"),
    Column(
        "refusals",
        Integer,
        nullable=False,
        server_default=text("1"),
        comment="how often it was refused, by consumers and by replays",
    ),
    instant("refused_at", default=NOW, comment="when it was refused last"),
    words("state", server_default="open"),
    instant("ended_at", nullable=True, comment="when it was replayed or discarded; null: it is open"),
    words("remark", server_default="", comment="replayed: what became of it; discarded: why"),
    CheckConstraint("state IN ('open', 'replayed', 'discarded')", name="state"),
    CheckConstraint("(state = 'open') = (ended_at IS NULL)", name="ended"),
    Index("dead_letter_open_idx", "letter_id", postgresql_where=text("state = 'open'")),
)
