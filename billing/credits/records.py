"""Reads what the scripts store: a run's record, a bucket's fields. Pure; lua/prelude.lua describes the formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from billing.credits.values import Balance, GrantBalance, StoredHold

_HEADER_FIELDS: Final = 11


def read_shares(text: bytes) -> dict[int, int]:
    """Read "12:30 15:5": how much of each grant. A grant that is named twice counts twice."""
    shares: dict[int, int] = {}
    for share in text.split():
        grant, _, credits_ = share.partition(b":")
        shares[int(grant)] = shares.get(int(grant), 0) + int(credits_)
    return shares


def read_hold(run_id: str, deadline_ms: int, record: bytes | None) -> StoredHold | None:
    """Return the hold of a run's record, or None if it is settled or gone."""
    if record is None or not record.startswith(b"held\n"):
        return None
    *fields, body = record.split(b"\n", _HEADER_FIELDS)
    _, client, sku, token, credits_, grants, epoch, price, attempt, created, length = fields
    return StoredHold(
        run_id=UUID(run_id),
        client_id=client.decode(),
        sku=sku.decode(),
        token=token.decode(),
        credits=int(credits_),
        grants=read_shares(grants),
        price_version=int(price),
        attempt=int(attempt),
        created_ms=int(created),
        deadline_ms=deadline_ms,
        head=body[: int(length)],
        lines=body[int(length) :],
        epoch=int(epoch),
    )


def read_balance(client_id: str, flat: Sequence[bytes]) -> Balance | None:
    """Return the bucket of a client from its fields and values in turn, or None if there are none."""
    fields = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
    if not fields:
        return None

    def number(name: str) -> int:
        return int(fields.get(name, 0))

    grants = tuple(
        GrantBalance(
            grant_id=grant_id,
            granted=number(f"g:{grant_id}"),
            available=number(f"a:{grant_id}"),
            held=number(f"h:{grant_id}"),
            spent=number(f"s:{grant_id}"),
            repaid=number(f"r:{grant_id}"),
        )
        for grant_id in sorted(int(name[2:]) for name in fields if name.startswith("g:"))
    )
    debt = number("s:0")
    return Balance(
        client_id=client_id,
        epoch=number("epoch"),
        grants=grants,
        order=tuple(int(grant) for grant in fields.get("order", b"").split()),
        debt=debt,
        owed=number("owed"),
        available=sum(grant.available for grant in grants),
        held=sum(grant.held for grant in grants),
        spent=sum(grant.spent for grant in grants) + debt,
        granted=sum(grant.granted for grant in grants),
    )
