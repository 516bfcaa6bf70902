"""What a receipt is made of: its head, and one line per usage line with who paid it and which increments reported it.

Pure values. Credits are whole; a correction's are negative, and then also what it takes from grants and increments.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptHead:
    """Whose receipt it is, from which instant (inclusive) to which (exclusive), and when the books were read."""

    client_id: str
    start: datetime
    end: datetime
    read_at: datetime
    #: The one task, the one workflow whose lines it has; None: all of the client's.
    correlation_id: str | None = None
    root_id: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """How many credits of a line one increment carries to Stripe, and what is known about that increment.

    `billed` says on what they are, if not on the invoice of the period in which they were used.
    """

    increment_id: int
    state: str
    credits: int
    billed: str = ""

    @property
    def text(self) -> str:
        """What Stripe knows of them, in words."""
        billed = f" ({self.billed})" if self.billed else ""
        return f"#{self.increment_id} {self.state.replace('_', ' ')}{billed}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptLine:
    """One line of the usage history, as it was charged.

    `price_version` is the version of the whole price book that the run was rated by. `credits_per_unit` is None where
    nothing was used, so that the line does not show what a unit cost. `grants` is grant id → credits; grant 0 is debt.
    """

    run_id: uuid.UUID
    line: int
    correlation_id: str
    task: str
    sku: str
    quantity: int
    unit: str
    price_version: int
    credits_per_unit: int | None
    credits: int
    grants: Mapping[int, int]
    occurred_at: datetime
    late: bool
    corrects: uuid.UUID | None
    corrects_line: int | None
    #: Why it was corrected, of a line that corrects another one.
    reason: str = ""
    #: Why the run was outside the ceiling: `dry_run`, `meter_only`; None: it was not.
    mode: str | None = None
    reported: tuple[Reported, ...]

    @property
    def unreported(self) -> int:
        """The credits of this line that no increment carries yet."""
        return self.credits - sum(part.credits for part in self.reported)

    @property
    def corrected(self) -> str:
        """The line that this one corrects, as `run_id/line`, or nothing."""
        return "" if self.corrects is None else f"{self.corrects}/{self.corrects_line}"

    @property
    def marks(self) -> str:
        """What is said of a line behind its task: ` (late)`, ` (dry run)`."""
        words = [*(["late"] if self.late else []), *([self.mode.replace("_", " ")] if self.mode else [])]
        return f" ({', '.join(words)})" if words else ""

    @property
    def reporting(self) -> str:
        """What Stripe knows of this line, in words."""
        words = [part.text for part in self.reported]
        if not self.credits and not words:
            return "nothing to report"
        if self.unreported:
            words.append(f"{self.unreported:,} not yet reported" if words else "not yet reported")
        return ", ".join(words)
