"""Compares the books with each other and with how the tasks ended. Pure: readings in, findings out.

A finding that does not hold names what differs. Nothing is taken for granted: a task without a known ending, a charge
without a success and a success without a charge are each a finding that fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from billing.credits.values import Balance
from billing.embedded.demo.facts import Books
from billing.embedded.demo.results import Ending
from billing.embedded.demo.workload import DemoClient, Expected, Order

#: How many differences a finding names.
NAMED_MAX: Final = 3


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
class Finding:
    """One statement about the books, and whether it holds."""

    name: str
    holds: bool
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """All findings, and the tallies per client id."""

    findings: tuple[Finding, ...]
    tallies: Mapping[str, Tally]

    @property
    def ok(self) -> bool:
        """Whether every law holds and every task is accounted for."""
        return all(finding.holds for finding in self.findings)


def audit(
    clients: Sequence[DemoClient], orders: Mapping[str, Order], endings: Mapping[str, Ending], books: Books
) -> Audit:
    """Check everything. `orders` and `endings` are by task id."""
    tallies = {client.client_id: _tally(client.client_id, orders, endings) for client in clients}
    findings = (
        _conservation(clients, books),
        _one_charge(orders, endings, books),
        _no_hold_left(books),
        _log_reached(books),
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


def _conservation(clients: Sequence[DemoClient], books: Books) -> Finding:
    """L2 in Redis, per client and grant, and its sums against the ledger, the log and what is derived from it."""
    wrong = [text for client in clients for text in _differences(client.client_id, books)]
    balances = [books.balances[client.client_id] for client in clients]
    granted, owed, available, held, spent = (
        sum(getattr(balance, name) for balance in balances)
        for name in ("granted", "owed", "available", "held", "spent")
    )
    text = (
        f"granted {granted:,} + owed {owed:,} = available {available:,} + held {held:,} + spent {spent:,}; per client "
        "and grant the buckets in Redis, the ledger and the log agree"
    )
    return _finding("L2 conservation", wrong, text)


def _differences(client_id: str, books: Books) -> Iterator[str]:
    balance, history = books.balances[client_id], books.histories[client_id]
    if balance.granted + balance.owed != balance.available + balance.held + balance.spent:
        yield f"{client_id}: {_sum(balance)}"
    for grant in balance.grants:
        if grant.granted != grant.available + grant.held + grant.spent + grant.repaid:
            yield f"{client_id}, grant {grant.grant_id}: {grant}"
    in_redis = {grant.grant_id: grant.granted for grant in balance.grants}
    if in_redis != books.granted.get(client_id, {}):
        yield f"{client_id}: grants are {in_redis} in Redis, {books.granted.get(client_id, {})} in the ledger"
    spent = {grant.grant_id: grant.spent for grant in balance.grants if grant.spent} | (
        {0: balance.debt} if balance.debt else {}
    )
    logged = {grant_id: credits_ for grant_id, credits_ in history.spent.items() if credits_}
    if spent != logged:
        yield f"{client_id}: spent per grant is {spent} in Redis, {logged} in the log"
    if history.credits != balance.spent:
        yield f"{client_id}: spent is {balance.spent:,} in Redis, {history.credits:,} in the log"
    derived = {grant_id: credits_ for grant_id, credits_ in books.spent.get(client_id, {}).items() if credits_}
    if derived != logged or books.rolled_up.get(client_id, 0) != history.credits:
        rolled_up = books.rolled_up.get(client_id, 0)
        yield f"{client_id}: the log has {logged}, grant_spent {derived}, usage_rollup {rolled_up:,}"


def _sum(balance: Balance) -> str:
    return (
        f"granted {balance.granted:,} + owed {balance.owed:,} is not "
        f"available {balance.available:,} + held {balance.held:,} + spent {balance.spent:,}"
    )


def _one_charge(orders: Mapping[str, Order], endings: Mapping[str, Ending], books: Books) -> Finding:
    """L3: the tasks that succeeded are exactly those that the log has, each with one run, for the right client."""
    logged = {
        (client_id, task_id): runs
        for client_id, history in books.histories.items()
        for task_id, runs in history.runs.items()
    }
    succeeded = {(orders[task_id].client_id, task_id) for task_id, ending in endings.items() if ending.succeeded}
    wrong = [
        f"task {task_id} of {client_id} succeeded and is not in the log"
        for client_id, task_id in succeeded - logged.keys()
    ]
    wrong += [
        f"task {task_id} of {client_id} is in the log and did not succeed"
        for client_id, task_id in logged.keys() - succeeded
    ]
    wrong += [
        f"task {task_id} of {client_id} was charged {runs} times"
        for (client_id, task_id), runs in logged.items()
        if runs != 1
    ]
    others = len(orders) - len(succeeded)
    text = (
        f"{len(succeeded):,} tasks succeeded, {len(logged):,} runs are in the log, one each; "
        f"none of the {others:,} other tasks is"
    )
    return _finding("L3 one charge", wrong, text)


def _no_hold_left(books: Books) -> Finding:
    wrong = [f"{client_id} still holds {b.held:,}" for client_id, b in books.balances.items() if b.held]
    return _finding("L5 no orphan", wrong, "no hold is left, that of the killed process included")


def _log_reached(books: Books) -> Finding:
    wrong = [f"{books.dead_letters:,} dead letters"] if books.dead_letters else []
    wrong += [f"{books.outbox_entries:,} events still in the outbox"] if books.outbox_entries else []
    return _finding("log complete", wrong, "no event was refused by the log, none waits in an outbox")


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
    return _finding("accounted for", wrong, text)


def _as_expected(expected: Expected, ending: Ending) -> bool:
    if expected is Expected.SUCCESS:
        return ending.succeeded
    if expected is Expected.SUCCESS_OR_REFUSAL:
        return ending.succeeded or ending.refused
    return not ending.succeeded and not ending.refused and ending.error.startswith("PageUnavailable")


def _finding(name: str, wrong: Sequence[str], text: str) -> Finding:
    if not wrong:
        return Finding(name=name, holds=True, text=text)
    more = f" … and {len(wrong) - NAMED_MAX:,} more" if len(wrong) > NAMED_MAX else ""
    return Finding(name=name, holds=False, text="; ".join(sorted(wrong)[:NAMED_MAX]) + more)
