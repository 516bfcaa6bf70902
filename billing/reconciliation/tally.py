"""Adds up what the laws compared, what they could not, and what differs, until it is a report. Bounded (L9)."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from datetime import datetime

from billing.credits.values import Balance
from billing.reconciliation.report import (
    BALANCES_MAX,
    DISCREPANCIES_MAX,
    STATEMENTS,
    Discrepancy,
    Law,
    LawReport,
    Report,
    Verdict,
)


class Tally:
    """The sums of one reconciliation."""

    def __init__(self, laws: Iterable[Law]) -> None:
        self._compared: dict[Law, collections.Counter[str]] = {law: collections.Counter() for law in laws}
        self._left_out: dict[Law, collections.Counter[str]] = {law: collections.Counter() for law in self._compared}
        self._found: collections.Counter[str] = collections.Counter()
        self.discrepancies: list[Discrepancy] = []
        self.balances: dict[str, Balance] = {}
        self.clients = 0

    def compared(self, law: Law, **numbers: int) -> None:
        """Count what a law has compared; underscores become spaces."""
        for name, number in numbers.items():
            self._compared[law][name.replace("_", " ")] += number

    def left_out(self, law: Law, reason: str, number: int = 1) -> None:
        """Count what a law could not compare."""
        if number:
            self._left_out[law][reason] += number

    def found(self, discrepancies: Iterable[Discrepancy]) -> None:
        """Take discrepancies; all are counted, the first are kept."""
        for discrepancy in discrepancies:
            self._found[discrepancy.law] += 1
            if len(self.discrepancies) < DISCREPANCIES_MAX:
                self.discrepancies.append(discrepancy)

    def balance(self, balance: Balance) -> None:
        """Keep a balance, the first ones at most."""
        if balance.client_id in self.balances or len(self.balances) < BALANCES_MAX:
            self.balances[balance.client_id] = balance

    def laws(self) -> tuple[LawReport, ...]:
        """Return each law with its verdict."""
        return tuple(self._law(law, numbers) for law, numbers in self._compared.items())

    def report(
        self, *, run_id: int | None, started_at: datetime, finished_at: datetime, resume_after: str | None
    ) -> Report:
        """Return the report of what has been taken so far."""
        return Report(
            run_id=run_id,
            started_at=started_at,
            finished_at=finished_at,
            clients=self.clients,
            laws=self.laws(),
            discrepancies=tuple(self.discrepancies),
            balances=dict(self.balances),
            resume_after=resume_after,
        )

    def _law(self, law: Law, numbers: Mapping[str, int]) -> LawReport:
        left_out, broken = dict(self._left_out[law]), self._found[law.value]
        verdict = Verdict.BROKEN if broken else Verdict.NOT_COMPARED if left_out else Verdict.HOLDS
        return LawReport(
            law=law.value,
            says=STATEMENTS[law],
            verdict=verdict,
            compared=dict(numbers),
            not_compared=left_out,
            discrepancies=broken,
        )
