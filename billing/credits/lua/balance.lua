-- balance: read a bucket whole.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)
-- Reply  {'RECOVERING'} | {'UNKNOWN_CLIENT'} | {'OK', bucket, field, value, …}
-- Atomic because a balance of two moments would not add up (L2).

if recovering(KEYS[3]) then
  return { 'RECOVERING' }
end
local bucket = call('GET', KEYS[1])
if not bucket then
  return { 'UNKNOWN_CLIENT' }
end
local reply = call('HGETALL', KEYS[2])
-- Not unpack(), which fails past some thousand values.
table.insert(reply, 1, bucket)
table.insert(reply, 1, 'OK')
return reply
