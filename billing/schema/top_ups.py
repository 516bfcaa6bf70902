"""The tables of top-ups: when a client's balance is short, and what the application was asked for."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Identity, Index, Integer, Table, Text, text

from billing.schema.columns import METADATA, NOW, amount, instant, words

_OPEN: Final = text("state IN ('wanted', 'asked')")

top_up_rule: Final = Table(
    "top_up_rule",
    METADATA,
    Column("client_id", Text, ForeignKey("client.client_id"), primary_key=True),
    amount("credits", comment="what one request asks for"),
    Column("below_percent", Integer, comment="short below this share of what its usable grants brought"),
    Column("below_credits", BigInteger, comment="short below so many credits"),
    Column("cool_off_seconds", Integer, nullable=False),
    Column("back_off_seconds", Integer, nullable=False),
    Column("back_off_max_seconds", Integer, nullable=False),
    Column("declines", Integer, nullable=False, server_default=text("0"), comment="in a row, lapsed ones included"),
    instant("quiet_until", comment="no request is made before"),
    instant("look_at", comment="when its balance is to be looked at next"),
    Column("version", BigInteger, nullable=False, server_default=text("0"), comment="moves when a request does"),
    instant("created_at", default=NOW),
    CheckConstraint("credits > 0", name="credits"),
    CheckConstraint("num_nonnulls(below_percent, below_credits) = 1", name="below"),
    Index(None, "look_at"),
)

top_up_request: Final = Table(
    "top_up_request",
    METADATA,
    Column("request_id", BigInteger, Identity(always=True), primary_key=True),
    Column("client_id", Text, ForeignKey("client.client_id"), nullable=False),
    words("key", comment="that of its grant, and as good a one for the payment"),
    amount("credits"),
    words("shortfall", comment="what was seen: low (below the rule's mark) or refused (a reserve was)"),
    amount("available"),
    words("state", server_default="wanted"),
    words("answer", server_default="", comment="pending; granted, while the grant could not be written"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    instant("next_at", comment="when to ask, to ask again, or to give up waiting"),
    instant("created_at"),
    instant("asked_at", nullable=True),
    instant("finished_at", nullable=True),
    Column("grant_id", BigInteger, ForeignKey("credit_grant.grant_id")),
    words("reason", server_default=""),
    CheckConstraint("state IN ('wanted', 'asked', 'granted', 'declined', 'lapsed')", name="state"),
    CheckConstraint("answer IN ('', 'pending', 'granted')", name="answer"),
    Index("top_up_request_open_idx", "client_id", unique=True, postgresql_where=_OPEN),
    Index("top_up_request_due_idx", "next_at", postgresql_where=_OPEN),
    Index(None, "client_id", "request_id"),
)
