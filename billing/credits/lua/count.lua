-- count: add to what the dry runs of a fleet have counted.
--
-- KEYS   1 counts (hash)  2 this addition (string)
-- ARGV   1 how many fields the hash has at most  2 how long the addition is remembered, ms
--        3… field and number, one after the other
-- Reply  'COUNTED' | 'ALREADY'
-- Past the bound (L9) what has no field yet is left out. The hash's field `fields` says how many it has.
-- Atomic because an addition and the note that it was made are one. Idempotent by the addition's id.

if not call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[2]) then
  return 'ALREADY'
end
local fields = tonumber(call('HGET', KEYS[1], 'fields') or '0')
for i = 3, #ARGV, 2 do
  local is_new = not call('HGET', KEYS[1], ARGV[i])
  if not is_new or fields < tonumber(ARGV[1]) then
    call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
    if is_new then
      fields = fields + 1
    end
  end
end
call('HSET', KEYS[1], 'fields', digits(fields))
return 'COUNTED'
