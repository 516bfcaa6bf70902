-- grant: add an allotment to a bucket; debt is paid first.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)
-- ARGV   1 grant id  2 credits  3 usable grants that a bucket may have  4 percents at which it is alerted, as 20,5
-- Reply  'GRANTED' | 'ALREADY' | 'CONFLICT' (the id came with another amount) | 'TOO_MANY' | 'TOO_LARGE'
--        | 'UNKNOWN_CLIENT' | 'RECOVERING'
-- Atomic because the grant, the debt that it pays and the burn order are one fact.
-- Idempotent by grant id: g:<id> stays for as long as the bucket does, also when the grant is used up.

local grant, credits = ARGV[1], tonumber(ARGV[2])

if recovering(KEYS[3]) then
  return 'RECOVERING'
end
local bucket = call('GET', KEYS[1])
if not bucket then
  return 'UNKNOWN_CLIENT'
end
local before = call('HGET', KEYS[2], 'g:' .. grant)
if before then
  return tonumber(before) == credits and 'ALREADY' or 'CONFLICT'
end
if total_of(KEYS[2]) + credits > CREDITS_MAX then
  return 'TOO_LARGE'
end

local epoch, owed, grants = read_bucket(bucket)
owed = tonumber(owed)
local pays = min(owed, credits)
local added = ' ' .. grant .. ':' .. digits(credits - pays) .. ':0:0'

-- What is used up leaves the burn order: nothing can come back to a grant that has neither credits nor holds.
-- Burn order is the order of creation, though a grant may arrive after a later one.
local usable, left, cold = '', 0, { 'g:' .. grant, digits(credits) }
for other, available, held, spent in gmatch(sub(bucket, grants), ' (%d+):(%d+):(%d+):(%d+)') do
  if available == '0' and held == '0' then
    cold[#cold + 1] = 's:' .. other
    cold[#cold + 1] = spent
  else
    if added and tonumber(other) > tonumber(grant) then
      usable = usable .. added
      added = nil
    end
    usable = usable .. ' ' .. other .. ':' .. available .. ':' .. held .. ':' .. spent
    left = left + 1
  end
end
if left >= tonumber(ARGV[3]) then
  return 'TOO_MANY'
end
if pays > 0 then
  cold[#cold + 1] = 'r:' .. grant
  cold[#cold + 1] = digits(pays)
end

local _, _, alerted = read_marks(bucket)
bucket = with_marks(epoch .. ' ' .. digits(owed - pays) .. usable .. (added or ''), ARGV[4], alerted)
call('SET', KEYS[1], bucket)
call('HSET', KEYS[2], unpack(cold))
return 'GRANTED'
