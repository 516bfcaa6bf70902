"""What a reconciliation found: each law with its verdict and what was compared, and every discrepancy by name.

Frozen and plain, so that it is printed, written as JSON and stored alike. `Report.findings()` is its short form, for
whoever shows it at the end of something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final

from billing.credits.values import Balance

#: Discrepancies that a report keeps, and rows that one of them names (L9). All are counted.
DISCREPANCIES_MAX: Final = 1_000
ROWS_MAX: Final = 20
#: Balances that a report keeps: those of the first clients that were read.
BALANCES_MAX: Final = 10_000


class Law(Enum):
    """What is compared. The value is the law's name in every output and table."""

    BUCKET = "L2 bucket"
    HOLDS = "L2 holds"
    GRANTS = "L2 grants"
    SPENT = "L2 spent"
    ONE_CHARGE = "L3 one charge"
    ORPHANS = "L5 no orphan"
    SUMS = "L7 sums of the log"
    PLANNED = "L8 planned"
    STRIPE = "L8 Stripe"


#: What each law says, in one line.
STATEMENTS: Final = {
    Law.BUCKET: "in Redis, per client and grant: granted + owed = available + held + spent",
    Law.HOLDS: "in Redis, per client and grant: what is held is what the live holds were lent",
    Law.GRANTS: "per grant: bucket = credit_grant = ledger",
    Law.SPENT: "per client and grant: spent in Redis = spent in the log",
    Law.ONE_CHARGE: "each run is in the log once: its lines from 0 on, one settlement, one client",
    Law.ORPHANS: "no hold has outlived its lease for long",
    Law.SUMS: "per client: log = rollups (SKU and hour) = grant sums",
    Law.PLANNED: "per client: increments tile what is planned; planned + not planned = log",
    Law.STRIPE: "per customer, meter and period: Stripe's total = units sent",
}


class Verdict(Enum):
    """How a law came out. `NOT_COMPARED`: nothing differs, and something could not be looked at."""

    HOLDS = "holds"
    BROKEN = "broken"
    NOT_COMPARED = "not compared"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Discrepancy:
    """One thing that differs: where, what each book says, the rows that say it, by how many credits."""

    law: str
    found: str
    client_id: str | None = None
    grant_id: int | None = None
    rows: tuple[Mapping[str, Any], ...] = ()
    differs_by: int | None = None

    @property
    def text(self) -> str:
        """The discrepancy on one line."""
        who = "" if self.client_id is None else f"client {self.client_id}"
        which = "" if self.grant_id is None else f", grant {self.grant_id}"
        return f"{self.law}: {who}{which}{': ' if who else ''}{self.found}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LawReport:
    """One law: its verdict, what was compared (counts and sums), and what was not, with the reason."""

    law: str
    says: str
    verdict: Verdict
    compared: Mapping[str, int]
    not_compared: Mapping[str, int]
    discrepancies: int

    @property
    def text(self) -> str:
        """What was compared, on one line."""
        parts = [f"{name} {number:,}" for name, number in self.compared.items()]
        parts += [f"not compared: {number:,} ({reason})" for reason, number in self.not_compared.items()]
        if self.discrepancies:
            parts.insert(0, f"{self.discrepancies:,} differ")
        return ", ".join(parts) or "nothing to compare"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One law as others show it."""

    law: str
    holds: bool
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A whole reconciliation. `resume_after`: it ran out of time after this client; None when all were reached."""

    run_id: int | None
    started_at: datetime
    finished_at: datetime
    clients: int
    laws: tuple[LawReport, ...]
    discrepancies: tuple[Discrepancy, ...]
    balances: Mapping[str, Balance]
    resume_after: str | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return all(law.verdict is not Verdict.BROKEN for law in self.laws)

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for was compared."""
        return self.resume_after is None and not any(law.not_compared for law in self.laws)

    @property
    def ok(self) -> bool:
        """Whether every law was compared and holds."""
        return self.holds and self.complete

    def findings(self) -> tuple[Finding, ...]:
        """Return one finding per law; one that does not hold names its first discrepancies."""
        return tuple(self._finding(law) for law in self.laws)

    def _finding(self, law: LawReport) -> Finding:
        own = [found for found in self.discrepancies if found.law == law.law]
        named = "; ".join(found.text.removeprefix(f"{law.law}: ") for found in own[:_NAMED])
        more = f" … and {law.discrepancies - _NAMED:,} more" if law.discrepancies > _NAMED else ""
        return Finding(law=law.law, holds=law.verdict is Verdict.HOLDS, text=f"{named}{more}" if own else law.text)


def such_rows(count: int) -> str:
    """Return how many rows differ, for the end of a text that names the first. More than `ROWS_MAX` are not counted."""
    if count <= 1:
        return ""
    return f"; {count} such rows" + (" or more" if count >= ROWS_MAX else "")


#: Discrepancies that a finding names.
_NAMED: Final = 3
