-- balance: read a bucket whole.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)
-- Reply  {'RECOVERING'} | {'UNKNOWN_CLIENT'} | {'CORRUPT'}
--        | {'OK', time in ms, bucket, field, value, …}
-- Atomic because a balance of two moments would not add up (L2).

if recovering(KEYS[3]) then
  return { 'RECOVERING' }
end
local bucket, foreign = read_key(KEYS[1])
if foreign then
  corrupt()
end
if not bucket then
  return { 'UNKNOWN_CLIENT' }
end
local _, _, place = read_bucket(bucket)
check_entries(bucket, place)
local reply = redis.pcall('HGETALL', KEYS[2])
if reply.err then
  corrupt()
end
-- Not unpack(), which fails past some thousand values.
table.insert(reply, 1, bucket)
table.insert(reply, 1, digits((now_ms())))
table.insert(reply, 1, 'OK')
return reply
