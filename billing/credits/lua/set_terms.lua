-- set_terms: give a client its state and its overdraft limit.
--
-- KEYS   1 bucket (string)  2 server (string)  3 alerts (stream)
-- ARGV   1 state: a active, s suspended (no reserve), c closed (no reserve; the ledger grants nothing)  2 overdraft limit
--        3 client
-- Reply  'SET' | 'UNKNOWN_CLIENT' | 'RECOVERING' | 'CORRUPT'
-- Holds stay, whatever the state; settle, renew and release go on. A limit below what is owed begins a debt.
-- Atomic because the head of the bucket is written by every reserve. Idempotent: both values are absolute.

local refusal, bucket, epoch, owed, grants, terms = read_whole(KEYS[1], KEYS[2])
if refusal then
  return refusal
end
local was_in_debt = in_debt(owed, terms)
terms = terms or no_terms()
terms.state, terms.limit = ARGV[1], tonumber(ARGV[2])
tell_debt(KEYS[3], ARGV[3], was_in_debt, owed, bucket, terms)
call('SET', KEYS[1], write_bucket(epoch, owed, terms, sub(bucket, grants)))
return 'SET'
