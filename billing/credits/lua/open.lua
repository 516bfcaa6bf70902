-- open: make the empty bucket of a new client.
--
-- KEYS   1 bucket (string)  2 server (string)
-- ARGV   1 epoch
-- Reply  'OPENED' | 'ALREADY' (there is one, it stays as it is) | 'RECOVERING'
-- Atomic because on a shard that is not verified an empty bucket could stand for one that was lost (L6).

if recovering(KEYS[2]) then
  return 'RECOVERING'
end
return call('SET', KEYS[1], ARGV[1] .. ' 0', 'NX') and 'OPENED' or 'ALREADY'
