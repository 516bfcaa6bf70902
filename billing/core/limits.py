"""Numbers that several rooms share (L9). A bound that one room uses alone stands in that room."""

from __future__ import annotations

from typing import Final

#: Usable grants that one bucket holds at most, so that one reserve stays one short step.
USABLE_GRANTS_MAX: Final = 64
#: A lease is renewed so many times before it would run out; a rebuild waits for one such interval.
RENEWALS_PER_LEASE: Final = 3
#: Open grants or changes of one client that one pass brings into its bucket: one client keeps no other waiting.
UNAPPLIED_OF_ONE_CLIENT_MAX: Final = 8
#: The longest text that a usage event has, but for names with rules of their own.
TEXT_LENGTH_MAX: Final = 1_024
#: The earliest that a clock may show: the year 2020, in milliseconds since the Unix epoch.
TIME_MIN: Final = 1_577_836_800_000
#: The largest number that a column `integer` of the log has.
INTEGER_MAX: Final = 2**31 - 1
