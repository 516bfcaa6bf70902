-- verify: trust a shard's buckets on the server that answers now; from here on it admits work.
--
-- KEYS   1 server (string)  2 asserts (counter)
-- ARGV   1 run id of the server under which the buckets were written, '' for whichever answers
--        2 asserts that were planned for, '' for any
-- Reply  1 open | 0 another server answers, or a hold was asserted since: rebuild again
-- Atomic because the server may be replaced between looking and opening (L6). Idempotent.

if format('%d', CREDITS_MAX) ~= '9007199254740991' then
  return redis.error_reply('ERR billing needs a 64-bit server: amounts would not be exact')
end
if ARGV[1] ~= '' and ARGV[1] ~= server_run_id then
  return 0
end
if ARGV[2] ~= '' and ARGV[2] ~= (call('GET', KEYS[2]) or '0') then
  return 0
end
call('SET', KEYS[1], server_run_id)
return 1
