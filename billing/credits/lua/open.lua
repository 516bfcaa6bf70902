-- open: make the empty bucket of a new client.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)
-- ARGV   1 epoch
-- Reply  'OPENED' | 'ALREADY' (there is one, it stays as it is) | 'RECOVERING'
--        | 'LOST' (its hash is there without it: the client is not new, and its bucket is to be rebuilt)
-- Atomic because on a shard that is not verified an empty bucket could stand for one that was lost (L6).

if recovering(KEYS[3]) then
  return 'RECOVERING'
end
local bucket, foreign = read_key(KEYS[1])
if bucket or foreign then
  return 'ALREADY'
end
local left = redis.pcall('HGETALL', KEYS[2])
if left.err or #left > 0 then
  return 'LOST'
end
call('SET', KEYS[1], ARGV[1] .. ' 0')
return 'OPENED'
