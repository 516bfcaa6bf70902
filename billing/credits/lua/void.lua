-- void: take back what a grant has available; what its holds were lent stays theirs.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)  4 expiries (zset)
-- ARGV   1 grant id  2 client
-- Reply  'VOIDED' | 'ALREADY' | 'UNKNOWN_GRANT' (the bucket never had it) | 'UNKNOWN_CLIENT' | 'RECOVERING' | 'CORRUPT'
-- What its holds give back later counts as voided too; `lapse` names the final amount once there is none.
-- Atomic because a reserve between looking and taking would hold what is voided (L1). Idempotent by grant id.

local grant = ARGV[1]

local refusal, bucket, epoch, owed, grants, terms = read_whole(KEYS[1], KEYS[3])
if refusal then
  return refusal
end
total_of(KEYS[2])
if not call('HGET', KEYS[2], 'g:' .. grant) then
  return 'UNKNOWN_GRANT'
end
terms = terms or no_terms()

local first, last, available, held, spent = find(bucket, ' ' .. grant .. ':(%d+):(%d+):(%d+)[^ ]*', grants)
-- A grant that is used up has left the string, but a posting may still give something back to it.
local own = terms.grants[grant] or not first and read_terms(call('HGET', KEYS[2], 't:' .. grant) or '') or ORDINARY
local ending = ended(own, terms.now)
if ending == 'v' then
  return 'ALREADY'
end

-- One whose time was over has expired.
if not ending then
  local suffix = '@' .. digits(own.priority) .. ',' .. digits(own.expires) .. ',' .. digits(terms.now) .. own.skus
  if first then
    local entry = ' ' .. grant .. ':0:' .. held .. ':' .. spent .. suffix
    bucket = write_bucket(epoch, owed, terms, sub(bucket, grants, first - 1) .. entry .. sub(bucket, last + 1))
    if available ~= '0' then
      note(KEYS[2], { 'v:' .. grant, tonumber(available) })
    end
    call('SET', KEYS[1], bucket)
  else
    call('HSET', KEYS[2], 't:' .. grant, suffix)
  end
end
call('ZADD', KEYS[4], terms.now, grant .. ' ' .. ARGV[2])
return 'VOIDED'
