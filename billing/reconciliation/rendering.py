"""Shows a report to people: a table of the laws, and one of what differs. Pure."""

from __future__ import annotations

from typing import Final

import rich.box
from rich.table import Table
from rich.text import Text

from billing.reconciliation.report import Report, Verdict

_STYLES: Final = {Verdict.HOLDS: "green", Verdict.BROKEN: "bold red", Verdict.NOT_COMPARED: "yellow"}
#: Discrepancies that are shown; `--json` and the table `discrepancy` have the others.
SHOWN_MAX: Final = 50


def laws_table(report: Report) -> Table:
    """Return one row per law: its verdict, and what was compared."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column()
    for law in report.laws:
        verdict = law.verdict.value.upper() if law.verdict is Verdict.BROKEN else law.verdict.value
        table.add_row(Text(law.law), Text(verdict, _STYLES[law.verdict]), Text(law.text))
    return table


def discrepancies_table(report: Report) -> Table:
    """Return one row per discrepancy, up to a bound."""
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column in ("law", "client", "grant", "what differs"):
        table.add_column(column, overflow="fold")
    for found in report.discrepancies[:SHOWN_MAX]:
        grant = "" if found.grant_id is None else str(found.grant_id)
        table.add_row(Text(found.law), Text(found.client_id or ""), Text(grant), Text(found.found))
    return table


def summary(report: Report) -> str:
    """Return the last line: what it all comes to."""
    clients = f"{report.clients:,} client{'' if report.clients == 1 else 's'}"
    broken = [law.law for law in report.laws if law.verdict is Verdict.BROKEN]
    left_out = [law.law for law in report.laws if law.not_compared]
    if broken:
        text = f"{clients}: does not hold: {', '.join(broken)}"
    elif left_out:
        text = f"{clients}: nothing differs; not all was compared: {', '.join(left_out)}"
    else:
        text = f"{clients}: all laws hold"
    return text if report.resume_after is None else f"{text}; it ran out of time after client {report.resume_after}"
