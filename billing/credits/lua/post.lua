-- post: bring a bucket to what the log says beyond its own settles: absolute totals per grant, each with a version.
--
-- KEYS   1 bucket (string)  2 grants (hash)  3 server (string)  4 alerts (stream)  5 expiries (zset)
-- ARGV   1 client  2 epoch of the postings  then per grant: grant, version, credits, restored, entered
--        credits: > 0 to be taken from the grant as spent, < 0 to be given back to it; of grant 0 it is debt
--        restored: > 0 to be put into what it has available, < 0 to be taken away from it, without being spent
--        entered: what the ledger has of the grant's end, at most what expired or was voided here
-- Reply  'POSTED' | 'ALREADY' (every version was seen) | 'STALE' (the bucket is of another epoch) | 'TOO_LARGE'
--        | 'UNCOVERED' (more is given back than was ever spent) | 'REUSED' (a version that was seen, with other totals:
--        PostgreSQL has lost transactions) | 'UNKNOWN_CLIENT' | 'RECOVERING' | 'CORRUPT'
-- A grant that has ended pays with what expired or was voided and is not in the ledger yet: no entry ever changes, and
-- `lapse` is to look at the rest once more. What a grant has no more (it is held, has ended in the ledger, or is used up)
-- is debt, noted in m:<grant>: spent + m = what the log says, per grant. Debt is repaid at once. What is given back
-- undoes m: first; a debt that was repaid meanwhile is paid back, to the grant that burns last first, to those that have
-- ended after all others. A grant that has something again pays its own m: first, and has its place in the burn order;
-- one that has ended gets it as expired or voided, and `lapse` is to look at it once more.
-- Atomic because a reserve between taking and repaying would see credits that are gone (L1, L2).
-- Idempotent by version: p:<grant> says what was posted already, for as long as the bucket is of this epoch.

local client = ARGV[1]

local refusal, bucket, epoch, owed, place, terms = read_whole(KEYS[1], KEYS[3])
if refusal then
  return refusal
end
if epoch ~= ARGV[2] then
  return 'STALE'
end
local flat, fields, changed = redis.pcall('HGETALL', KEYS[2]), {}, {}
if flat.err then
  corrupt()
end
for i = 1, #flat, 2 do
  fields[flat[i]] = flat[i + 1]
end

local function number(field)
  return tonumber(fields[field] or 0)
end
local function add(field, credits)
  fields[field] = digits(number(field) + credits)
  changed[field] = true
end

