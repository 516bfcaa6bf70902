-- lapse: the one step that moves what a grant still has available, its time being over, to what expired.
--
-- KEYS   1 expiries (zset: "<grant> <client>" by the time in ms at which it is to be looked at)  2 server (string)
--        3 what the keys of buckets begin with  4 the same of grants
-- ARGV   1 grants at most  2 ms until a grant that was looked at has its next turn
--        then per grant whose end the ledger has: member, expired, voided, which are forgotten if they are these still
-- Reply  {'RECOVERING'} | {'OK', looked at, member, expired, voided, repaid, …}: the grants that have ended and that no
--        hold refers to, so that these amounts are final; repaid: how much debt each had repaid
-- A member stays until a later call says that the ledger has its final amount: who dies in between repeats it. What
-- comes back to an ended grant is counted by the step that gives it back; where that came after the ledger's entry (a
-- posting), the member stays, for a further one.
-- Atomic because what is moved must not be lent meanwhile. Idempotent: there is nothing left to move.

if recovering(KEYS[2]) then
  return { 'RECOVERING' }
end
for i = 3, #ARGV, 3 do
  local grant, client = match(ARGV[i], '^(%d+) (.*)$')
  local found = redis.pcall('HMGET', KEYS[4] .. client, 'x:' .. grant, 'v:' .. grant)
  if not found.err and (found[1] or '0') == ARGV[i + 1] and (found[2] or '0') == ARGV[i + 2] then
    call('ZREM', KEYS[1], ARGV[i])
  end
end
local now, reply = now_ms(), { 'OK', 0 }
local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', digits(now), 'LIMIT', 0, ARGV[1])

-- Returns what expired, was voided and had repaid debt once these are final, else nil.
local function look(grant, bucket_key, grants_key)
  local bucket = call('GET', bucket_key)
  if not bucket then
    return nil
  end
  local epoch, owed, grants, terms = read_bucket(bucket, now)
  check_entries(bucket, grants)
  local available, held = match(bucket, ' ' .. grant .. ':(%d+):(%d+):', grants)
  local own = terms and terms.grants[grant]
  if available then
    local ending = ended(own, now)
    if not ending then
      return nil
    end
    if available ~= '0' then
      note(grants_key, { ending .. ':' .. grant, tonumber(available) })
      bucket = change(bucket, grant, -available, 0, 0)
      call('SET', bucket_key, write_bucket(epoch, owed, terms, sub(bucket, grants)))
    end
    if held ~= '0' then
      return nil
    end
  end
  local found = call('HMGET', grants_key, 'x:' .. grant, 'v:' .. grant, 'r:' .. grant)
  return found[1] or '0', found[2] or '0', found[3] or '0'
end

for i = 1, #due do
  local grant, client = match(due[i], '^(%d+) (.*)$')
  -- What cannot be read is its own client's trouble, and waits for a rebuild (L10).
  local done, expired, voided, repaid = pcall(look, grant or '0', KEYS[3] .. (client or ''), KEYS[4] .. (client or ''))
  call('ZADD', KEYS[1], now + ARGV[2], due[i])
  if done and expired then
    local last = #reply
    reply[last + 1], reply[last + 2], reply[last + 3], reply[last + 4] = due[i], expired, voided, repaid
  end
end
reply[2] = #due
return reply
