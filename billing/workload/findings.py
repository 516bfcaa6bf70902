"""Statements about a run that only its submitter can check: what ended how, against what the log has. Pure.

They stand beside reconciliation's laws in one form. A finding that does not hold names what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from billing.reconciliation.report import Finding, Law, Report
from billing.workload.charges import Charges
from billing.workload.tally import Account, Tally

#: How many differences a finding names.
NAMED_MAX: Final = 3

_NO_CHARGES: Final = Charges()
_NO_ROWS: Final = Tally()


def finding(name: str, wrong: Sequence[str], text: str) -> Finding:
    """Return a finding that holds, with its text, unless something is wrong, which it names then."""
    if not wrong:
        return Finding(law=name, holds=True, text=text)
    more = f" … and {len(wrong) - NAMED_MAX:,} more" if len(wrong) > NAMED_MAX else ""
    return Finding(law=name, holds=False, text="; ".join(sorted(wrong)[:NAMED_MAX]) + more)


def rows_charged(account: Account, charged: Mapping[str, Charges]) -> Finding:
    """L3: the rows that ended in a charge are exactly the runs that the log has of this workload."""
    wrong = []
    for client_id in sorted(account.clients.keys() | charged.keys()):
        rows, log = account.clients.get(client_id, _NO_ROWS), charged.get(client_id, _NO_CHARGES)
        if (rows.succeeded, rows.quantity) != (log.runs, log.quantity):
            said = f"{rows.succeeded:,} rows of {rows.quantity:,} units ended in a charge"
            wrong.append(f"{client_id}: {said}, the log has {log.runs:,} of {log.quantity:,}")
        elif log.mispriced:
            wrong.append(
                f"{client_id}: {log.mispriced:,} lines of the log cost what no price of their SKU makes of them"
            )
        elif rows.fingerprint != log.fingerprint:
            wrong.append(f"{client_id}: {log.runs:,} runs are in the log, and they are of other rows")
    credits_ = sum(log.credits for log in charged.values())
    text = f"{account.charged:,} rows ended in a charge; the log has exactly these, one run each, {credits_:,} credits"
    return finding("L3 rows", wrong, text)


def rows_accounted(account: Account) -> Finding:
    """Every line of the file is charged, refused for want of credits, or malformed."""
    open_ = account.lines - account.ended
    wrong = [f"{open_:,} rows have no known ending; {account.sentence()}"] if open_ else []
    if account.failed:
        wrong.append(f"{account.failed:,} rows failed (started again, they are tried again); {account.sentence()}")
    return finding("accounted for", wrong, account.sentence())


def log_complete(report: Report) -> Finding:
    """Nothing that was settled was refused by the log, or still waits for it."""
    (law,) = [law for law in report.laws if law.law == Law.ONE_CHARGE.value]
    letters, waiting = law.compared.get("dead letters", 0), law.compared.get("in outbox", 0)
    wrong = [f"{letters:,} dead letters"] if letters else []
    wrong += [f"{waiting:,} events still in the outbox"] if waiting else []
    return finding("log complete", wrong, "no event was refused by the log, none waits in an outbox")
