"""How the rows of a workload have ended, per client and in all. Pure; memory grows with the clients, not the rows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Final

from billing.workload.results import Ending
from billing.workload.rows import Malformed

#: Malformed lines, and failed rows, that are named; all are counted.
NAMED_MAX: Final = 20


@dataclasses.dataclass(kw_only=True, slots=True)
class Tally:
    """How the rows of one client have ended. `quantity` and `fingerprint` are of those that succeeded."""

    submitted: int = 0
    succeeded: int = 0
    refused: int = 0
    failed: int = 0
    quantity: int = 0
    fingerprint: int = 0


class Account:
    """The account of all lines of a file: `rows = charged + refused + malformed (+ failed)`."""

    def __init__(self) -> None:
        self.clients: dict[str, Tally] = {}
        self.lines = 0
        self.malformed = 0
        self.first_malformed: list[Malformed] = []
        self.first_failed: list[str] = []
        #: Rows whose ending was known before this start: from a stored result, or from the log.
        self.known = 0
        self._endings: Counter[str] = Counter()

    @property
    def charged(self) -> int:
        """Rows that ended in a charge."""
        return self._endings["charged"]

    @property
    def refused(self) -> int:
        """Rows that were refused for want of credits."""
        return self._endings["refused"]

    @property
    def failed(self) -> int:
        """Rows that ended in another way than these two."""
        return self._endings["failed"]

    @property
    def ended(self) -> int:
        """Lines whose end is known."""
        return self.charged + self.refused + self.failed + self.malformed

    @property
    def complete(self) -> bool:
        """Whether every line is charged, refused for want of credits, or malformed."""
        return self.lines == self.ended - self.failed

    def skip(self, entry: Malformed) -> None:
        """Count a malformed line."""
        self.lines += 1
        self.malformed += 1
        if len(self.first_malformed) < NAMED_MAX:
            self.first_malformed.append(entry)

    def submit(self, client_id: str) -> None:
        """Count a row whose end is not known yet."""
        self.lines += 1
        self.clients.setdefault(client_id, Tally()).submitted += 1

    def end(self, client_id: str, ending: Ending, *, line: int, quantity: int, mark: int) -> None:
        """Count a row's end; `mark` is its run's fingerprint."""
        tally = self.clients[client_id]
        if ending.succeeded:
            self._endings["charged"] += 1
            tally.succeeded += 1
            tally.quantity += quantity
            tally.fingerprint += mark
        elif ending.refused:
            self._endings["refused"] += 1
            tally.refused += 1
        else:
            self._endings["failed"] += 1
            tally.failed += 1
            if len(self.first_failed) < NAMED_MAX:
                self.first_failed.append(f"line {line}: {ending.error}")

    def sentence(self) -> str:
        """Return the account as one line."""
        parts = [f"{self.charged:,} charged", f"{self.refused:,} refused for credits", f"{self.malformed:,} malformed"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        open_ = self.lines - self.ended
        parts += [f"{open_:,} not known"] if open_ else []
        return f"{self.lines:,} rows = {' + '.join(parts)}"
