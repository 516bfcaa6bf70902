"""Faults of what admits and charges a run: the scripts `reserve` and `settle`."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import on_valkey, scripts
from tests.mutants.mutant import Mutant

_RESERVE = "buckets_reserve"
_reserve = scripts("reserve", _RESERVE)
_settle = scripts("settle", "buckets_settle")

RESERVE: Final[tuple[Mutant, ...]] = (
    _reserve(
        "a shard that nobody verified admits",
        "L1 L6",
        "if stored[1] ~= server_run_id then",
        "if false then",
        on_valkey("buckets_recovering"),
    ),
    _reserve("a settled run is held again", "L3 L4", "return 'SETTLED'", "return 'HELD'"),
    _reserve(
        "another client takes a hold over",
        "L2 L10",
        "found.client ~= asked.client or found.sku ~= asked.sku",
        "found.sku ~= asked.sku",
    ),
    _reserve(
        "another SKU takes a hold over",
        "L1",
        "found.client ~= asked.client or found.sku ~= asked.sku",
        "found.client ~= asked.client",
    ),
    _reserve("the outbox takes one entry too many", "L9", ">= tonumber(outbox_max)", "> tonumber(outbox_max)"),
    _reserve(
        "a run from the far future is held",
        "L3 L9",
        "minted > now + 86400000",
        "minted > now + 86400000000",
    ),
    _reserve(
        "a suspended client is admitted",
        "L1",
        "terms.state ~= 'a' and not",
        "terms.state == 'c' and not",
        on_valkey("terms"),
    ),
    _reserve(
        "a hold of an older epoch counts as lent",
        "L1 L2",
        "local held = 0\nif hold and hold.epoch == epoch then",
        "local held = 0\nif hold then",
        on_valkey("buckets_rebuilt"),
        on_valkey("buckets_reserve"),
        on_valkey("buckets_recovering"),
    ),
    _reserve(
        "the overdraft lends one credit too many",
        "L1",
        "left > 0 and left <= room",
        "left > 0 and left <= room + 1",
        on_valkey("terms"),
    ),
    _reserve("the ceiling is one credit too high", "L1", "if left > 0 or blocked and", "if left > 1 or blocked and"),
    _reserve(
        "the same call again takes again",
        "L1 L2",
        "credits > held and credits - held or 0",
        "credits",
    ),
    _reserve("a client that owes is admitted", "L1", "blocked, room = owed ~= '0', 0", "blocked, room = false, 0"),
    _reserve(
        "a hold has no lease",
        "L5",
        "  call('ZADD', KEYS[3], now + lease_ms, run_id)\n  return 'HELD'",
        "  return 'HELD'",
        on_valkey("buckets_leases"),
    ),
    _reserve(
        "a takeover shortens the lease",
        "L5",
        "call('ZADD', KEYS[3], 'GT', now",
        "call('ZADD', KEYS[3], now",
        on_valkey("buckets_leases"),
    ),
    _reserve(
        "a takeover is charged at a later price",
        "L3",
        "hold.token ~= token and found.price == asked.price\n",
        "hold.token ~= token\n",
    ),
    _reserve(
        "the price of a top-up of a hold is not lent",
        "L1 L2",
        "(hold.epoch == epoch and hold.grants .. ' ' or '') .. taken",
        "taken",
    ),
)

SETTLE: Final[tuple[Mutant, ...]] = (
    _settle(
        "a shard that nobody verified charges",
        "L6",
        "if stored[1] ~= server_run_id then",
        "if false then",
        on_valkey("buckets_recovering"),
    ),
    _settle("one client pays another's run", "L2 L10", "if hold and hold.client ~= client then", "if false then"),
    _settle("a second settle is a new charge", "L3 L4", "if hold and hold.settled then", "if hold and false then"),
    _settle("a charge has no event", "L3", "call('XADD', outbox, '*', 'e', event)", "'0-0'"),
    _settle("what the bucket pays beyond a hold is not spent", "L2", "0, taken[i + 1])", "0, 0)"),
    _settle(
        "debt is not written down", "L1 L2", "write_bucket(epoch, owed + debt, terms", "write_bucket(epoch, owed, terms"
    ),
    _settle("debt is not in the grants' sums", "L2", "\nnote(KEYS[6], notes)\n", "\n"),
    _settle(
        "a debt may pass what a double counts to",
        "L2",
        "debt > 0 and total_of(KEYS[6]) + debt > CREDITS_MAX",
        "false",
    ),
    _settle(
        "the overdraft that a hold was lent stays lent", "L1 L2", "\nturn_back(terms, room)\n", "\n", on_valkey("terms")
    ),
    _settle("late work does not say so", "L4", "hold and 'false' or 'true'", "hold and 'false' or 'false'"),
    _settle(
        "a settled run keeps its lease", "L5", "  call('ZREM', KEYS[3], ARGV[1])\n", "", on_valkey("buckets_leases")
    ),
    _settle("a settled run is remembered for ever", "L9", ", 'PX', ARGV[5])", ")"),
    _settle(
        "a debt is told again while it grows",
        "L9",
        "in_debt(owes, terms), owed + debt",
        "false, owed + debt",
        on_valkey("alerts_debt"),
    ),
    _settle("usage happens when the outbox says", "L8", "digits(now)", "digits(now + 3600000)"),
)
