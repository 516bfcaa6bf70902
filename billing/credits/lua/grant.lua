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
local state = call('HMGET', bucket, 'epoch', 'usable', 'owed', 'g:' .. grant)
if not state[1] then
  return 'UNKNOWN_CLIENT'
end
if state[4] then
  return tonumber(state[4]) == credits and 'ALREADY' or 'CONFLICT'
end
if total_of(bucket) + credits > CREDITS_MAX then
  return 'TOO_LARGE'
end

local owed = tonumber(state[3] or 0)
local pays = min(owed, credits)
local added = ' ' .. grant .. ':' .. digits(credits - pays) .. ':0:0'

-- What is used up leaves the burn order: nothing can come back to a grant that has neither credits nor holds.
-- Burn order is the order of creation, though a grant may arrive after a later one.
local usable, left, used_up = {}, 0, {}
for other, available, held, spent in gmatch(state[2], ' (%d+):(%d+):(%d+):(%d+)') do
  if available == '0' and held == '0' then
    used_up[#used_up + 1] = { 's:' .. other, spent }
  else
    if added and tonumber(other) > tonumber(grant) then
      usable[#usable + 1] = added
      added = nil
    end
    usable[#usable + 1] = ' ' .. other .. ':' .. available .. ':' .. held .. ':' .. spent
    left = left + 1
  end
end
if left >= tonumber(ARGV[3]) then
  return 'TOO_MANY'
end
usable[#usable + 1] = added

call('HSET', bucket, 'usable', table.concat(usable), 'g:' .. grant, digits(credits), 'owed', digits(owed - pays))
for _, field in ipairs(used_up) do
  call('HSET', bucket, field[1], field[2])
end
if pays > 0 then
  call('HSET', bucket, 'r:' .. grant, digits(pays))
end
return 'GRANTED'
