-- renew: move the deadline of a running attempt's hold, never backwards.
--
-- KEYS   1 run (string)  2 leases (zset)  3 server (string)
-- ARGV   1 run id in hex  2 lease in ms
-- Reply  'RENEWED' | 'GONE' (no hold) | 'SETTLED' | 'RECOVERING'
-- Atomic because a deadline without its hold, or a hold without a deadline, would be an orphan (L5).
-- Idempotent: the later deadline stands.

if recovering(KEYS[3]) then
  return 'RECOVERING'
end
local state = call('GETRANGE', KEYS[1], 0, 3)
if state == '' then
  return 'GONE'
end
if state ~= 'held' then
  return 'SETTLED'
end
call('ZADD', KEYS[2], 'GT', (now_ms()) + ARGV[2], ARGV[1])
return 'RENEWED'