local entries, order = {}, {}
local unmarked = read_marks(bucket)
for grant, available, held, spent, suffix in gmatch(sub(unmarked, place), ' (%d+):(%d+):(%d+):(%d+)([^ ]*)') do
  entries[grant] = {
    available = tonumber(available), held = held, spent = tonumber(spent), suffix = suffix, used = true,
  }
  order[#order + 1] = grant
end

-- A grant's numbers, also if it has left the string, or is not known here at all.
local function entry_of(grant)
  local entry = entries[grant]
  if not entry then
    entry = { available = 0, held = '0', spent = number('s:' .. grant), suffix = fields['t:' .. grant] or '' }
    entries[grant] = entry
    if entry.suffix ~= '' then
      terms = terms or no_terms()
      terms.grants[grant] = read_terms(entry.suffix)
    end
    order[#order + 1] = grant
  end
  return entry
end

local received, taken, covered = false, false, true

-- How a grant has ended, as the field that counts it.
local function ending_of(grant)
  return ended(terms and terms.grants[grant], terms and terms.now)
end
-- A grant that has something again pays first what the log says that it paid, and nobody owes that any more.
local function pay_noted(grant, entry, credits)
  local part = min(credits, number('m:' .. grant))
  if part > 0 then
    add('m:' .. grant, -part)
    add('s:0', -part)
    entry.spent = entry.spent + part
  end
  return part
end
local function receive(grant, credits)
  covered = covered and (credits == 0 or fields['g:' .. grant])
  local entry = entry_of(grant)
  local ending = ending_of(grant)
  if ending then
    add(ending .. ':' .. grant, credits)
    entry.look_at = true
  else
    local part = pay_noted(grant, entry, credits)
    entry.available = entry.available + credits - part
    received = received or credits > part
  end
end

-- What spending cannot take is debt.
local function owe(grant, credits)
  if credits > 0 then
    add('m:' .. grant, credits)
    add('s:0', credits)
  end
end

-- Takes what has ended with a grant and is not in the ledger back from what ended, as spent; returns how much.
local function take_ended(grant, entry, need, entered)
  local ending = ending_of(grant)
  if not ending then
    return 0
  end
  local part = min(need, number(ending .. ':' .. grant), number('x:' .. grant) + number('v:' .. grant) - entered)
  if part <= 0 then
    return 0
  end
  add(ending .. ':' .. grant, -part)
  entry.spent, entry.look_at = entry.spent + part, true
  return part
end

local rows = {}
for i = 3, #ARGV, 5 do
  local grant, version, credits, restored = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local seen, had, put = match(fields['p:' .. grant] or '0 0 0', '^(%d+) (%-?%d+) (%-?%d+)$')
  if not seen then
    corrupt()
  end
  if version == tonumber(seen) and (credits ~= tonumber(had) or restored ~= tonumber(put)) then
    return 'REUSED'
  end
  if version > tonumber(seen) then
    local entered = tonumber(ARGV[i + 4])
    rows[#rows + 1] = { grant = grant, credits = credits - had, restored = restored - put, entered = entered }
    fields['p:' .. grant] = digits(version) .. ' ' .. digits(credits) .. ' ' .. digits(restored)
    changed['p:' .. grant] = true
  end
end
if #rows == 0 then
  return 'ALREADY'
end

-- What is given back comes first, so that there is more to take from.
local before = number('s:0')
for i = 1, #rows do
  local grant, back, restored = rows[i].grant, -rows[i].credits, rows[i].restored
  if grant == '0' then
    add('s:0', -back)
  elseif back > 0 then
    local entry, undone = entry_of(grant), min(back, number('m:' .. grant))
    add('m:' .. grant, -undone)
    add('s:0', -undone)
    entry.spent = entry.spent - (back - undone)
    receive(grant, back - undone)
  end
  if restored > 0 then
    receive(grant, restored)
  end
end
for i = 1, #rows do
  local grant, credits, away = rows[i].grant, rows[i].credits, -rows[i].restored
  local entry = grant ~= '0' and entry_of(grant)
  if entry and credits > 0 then
    local part = min(entry.available, credits)
    entry.available, entry.spent = entry.available - part, entry.spent + part
    taken = taken or part > 0
    part = part + take_ended(grant, entry, credits - part, rows[i].entered)
    owe(grant, credits - part)
  end
  if entry and away > 0 then
    local part = min(entry.available, away)
    entry.available = entry.available - part
    taken = taken or part > 0
    -- What is no more there has been spent, which no credit covered.
    entry.spent = entry.spent - (away - part)
    owe(grant, away - part)
  end
end

-- Debt that is gone was repaid by somebody; debt that is there is repaid by whoever can.
-- The difference first: two sums next to 2^53 together are no whole number any more.
local was_in_debt = in_debt(owed, terms)
owed = tonumber(owed) + (number('s:0') - before)
if owed < 0 then
  for field in pairs(fields) do
    local grant = match(field, '^r:(%d+)$')
    if grant then
      entry_of(grant)
    end
  end
end
table.sort(order, function(one, other) return before_in_order(terms, one, other) end)
local function pay_back(has_ended)
  for i = #order, 1, -1 do
    local grant = order[i]
    local part = not ending_of(grant) == not has_ended and min(-owed, number('r:' .. grant)) or 0
    while part > 0 do
      local debt = number('s:0')
      add('r:' .. grant, -part)
      receive(grant, part)
      owed = owed + part + (number('s:0') - debt)
      part = min(-owed, number('r:' .. grant))
    end
  end
end
pay_back(false)
pay_back(true)
for i = 1, #order do
  local grant = order[i]
  local entry, own = entries[grant], terms and terms.grants[grant]
  local part = pays(terms, grant) and not (own and own.skus ~= '') and min(owed, entry.available) or 0
  if part > 0 then
    add('r:' .. grant, part)
    entry.available, owed, taken = entry.available - part, owed - part, true
  end
end

-- Nothing is written yet.
local total, beyond = 0, 0
for field, text in pairs(fields) do
  local kind = sub(field, 1, 2)
  if kind == 'g:' or field == 's:0' or field == 'j:0' then
    total = total + tonumber(text)
  elseif kind == 'm:' then
    beyond = beyond + tonumber(text)
  end
end
if total > CREDITS_MAX then
  return 'TOO_LARGE'
end
covered = covered and owed >= 0 and number('s:0') >= beyond
local text = ''
for i = 1, #order do
  local grant = order[i]
  local entry = entries[grant]
  covered = covered and entry.spent >= 0
  if entry.used or entry.available > 0 then
    text = text .. ' ' .. grant .. ':' .. digits(entry.available) .. ':' .. entry.held .. ':' .. digits(entry.spent)
      .. entry.suffix
  end
end
if not covered then
  return 'UNCOVERED'
end

bucket = write_bucket(epoch, owed, terms, text .. sub(bucket, #unmarked + 1))
if received then
  bucket = rearm(bucket, terms)
end
if taken then
  place = find(bucket, ' ', find(bucket, ' ', 1, true) + 1, true) or #bucket + 1
  if below_mark(bucket, place, 0, terms) then
    bucket = alert(KEYS[4], client, bucket, false, terms)
  end
end
tell_debt(KEYS[4], client, was_in_debt, owed, bucket, terms)
for i = 1, #order do
  local grant = order[i]
  local entry = entries[grant]
  if not entry.used and entry.available > 0 then
    local own = terms and terms.grants[grant]
    if own and own.expires > 0 then
      call('ZADD', KEYS[5], own.expires, grant .. ' ' .. client)
    end
  elseif not entry.used and entry.spent ~= number('s:' .. grant) then
    add('s:' .. grant, entry.spent - number('s:' .. grant))
  end
  if entry.look_at then
    call('ZADD', KEYS[5], terms.now, grant .. ' ' .. client)
  end
end
for field in pairs(changed) do
  call('HSET', KEYS[2], field, fields[field])
end
call('SET', KEYS[1], bucket)
return 'POSTED'
