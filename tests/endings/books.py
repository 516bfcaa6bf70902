"""Reads the books of all clients of a fleet at once: rows, buckets, holds, what became of holds, results, Flower."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from billing.credits.values import Balance
from tests.endings import noting
from tests.endings.cell import Hold, Looked
from tests.endings.monitor import Monitor
from tests.fleet import admissions
from tests.fleet.harness import Fleet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """The end of a cell as it was seen."""

    rows: tuple[int, ...]
    #: None while some are held.
    hold: Hold | None
    caller: str
    flower: str
    balance: Balance | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is there at a moment."""

    rows: Mapping[str, Sequence[int]]
    balances: Mapping[str, Balance]
    held: frozenset[str]
    admitted: frozenset[str]


class Books:
    """Looks into a fleet."""

    def __init__(self, fleet: Fleet, monitor: Monitor) -> None:
        self._fleet, self._monitor = fleet, monitor

    def read(self, client_ids: Sequence[str]) -> Snapshot:
        """Return how all clients stand."""
        rows: dict[str, list[int]] = collections.defaultdict(list)
        # The holds are read last: what is not held any more is in the balance, or in a row that comes.
        for row in self._fleet.rows():
            rows[row.client_id].append(row.credits)
        buckets = self._fleet.buckets
        return Snapshot(
            rows=rows,
            balances=buckets.balances(client_ids),
            admitted=frozenset(a.client_id for a in admissions.answers(self._fleet.directory) if a.admitted),
            held=frozenset(
                hold.client_id for shard in range(self._fleet.settings.shards) for hold in buckets.held(None, shard)
            ),
        )

    def seen(self, client_id: str, looked: Looked, snapshot: Snapshot) -> Seen:
        """Return how a cell has ended so far."""
        return Seen(
            rows=tuple(sorted(snapshot.rows.get(client_id, ()))),
            hold=_hold(self._fleet.directory, client_id, snapshot),
            caller=looked.caller or _joined([self._caller(task_id) for task_id in looked.results]),
            flower=_joined(
                [
                    self._monitor.state_of(task_id)
                    for task_id in (looked.results if looked.flower is None else looked.flower)
                ]
            ),
            balance=snapshot.balances.get(client_id),
        )

    def _caller(self, task_id: str) -> str:
        backend: Any = self._fleet.app.backend
        meta = backend.get_task_meta(task_id, cache=False)
        return describe(meta["status"], meta["result"])


def describe(state: str, result: object) -> str:
    """Return how a result is named: its state, and the class of what `.get()` raises."""
    return f"{state}: {type(result).__name__}" if isinstance(result, BaseException) and state != "RETRY" else state


def _hold(directory: Path, client_id: str, snapshot: Snapshot) -> Hold | None:
    if client_id in snapshot.held:
        return None
    charged = bool(snapshot.rows.get(client_id))
    if noting.was(directory, noting.REAPED, client_id):
        return Hold.CHARGED_BY_REAPER
    if noting.was(directory, noting.LAPSED, client_id):
        return Hold.CHARGED_AFTER_LAPSE if charged else Hold.LAPSED
    if client_id not in snapshot.admitted:
        return Hold.NEVER
    if noting.was(directory, noting.RETURNED, client_id):
        return Hold.CHARGED_AND_RETURNED if charged else Hold.RETURNED
    return Hold.CHARGED


def _joined(states: Sequence[str]) -> str:
    """Return the different ones, in order."""
    return ", ".join(sorted(set(states))) or "nothing to ask"
