-- settle: charge a run that succeeded, once and for ever, and write its usage event into the outbox.
--
-- KEYS   1 bucket (string)  2 run (string)  3 leases (zset)  4 outbox (stream)  5 server (string)  6 grants (hash)
--        7 alerts (stream)
-- ARGV   1 run id in hex  2 client  3 settlement id  4 head: JSON object without its closing brace  5 retention in ms
--        then per line  fragment: JSON object without its closing brace, credits
-- Reply  'SETTLED <entry id> <late: 0 or 1> <debt>\n<event>' | 'ALREADY <settlement id> [<entry id>\n<event>]' with the
--        latter only for the same settlement whose entry is still there
--        | 'RECOVERING' | 'UNKNOWN_CLIENT' | 'CONFLICT' | 'TOO_LARGE' | 'CORRUPT'
-- occurred_at is Redis' time and not the entry's id: after the clock was ahead for a while, a stream goes on counting
-- from the future.
-- Atomic because there must be no charge without its event and no event without its charge (L3).
-- Idempotent by run id: `settled` is final (L4). There is no limit on the outbox here: the work is done.

local client, settlement, outbox = ARGV[2], ARGV[3], KEYS[4]
local stored = call('MGET', KEYS[5], KEYS[2], KEYS[1])
local hold, bucket = read_run(stored[2]), stored[3]

if stored[1] ~= server_run_id then
  return 'RECOVERING'
end
if hold and hold.client ~= client then
  return 'CONFLICT'
end
if hold and hold.settled then
  local entry = hold.settlement == settlement and call('XRANGE', outbox, hold.entry, hold.entry)[1]
  return 'ALREADY ' .. hold.settlement .. (entry and ' ' .. hold.entry .. '\n' .. entry[2][2] or '')
end
if not bucket then
  return 'UNKNOWN_CLIENT'
end

-- Each line takes from the front of the hold, then from what is available in burn order; the rest is debt. A hold may
-- use what it was lent also when the grant has ended since; a grant for some SKUs pays the lines of these. Overdraft
-- room is turned back first: what no grant covers is debt, whether it was held or not.
local now = now_ms()
local epoch, owes, grants, terms = read_bucket(bucket, now)
local held, room = lent(hold, epoch)
turn_back(terms, room)
local left = {}
for i = 1, #held do
  left[i] = held[i]
end
local available, taken, lines
local debt = 0
for i = 6, #ARGV, 2 do
  local paid = {}
  local sku = terms and (match(ARGV[i], '^{"sku":"([^"]*)"') or '')
  local need = take(left, tonumber(ARGV[i + 1]), paid, terms, sku)
  if need > 0 then
    available, taken = available or read_available(bucket, terms), taken or {}
    local more = {}
    need = take(available, need, more, terms, sku)
    for j = 1, #more, 2 do
      join(taken, more[j], more[j + 1])
      join(paid, more[j], more[j + 1])
    end
    if need > 0 then
      debt = debt + need
      join(paid, '0', need)
    end
  end
  lines = (lines and lines .. ',' or '') .. ARGV[i] .. ',"grants":['
  for j = 1, #paid, 2 do
    lines = lines .. (j == 1 and '' or ',') .. '{"grant":' .. paid[j] .. ',"credits":' .. digits(paid[j + 1]) .. '}'
  end
  lines = lines .. ']}'
end
if debt > 0 and total_of(KEYS[6]) + debt > CREDITS_MAX then
  return 'TOO_LARGE'
end

local owed, notes, _
bucket, owed, notes = give_back(bucket, tonumber(owes), held, left, terms)
for i = 1, taken and #taken or 0, 2 do
  bucket = change(bucket, taken[i], -taken[i + 1], 0, taken[i + 1])
end
if terms or notes or debt > 0 then
  bucket = write_bucket(epoch, owed + debt, terms, sub(bucket, grants))
end
-- Either more is taken than was held, or some of it comes back.
if not (taken or debt > 0) then
  bucket = rearm(bucket, terms)
else
  grants = find(bucket, ' ', find(bucket, ' ', 1, true) + 1, true) or #bucket + 1
  if below_mark(bucket, grants, 0, terms) then
    bucket = alert(KEYS[7], client, bucket, false, terms)
  end
end
if debt > 0 then
  tell_debt(KEYS[7], client, in_debt(owes, terms), owed + debt, bucket, terms)
  notes = notes or {}
  join(notes, 's:0', debt)
end
note(KEYS[6], notes)

local event = ARGV[4] .. ',"settlement_id":"' .. settlement .. '","occurred_at":' .. digits(now)
  .. ',"epoch":' .. epoch .. ',"late":' .. (hold and 'false' or 'true') .. ',"lines":[' .. lines .. ']}'
local entry = call('XADD', outbox, '*', 'e', event)
call('SET', KEYS[2], 'settled\n' .. settlement .. '\n' .. client .. '\n' .. entry, 'PX', ARGV[5])
call('SET', KEYS[1], bucket)
if hold then
  call('ZREM', KEYS[3], ARGV[1])
end
return 'SETTLED ' .. entry .. (hold and ' 0 ' or ' 1 ') .. digits(debt) .. '\n' .. event
