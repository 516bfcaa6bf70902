"""A bucket as it is to be written, and what the ledger says of its client beside amounts: values of a rebuild. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from billing.core.credits import NO_GRANT
from billing.credits.terms import ClientTerms, GrantTerms
from billing.credits.values import GrantBalance


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerTerms:
    """What the ledger says beside amounts; empty where everything is ordinary. Times are ms.

    `final`: what expired and what was voided of grants that have ended and have nothing left. `adjustments`: what each
    one that was applied took from each grant. `waiting`: (adjustment id, credits) of those that no bucket has seen.
    `claims`: the SKU of a hold, and when it was made. `repaid`: how much debt each grant had repaid by the bucket that
    is to be replaced, if it is still there.
    """

    now_ms: int = 0
    client: ClientTerms = ClientTerms()
    grants: Mapping[int, GrantTerms] = field(default_factory=dict)
    final: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    adjustments: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    waiting: Sequence[tuple[int, int]] = ()
    claims: Mapping[UUID, tuple[str, int]] = field(default_factory=dict)
    repaid: Mapping[int, int] = field(default_factory=dict)


#: Of nearly every client: compared with and shared, since a fleet of them is planned at once.
_ORDINARY_CLIENT: Final = ClientTerms()
#: Of a client with nothing special.
ORDINARY_TERMS: Final = LedgerTerms()


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketPlan:
    """A bucket as it is to be written: usable grants in burn order, and what each surviving hold is lent.

    `owed` is debt alone. `beyond` is the part of `debt` that the log counts as paid by a grant which had no more.
    `adjusted` is what each adjustment took, those of the plan included; `endings` are the grants that `lapse` is to
    look at, and when.
    """

    grants: tuple[GrantBalance, ...]
    order: tuple[int, ...]
    debt: int
    owed: int
    holds: Mapping[UUID, Mapping[int, int]]
    room: int = 0
    client: ClientTerms = ClientTerms()
    terms: Mapping[int, GrantTerms] = field(default_factory=dict)
    adjusted: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    endings: Mapping[int, int] = field(default_factory=dict)
    beyond: Mapping[int, int] = field(default_factory=dict)

    def bucket(self) -> str:
        """Return the bucket's string, its epoch apart."""
        balances = {grant.grant_id: grant for grant in self.grants}
        entries = []
        texts = False
        for grant_id in self.order:
            grant, terms = balances[grant_id], self.terms.get(grant_id)
            text = "" if terms is None else terms.text()
            texts = texts or bool(text)
            entries.append(f"{grant_id}:{grant.available}:{grant.held}:{grant.spent}{text}")
        head = str(self.owed)
        if texts or self.room or self.client != _ORDINARY_CLIENT:
            head += f"~{self.client.overdraft_limit},{self.room},{self.client.state.value}"
        return " ".join((head, *entries))

    def fields(self) -> dict[str, int | str]:
        """Return the fields of the grants' hash; numbers that are 0 are left out."""
        taken = sums_of(self.adjusted)
        numbers = {"s:0": self.debt, "j:0": taken.get(NO_GRANT, 0)}
        numbers |= {f"m:{grant}": credits_ for grant, credits_ in self.beyond.items()}
        usable = set(self.order)
        for grant in self.grants:
            grant_id = grant.grant_id
            numbers[f"g:{grant_id}"] = grant.granted
            if grant.repaid:
                numbers[f"r:{grant_id}"] = grant.repaid
            if grant.expired:
                numbers[f"x:{grant_id}"] = grant.expired
            if adjusted := taken.get(grant_id, 0):
                numbers[f"j:{grant_id}"] = adjusted
            if grant.voided != adjusted:
                numbers[f"v:{grant_id}"] = grant.voided - adjusted
            if grant_id not in usable:
                numbers[f"s:{grant_id}"] = grant.spent
        texts = {
            f"a:{adjustment}": " ".join(f"{grant}:{part}" for grant, part in shares.items())
            for adjustment, shares in self.adjusted.items()
        }
        # A posting may give something back to a grant that is not in the string.
        texts |= {
            f"t:{grant}": text for grant, terms in self.terms.items() if (text := terms.text()) and grant not in usable
        }
        return {name: number for name, number in numbers.items() if number} | texts


def sums_of(adjusted: Mapping[int, Mapping[int, int]]) -> dict[int, int]:
    """Return what all adjustments together took from each grant."""
    sums: dict[int, int] = {}
    for shares in adjusted.values():
        for grant, part in shares.items():
            sums[grant] = sums.get(grant, 0) + part
    return sums
