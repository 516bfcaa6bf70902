-- rebuild: write a client's bucket, and what it lends to the holds that survived, from a plan made of the log.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)  4 asserts (counter)
--        5 expiries (zset)  6 alerts (stream)  7… run of each surviving hold (string)
-- ARGV   1 epoch  2 run id of the server that was planned for  3 asserts that were planned for
--        4 bucket, without its epoch and marks  5 percents at which the client is alerted, as 20,5: all are armed
--        6 client  7 number of fields of grants, then field, value, …
--        then number of grants that end, then when each is to be looked at, "<grant> <client>", …
--        then per hold what it is lent ("12:30 15:5")
-- Reply  'REBUILT' | 'ALREADY' | 'STALE' (a newer epoch is there) | 'OPEN' (the shard is open and has the bucket)
--        | 'MOVED' (another server, or another set of holds: plan again)
-- Debt is told of, unless the bucket that is replaced was in debt; where that is lost, once more (L6).
-- Atomic because bucket and holds are two halves of the same sum (L2).
-- Idempotent: while the shard recovers the same plan writes the same bucket; once it is open it writes nothing.

local epoch = ARGV[1]

if ARGV[2] ~= server_run_id then
  return 'MOVED'
end
local present = read_key(KEYS[1])
local was_in_debt = false
if present then
  local owed, limit = match(present, '^%d+ (%d+)~?(%d*)')
  was_in_debt = owed and tonumber(owed) > (tonumber(limit) or 0)
  -- What billing did not write has no epoch, and is replaced once the shard is closed.
  present = match(present, '^(%d+) ') or '0'
  if tonumber(present) > tonumber(epoch) then
    return 'STALE'
  end
  if not recovering(KEYS[3]) then
    return present == epoch and 'ALREADY' or 'OPEN'
  end
end
if (call('GET', KEYS[4]) or '0') ~= ARGV[3] then
  return 'MOVED'
end
local holds = {}
for i = 7, #KEYS do
  local hold = read_run((read_key(KEYS[i])))
  if not hold or hold.settled then
    return 'MOVED'
  end
  holds[i] = hold
end

local last = 7 + 2 * ARGV[7]
local bucket = epoch .. ' ' .. ARGV[4]
local _, owed, _, terms = read_bucket(bucket)
tell_debt(KEYS[6], ARGV[6], was_in_debt, tonumber(owed), bucket, terms)
call('SET', KEYS[1], with_marks(bucket, ARGV[5], '', terms))
call('DEL', KEYS[2])
local granted = 0
for i = 8, last, 2 do
  granted = granted + (sub(ARGV[i], 1, 2) == 'g:' and ARGV[i + 1] or 0)
  call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
if granted > 0 then
  call('HSET', KEYS[2], 'g', digits(granted))
end
local ends = last + 1 + 2 * ARGV[last + 1]
for i = last + 2, ends, 2 do
  call('ZADD', KEYS[5], ARGV[i], ARGV[i + 1])
end
for i = 7, #KEYS do
  local hold = holds[i]
  call('SET', KEYS[i], hold_text(ARGV[ends + i - 6], epoch, hold.token, hold.created, claim_of(hold)))
end
return 'REBUILT'
