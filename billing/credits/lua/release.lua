-- release: give a hold back whose attempt ended without success.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 run (string)  4 leases (zset)  5 server (string)
-- ARGV   1 run id in hex  2 attempt token  3 client
-- Reply  'RELEASED' | 'NOTHING' (no hold of this client) | 'STALE' (another attempt's hold) | 'SETTLED' | 'RECOVERING'
--        | 'CORRUPT'
-- Atomic because a takeover may come between looking at the token and returning the credits (L4).
-- Idempotent: the hold is gone after the first call.

if recovering(KEYS[5]) then
  return 'RECOVERING'
end
local hold = read_run((read_key(KEYS[3])))
-- Another client's bucket is not this one: it would get what it never lent.
if not hold or hold.client ~= ARGV[3] then
  return 'NOTHING'
end
if hold.settled then
  return 'SETTLED'
end
-- '*' is the token of a hold that was asserted for a running attempt: it belongs to whichever attempt that is.
if hold.token ~= ARGV[2] and hold.token ~= '*' then
  return 'STALE'
end

drop(KEYS[1], KEYS[2], KEYS[3], KEYS[4], hold, ARGV[1])
return 'RELEASED'
