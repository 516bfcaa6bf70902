-- assert_hold: see to it that a running attempt has its hold, also where it was lost; never refuses for lack of credits.
--
-- KEYS   1 bucket (hash)  2 run (string)  3 leases (zset)  4 server (string)  5 asserts (counter)
-- ARGV   1 run id  2 client  3 sku  4 credits  5 attempt token, '*' for whichever attempt is running  6 price version
--        7 attempt  8 head  9 lines  10 lease in ms
-- Reply  'RENEWED' (the hold was there) | 'ASSERTED' (it was written) | 'SETTLED' | 'CONFLICT' (another client's)
-- On a verified shard the hold takes what is available, up to its need. While the shard recovers, or without a bucket,
-- it takes nothing and waits for a rebuild, which is told by the counter that there is one hold more (L6).
-- Atomic because a rebuild may open the bucket between the two cases.

local bucket, run, leases = KEYS[1], KEYS[2], KEYS[3]
local run_id = ARGV[1]

local hold = read_run(run)
if hold and hold.client ~= ARGV[2] then
  return 'CONFLICT'
end
if hold and hold.settled then
  return 'SETTLED'
end

local now = now_ms()
local deadline = digits(now + tonumber(ARGV[10]))
local trusted = not recovering(KEYS[4])
local state = call('HMGET', bucket, 'epoch', 'order')
local epoch = trusted and state[1] or nil
if hold and (not epoch or hold.epoch == epoch) then
  call('ZADD', leases, 'GT', deadline, run_id)
  return 'RENEWED'
end

hold = hold or {
  client = ARGV[2], sku = ARGV[3], token = ARGV[5], credits = tonumber(ARGV[4]), price = ARGV[6], attempt = ARGV[7],
  created = digits(now), head = ARGV[8], lines = ARGV[9],
}
hold.grants, hold.epoch = '', '0'
if epoch then
  local shares = {}
  take(read_available(bucket, state[2]), hold.credits, shares)
  lend(bucket, shares)
  hold.grants, hold.epoch = write_shares(shares), epoch
else
  call('INCR', KEYS[5])
end
write_hold(run, hold)
call('ZADD', leases, 'GT', deadline, run_id)
return 'ASSERTED'
