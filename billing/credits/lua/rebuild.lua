-- rebuild: write a client's bucket, and what it lends to the holds that survived, from a plan made of the log.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)  4 asserts (counter)
--        5… run of each surviving hold (string)
-- ARGV   1 epoch  2 run id of the server that was planned for  3 asserts that were planned for
--        4 bucket, without its epoch and marks  5 percents at which the client is alerted, as 20,5: all are armed
--        6 number of fields of grants, then field, value, …
--        then per hold what it is lent ("12:30 15:5")
-- Reply  'REBUILT' | 'ALREADY' | 'STALE' (a newer epoch is there) | 'OPEN' (the shard is open and has the bucket)
--        | 'MOVED' (another server, or another set of holds: plan again)
-- Atomic because bucket and holds are two halves of the same sum (L2).
-- Idempotent: while the shard recovers the same plan writes the same bucket; once it is open it writes nothing.

local epoch = ARGV[1]

if ARGV[2] ~= server_run_id then
  return 'MOVED'
end
local present = call('GET', KEYS[1])
if present then
  present = read_bucket(present)
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
for i = 5, #KEYS do
  local hold = read_run(call('GET', KEYS[i]))
  if not hold or hold.settled then
    return 'MOVED'
  end
  holds[i] = hold
end

local last = 6 + 2 * ARGV[6]
call('SET', KEYS[1], with_marks(epoch .. ' ' .. ARGV[4], ARGV[5], ''))
call('DEL', KEYS[2])
for i = 7, last, 2 do
  call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
for i = 5, #KEYS do
  local hold = holds[i]
  call('SET', KEYS[i], hold_text(ARGV[last + i - 4], epoch, hold.token, hold.created, claim_of(hold)))
end
return 'REBUILT'
