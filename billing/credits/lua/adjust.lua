-- adjust: take credits away from a client, as a correction.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)  4 alerts (stream)
-- ARGV   1 adjustment id  2 credits  3 client
-- Reply  'ADJUSTED <shares>' | 'ALREADY <shares>': what each grant gave ("12:30 0:5"); grant 0 is debt
--        | 'TOO_LARGE' | 'UNKNOWN_CLIENT' | 'RECOVERING' | 'CORRUPT'
-- Takes what is available in burn order, whatever its SKUs; what is missing becomes debt. Both count as voided.
-- Atomic because a reserve between looking and taking would hold what is taken (L1).
-- Idempotent by adjustment id: a:<id> stays for as long as the bucket does.

local refusal, bucket, epoch, owed, grants, terms = read_whole(KEYS[1], KEYS[3])
if refusal then
  return refusal
end
local total = total_of(KEYS[2])
local before = call('HGET', KEYS[2], 'a:' .. ARGV[1])
if before then
  return 'ALREADY ' .. before
end

local taken = {}
local missing = take(read_available(bucket, terms), tonumber(ARGV[2]), taken)
if total + missing > CREDITS_MAX then
  return 'TOO_LARGE'
end
local notes = {}
for i = 1, #taken, 2 do
  bucket = change(bucket, taken[i], -taken[i + 1], 0, 0)
  join(notes, 'j:' .. taken[i], taken[i + 1])
end
if missing > 0 then
  join(taken, '0', missing)
  join(notes, 'j:0', missing)
end
local shares = write_shares(taken)
tell_debt(KEYS[4], ARGV[3], in_debt(owed, terms), owed + missing, bucket, terms)
note(KEYS[2], notes)
call('HSET', KEYS[2], 'a:' .. ARGV[1], shares)
call('SET', KEYS[1], write_bucket(epoch, owed + missing, terms, sub(bucket, grants)))
return 'ADJUSTED ' .. shares
