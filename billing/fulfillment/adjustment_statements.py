"""The SQL of a correction, in the order in which its transaction runs it: that of a batch of the log."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from billing.schema.advisory import Guard

#: The line that is corrected. It never changes, so that it is read before anything is locked.
READ_LINE: Final = text("""
SELECT run_id, line, client_id, correlation_id, root_id, task, attempt, sku, credits, grants, price_version, mode,
       corrects, shard, (SELECT count(*) FROM usage_ever WHERE run_id = :run_id) AS lines
FROM usage_ever JOIN client USING (client_id) WHERE run_id = :run_id AND line = :line
""")

COUNT_LINES: Final = text("SELECT count(*) FROM usage_ever WHERE run_id = :run_id")

#: One correction of a client at a time: what is left to correct is read and written by nobody else meanwhile. No row
#: is locked for it, since consumers lock rows of the client in an order of their own.
LOCK_CLIENT: Final = text(f"SELECT pg_advisory_xact_lock({int(Guard.CORRECTION)}, hashtext(:client_id))")

READ_CORRECTION: Final = text("""
SELECT run_id, client_id, key, corrects, corrects_line, credits, grants, reason, created_at FROM usage_correction
WHERE client_id = :client_id AND key = :key
""")

#: A key of one client names one write: a grant, a change, or a correction.
READ_OTHER_USE: Final = text("""
SELECT 'a grant of ' || credits || ' credits' AS use FROM credit_grant WHERE client_id = :client_id AND key = :key
UNION ALL
SELECT 'another change of the client' FROM client_change WHERE client_id = :client_id AND key = :key
""")

READ_CORRECTIONS: Final = text("""
SELECT run_id, credits, grants FROM usage_correction WHERE corrects = :run_id AND corrects_line = :line
ORDER BY created_at, run_id
""")

#: The client's epoch and the database's clock, under the shard's lock.
READ_NOW: Final = text("""
SELECT epoch, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms FROM client WHERE client_id = :client_id
""")

ADD_ROW: Final = text("""
INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt, sku,
                           quantity, credits, grants, epoch, price_version, occurred_at, corrects, corrects_line)
VALUES (:run_id, 0, :settlement_id, :client_id, :correlation_id, :root_id, :task, :attempt, :sku, 0,
        :credits, :grants, 0, :price_version, timestamptz 'epoch' + :now_ms * interval '1 millisecond',
        :corrects, :corrects_line)
""").bindparams(bindparam("grants", type_=JSONB), bindparam("now_ms", type_=BigInteger))

ADD_ROLLUP: Final = text("""
INSERT INTO usage_rollup AS rollup (client_id, sku, hour, credits, quantity, returned)
VALUES (:client_id, :sku, timestamptz 'epoch' + :hour_ms * interval '1 millisecond', :credits, 0, :returned)
ON CONFLICT (client_id, sku, hour) DO UPDATE
SET credits = rollup.credits + excluded.credits, returned = rollup.returned + excluded.returned
""").bindparams(bindparam("hour_ms", type_=BigInteger))

ADD_CORRECTION: Final = text("""
INSERT INTO usage_correction (run_id, client_id, key, corrects, corrects_line, credits, grants, reason, created_at)
VALUES (:run_id, :client_id, :key, :corrects, :corrects_line, :credits, :grants, :reason,
        timestamptz 'epoch' + :now_ms * interval '1 millisecond')
RETURNING run_id, client_id, key, corrects, corrects_line, credits, grants, reason, created_at
""").bindparams(bindparam("grants", type_=JSONB), bindparam("now_ms", type_=BigInteger))
