-- reserve: hold credits for one attempt of a run before its work starts.
--
-- KEYS   1 bucket (hash)  2 run (string)  3 leases (zset)  4 outbox (stream)  5 server (string)
-- ARGV   1 run id  2 client  3 sku  4 credits  5 attempt token  6 price version  7 attempt  8 head  9 lines
--        10 lease in ms  11 entries at which the outbox takes no new work
-- Reply  {'HELD'} | {'TAKEN_OVER', held, price version, head, lines} | {'INSUFFICIENT', available}
--        | {'SETTLED' | 'CONFLICT' | 'OUTBOX_FULL' | 'UNKNOWN_CLIENT' | 'AHEAD' | 'RECOVERING'}
-- Atomic because the ceiling (L1) is a comparison followed by a withdrawal: two callers between them would both pass.
-- Idempotent by run id: the second call finds the hold of the first and takes nothing.

local bucket, run, leases = KEYS[1], KEYS[2], KEYS[3]
local run_id, client, sku, token = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local credits = tonumber(ARGV[4])
local DAY = 86400000
local LEGACY = 281474976710655 -- 2^48 - 1: the time of a run whose sender told none

if recovering(KEYS[5]) then
  return { 'RECOVERING' }
end

local hold = read_run(run)
if hold and hold.settled then
  return { 'SETTLED' }
end
if hold and (hold.client ~= client or hold.sku ~= sku) then
  return { 'CONFLICT' }
end
-- The same token again is the same call again: it gets its answer whatever the outbox says.
if not (hold and hold.token == token) and call('XLEN', KEYS[4]) >= tonumber(ARGV[11]) then
  return { 'OUTBOX_FULL' }
end

local state = call('HMGET', bucket, 'epoch', 'order', 'owed')
local epoch, owed = state[1], tonumber(state[3] or 0)
if not epoch then
  return { 'UNKNOWN_CLIENT' }
end
local now = now_ms()
if not hold then
  local minted = tonumber(string.sub(run_id, 1, 8) .. string.sub(run_id, 10, 13), 16)
  if minted > now + DAY and minted ~= LEGACY then
    return { 'AHEAD' }
  end
end

local shares = lent(hold, epoch)
local held = sum_of(shares)
if credits > held or owed > 0 and not hold then
  local available, sum = read_available(bucket, state[2])
  if owed > 0 or sum < credits - held then
    return { 'INSUFFICIENT', digits(sum + held) }
  end
  local taken = {}
  take(available, credits - held, taken)
  for _, share in ipairs(taken) do
    join(shares, share[1], share[2])
  end
  lend(bucket, taken)
end

local deadline = digits(now + tonumber(ARGV[10]))
if not hold then
  write_hold(run, {
    client = client, sku = sku, token = token, credits = credits, grants = write_shares(shares), epoch = epoch,
    price = ARGV[6], attempt = ARGV[7], created = digits(now), head = ARGV[8], lines = ARGV[9],
  })
  call('ZADD', leases, deadline, run_id)
  return { 'HELD' }
end

local found = { 'TAKEN_OVER', digits(math.max(held, credits)), hold.price, hold.head, hold.lines }
-- Another attempt brings its own draft, unless it was rated under a later price: the first reserve's price stands.
if hold.token ~= token and hold.price == ARGV[6] then
  hold.head, hold.lines = ARGV[8], ARGV[9]
end
hold.token, hold.attempt, hold.epoch = token, ARGV[7], epoch
hold.credits, hold.grants = math.max(hold.credits, credits), write_shares(shares)
write_hold(run, hold)
call('ZADD', leases, 'GT', deadline, run_id)
return found
