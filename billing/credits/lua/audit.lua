-- audit: read some buckets of a shard whole, each with what the shard's holds were lent by its grants.
--
-- KEYS   1 server (string)  2 leases (zset)  3 what the keys of runs begin with  4 the same of buckets  5 of grants
-- ARGV   1 holds that are looked at, at most  2… clients
-- Reply  {'RECOVERING'} | {'OK', time in ms, 1 if all holds were looked at, number of leases, client, …}; per client
--        {bucket or false, holds, oldest deadline in ms or 0, "12:30 15:5" lent, field, value, …}
-- Atomic because what a bucket has lent and what its holds were lent is one sum (L2): a hold made or ended between
-- two reads would look like a lost credit. It writes nothing.

if recovering(KEYS[1]) then
  return { 'RECOVERING' }
end

local leases, complete = call('ZCARD', KEYS[2]), 1
local found = {}
for i = 2, #ARGV do
  -- A key of another type is this client's discrepancy, and keeps no other client from being read (L10).
  local bucket, fields = redis.pcall('GET', KEYS[4] .. ARGV[i]), redis.pcall('HGETALL', KEYS[5] .. ARGV[i])
  if type(bucket) == 'table' then
    bucket, fields = 'a key of another type', {}
  elseif fields.err then
    bucket, fields = bucket and 'grants of another type', {}
  end
  found[ARGV[i]] = {
    bucket = bucket, epoch = bucket and match(bucket, '^%d+'), fields = fields, lent = {}, holds = 0, deadline = '0',
  }
end
if leases > tonumber(ARGV[1]) then
  complete = 0
else
  local runs = call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
  for i = 1, #runs, 2 do
    -- A key of another type, or one that is gone, is no hold.
    local record = redis.pcall('GET', KEYS[3] .. runs[i])
    local hold = type(record) == 'string' and sub(record, 1, 5) == 'held\n' and read_run(record)
    local client = hold and found[hold.client]
    if client then
      local shares, room = lent(hold, client.epoch)
      if room > 0 then
        join(client.lent, '0', room)
      end
      for j = 1, #shares, 2 do
        join(client.lent, shares[j], shares[j + 1])
      end
      if client.holds == 0 then
        client.deadline = runs[i + 1]
      end
      client.holds = client.holds + 1
    end
  end
end

local reply = { 'OK', digits((now_ms())), complete, leases }
for i = 2, #ARGV do
  local client = found[ARGV[i]]
  local entry = { client.bucket, client.holds, client.deadline, write_shares(client.lent) }
  for j = 1, #client.fields do
    entry[4 + j] = client.fields[j]
  end
  reply[3 + i] = entry
end
return reply
