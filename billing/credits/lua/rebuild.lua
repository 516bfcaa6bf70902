-- rebuild: write a client's bucket, and what it lends to the holds that survived, from a plan made of the log.
--
-- KEYS   1 bucket (hash)  2 server (string)  3 asserts (counter)  4… run of each surviving hold (string)
-- ARGV   1 epoch  2 run id of the server that was planned for  3 asserts that were planned for
--        4 number of bucket fields, then field, value, …; then per hold its grants ("12:30 15:5")
-- Reply  'REBUILT' | 'ALREADY' | 'STALE' (a newer epoch is there) | 'OPEN' (the shard is open and has the bucket)
--        | 'MOVED' (another server, or another set of holds: plan again)
-- Atomic because bucket and holds are two halves of the same sum (L2).
-- Idempotent: while the shard recovers the same plan writes the same bucket; once it is open it writes nothing.

local bucket, epoch = KEYS[1], ARGV[1]

if ARGV[2] ~= server_run_id then
  return 'MOVED'
end
local present = call('HGET', bucket, 'epoch')
if present and tonumber(present) > tonumber(epoch) then
  return 'STALE'
end
if present and not recovering(KEYS[2]) then
  return present == epoch and 'ALREADY' or 'OPEN'
end
if (call('GET', KEYS[3]) or '0') ~= ARGV[3] then
  return 'MOVED'
end
local fields = tonumber(ARGV[4])
local holds = {}
for i = 4, #KEYS do
  local hold = read_run(KEYS[i])
  if not hold or hold.settled then
    return 'MOVED'
  end
  holds[i] = hold
end

call('DEL', bucket)
call('HSET', bucket, 'epoch', epoch)
for i = 5, 4 + 2 * fields, 2 do
  call('HSET', bucket, ARGV[i], ARGV[i + 1])
end
for i = 4, #KEYS do
  local hold = holds[i]
  write_hold(KEYS[i], ARGV[4 + 2 * fields + i - 3], epoch, hold.token, hold.created, claim_of(hold))
end
return 'REBUILT'
