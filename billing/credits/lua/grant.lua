-- grant: add an allotment to a bucket, at its place in the burn order; debt is paid first.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)  4 expiries (zset)
-- ARGV   1 grant id  2 credits  3 usable grants that a bucket may have  4 percents at which it is alerted, as 20,5
--        5 client  6 terms, as in the bucket (@50,1767225600000,0,page), or '' for the ordinary ones
-- Reply  'GRANTED' | 'ALREADY' | 'CONFLICT' (the id came with another amount) | 'TOO_MANY' | 'TOO_LARGE'
--        | 'UNKNOWN_CLIENT' | 'RECOVERING' | 'CORRUPT'
-- Only a grant for every SKU pays debt, and none that arrives after its time. A closed client's bucket takes it too: what
-- the ledger has, the bucket has (L2); the ledger grants a closed client nothing more.
-- Atomic because the grant, the debt that it pays and the burn order are one fact.
-- Idempotent by grant id: g:<id> stays for as long as the bucket does, also when the grant is used up.

local grant, credits, suffix = ARGV[1], tonumber(ARGV[2]), ARGV[6]

local refusal, bucket, epoch, owed, grants, terms = read_whole(KEYS[1], KEYS[3])
if refusal then
  return refusal
end
owed = tonumber(owed)
local total, granted = total_of(KEYS[2])
local before = call('HGET', KEYS[2], 'g:' .. grant)
if before then
  return tonumber(before) == credits and 'ALREADY' or 'CONFLICT'
end
if total + credits > CREDITS_MAX then
  return 'TOO_LARGE'
end

if suffix ~= '' then
  terms = terms or no_terms()
  terms.grants[grant] = read_terms(suffix)
end

local own = terms and terms.grants[grant]
local pays_debt = not own or not ended(own, terms.now) and own.skus == ''
local repays = pays_debt and min(owed, credits) or 0
local added = ' ' .. grant .. ':' .. digits(credits - repays) .. ':0:0' .. suffix

-- What is used up leaves the burn order: to a grant that has neither credits nor holds only a posting gives back.
local usable, left, cold = '', 0, { 'g:' .. grant, digits(credits) }
local _, finish = find(bucket, '^[^!]*', grants)
for other, available, held, spent, rest in gmatch(sub(bucket, grants, finish), ' (%d+):(%d+):(%d+):(%d+)([^ ]*)') do
  if available == '0' and held == '0' then
    cold[#cold + 1] = 's:' .. other
    cold[#cold + 1] = spent
    if rest ~= '' then
      cold[#cold + 1] = 't:' .. other
      cold[#cold + 1] = rest
    end
  else
    if added and before_in_order(terms, grant, other) then
      usable = usable .. added
      added = nil
    end
    usable = usable .. ' ' .. other .. ':' .. available .. ':' .. held .. ':' .. spent .. rest
    left = left + (pays(terms, other) and 1 or 0)
  end
end
if left >= tonumber(ARGV[3]) then
  return 'TOO_MANY'
end
cold[#cold + 1] = 'g'
cold[#cold + 1] = digits(granted + credits)
if repays > 0 then
  cold[#cold + 1] = 'r:' .. grant
  cold[#cold + 1] = digits(repays)
end

local _, _, alerted = read_marks(bucket)
bucket = with_marks(write_bucket(epoch, owed - repays, terms, usable .. (added or '')), ARGV[4], alerted, terms)
call('SET', KEYS[1], bucket)
call('HSET', KEYS[2], unpack(cold))
if own and own.expires > 0 then
  call('ZADD', KEYS[4], own.expires, grant .. ' ' .. ARGV[5])
end
return 'GRANTED'
