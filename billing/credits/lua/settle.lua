-- settle: charge a run that succeeded, once and for ever, and write its usage event into the outbox.
--
-- KEYS   1 bucket (hash)  2 run (string)  3 leases (zset)  4 outbox (stream)  5 server (string)
-- ARGV   1 run id in hex  2 client  3 settlement id  4 head: JSON object without its closing brace  5 retention in ms
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
if hold and hold.client ~= client then
  return { 'CONFLICT' }
end
if hold and hold.settled then
  local entry = hold.settlement == settlement and call('XRANGE', outbox, hold.entry, hold.entry)[1]
  if entry then
    return { 'ALREADY', settlement, hold.entry, entry[2][2] }
  end
  return { 'ALREADY', hold.settlement }
end

local state = call('HMGET', bucket, 'epoch', 'usable', 'owed')
local epoch, usable, owed = state[1], state[2], tonumber(state[3] or 0)
if not epoch then
  return { 'UNKNOWN_CLIENT' }
end

-- Each line takes from the front of the hold, then from what is available in burn order; the rest is debt.
local held, left = lent(hold, epoch), lent(hold, epoch)
local available, taken, debt, lines
for i = 6, #ARGV, 2 do
  local paid = {}
  local need = take(left, tonumber(ARGV[i + 1]), paid)
  if need > 0 then
    available, taken = available or read_available(usable), taken or {}
    local more = {}
    need = take(available, need, more)
    for j = 1, #more, 2 do
      join(taken, more[j], more[j + 1])
      join(paid, more[j], more[j + 1])
    end
    if need > 0 then
      debt = (debt or 0) + need
      join(paid, '0', need)
    end
  end
  lines = (lines and lines .. ',' or '') .. ARGV[i] .. ',"grants":['
  for j = 1, #paid, 2 do
    lines = lines .. (j == 1 and '' or ',') .. '{"grant":' .. paid[j] .. ',"credits":' .. digits(paid[j + 1]) .. '}'
  end
  lines = lines .. ']}'
end
if debt and total_of(bucket) + debt > CREDITS_MAX then
  return { 'TOO_LARGE' }
end

local repaid
usable, owed, repaid = give_back(usable, owed, held, left)
if taken then
  for i = 1, #taken, 2 do
    usable = change(usable, taken[i], -taken[i + 1], 0, taken[i + 1])
  end
end

local event = ARGV[4] .. ',"settlement_id":"' .. settlement .. '","occurred_at":' .. digits(now_ms()) .. ',"epoch":'
  .. epoch .. ',"late":' .. (hold and 'false' or 'true') .. ',"lines":[' .. lines .. ']}'
local entry = call('XADD', outbox, '*', 'e', event)
call('SET', run, 'settled\n' .. settlement .. '\n' .. client .. '\n' .. entry, 'PX', ARGV[5])
if usable ~= state[2] then
  call('HSET', bucket, 'usable', usable)
end
if hold then
  call('ZREM', KEYS[3], run_id)
end
note_repaid(bucket, repaid, owed)
if debt then
  call('HINCRBY', bucket, 's:0', digits(debt))
  call('HSET', bucket, 'owed', digits(owed + debt))
end
return { 'SETTLED', entry, event, hold and '0' or '1', digits(debt or 0) }
