"""Says which of the tables that nobody may change (L7) could be changed: those without their trigger. It only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ARRAY, Connection, Text, bindparam, text

from billing.schema.tables import APPEND_ONLY

#: Those beside the metadata's own list: increments' parts and repairs are rows of a book as well, and the archive.
GUARDED: Final = (*APPEND_ONLY, "repair", "stripe_increment_part", "archive.usage_history")
#: UPDATE, DELETE and TRUNCATE, as `pg_trigger.tgtype` has them; ENABLE ALWAYS, so that no replica's role is exempt.
_UNGUARDED: Final = text("""
SELECT guarded::regclass::text FROM (
    SELECT CAST(name AS regclass)::oid AS guarded FROM unnest(:names) AS named (name)
    UNION SELECT partition FROM usage_partition
) AS all_of_them
WHERE (SELECT coalesce(bit_or(tgtype::int), 0) & 56 FROM pg_trigger
       WHERE tgrelid = guarded AND tgenabled = 'A' AND NOT tgisinternal) <> 56
ORDER BY 1
""").bindparams(bindparam("names", type_=ARRAY(Text)))


def unguarded(connection: Connection) -> Sequence[str]:
    """Return the tables and partitions, the archive's too, that do not refuse every UPDATE, DELETE and TRUNCATE."""
    return list(connection.execute(_UNGUARDED, {"names": list(GUARDED)}).scalars())
