-- overdue: one sweep of a shard: which holds have outlived their lease.
--
-- KEYS   1 leases (zset)  2 swept (hash: at = time of the last sweep, grace = until when nothing expires)
--        3 server (string)
-- ARGV   1 holds at most  2 lease in ms  3 the longest pause between two sweeps in ms
-- Reply  {'PAUSED'} | {'OK', run id, deadline, …}
-- Atomic because the pause must be noticed by the first sweep after it: while Redis was away, or nobody swept it,
-- live workers may have failed to renew, so that nothing expires for one lease (L5).

if recovering(KEYS[3]) then
  return { 'PAUSED' }
end
local now = now_ms()
local swept = call('HMGET', KEYS[2], 'at', 'grace')
local grace = tonumber(swept[2] or 0)
if now - tonumber(swept[1] or 0) > tonumber(ARGV[3]) then
  grace = now + tonumber(ARGV[2])
end
call('HSET', KEYS[2], 'at', digits(now), 'grace', digits(grace))
if now < grace then
  return { 'PAUSED' }
end
local reply = call('ZRANGEBYSCORE', KEYS[1], '-inf', digits(now), 'WITHSCORES', 'LIMIT', 0, ARGV[1])
table.insert(reply, 1, 'OK')
return reply
