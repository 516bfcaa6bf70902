"""L6: what stands in Redis and is not as billing wrote it is told by `ValueError` or `KeyError`, never summed up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec

from billing.credits.alert_stream import _entry
from billing.credits.records import claim_of, read_balance, read_hold, read_settled, read_shares
from billing.credits.terms import GrantTerms, read_terms
from billing.credits.values import Hold
from billing.events.usage_event import Draft, EventHead, UsageLine, decode_draft, decode_head, encode_draft, encode_head
from tests.fuzz.laws import hold, parts_of
from tests.fuzz.target import Target

RUN: Final = "0192f0c1-2d4e-7000-8000-000000000000"
#: What callers expect of a record that billing did not write.
_UNREADABLE: Final = (ValueError, KeyError, msgspec.MsgspecError)


def check(data: bytes) -> None:
    """Read bytes as each kind of record."""
    first, *rest = parts_of(data, 6)
    with suppress(*_UNREADABLE):
        read_hold(RUN, 5, first)
    with suppress(*_UNREADABLE):
        read_settled(RUN, first)
    with suppress(*_UNREADABLE):
        read_shares(first)
    with suppress(*_UNREADABLE):
        balance = read_balance("acme", first, rest[:4], 1_795_305_600_000)
        hold(that=all(isinstance(grant.available, int) for grant in balance.grants), but=balance)
    with suppress(*_UNREADABLE):
        hold(that=read_terms(first.decode()) == read_terms(first.decode()), but=first)
    with suppress(*_UNREADABLE):
        draft = decode_draft(first)
        hold(that=decode_draft(encode_draft(draft)) == draft, but=draft)
    with suppress(*_UNREADABLE):
        head = decode_head(first)
        hold(that=decode_head(encode_head(head)) == head, but=head)
    with suppress(*_UNREADABLE):
        _entry(0, "1-0", dict(zip((b"server", b"client", b"percent", b"available"), rest, strict=False)))


def seeds() -> Iterator[bytes]:
    """Yield a hold, a settlement, buckets, terms, a draft and a head."""
    head = EventHead(
        run_id=msgspec.convert(RUN, __import__("uuid").UUID),
        client_id="acme",
        correlation_id="task-1",
        root_id="task-1",
        task="shop.capture",
        attempt=1,
        submitted_at=1_795_305_600_000,
        price_version=1,
    )
    draft = Draft(priced_at=1_795_305_600_000, lines=(UsageLine(sku="page", quantity=1, credits=5),), fixed=5)
    asked = Hold(
        run_id=head.run_id,
        client_id="acme",
        sku="page",
        credits=5,
        token="5e77",
        price_version=1,
        attempt=1,
        head=encode_head(head),
        lines=encode_draft(draft),
    )
    yield b"held\n12:30 15:5\n1\n5e77\n1795305600 5\n" + claim_of(asked)
    yield b"settled\n5e77\nacme\n1795305600000-0"
    yield b"3 0~5,0,a 12:30:5:10 15:1:0:0@50,1795305600000,0,page !20,5:0\xffg:12\xff45\xffs:12\xff10"
    yield b"1 0\xffg:12\xff45\xffp:12\xff3 5 0"
    yield GrantTerms(priority=5, expires_ms=9, skus=("page",)).text().encode()
    yield encode_draft(draft)
    yield encode_head(head)


TARGET = Target(check=check, seeds=seeds, words=(b"held\n", b"settled\n", b"g:", b"s:", b"p:", b"m:", b"@", b"~", b"!"))
