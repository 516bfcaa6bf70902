"""The laws that every balance keeps, whatever was done to its bucket."""

from __future__ import annotations

from billing.credits.values import Balance


def assert_laws(balance: Balance) -> None:
    """L2 per grant and per client, L1, and that debt is paid before anything is available for every SKU."""
    for grant in balance.grants:
        parts = (grant.available, grant.held, grant.spent, grant.repaid, grant.expired, grant.voided)
        assert min(parts) >= 0, grant
        assert sum(parts) == grant.granted, grant
    used = balance.available + balance.held + balance.spent + balance.expired + balance.voided
    assert balance.granted + balance.owed == used, balance
    debt = balance.owed - balance.room
    assert debt == balance.debt + balance.adjusted_debt - sum(grant.repaid for grant in balance.grants), balance
    assert min(debt, balance.room) >= 0, balance
    restricted = {grant for grant, terms in balance.grant_terms.items() if terms.skus}
    for grant in balance.grants:
        assert debt == 0 or grant.available == 0 or grant.grant_id in restricted, balance
