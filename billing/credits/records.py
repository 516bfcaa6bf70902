"""Reads what the scripts store: a run's record, a bucket's fields. Pure; lua/prelude.lua describes the formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from billing.core.credits import CREDITS_MAX, check_amount
from billing.core.errors import InvalidValue
from billing.credits.posting import Posted
from billing.credits.terms import ORDINARY, ClientState, ClientTerms, GrantTerms, read_terms
from billing.credits.values import Balance, GrantBalance, Hold, SettledRun, Settlement, StoredHold

_HEADER_FIELDS: Final = 11


def claim_of(hold: Hold) -> bytes:
    """Return what an attempt asks for, as a run's record keeps it: a field a line, then the draft."""
    client_id, sku, head = hold.client_id, hold.sku, hold.head
    if not (client_id + sku + hold.token).isprintable():
        raise InvalidValue("hold", (client_id, sku, hold.token), "must be printable text")
    fields = f"{client_id}\n{sku}\n{hold.credits}\n{hold.price_version}\n{hold.attempt}\n{len(head)}\n"
    return fields.encode() + head + hold.lines


def check_settlement(settlement: Settlement) -> None:
    """Refuse amounts out of bounds or without lines, and an id that a record could not keep."""
    amounts = settlement.amounts
    if not amounts or len(amounts) != len(settlement.fragments):
        raise InvalidValue("amounts", amounts, "must be one per line, and at least one")
    for amount in amounts:
        check_amount("credits", amount, minimum=0)
    if sum(amounts) > CREDITS_MAX:
        raise InvalidValue("credits", sum(amounts), f"must be at most {CREDITS_MAX} over all lines")
    if not settlement.settlement_id.isalnum():
        raise InvalidValue("settlement_id", settlement.settlement_id, "must be letters and digits")


def check_logged(settlement_id: str) -> None:
    """Refuse a settlement id of the log that a record could not keep."""
    if not settlement_id.isprintable() or not settlement_id or " " in settlement_id:
        raise InvalidValue("settlement_id", settlement_id, "must be printable text without spaces")


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
    _, grants, epoch, token, created, client, sku, credits_, price, attempt, length = fields
    seconds, microseconds = created.split()
    return StoredHold(
        run_id=UUID(run_id),
        client_id=client.decode(),
        sku=sku.decode(),
        token=token.decode(),
        credits=int(credits_),
        grants=read_shares(grants),
        price_version=int(price),
        attempt=int(attempt),
        created_ms=int(seconds) * 1_000 + int(microseconds) // 1_000,
        deadline_ms=deadline_ms,
        head=body[: int(length)],
        lines=body[int(length) :],
        epoch=int(epoch),
    )


def read_settled(run_id: str, record: bytes | None) -> SettledRun | None:
    """Return the settlement of a run's record, or None if it is held or gone."""
    if record is None or not record.startswith(b"settled\n"):
        return None
    _, settlement, client, entry = record.split(b"\n", 3)
    return SettledRun(
        run_id=UUID(run_id), client_id=client.decode(), settlement_id=settlement.decode(), entry_id=entry.decode()
    )


def read_balance(client_id: str, bucket: bytes, flat: Sequence[bytes], now_ms: int) -> Balance:
    """Return a client's bucket at a moment: its string, and the fields and values of its grants in turn.

    Raises `ValueError` for a bucket that billing did not write.
    """
    epoch, head, *rest = bucket.decode().split(" ")
    debt_left, _, client_terms = head.partition("~")
    limit, room, state = client_terms.split(",") if client_terms else (0, 0, "a")
    # The last entry may be the marks at which the client is alerted.
    usable, terms = _read_entries([entry for entry in rest if not entry.startswith("!")])
    texts = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
    fields = {name: int(text) for name, text in texts.items() if not name.startswith(("a:", "p:", "t:"))}
    grants = []
    for grant_id in sorted(int(name[2:]) for name in fields if name.startswith("g:")):
        available, held, spent = usable.get(grant_id, (0, 0, fields.get(f"s:{grant_id}", 0)))
        ended = terms.get(grant_id, ORDINARY).ended_at(now_ms)
        grants.append(
            GrantBalance(
                grant_id=grant_id,
                granted=fields[f"g:{grant_id}"],
                available=0 if ended else available,
                held=held,
                spent=spent,
                repaid=fields.get(f"r:{grant_id}", 0),
                expired=fields.get(f"x:{grant_id}", 0) + (available if ended else 0),
                voided=fields.get(f"v:{grant_id}", 0) + fields.get(f"j:{grant_id}", 0),
            )
        )
    debt, adjusted_debt = fields.get("s:0", 0), fields.get("j:0", 0)
    return Balance(
        client_id=client_id,
        epoch=int(epoch),
        grants=tuple(grants),
        order=tuple(usable),
        debt=debt,
        owed=int(debt_left) + int(room),
        available=sum(grant.available for grant in grants),
        held=sum(grant.held for grant in grants) + int(room),
        spent=sum(grant.spent for grant in grants) + debt,
        granted=sum(grant.granted for grant in grants),
        expired=sum(grant.expired for grant in grants),
        voided=sum(grant.voided for grant in grants) + adjusted_debt,
        adjusted_debt=adjusted_debt,
        room=int(room),
        terms=ClientTerms(state=ClientState(state), overdraft_limit=int(limit)),
        grant_terms=terms,
        beyond={int(name[2:]): credits_ for name, credits_ in fields.items() if credits_ and name.startswith("m:")},
        posted={int(name[2:]): _read_posted(text) for name, text in texts.items() if name.startswith("p:")},
    )


def _read_posted(text: bytes) -> Posted:
    version, credits_, restored = map(int, text.split())
    return Posted(version=version, credits=credits_, restored=restored)


def _read_entries(entries: Sequence[str]) -> tuple[dict[int, tuple[int, int, int]], dict[int, GrantTerms]]:
    """Return what each grant of the string has (available, held, spent), and the terms of those that have some."""
    usable, terms = {}, {}
    for entry in entries:
        numbers, _, text = entry.partition("@")
        grant, available, held, spent = map(int, numbers.split(":"))
        usable[grant] = (available, held, spent)
        if text:
            terms[grant] = read_terms(text)
    return usable, terms
