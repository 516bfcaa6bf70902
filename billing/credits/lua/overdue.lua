-- overdue: one sweep of a shard: which holds have outlived their lease.
--
-- KEYS   1 leases (zset)  2 swept (hash: at = time of the last sweep, grace = until when nothing expires)
--        3 server (string)  4 what the keys of runs begin with: leases without a held run are removed
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

-- A lease whose run is not held would take the place of a hold that is due, for ever. The number of turns is a bound on
-- this one step (L9); the next sweep goes on.
local most, reply = tonumber(ARGV[1]), { 'OK' }
for _ = 1, 10 do
  local named = (#reply - 1) / 2
  if named >= most then
    break
  end
  local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', digits(now), 'WITHSCORES', 'LIMIT', named, digits(most - named))
  for i = 1, #due, 2 do
    -- A key of another type is no hold either.
    if redis.pcall('GETRANGE', KEYS[4] .. due[i], 0, 4) == 'held\n' then
      reply[#reply + 1], reply[#reply + 2] = due[i], due[i + 1]
    else
      call('ZREM', KEYS[1], due[i])
    end
  end
  if #due < 2 * (most - named) then
    break
  end
end
return reply
