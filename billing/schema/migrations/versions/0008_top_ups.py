"""Top-ups: when a client's balance is short, and what the application was asked for."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0008_top_ups"
down_revision = "0007_grant_schedules"

_RULES: Final = """
CREATE TABLE top_up_rule (
    client_id text PRIMARY KEY REFERENCES client (client_id),
    credits bigint NOT NULL CONSTRAINT top_up_rule_credits_check CHECK (credits > 0),
    below_percent integer,
    below_credits bigint,
    cool_off_seconds integer NOT NULL,
    back_off_seconds integer NOT NULL,
    back_off_max_seconds integer NOT NULL,
    declines integer NOT NULL DEFAULT 0,
    quiet_until timestamptz NOT NULL,
    look_at timestamptz NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT top_up_rule_below_check CHECK (num_nonnulls(below_percent, below_credits) = 1)
);
CREATE INDEX top_up_rule_look_at_idx ON top_up_rule (look_at);
COMMENT ON COLUMN top_up_rule.credits IS 'what one request asks for';
COMMENT ON COLUMN top_up_rule.below_percent IS 'short below this share of what its usable grants brought';
COMMENT ON COLUMN top_up_rule.below_credits IS 'short below so many credits';
COMMENT ON COLUMN top_up_rule.declines IS 'in a row, lapsed ones included';
COMMENT ON COLUMN top_up_rule.quiet_until IS 'no request is made before';
COMMENT ON COLUMN top_up_rule.look_at IS 'when its balance is to be looked at next';
COMMENT ON COLUMN top_up_rule.version IS 'moves when a request does';
"""

_REQUESTS: Final = """
CREATE TABLE top_up_request (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL REFERENCES client (client_id),
    key text NOT NULL,
    credits bigint NOT NULL,
    shortfall text NOT NULL,
    available bigint NOT NULL,
    state text NOT NULL DEFAULT 'wanted' CONSTRAINT top_up_request_state_check
        CHECK (state IN ('wanted', 'asked', 'granted', 'declined', 'lapsed')),
    answer text NOT NULL DEFAULT '' CONSTRAINT top_up_request_answer_check
        CHECK (answer IN ('', 'pending', 'granted')),
    attempts integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    asked_at timestamptz,
    finished_at timestamptz,
    grant_id bigint REFERENCES credit_grant (grant_id),
    reason text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX top_up_request_open_idx ON top_up_request (client_id) WHERE state IN ('wanted', 'asked');
CREATE INDEX top_up_request_due_idx ON top_up_request (next_at) WHERE state IN ('wanted', 'asked');
CREATE INDEX top_up_request_client_id_request_id_idx ON top_up_request (client_id, request_id);
COMMENT ON COLUMN top_up_request.key IS 'that of its grant, and as good a one for the payment';
COMMENT ON COLUMN top_up_request.shortfall IS
    'what was seen: low (below the rule''s mark) or refused (a reserve was)';
COMMENT ON COLUMN top_up_request.answer IS 'pending; granted, while the grant could not be written';
COMMENT ON COLUMN top_up_request.next_at IS 'when to ask, to ask again, or to give up waiting';
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(_RULES)
    op.execute(_REQUESTS)
