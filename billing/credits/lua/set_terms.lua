-- set_terms: give a client its state and its overdraft limit.
--
-- KEYS   1 bucket (string)  2 server (string)
-- ARGV   1 state: a active, s suspended (no reserve), c closed (no reserve; the ledger grants nothing)  2 overdraft limit
-- Reply  'SET' | 'UNKNOWN_CLIENT' | 'RECOVERING' | 'CORRUPT'
-- Holds stay, whatever the state; settle, renew and release go on.
-- Atomic because the head of the bucket is written by every reserve. Idempotent: both values are absolute.

local refusal, bucket, epoch, owed, grants, terms = read_whole(KEYS[1], KEYS[2])
if refusal then
  return refusal
end
terms = terms or { room = 0 }
terms.state, terms.limit = ARGV[1], tonumber(ARGV[2])
call('SET', KEYS[1], write_bucket(epoch, owed, terms, sub(bucket, grants)))
return 'SET'
