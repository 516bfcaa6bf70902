-- reserve: hold credits for one attempt of a run before its work starts.
--
-- KEYS   1 bucket (string)  2 run (string; ends with the run id in 32 hex digits)
--        3 leases (zset)  4 outbox (stream)  5 server (string)  6 alerts (stream)
-- ARGV   1 request, a field a line: credits, lease in ms, entries at which the outbox takes no new work, attempt token,
--        then the claim: client, sku, credits, price version, attempt, length of head, head and draft
-- Reply  'HELD' | {'TAKEN_OVER', held, price version, head, draft} | {'INSUFFICIENT', available}
--        | 'SETTLED' | 'CONFLICT' | 'OUTBOX_FULL' | 'UNKNOWN_CLIENT' | 'AHEAD' | 'RECOVERING'
--        | 'SUSPENDED' | 'CLOSED' (the client's state) | 'CORRUPT'
-- Grants for this SKU that have not ended pay in burn order, then overdraft room. A client that owes more than its
-- limit reserves nothing.
-- Atomic because the ceiling (L1) is a comparison followed by a withdrawal: two callers between them would both pass.
-- Idempotent by run id: the second call finds the hold of the first and takes nothing.

-- One argument in place of ten: each costs both sides as much as a small command does.
local credits, lease_ms, outbox_max, token, place = match(ARGV[1], '^(%d+)\n(%d+)\n(%d+)\n([^\n]*)\n()')
credits = tonumber(credits)
local stored = call('MGET', KEYS[5], KEYS[2], KEYS[1])
local hold, bucket = read_run(stored[2]), stored[3]

if stored[1] ~= server_run_id then
  return 'RECOVERING'
end

local found, asked
if hold then
  if hold.settled then
    return 'SETTLED'
  end
  found, asked = read_claim(hold.text, hold.claim), read_claim(ARGV[1], place)
  if found.client ~= asked.client or found.sku ~= asked.sku then
    return 'CONFLICT'
  end
end
-- The same token again is the same call again: it gets its answer whatever the outbox says.
if not (hold and hold.token == token) and call('XLEN', KEYS[4]) >= tonumber(outbox_max) then
  return 'OUTBOX_FULL'
end
if not bucket then
  return 'UNKNOWN_CLIENT'
end
local now, created = now_ms()
local run_id = sub(KEYS[2], -32)
if not hold then
  local minted = tonumber(sub(run_id, 1, 12), 16)
  -- More than a day ahead; 2^48 - 1 is the time of a run whose sender told none.
  if minted > now + 86400000 and minted ~= 281474976710655 then
    return 'AHEAD'
  end
end

local epoch, owed, grants, terms = read_bucket(bucket, now)
-- The answer to the same call again stays the same.
if terms and terms.state ~= 'a' and not (hold and hold.token == token) then
  return terms.state == 's' and 'SUSPENDED' or 'CLOSED'
end
local held = 0
if hold and hold.epoch == epoch then
  for _, lent_credits in gmatch(hold.grants, '(%d+):(%d+)') do
    held = held + lent_credits
  end
end
local need = credits > held and credits - held or 0
local sku = terms and match(ARGV[1], '^[^\n]*\n([^\n]*)', place)
local changed, taken, left, place_after, rest = borrow(bucket, grants, need, terms, sku)
local blocked, room = owed ~= '0', 0
if terms then
  room = free_room(owed, terms)
  blocked, room = not room, room or 0
  if left > 0 and left <= room then
    taken = lend_room(taken, left, terms)
    changed = write_bucket(epoch, owed, terms, sub(changed, grants))
    left = 0
  end
end
if left > 0 or blocked and (need > 0 or not hold) then
  -- Told once until a grant arrives, however often it is refused.
  if not end_alerted(bucket) then
    call('SET', KEYS[1], alert(KEYS[6], match(ARGV[1], '^[^\n]*', place), bucket, true, terms))
  end
  return { 'INSUFFICIENT', digits(held + (blocked and 0 or need - left + room)) }
end
if need > 0 and below_mark(changed, place_after, rest, terms) then
  changed = alert(KEYS[6], match(ARGV[1], '^[^\n]*', place), changed, false, terms)
end

if not hold then
  call('MSET', KEYS[1], changed, KEYS[2], hold_text(taken, epoch, token, created, sub(ARGV[1], place)))
  call('ZADD', KEYS[3], now + lease_ms, run_id)
  return 'HELD'
end

local reply = { 'TAKEN_OVER', digits(held + need), found.price, found.head, found.draft }
-- Another attempt brings its own draft, unless it was rated under a later price, or at other fixed credits (in the
-- draft's JSON): the first reserve's price stands.
if hold.token ~= token and found.price == asked.price
    and match(found.draft, '"fixed":%d+') == match(asked.draft, '"fixed":%d+') then
  found.head, found.draft = asked.head, asked.draft
end
found.attempt = asked.attempt
found.credits = credits > found.credits and credits or found.credits
local shares = write_shares(read_shares((hold.epoch == epoch and hold.grants .. ' ' or '') .. taken))
call('MSET', KEYS[1], changed, KEYS[2], hold_text(shares, epoch, token, hold.created, write_claim(found)))
call('ZADD', KEYS[3], 'GT', now + lease_ms, run_id)
return reply
