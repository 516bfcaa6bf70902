-- Shared, after bucket.lua: the marks of a bucket, by which a client is told once that it runs low and that it ran out;
-- and the debt that it is told of when it begins.
--
-- The last entry of a bucket's string lists them, highest first: those that are armed, a slash, those that were alerted:
--   "1 0 12:700:0:300 !200:20,50:5,1:0,/"
-- Below 200 credits the client has less than 20 % of what the grants in the string brought it; below 1 it has nothing,
-- which is percent 0. Grants that have ended count for neither; grants for some SKUs do, overdraft room does not. `grant` and `rebuild` make the marks. A script that does not know them leaves the entry where it
-- is, or, as an older `grant`, drops it: then only the end is alerted, until the next grant.
--
-- A step that takes credits alerts every armed mark that the bucket fell below, by one entry of the stream, for the
-- lowest; a refused reserve alerts the end. What is alerted stays so until credits come back well above the mark (see
-- `lifted`), so that holds which come and go do not alert at each turn; the end, until a grant leaves something to use.

-- The newest entries that the stream keeps while nobody reads it (L9).
local ALERTS_MAX = 10000

-- What is available, and what the grants in the string brought, less what of it paid debt.
local function sums_of(bucket, terms)
  local available, granted = 0, 0
  for grant, free, held, spent in gmatch(bucket, ' (%d+):(%d+):(%d+):(%d+)') do
    if pays(terms, grant) then
      available, granted = available + free, granted + free + held + spent
    end
  end
  return available, granted
end

-- Whether a bucket is below its highest armed mark: `available` is what its grants before `position` have. The others
-- are added up only as far as it takes to know.
local function below_mark(bucket, position, available, terms)
  local place = find(bucket, '!', position, true)
  local mark = place and tonumber(match(bucket, '^%d+', place + 1))
  if not mark then
    return false
  end
  if terms then
    return sums_of(bucket, terms) < mark
  end
  while available < mark do
    local more, after = match(bucket, '^ %d+:(%d+)[^ ]*()', position)
    if not more then
      return true
    end
    available, position = available + more, after
  end
  return false
end

-- A bucket without its marks, the armed ones, and those that were alerted.
local function read_marks(bucket)
  local unmarked, armed, alerted = match(bucket, '^([^!]*) !([^/]*)/(.*)$')
  if unmarked then
    return unmarked, armed, alerted
  end
  return bucket, '1:0,', ''
end

-- Percent of an amount, rounded up, without leaving the whole numbers that a double has.
local function share_of(amount, percent)
  local hundreds = floor(amount / 100)
  return hundreds * percent + floor(((amount - hundreds * 100) * percent + 99) / 100)
end

-- Above 67 % nobody could ever have half as much again: of a high mark, half of what is above it does.
local function lifted(available, granted, mark)
  return available - mark >= min(mark, granted - mark) / 2
end

-- Gives a bucket that has none its marks: armed, but for those in `alerted` that it is not lifted above.
local function with_marks(bucket, percents, alerted, terms)
  local available, granted = sums_of(bucket, terms)
  local armed, stay = '', ''
  for percent in gmatch(percents .. ',0', '%d+') do
    local mark = percent == '0' and 1 or share_of(granted, tonumber(percent))
    local text = digits(mark) .. ':' .. percent .. ','
    local above = percent == '0' and available > 0 or percent ~= '0' and lifted(available, granted, mark)
    if not above and find(',' .. alerted, ':' .. percent .. ',', 1, true) then
      stay = stay .. text
    else
      armed = armed .. text
    end
  end
  return bucket .. ' !' .. armed .. '/' .. stay
end

-- Alerts every armed mark that the bucket is below, and the end if a reserve was refused. Returns the changed bucket,
-- to be written by the caller. Its one write comes first: if it fails, nothing was changed.
local function alert(alerts_key, client, bucket, refused, terms)
  local unmarked, armed, alerted = read_marks(bucket)
  local available, granted = sums_of(unmarked, terms)
  local stay, lowest = '', nil
  for text, mark, percent in gmatch(armed, '((%d+):(%d+),)') do
    if available < tonumber(mark) or refused and percent == '0' then
      alerted, lowest = alerted .. text, percent
    else
      stay = stay .. text
    end
  end
  if lowest then
    call('XADD', alerts_key, 'MAXLEN', '~', ALERTS_MAX, '*', 'client', client, 'percent', lowest, 'available',
      digits(available), 'granted', digits(granted), 'at', digits((now_ms())), 'server', server_run_id)
  end
  return unmarked .. ' !' .. stay .. '/' .. alerted
end

-- Whether a client owes more than its overdraft limit covers.
local function in_debt(owed, terms)
  return tonumber(owed) > (terms and terms.limit or 0)
end

-- Tells of the debt that a step began; one that went on, or grew, was told before, which needs no mark. Called before
-- anything is written, or after `alert` alone. A reader of the release before takes the entry, by its percent, for the end.
local function tell_debt(alerts_key, client, was_in_debt, owed, bucket, terms)
  if was_in_debt or not in_debt(owed, terms) then
    return
  end
  local available, granted = sums_of(bucket, terms)
  call('XADD', alerts_key, 'MAXLEN', '~', ALERTS_MAX, '*', 'client', client, 'percent', '0', 'available',
    digits(available), 'granted', digits(granted), 'owed', digits(owed), 'limit', digits(terms and terms.limit or 0),
    'at', digits((now_ms())), 'server', server_run_id)
end

-- Whether a refusal has been alerted since the last grant.
local function end_alerted(bucket)
  return find(bucket, '!', 1, true) and not find(bucket, ':0,/', 1, true)
end

-- Arms the marks again that a bucket is lifted above, credits having come back. Returns the changed bucket.
local function rearm(bucket, terms)
  local slash = find(bucket, '/', 1, true)
  if not slash or slash == #bucket then
    return bucket
  end
  local unmarked, armed, alerted = read_marks(bucket)
  local available, granted = sums_of(unmarked, terms)
  local stay, marks = '', {}
  for text, mark, percent in gmatch(alerted, '((%d+):(%d+),)') do
    if percent ~= '0' and lifted(available, granted, tonumber(mark)) then
      marks[#marks + 1] = { text = text, percent = tonumber(percent) }
    else
      stay = stay .. text
    end
  end
  if #marks == 0 then
    return bucket
  end
  for text, percent in gmatch(armed, '(%d+:(%d+),)') do
    marks[#marks + 1] = { text = text, percent = tonumber(percent) }
  end
  table.sort(marks, function(one, other) return one.percent > other.percent end)
  armed = ''
  for i = 1, #marks do
    armed = armed .. marks[i].text
  end
  return unmarked .. ' !' .. armed .. '/' .. stay
end

-- Ends a hold without a charge. It stands here since what it gives back may arm a mark again.
local function drop(bucket_key, grants_key, run_key, leases_key, hold, run_id)
  local bucket, foreign = read_key(bucket_key)
  if foreign then
    corrupt()
  end
  if bucket then
    local epoch, debt, grants, terms = read_bucket(bucket)
    local held, room = lent(hold, epoch)
    local notes
    turn_back(terms, room)
    bucket, debt, notes = give_back(bucket, tonumber(debt), held, held, terms)
    note(grants_key, notes)
    call('SET', bucket_key, rearm(write_bucket(epoch, debt, terms, sub(bucket, grants)), terms))
  end
  call('DEL', run_key)
  call('ZREM', leases_key, run_id)
end
