"""Faults of what brings a bucket back, and of what tells it what the log says: the scripts of section 8."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import on_valkey, scripts
from tests.mutants.mutant import Mutant

_post, _rebuild = scripts("post", "post"), scripts("rebuild", "buckets_recovering", "buckets_rebuilt")
_open, _verify = scripts("open", "buckets_recovering", "buckets_rebuilt"), scripts("verify", "buckets_recovering")
_logged = scripts("mark_logged", "buckets_logged")

POSTINGS: Final[tuple[Mutant, ...]] = (
    _post("a posting of another epoch is taken", "L2 L6", "if epoch ~= ARGV[2] then", "if false then"),
    _post(
        "a posting adds its total each time",
        "L2 L3",
        "credits = credits - had, restored = restored - put",
        "credits = credits, restored = restored",
    ),
    _post(
        "an older posting is taken",
        "L2",
        "if version > tonumber(seen) then",
        "if version ~= tonumber(seen) then",
        on_valkey("post"),
        on_valkey("post_random"),
    ),
    _post(
        "a version that was seen may say something else",
        "L2",
        "if version == tonumber(seen) and",
        "if false and",
    ),
    _post(
        "more is given back than was spent",
        "L2",
        "covered = covered and entry.spent >= 0",
        "covered = covered",
    ),
    _post("what is posted beyond a grant is not owed", "L1 L2", "owe(grant, credits - part)", "owe(grant, 0)"),
    _post("the sums of a posting have no bound", "L2", "if total > CREDITS_MAX then", "if false then"),
    _post(
        "an ended grant is paid back first", "L2", "pay_back(false)\npay_back(true)", "pay_back(true)\npay_back(false)"
    ),
    _post(
        "what the ledger has of a grant's end is spent again",
        "L2 L7",
        "number('x:' .. grant) + number('v:' .. grant) - entered)",
        "number('x:' .. grant) + number('v:' .. grant))",
        on_valkey("post_endings"),
    ),
    _post(
        "a restricted grant repays what is posted",
        "L2",
        "pays(terms, grant) and not (own and own.skus ~= '') and",
        "pays(terms, grant) and",
    ),
)

REBUILDS: Final[tuple[Mutant, ...]] = (
    _open("an empty bucket is opened on a shard that recovers", "L6", "if recovering(KEYS[3]) then", "if false then"),
    _open("a bucket that was lost is opened as new", "L1 L6", "if left.err or #left > 0 then", "if false then"),
    _verify(
        "a server that was replaced is trusted",
        "L6",
        "if ARGV[1] ~= '' and ARGV[1] ~= server_run_id then",
        "if false then",
    ),
    _verify(
        "a shard is opened though a hold was asserted since",
        "L2 L6",
        "if ARGV[2] ~= '' and ARGV[2] ~= (call('GET', KEYS[2]) or '0') then",
        "if false then",
    ),
    _rebuild(
        "an old rebuilder writes over a newer epoch",
        "L6",
        "if tonumber(present) > tonumber(epoch) then",
        "if false then",
    ),
    _rebuild("a rebuild writes over an open bucket", "L1 L6", "if not recovering(KEYS[3]) then", "if false then"),
    _rebuild(
        "a rebuild misses a hold that was asserted since",
        "L2 L6",
        "if (call('GET', KEYS[4]) or '0') ~= ARGV[3] then",
        "if false then",
    ),
    _rebuild(
        "a rebuild on another server than it was planned for", "L6", "if ARGV[2] ~= server_run_id then", "if false then"
    ),
    _rebuild(
        "a rebuild writes a hold over a settled run",
        "L3 L4",
        "if not hold or hold.settled then",
        "if not hold then",
        on_valkey("buckets_logged"),
    ),
    _rebuild(
        "a rebuild leaves the old sums",
        "L2",
        "call('DEL', KEYS[2])\n",
        "",
        on_valkey("buckets_rebuilt"),
        on_valkey("buckets_bounds"),
        on_valkey("post"),
        on_valkey("buckets_recovering"),
    ),
    _rebuild(
        "a rebuild repeats a debt that its bucket knew",
        "L6",
        "was_in_debt = owed and tonumber(owed) > (tonumber(limit) or 0)",
        "was_in_debt = false",
        on_valkey("alerts_debt"),
    ),
    _logged(
        "a hold that an open bucket lends to is marked",
        "L2",
        "if bucket and not recovering(KEYS[4]) and match(bucket, '^%d+') == hold.epoch then",
        "if false then",
    ),
    _logged("another client's hold is marked", "L10", "if hold.client ~= ARGV[2] then", "if false then"),
    _logged(
        "a hold of a logged run keeps its lease",
        "L5",
        "-- The entry 0-0 is in no outbox.\ncall('SET', KEYS[2], 'settled\\n' .. ARGV[3] .. '\\n' .. hold.client .. '\\n0-0', 'PX', ARGV[4])\ncall('ZREM', KEYS[3], ARGV[1])",
        "call('SET', KEYS[2], 'settled\\n' .. ARGV[3] .. '\\n' .. hold.client .. '\\n0-0', 'PX', ARGV[4])",
    ),
)
