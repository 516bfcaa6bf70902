-- grant: add an allotment to a bucket; debt is paid first.
--
-- KEYS   1 bucket (hash)  2 server (string)
-- ARGV   1 grant id  2 credits  3 usable grants that a bucket may have
-- Reply  'GRANTED' | 'ALREADY' | 'CONFLICT' (the id came with another amount) | 'TOO_MANY' | 'TOO_LARGE'
--        | 'UNKNOWN_CLIENT' | 'RECOVERING'
-- Atomic because the grant, the debt that it pays and the burn order are one fact.
-- Idempotent by grant id: g:<id> stays for as long as the bucket does, also when the grant is used up.

local bucket, grant, credits = KEYS[1], ARGV[1], tonumber(ARGV[2])

if recovering(KEYS[2]) then
  return 'RECOVERING'
end
local state = call('HMGET', bucket, 'epoch', 'order', 'owed', 'g:' .. grant)
if not state[1] then
  return 'UNKNOWN_CLIENT'
end
if state[4] then
  return tonumber(state[4]) == credits and 'ALREADY' or 'CONFLICT'
end
if total_of(bucket) + credits > CREDITS_MAX then
  return 'TOO_LARGE'
end

-- What is used up leaves the order here: nothing can come back to a grant that has neither credits nor holds.
local order, placed = {}, false
for other in string.gmatch(state[2] or '', '%d+') do
  local left = call('HMGET', bucket, 'a:' .. other, 'h:' .. other)
  if tonumber(left[1] or 0) > 0 or tonumber(left[2] or 0) > 0 then
    -- Burn order is the order of creation, though a grant may arrive after a later one.
    if not placed and tonumber(other) > tonumber(grant) then
      order[#order + 1] = grant
      placed = true
    end
    order[#order + 1] = other
  end
end
if not placed then
  order[#order + 1] = grant
end
if #order > tonumber(ARGV[3]) then
  return 'TOO_MANY'
end

local owed = tonumber(state[3] or 0)
local pays = math.min(owed, credits)
call('HSET', bucket, 'order', table.concat(order, ' '), 'g:' .. grant, digits(credits))
add(bucket, 'a:' .. grant, credits - pays)
add(bucket, 'r:' .. grant, pays)
add(bucket, 'owed', -pays)
return 'GRANTED'
