"""Faults of what ends, renews and hands over a hold: the scripts of leases, attempts and drafts."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import on_valkey, scripts
from tests.mutants.mutant import Mutant

_LEASES: Final = "buckets_leases"
_release, _renew = scripts("release", _LEASES), scripts("renew", _LEASES)
_expire, _overdue = scripts("expire", _LEASES), scripts("overdue", _LEASES)
_assert, _stage = scripts("assert_hold", "buckets_recovering", "buckets_rebuilt"), scripts("stage", _LEASES)

HOLDS: Final[tuple[Mutant, ...]] = (
    _release(
        "a stale attempt frees a live one's hold",
        "L4 L5",
        "if hold.token ~= ARGV[2] and hold.token ~= '*' then",
        "if false then",
    ),
    _release(
        "a release gives another client's bucket what it never lent",
        "L2 L10",
        "if not hold or hold.client ~= ARGV[3] then",
        "if not hold then",
    ),
    _release("a release of a settled run gives back", "L3 L4", "if hold.settled then", "if false then"),
    _renew("a renewal moves a deadline back", "L5", "call('ZADD', KEYS[2], 'GT', ", "call('ZADD', KEYS[2], "),
    _renew("a settled run gets a lease", "L5", "if state ~= 'held' then", "if false then"),
    _renew(
        "a shard that recovers renews",
        "L6",
        "if recovering(KEYS[3]) then",
        "if false then",
        on_valkey("buckets_recovering"),
    ),
    _expire("a hold expires before its lease is over", "L5", "run_id) or 0) > now then", "run_id) or 0) < 0 then"),
    _expire(
        "holds expire right after a pause",
        "L5",
        "if now - tonumber(swept[1] or 0) > tonumber(ARGV[2]) or now < tonumber(swept[2] or 0) then",
        "if false then",
    ),
    _expire(
        "an expiry gives another client's bucket what it never lent",
        "L2",
        "if hold.client ~= ARGV[3] then",
        "if false then",
    ),
    _overdue("a pause in sweeping gives no grace", "L5", "grace = now + tonumber(ARGV[2])", "grace = now"),
    _overdue("a sweep removes dangling leases without a bound", "L9", "for _ = 1, 10 do", "for _ = 1, 100000 do"),
    _overdue(
        "leases without a hold keep the place of others",
        "L5 L10",
        "      call('ZREM', KEYS[1], due[i])\n",
        "",
    ),
    _overdue(
        "a sweep names one hold too many",
        "L9",
        "local most, reply = tonumber(ARGV[1]), { 'OK' }",
        "local most, reply = tonumber(ARGV[1]) + 1, { 'OK' }",
    ),
    _assert("an assert does not tell a rebuild of one hold more", "L6", "else\n  call('INCR', KEYS[5])\nend", "end"),
    _assert(
        "an assert of another client's run is taken",
        "L2 L10",
        "if hold and hold.client ~= read_claim(ARGV[4]).client then",
        "if false then",
    ),
    _assert("an assert brings a settled run back", "L3 L4", "if hold and hold.settled then", "if false then"),
    _assert(
        "an asserted hold takes nothing from an open bucket",
        "L1 L2",
        "borrow(bucket, grants, claimed.credits, terms, claimed.sku)",
        "borrow(bucket, grants, 0, terms, claimed.sku)",
    ),
    _stage(
        "a stale attempt writes its draft into a live one's hold",
        "L3 L4",
        "or hold.token ~= ARGV[1] and hold.token ~= '*' then",
        "then",
        on_valkey("buckets_leases"),
        on_valkey("buckets_reserve"),
        on_valkey("differential"),
    ),
)
