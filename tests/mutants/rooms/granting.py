"""Faults of what a bucket has: grants, burn order, ends, voids, adjustments, marks, and what all scripts share."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import on_valkey, scripts
from tests.mutants.mutant import Mutant

_grant, _bucket = scripts("grant", "buckets_grants"), scripts("bucket", "terms")
_marks, _prelude = scripts("marks", "alerts"), scripts("prelude", "buckets_recovering")
_void, _adjust, _lapse = scripts("void", "terms"), scripts("adjust", "terms"), scripts("lapse", "terms")
_terms = scripts("set_terms", "alerts_debt")

GRANTS: Final[tuple[Mutant, ...]] = (
    _grant("the same grant again adds again", "L2", "if before then", "if false then"),
    _grant("the sum of grants has no bound", "L2", "if total + credits > CREDITS_MAX then", "if false then"),
    _grant(
        "a bucket has one usable grant too many",
        "L9",
        "if left >= tonumber(ARGV[3]) then",
        "if left > tonumber(ARGV[3]) then",
    ),
    _grant("a grant pays no debt", "L1 L2", "pays_debt and min(owed, credits) or 0", "0", on_valkey("buckets_settle")),
    _grant("a restricted grant pays debt", "L2", " and own.skus == ''\n", "\n", on_valkey("terms")),
    _grant(
        "a grant that arrives late burns last",
        "L2",
        "if added and before_in_order(terms, grant, other) then",
        "if false then",
        on_valkey("buckets_grants"),
        on_valkey("terms"),
    ),
    _grant(
        "a grant's end is not in the index",
        "L2 L9",
        "  call('ZADD', KEYS[4], own.expires, grant .. ' ' .. ARGV[5])\n",
        "",
        on_valkey("terms"),
    ),
    _bucket("a grant pays in the millisecond of its expiry", "L1", "own.expires <= now", "own.expires < now"),
    _bucket(
        "the larger priority burns first", "L2", "return a.priority < b.priority", "return a.priority > b.priority"
    ),
    _bucket(
        "a grant pays for any SKU",
        "L1",
        "return not own or own.skus == '' or sku == nil or find(own.skus .. ',', ',' .. sku .. ',', 1, true)",
        "return true",
    ),
    _bucket("debt at the limit blocks", "L1", "return owed <= limit and", "return owed < limit and"),
    _bucket(
        "a bucket goes below zero",
        "L1 L2",
        "if not a or a + available < 0 or h + held < 0 or s + spent < 0 then",
        "if not a then",
        on_valkey("buckets_corrupt"),
    ),
    _bucket(
        "room is turned back that was never lent",
        "L2",
        "if room > (terms and terms.room or 0) then",
        "if false then",
        on_valkey("terms"),
        on_valkey("buckets_corrupt"),
    ),
    _bucket(
        "what a hold of an older epoch was lent is given back",
        "L2 L6",
        "if not hold or hold.epoch ~= epoch then",
        "if not hold then",
        on_valkey("buckets_rebuilt"),
    ),
    _bucket(
        "what comes back pays no debt",
        "L1 L2",
        "and 0 or min(debt, back)",
        "and 0 or 0",
        on_valkey("buckets_settle"),
    ),
    _bucket(
        "what comes back to an ended grant can be spent", "L1 L2", "local away = ending and back or", "local away ="
    ),
    _bucket(
        "the bound of sums forgets debt",
        "L2",
        "return granted + settled + adjusted, granted",
        "return granted, granted",
        on_valkey("buckets_settle"),
        on_valkey("buckets_bounds"),
        on_valkey("buckets_grants"),
    ),
    _bucket(
        "a verb for a whole bucket works on a shard that recovers",
        "L6",
        "  if recovering(server_key) then",
        "  if false then",
        on_valkey("buckets_recovering"),
        on_valkey("post"),
    ),
    _void("what is voided is not counted", "L2", "      note(KEYS[2], { 'v:' .. grant, tonumber(available) })\n", ""),
    _void(
        "a voided grant is never ended in the ledger",
        "L2",
        "call('ZADD', KEYS[4], terms.now, grant .. ' ' .. ARGV[2])\n",
        "",
    ),
    _adjust("the same adjustment again takes again", "L2 L3", "if before then", "if false then"),
    _adjust("an adjustment beyond what there is owes nothing", "L2", "owed + missing, terms,", "owed, terms,"),
    _lapse(
        "a grant ends while a hold refers to it",
        "L2",
        "    if held ~= '0' then\n      return nil\n    end\n",
        "",
    ),
    _lapse("what expired can still be spent", "L1 L2", "-available, 0, 0)", "0, 0, 0)"),
    _lapse(
        "an end is forgotten before the ledger has it",
        "L2",
        "(found[1] or '0') == ARGV[i + 1] and (found[2] or '0') == ARGV[i + 2]",
        "true",
        on_valkey("terms"),
        on_valkey("post_endings"),
    ),
    _terms(
        "a limit that falls below what is owed is not told",
        "L1",
        "tell_debt(KEYS[3], ARGV[3], was_in_debt, owed, bucket, terms)\n",
        "",
    ),
    _prelude("every server is trusted", "L6", "return call('GET', server_key) ~= server_run_id", "return false"),
    _prelude(
        "one client's corrupt bucket fails the call for all",
        "L10",
        "if answer == CORRUPT then",
        "if false then",
        on_valkey("buckets_corrupt"),
    ),
)

MARKS: Final[tuple[Mutant, ...]] = (
    _marks(
        "a mark is crossed when it is reached",
        "L9",
        "if available < tonumber(mark) or",
        "if available <= tonumber(mark) or",
    ),
    _marks(
        "a mark is armed again as soon as it is reached",
        "L9",
        "return available - mark >= min(mark, granted - mark) / 2",
        "return available >= mark",
    ),
    _marks(
        "a mark that was alerted stays armed",
        "L9",
        "alerted, lowest = alerted .. text, percent",
        "alerted, lowest, stay = alerted .. text, percent, stay .. text",
    ),
    _marks(
        "the stream of alerts has no bound",
        "L9",
        "'MAXLEN', '~', ALERTS_MAX, '*', 'client', client, 'percent', lowest",
        "'*', 'client', client, 'percent', lowest",
        on_valkey("alerts_stream"),
    ),
    _marks(
        "debt that goes on is told again",
        "L9",
        "if was_in_debt or not in_debt(owed, terms) then",
        "if not in_debt(owed, terms) then",
        on_valkey("alerts_debt"),
    ),
    _marks(
        "debt within the overdraft is told",
        "L1",
        "return tonumber(owed) > (terms and terms.limit or 0)",
        "return tonumber(owed) > 0",
        on_valkey("alerts_debt"),
    ),
)
