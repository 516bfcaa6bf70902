"""What must be true at a quiescent point: L1, L2 and L6 of each client, L3 of each run, and who holds what.

Nothing here asks the code under test what a balance ought to be: grants, adjustments and charges are added up anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

from billing.credits.values import Balance, StoredHold
from tests.contract.faulty.ledger import Ledger
from tests.contract.faulty.values import AtRest, Breach
from tests.contract.laws import assert_laws


def together(reports: Sequence[AtRest]) -> AtRest:
    """Return what all processes say, as one."""
    holds: dict[UUID, tuple[str, int]] = {}
    succeeded: dict[UUID, frozenset[int]] = {}
    admitted: Counter[str] = Counter()
    for report in reports:
        holds |= report.holds
        succeeded |= report.succeeded
        admitted.update(report.admitted)
    return AtRest(holds=holds, admitted=admitted, succeeded=succeeded)


def check_log(ledger: Ledger, told: AtRest) -> None:
    """L3: a run that succeeded is in the log once, at what one of its settlements charged; no other run is."""
    history = ledger.log.history
    for run_id in told.succeeded.keys() ^ history.keys():
        law = "is in the log, and did not succeed" if run_id in history else "succeeded, and is not in the log"
        raise _breach(f"L3: run {run_id} {law}", run_id)
    for run_id, amounts in told.succeeded.items():
        charged = sum(line.credits for line in history[run_id].lines)
        if charged not in amounts:
            raise _breach(f"L3: run {run_id} was charged {charged}, and not one of {sorted(amounts)}", run_id)


def check_holds(found: Collection[StoredHold], told: AtRest) -> None:
    """L5: what is held is what the processes hold."""
    there = {hold.run_id: (hold.client_id, hold.credits) for hold in found}
    for run_id in there.keys() - told.holds.keys():
        raise _breach(f"L5: {there[run_id]} is held by run {run_id}, which no process holds", run_id)
    for run_id, hold in told.holds.items():
        if there.get(run_id) != hold:
            raise _breach(f"L5: run {run_id} holds {hold}, and in Redis {there.get(run_id)}", run_id)


def check_client(
    ledger: Ledger, told: AtRest, balance: Balance | None, holds: Sequence[StoredHold], read_ms: tuple[int, int]
) -> int:
    """L1 and L2 of one client, whose holds these are, and L6: its bucket has what ledger and log say.

    `read_ms`: between which moments the balance was read. Returns how many credits more could have been admitted before
    that is a breach.
    """
    if balance is None:
        raise _breach("L6: a client has no bucket")
    try:
        assert_laws(balance)
    except AssertionError as error:
        raise _breach(f"L2: {balance.client_id}: {error}") from error
    _check_paid(ledger, balance)
    check_lenders(ledger, balance.client_id, holds)
    _check_grants(ledger, balance, holds)
    _check_ends(ledger, balance, *read_ms)
    return _check_ceiling(ledger, told, balance)


def _check_ceiling(ledger: Ledger, told: AtRest, balance: Balance) -> int:
    """Compare what was admitted with all that was granted and the largest limit; what ended unused is in it, too.

    No nearer bound is a law: a run may settle another SKU than it was lent for, and what it gives back may expire.
    """
    client_id = balance.client_id
    granted = sum(row.credits for row in ledger.log.grants_of(client_id))
    admitted, limit = told.admitted.get(client_id, 0), ledger.limits[client_id]
    if admitted > granted + limit:
        own = {run for run, (owner, _) in told.holds.items() if owner == client_id}
        raise _breach(
            f"L1: {client_id}: {admitted} credits were admitted of {granted} + {limit}: {balance}, held by {own}"
        )
    return granted + limit - admitted


def check_lenders(ledger: Ledger, client_id: str, holds: Sequence[StoredHold]) -> None:
    """L1: what a hold was lent it could use: of grants for its SKU that had not expired when it came, and of room."""
    for hold in holds:
        for grant in hold.grants.keys() - {0}:
            terms = ledger.log.grants[grant].terms
            if not terms.fits(hold.sku) or 0 < terms.expires_ms <= hold.created_ms:
                raise _breach(f"L1: grant {grant} of {terms} has lent to {hold}", hold.run_id)
    room = sum(hold.grants.get(0, 0) for hold in holds)
    if room > ledger.limits[client_id]:
        raise _breach(f"L1: {client_id}: holds have {room} of an overdraft of {ledger.limits[client_id]}")


def _check_paid(ledger: Ledger, balance: Balance) -> None:
    """Per grant, what the log says it has paid is what it has spent, or would have."""
    client_id, log = balance.client_id, ledger.log.spent[balance.client_id]
    paid = {grant.grant_id: grant.spent + balance.beyond.get(grant.grant_id, 0) for grant in balance.grants}
    paid[0] = balance.debt - sum(balance.beyond.values())
    paid |= {grant: credits_ for grant, credits_ in balance.beyond.items() if grant not in paid}
    for grant in paid.keys() | log.keys():
        if paid.get(grant, 0) != log.get(grant, 0):
            by = f"grant {grant} has paid {paid.get(grant, 0)}, by the log {log.get(grant, 0)}"
            raise _breach(f"L2: {client_id}: {by}: {balance}")


def _check_grants(ledger: Ledger, balance: Balance, holds: Sequence[StoredHold]) -> None:
    """Each grant has what it was granted; what holds were lent, and what was taken away, is all that it lacks."""
    client_id = balance.client_id
    granted = {row.grant_id: row.credits for row in ledger.log.grants_of(client_id) if row.applied}
    if {grant.grant_id: grant.granted for grant in balance.grants} != granted:
        raise _breach(f"L6: {client_id} was granted {granted}, and has {balance.grants}")
    held, adjusted = _lent(holds, balance.epoch), _adjusted(ledger, client_id)
    for row in ledger.adjustments[client_id].values():
        if sum(row.shares.values()) != row.credits * row.applied:
            raise _breach(f"L2: {row} took {row.shares}")
    if (balance.room, balance.adjusted_debt) != (held[0], adjusted[0]):
        raise _breach(f"L2: {client_id}: holds have {held[0]} of the overdraft, adjustments {adjusted[0]}: {balance}")
    for grant in balance.grants:
        terms = ledger.log.grants[grant.grant_id].terms
        if grant.held != held[grant.grant_id]:
            raise _breach(f"L2: {client_id}: holds were lent {held[grant.grant_id]}: {grant}")
        if not terms.voided_ms and grant.voided != adjusted[grant.grant_id]:
            raise _breach(f"L2: {client_id}: adjustments took {adjusted[grant.grant_id]}: {grant}")
        if terms.voided_ms and grant.available:
            raise _breach(f"L2: {client_id}: it was voided: {grant}")


def _check_ends(ledger: Ledger, balance: Balance, after_ms: int, before_ms: int) -> None:
    """Compare ended grants with the ledger's final amounts; nothing expires before its time, or outlives it."""
    client_id, adjusted = balance.client_id, _adjusted(ledger, balance.client_id)
    for grant in balance.grants:
        terms = ledger.log.grants[grant.grant_id].terms
        too_early = grant.expired and not 0 < terms.expires_ms <= before_ms
        if too_early or (grant.available and 0 < terms.expires_ms <= after_ms):
            raise _breach(f"L2: {client_id}: between {after_ms} and {before_ms}, with {terms}: {grant}")
        final = ledger.final[client_id].get(grant.grant_id)
        if final is not None and final != (grant.expired, grant.voided - adjusted[grant.grant_id]):
            raise _breach(f"L2: {client_id}: the ledger has {final} of its end: {grant}, {terms}, adjusted {adjusted}")


def _adjusted(ledger: Ledger, client_id: str) -> Counter[int]:
    """Return what adjustments took of each grant; of grant 0 what was debt."""
    adjusted = Counter[int]()
    for row in ledger.adjustments[client_id].values():
        adjusted.update(row.shares)
    return adjusted


def _lent(holds: Sequence[StoredHold], epoch: int) -> Counter[int]:
    """Return what each grant has lent; a hold of another epoch is none of this bucket's, which is then incomplete."""
    lent = Counter[int]()
    for hold in holds:
        if hold.epoch != epoch:
            raise _breach(f"L6: a bucket of epoch {epoch} does not know of {hold}", hold.run_id)
        lent.update(hold.grants)
    return lent


def _breach(text: str, run_id: UUID | None = None) -> Breach:
    return Breach(text, run_id)
