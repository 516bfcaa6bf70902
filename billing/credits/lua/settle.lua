-- settle: charge a run that succeeded, once and for ever, and write its usage event into the outbox.
--
-- KEYS   1 bucket (hash)  2 run (string)  3 leases (zset)  4 outbox (stream)  5 server (string)
-- ARGV   1 run id  2 client  3 settlement id  4 head: JSON object without its closing brace  5 retention in ms
--        then per line  fragment: JSON object without its closing brace, credits
-- Reply  {'SETTLED', entry id, event, late '1' | '0', debt} | {'ALREADY', settlement id of the charge, entry id, event}
--        (the latter two only for the same settlement whose entry is still there)
--        | {'RECOVERING' | 'UNKNOWN_CLIENT' | 'CONFLICT' | 'TOO_LARGE'}
-- Atomic because there must be no charge without its event and no event without its charge (L3).
-- Idempotent by run id: `settled` is final (L4). There is no limit on the outbox here: the work is done.

local bucket, run, outbox = KEYS[1], KEYS[2], KEYS[4]
local run_id, client, settlement = ARGV[1], ARGV[2], ARGV[3]

if recovering(KEYS[5]) then
  return { 'RECOVERING' }
end

local hold = read_run(run)
if hold and client_of(hold) ~= client then
  return { 'CONFLICT' }
end
if hold and hold.settled then
  if hold.settlement == settlement then
    local entry = redis.call('XRANGE', outbox, hold.entry, hold.entry)[1]
    if entry then
      return { 'ALREADY', settlement, hold.entry, entry[2][2] }
    end
  end
  return { 'ALREADY', hold.settlement }
end

local state = redis.call('HMGET', bucket, 'epoch', 'usable', 'owed')
local epoch, usable, owed = state[1], state[2], tonumber(state[3] or 0)
if not epoch then
  return { 'UNKNOWN_CLIENT' }
end

-- Each line takes from the front of the hold, then from what is available in burn order; the rest is debt.
local from_hold = lent(hold, epoch)
local from_available
local charged, taken, debt, lines = {}, {}, 0, {}
for i = 6, #ARGV, 2 do
  local paid = {}
  local need = take(from_hold, tonumber(ARGV[i + 1]), paid)
  for _, share in ipairs(paid) do
    join(charged, share[1], share[2])
  end
  if need > 0 then
    from_available = from_available or available_for(usable, CREDITS_MAX)
    local more = {}
    need = take(from_available, need, more)
    for _, share in ipairs(more) do
      join(taken, share[1], share[2])
      join(paid, share[1], share[2])
    end
    if need > 0 then
      debt = debt + need
      paid[#paid + 1] = { '0', need }
    end
  end
  for j, share in ipairs(paid) do
    paid[j] = '{"grant":' .. share[1] .. ',"credits":' .. digits(share[2]) .. '}'
  end
  lines[#lines + 1] = ARGV[i] .. ',"grants":[' .. table.concat(paid, ',') .. ']}'
end
if debt > 0 and total_of(bucket) + debt > CREDITS_MAX then
  return { 'TOO_LARGE' }
end

-- What was held and is not charged goes back to its grant, debt first.
local repaid = {}
for _, share in ipairs(charged) do
  usable = change(usable, share[1], 0, -share[2], share[2])
end
for _, share in ipairs(from_hold) do
  if share[2] > 0 then
    local pays = math.min(owed, share[2])
    owed = owed - pays
    usable = change(usable, share[1], share[2] - pays, -share[2], 0)
    if pays > 0 then
      repaid[#repaid + 1] = { share[1], pays }
    end
  end
end
for _, share in ipairs(taken) do
  usable = change(usable, share[1], -share[2], 0, share[2])
end

local event = ARGV[4] .. ',"settlement_id":"' .. settlement .. '","occurred_at":' .. digits(now_ms()) .. ',"epoch":'
  .. epoch .. ',"late":' .. (hold and 'false' or 'true') .. ',"lines":[' .. table.concat(lines, ',') .. ']}'
local entry = redis.call('XADD', outbox, '*', 'e', event)
redis.call('SET', run, 'settled\n' .. settlement .. '\n' .. client .. '\n' .. entry, 'PX', ARGV[5])
if usable ~= state[2] then
  redis.call('HSET', bucket, 'usable', usable)
end
if hold then
  redis.call('ZREM', KEYS[3], run_id)
end
for _, share in ipairs(repaid) do
  redis.call('HINCRBY', bucket, 'r:' .. share[1], digits(share[2]))
end
if debt > 0 then
  redis.call('HINCRBY', bucket, 's:0', digits(debt))
end
if owed + debt ~= tonumber(state[3] or 0) then
  redis.call('HSET', bucket, 'owed', digits(owed + debt))
end
return { 'SETTLED', entry, event, hold and '0' or '1', digits(debt) }
