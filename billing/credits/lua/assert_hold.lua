-- assert_hold: see to it that a running attempt has its hold, also where it was lost; never refuses for lack of credits.
--
-- KEYS   1 bucket (string)  2 run (string)  3 leases (zset)  4 server (string)  5 asserts (counter)
-- ARGV   1 run id in hex  2 credits  3 attempt token, '*' for whichever attempt is running  4 claim, as in reserve
--        5 lease in ms
-- Reply  'RENEWED' (the hold was there) | 'ASSERTED' (it was written, or is this attempt's again) | 'SETTLED' | 'CONFLICT' (another client's)
--        | 'CORRUPT'
-- On a verified shard the hold takes what is available for its SKU, then overdraft room, up to its need. While the shard recovers, or without a bucket,
-- it takes nothing and waits for a rebuild, which is told by the counter that there is one hold more (L6).
-- What was lost may be a takeover alone: while the shard recovers, a later attempt has its hold back from an earlier
-- one's, and whoever needs more than the hold says gets that.
-- Atomic because a rebuild may open the bucket between the two cases.

local run, leases, run_id = KEYS[2], KEYS[3], ARGV[1]
local stored = call('MGET', KEYS[4], run, KEYS[1])
local hold, bucket = read_run(stored[2]), stored[3]

if hold and hold.client ~= read_claim(ARGV[4]).client then
  return 'CONFLICT'
end
if hold and hold.settled then
  return 'SETTLED'
end

local now, created = now_ms()
local deadline = now + ARGV[5]
local epoch, debt, grants, terms
if bucket and stored[1] == server_run_id then
  epoch, debt, grants, terms = read_bucket(bucket, now)
end
local asked, found = read_claim(ARGV[4]), hold and read_claim(hold.text, hold.claim)
local lost = not epoch and found and asked.sku == found.sku
local later = lost and tonumber(asked.attempt) > tonumber(found.attempt)
local behind = lost and (later or asked.credits > found.credits)
if hold and not behind and (not epoch or hold.epoch == epoch) then
  call('ZADD', leases, 'GT', deadline, run_id)
  return 'RENEWED'
end

if behind then
  if later then
    found.attempt = asked.attempt
    if hold.token ~= ARGV[3] and found.price == asked.price then
      found.head, found.draft = asked.head, asked.draft
    end
  end
  -- What it says that it was lent stays: a rebuild lends that first.
  found.credits = asked.credits > found.credits and asked.credits or found.credits
  call('INCR', KEYS[5])
  local token = later and ARGV[3] or hold.token
  call('SET', run, hold_text(hold.grants, hold.epoch, token, hold.created, write_claim(found)))
  call('ZADD', leases, 'GT', deadline, run_id)
  return 'ASSERTED'
end
local claim = hold and claim_of(hold) or ARGV[4]
local shares = ''
if epoch then
  local claimed, left = read_claim(claim), nil
  bucket, shares, left = borrow(bucket, grants, claimed.credits, terms, claimed.sku)
  local room = min(left, terms and free_room(debt, terms) or 0)
  if room > 0 then
    shares = lend_room(shares, room, terms)
    bucket = write_bucket(epoch, debt, terms, sub(bucket, grants))
  end
  call('SET', KEYS[1], bucket)
else
  call('INCR', KEYS[5])
end
local token = hold and hold.token or ARGV[3]
created = hold and hold.created or created
call('SET', run, hold_text(shares, epoch or '0', token, created, claim))
call('ZADD', leases, 'GT', deadline, run_id)
return 'ASSERTED'
