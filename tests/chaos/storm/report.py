"""What a storm comes to: as a table for people, in Markdown, and as JSON. Pure but for the writing of two files."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.chaos.storm.book import Book, Law, Row

#: Violations of one law that the table names; the JSON has all.
_NAMED: Final = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The whole report."""

    seed: int
    seconds: float
    counts: Mapping[str, int]
    duplicates: int
    faults: Mapping[str, int]
    left_out: Mapping[str, int]
    ended: Mapping[str, int]
    recovered: Sequence[float]
    rest: Mapping[str, float]
    laws: Sequence[Law]
    errors: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether no law is broken."""
        return not any(law.violations for law in self.laws)

    def markdown(self) -> str:
        """Return the tables."""
        return "\n".join(self._lines()) + "\n"

    def write(self, directory: Path) -> None:
        """Write `report.json` and `report.md`."""
        directory.mkdir(parents=True, exist_ok=True)
        whole = dataclasses.asdict(self) | {"ok": self.ok}
        (directory / "report.json").write_text(json.dumps(whole, indent=2, default=str) + "\n")
        (directory / "report.md").write_text(self.markdown())

    def _lines(self) -> Iterator[str]:
        total = sum(self.faults.values())
        verdict = "every law holds" if self.ok else "LAWS ARE BROKEN"
        yield f"Seed {self.seed}, {self.seconds:g} s, {total} faults of {len(self.faults)} kinds: {verdict}."
        yield from ("", "| law | examined | violations |", "|---|---|---|")
        for law in self.laws:
            yield f"| {law.law}: {law.says} | {law.examined:,} | {len(law.violations):,} |"
        for law in self.laws:
            yield from (f"* {law.law}: {violation}" for violation in law.violations[:_NAMED])
        yield from ("", "| what | count |", "|---|---|")
        for what, count in {**self.counts, "events published again": self.duplicates, **self.ended}.items():
            yield f"| {what} | {count:,} |"
        for what, seconds in self._seconds():
            yield f"| {what} | {seconds:.1f} s |"
        yield from ("", "| fault | injected |", "|---|---|")
        yield from (f"| {name} | {count} |" for name, count in self.faults.items())
        if self.left_out:
            yield from ("", "| left out | count |", "|---|---|")
            yield from (f"| {name} | {count} |" for name, count in self.left_out.items())

    def _seconds(self) -> Iterator[tuple[str, float]]:
        if self.recovered:
            yield "Redis trusted again after a loss, median", sorted(self.recovered)[len(self.recovered) // 2]
            yield "Redis trusted again after a loss, longest", max(self.recovered)
        if self.rest:
            yield "at rest after the last fault", max(self.rest.values())


def counts_of(book: Book, history: Sequence[Row]) -> dict[str, int]:
    """Return what was submitted and what became of it."""
    states = collections.Counter(book.answers.values())
    other = {"SUCCESS", "PENDING", "InsufficientCredits", "ValueError"}
    return {
        "tasks submitted": len(book.sure),
        "submissions in doubt": sum(book.doubts.values()),
        "succeeded": len(book.succeeded),
        "refused for want of credits": len(book.refused),
        "failed by themselves": states["ValueError"],
        **{f"ended by {state}": count for state, count in sorted(states.items()) if state not in other},
        "whose result could not be stored": len(book.unanswered & book.sure),
        "never ended": len(book.never_ended()),
        "succeeded, and answered otherwise later": len(book.overwritten()),
        "rows": len(history),
        "runs charged late": len({row.run_id for row in history if row.late}),
        "credits charged": sum(row.charge.credits for row in history),
        "credits granted to clients that are short": sum(book.granted[name] for name in book.short),
    }
