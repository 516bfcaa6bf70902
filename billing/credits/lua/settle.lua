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
if hold and hold.client ~= client then
  return { 'CONFLICT' }
end
if hold and hold.settled then
  if hold.settlement == settlement then
    local entry = call('XRANGE', outbox, hold.entry, hold.entry)[1]
    if entry then
      return { 'ALREADY', settlement, hold.entry, entry[2][2] }
    end
  end
  return { 'ALREADY', hold.settlement }
end

local state = call('HMGET', bucket, 'epoch', 'order', 'owed')
local epoch, owed = state[1], tonumber(state[3] or 0)
if not epoch then
  return { 'UNKNOWN_CLIENT' }
end

-- Each line takes from the front of the hold, then from what is available in burn order; the rest is debt.
local from_hold = lent(hold, epoch)
local available
local charged, taken, debt, lines = {}, {}, 0, {}
for i = 6, #ARGV, 2 do
  local paid = {}
  local need = take(from_hold, tonumber(ARGV[i + 1]), paid)
  for _, share in ipairs(paid) do
    charged[#charged + 1] = share
  end
  if need > 0 then
    available = available or read_available(bucket, state[2])
    local from_available = {}
    need = take(available, need, from_available)
    for _, share in ipairs(from_available) do
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

local late = hold == nil
local event = table.concat({
  ARGV[4], ',"settlement_id":"', settlement, '","occurred_at":', digits(now_ms()), ',"epoch":', epoch,
  ',"late":', tostring(late), ',"lines":[', table.concat(lines, ','), ']}',
})

local entry = call('XADD', outbox, '*', 'e', event)
call('SET', run, table.concat({ 'settled', settlement, client, entry }, '\n'), 'PX', ARGV[5])
for _, share in ipairs(charged) do
  add(bucket, 'h:' .. share[1], -share[2])
  add(bucket, 's:' .. share[1], share[2])
end
for _, share in ipairs(taken) do
  add(bucket, 'a:' .. share[1], -share[2])
  add(bucket, 's:' .. share[1], share[2])
end
add(bucket, 's:0', debt)
add(bucket, 'owed', debt)
if hold then
  give_back(bucket, from_hold, owed)
  call('ZREM', KEYS[3], run_id)
end
return { 'SETTLED', entry, event, late and '1' or '0', digits(debt) }
