-- expire: give a hold back whose lease has run out, its worker being dead.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 run (string)  4 leases (zset)  5 swept (hash)  6 server (string)
-- ARGV   1 run id in hex  2 the longest pause between two sweeps in ms  3 client
-- Reply  'EXPIRED' | 'NOTHING' (no hold of this client) | 'NOT_DUE' (lease not over, or the shard was away) | 'RECOVERING'
--        | 'CORRUPT'
-- Atomic because a renewal may come between looking at the deadline and returning the credits (L5).
-- Idempotent: the hold is gone after the first call.

local run, leases, run_id = KEYS[3], KEYS[4], ARGV[1]

if recovering(KEYS[6]) then
  return 'RECOVERING'
end
local hold = read_run((read_key(run)))
if not hold or hold.settled then
  call('ZREM', leases, run_id)
  return 'NOTHING'
end
-- Another client's bucket is not this one: it would get what it never lent.
if hold.client ~= ARGV[3] then
  return 'NOTHING'
end
local now = now_ms()
local swept = call('HMGET', KEYS[5], 'at', 'grace')
if now - tonumber(swept[1] or 0) > tonumber(ARGV[2]) or now < tonumber(swept[2] or 0) then
  return 'NOT_DUE'
end
if tonumber(call('ZSCORE', leases, run_id) or 0) > now then
  return 'NOT_DUE'
end

drop(KEYS[1], KEYS[2], run, leases, hold, run_id)
return 'EXPIRED'
