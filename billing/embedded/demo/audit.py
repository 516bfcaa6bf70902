"""Compares how the demo's tasks ended with what the log has, and with what was expected. Pure.

The books themselves are compared by reconciliation. Nothing is taken for granted here: a task without a known ending,
a charge without a success and a success without a charge are each a finding that fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from billing.embedded.demo.workload import DemoClient, Expected, Order
from billing.reconciliation.report import Finding
from billing.workload.findings import finding
from billing.workload.results import Ending

#: (client id, task id) → how many runs the log has of it.
Runs = Mapping[tuple[str, str], int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How the submitted tasks of one client, or of all, have ended."""

    submitted: int
    succeeded: int
    refused: int
    failed: int

    @property
    def unknown(self) -> int:
        """Tasks of which nobody knows how they ended."""
        return self.submitted - self.succeeded - self.refused - self.failed


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """The demo's own findings, and the tallies per client id."""

    findings: tuple[Finding, ...]
    tallies: Mapping[str, Tally]


def audit(
    clients: Sequence[DemoClient],
    orders: Mapping[str, Order],
    endings: Mapping[str, Ending],
    runs: Runs,
    held: Mapping[str, int],
) -> Audit:
    """Check every task. `orders` and `endings` are by task id, `held` is what each client's bucket still holds."""
    tallies = {client.client_id: _tally(client.client_id, orders, endings) for client in clients}
    findings = (
        _one_charge(orders, endings, runs),
        _no_hold_left(held),
        _accounted(tally_all(tallies.values()), orders, endings),
    )
    return Audit(findings=findings, tallies=tallies)


def tally_all(tallies: Iterable[Tally]) -> Tally:
    """Add tallies up."""
    listed = list(tallies)
    names = [field.name for field in dataclasses.fields(Tally)]
    return Tally(**{name: sum(getattr(tally, name) for tally in listed) for name in names})


def _tally(client_id: str, orders: Mapping[str, Order], endings: Mapping[str, Ending]) -> Tally:
    own = [task_id for task_id, order in orders.items() if order.client_id == client_id]
    known = [endings[task_id] for task_id in own if task_id in endings]
    succeeded = sum(ending.succeeded for ending in known)
    refused = sum(ending.refused for ending in known)
    return Tally(submitted=len(own), succeeded=succeeded, refused=refused, failed=len(known) - succeeded - refused)


def _one_charge(orders: Mapping[str, Order], endings: Mapping[str, Ending], runs: Runs) -> Finding:
    """L3: the tasks that succeeded are exactly those that the log has, each with one run, for the right client."""
    succeeded = {(orders[task_id].client_id, task_id) for task_id, ending in endings.items() if ending.succeeded}
    wrong = [
        f"task {task_id} of {client_id} succeeded and is not in the log"
        for client_id, task_id in succeeded - runs.keys()
    ]
    wrong += [
        f"task {task_id} of {client_id} is in the log and did not succeed"
        for client_id, task_id in runs.keys() - succeeded
    ]
    wrong += [
        f"task {task_id} of {client_id} was charged {count} times"
        for (client_id, task_id), count in runs.items()
        if count != 1
    ]
    others = len(orders) - len(succeeded)
    text = (
        f"{len(succeeded):,} tasks succeeded, {len(runs):,} runs are in the log, one each; "
        f"none of the {others:,} other tasks is"
    )
    return finding("L3 tasks", wrong, text)


def _no_hold_left(held: Mapping[str, int]) -> Finding:
    wrong = [f"{client_id} still holds {credits_:,}" for client_id, credits_ in held.items() if credits_]
    return finding("L5 no hold left", wrong, "no hold is left, that of the killed process included")


def _accounted(total: Tally, orders: Mapping[str, Order], endings: Mapping[str, Ending]) -> Finding:
    wrong = [f"task {task_id} has no known ending" for task_id in orders if task_id not in endings]
    wrong += [
        f"task {task_id} of {orders[task_id].client_id} ended otherwise than expected: {ending.error or 'success'}"
        for task_id, ending in endings.items()
        if not _as_expected(orders[task_id].expected, ending)
    ]
    text = (
        f"{total.submitted:,} submitted = {total.succeeded:,} succeeded + {total.refused:,} refused "
        f"+ {total.failed:,} failed"
    )
    return finding("accounted for", wrong, text)


def _as_expected(expected: Expected, ending: Ending) -> bool:
    if expected is Expected.SUCCESS:
        return ending.succeeded
    if expected is Expected.SUCCESS_OR_REFUSAL:
        return ending.succeeded or ending.refused
    return not ending.succeeded and not ending.refused and ending.error.startswith("PageUnavailable")
