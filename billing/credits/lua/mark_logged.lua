-- mark_logged: turn a hold that survived, though the log has its run already, into the mark of a settled run.
--
-- KEYS   1 bucket (string)  2 run (string)  3 leases (zset)  4 server (string)
-- ARGV   1 run id in hex  2 client  3 settlement id in the log  4 retention in ms
-- Reply  'MARKED' | 'SETTLED' (it is one already) | 'NOTHING' (no hold) | 'CONFLICT' (another client's)
--        | 'LENT' (the shard is open and the bucket lent to this hold: settle ends it, nothing was changed)
-- No bucket is written: the caller rebuilds it from the log, without this hold. A plan that still names the hold is
-- refused by `rebuild`.
-- Atomic because a hold without its lease, or a lease without its hold, would be an orphan (L5). Idempotent.

local hold = read_run((read_key(KEYS[2])))

if not hold or hold.settled then
  call('ZREM', KEYS[3], ARGV[1])
  return hold and 'SETTLED' or 'NOTHING'
end
if hold.client ~= ARGV[2] then
  return 'CONFLICT'
end
local bucket = read_key(KEYS[1])
if bucket and not recovering(KEYS[4]) and match(bucket, '^%d+') == hold.epoch then
  return 'LENT'
end

-- The entry 0-0 is in no outbox.
call('SET', KEYS[2], 'settled\n' .. ARGV[3] .. '\n' .. hold.client .. '\n0-0', 'PX', ARGV[4])
call('ZREM', KEYS[3], ARGV[1])
return 'MARKED'
