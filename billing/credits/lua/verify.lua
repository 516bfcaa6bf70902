-- verify: trust a shard's buckets on the server that answers now; from here on it admits work.
--
-- KEYS   1 server (string)  2 asserts (counter)
-- ARGV   1 run id of the server under which the buckets were written, '' for whichever answers
--        2 asserts that were planned for, '' for any
-- Reply  1 open | 0 another server answers, or a hold was asserted since: rebuild again
-- Atomic because the server may be replaced between looking and opening (L6). Idempotent.

local current = current_server()
if ARGV[1] ~= '' and ARGV[1] ~= current then
  return 0
end
if ARGV[2] ~= '' and ARGV[2] ~= (redis.call('GET', KEYS[2]) or '0') then
  return 0
end
redis.call('SET', KEYS[1], current)
return 1
