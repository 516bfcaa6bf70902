-- balance: read a bucket whole.
--
-- KEYS   1 bucket (hash)  2 server (string)
-- Reply  {'RECOVERING'} | {'OK', field, value, …}; no fields if there is no bucket
-- Atomic because a balance that was read while the server changed is nobody's balance.

if recovering(KEYS[2]) then
  return { 'RECOVERING' }
end
local reply = call('HGETALL', KEYS[1])
table.insert(reply, 1, 'OK') -- not unpack(), which fails past some thousand values
return reply
