-- balance: read a bucket whole.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)
-- Reply  {'RECOVERING'} | {'UNKNOWN_CLIENT'} | {'CORRUPT'}
--        | {'OK', time in ms, bucket, field, value, …}
-- Atomic because a balance of two moments would not add up (L2).

local refusal, bucket = read_whole(KEYS[1], KEYS[3])
if refusal then
  return { refusal }
end
local reply = redis.pcall('HGETALL', KEYS[2])
if reply.err then
  corrupt()
end
-- Not unpack(), which fails past some thousand values.
table.insert(reply, 1, bucket)
table.insert(reply, 1, digits((now_ms())))
table.insert(reply, 1, 'OK')
return reply
