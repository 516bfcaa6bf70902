-- Shared, after the prelude: a bucket, and the terms of its grants.
--
-- A bucket is two keys. The string `bucket` is what every reserve and settle reads and writes, in one command with the
-- run: epoch and debt, then the grants that can pay, in burn order, each with what is available, held and spent, last
-- the marks at which the client is alerted (marks.lua):
--   "1 0 12:70:30:0 15:50:0:0 !30:20,8:5,1:0,/"
-- Terms that are not the ordinary ones follow the head and the grant that has them; a bucket with any of them has them
-- in its head, so that one look at one byte is all that the others cost:
--   "1 0~500,20,a 12:70:30:0@50,1767225600000,0,page,image 15:50:0:0 !…"
--   head   ~<overdraft limit>,<room held>,<state: a active, s suspended, c closed>; ordinary: 0,0,a
--   grant  @<priority>,<expires, ms, or 0>,<voided, ms, or 0>[,<sku>]…; ordinary: 100,0,0, for every SKU
-- Burn order: priority, then expiry (never is last), then id. Debt is what was settled though nothing covered it; room
-- is what holds were lent of the overdraft. Both are owed; while they are above the limit, nothing is admitted.
--
-- The hash `grants` is the rest: g:<grant> granted, s:<grant> spent by a grant that is used up and has left the string,
-- r:<grant> spent on repaying debt, x:<grant> expired, v:<grant> voided, j:<grant> adjusted away; `s:0` is all that
-- nothing covered when it was settled, `j:0` when it was adjusted away; a:<adjustment> is what each took, as shares;
-- `g` is the sum of all g:<grant>. t:<grant> are the terms of a grant that has left the string. m:<grant> is the part of
-- `s:0` that the log counts as paid by that grant, though it had no more; p:<grant> is what was posted:
-- "<version> <credits> <restored>" (post.lua).
-- A missing number is 0. Every verb keeps (L2):
--   per grant   granted = available + held + spent + repaid + expired + voided + adjusted
--   per client  debt = s:0 + j:0 - sum(r);  debt > 0 implies that no unrestricted grant has anything to use: what comes
--               back to one pays debt. A restricted grant pays its SKUs and no debt.
-- A grant whose time is over pays nothing from that millisecond on, whatever it still has: `lapse` moves that to x:.

-- Every entry that has terms: grant, its numbers, then the terms.
local TERMS = ' (%d+):[%d:]*@(%d+),(%d+),(%d+)([^ ]*)'

-- The terms of a grant that says none.
local ORDINARY = { priority = 100, expires = 0, voided = 0, skus = '' }

-- The terms of a grant from what stands behind it.
local function read_terms(suffix)
  local priority, expires, voided, skus = match(suffix, '^@(%d+),(%d+),(%d+)(.*)$')
  if not priority then
    return nil
  end
  return { priority = tonumber(priority), expires = tonumber(expires), voided = tonumber(voided), skus = skus }
end

-- What a bucket without terms has, when the first come.
local function no_terms()
  return { limit = 0, room = 0, state = 'a', now = now_ms(), grants = {} }
end

-- Burn order: priority, expiry, id; what never expires burns last.
local function before_in_order(terms, one, other)
  local a, b = terms and terms.grants[one] or ORDINARY, terms and terms.grants[other] or ORDINARY
  if a.priority ~= b.priority then
    return a.priority < b.priority
  end
  if a.expires ~= b.expires then
    return a.expires ~= 0 and (b.expires == 0 or a.expires < b.expires)
  end
  return tonumber(one) < tonumber(other)
end

-- The epoch of a bucket, its debt, where its grants begin, and its terms, nil if all are ordinary. `now`: Redis' time
-- in ms, where it is known already.
local function read_bucket(bucket, now)
  local epoch, debt, place = match(bucket, '^(%d+) (%d+)()')
  if not epoch then
    corrupt()
  end
  if byte(bucket, place) ~= 126 then
    return epoch, debt, place
  end
  local limit, room, state, grants = match(bucket, '^~(%d+),(%d+),([asc])()', place)
  if not limit then
    corrupt()
  end
  local terms = { limit = tonumber(limit), room = tonumber(room), state = state, now = now or now_ms(), grants = {} }
  for grant, priority, expires, voided, skus in gmatch(bucket, TERMS) do
    terms.grants[grant] = {
      priority = tonumber(priority), expires = tonumber(expires), voided = tonumber(voided), skus = skus,
    }
  end
  return epoch, debt, grants, terms
end

-- A bucket from its parts; `rest` begins with its grants. Ordinary terms are not written.
local function write_bucket(epoch, debt, terms, rest)
  local head = epoch .. ' ' .. digits(debt)
  if terms and (terms.limit > 0 or terms.room > 0 or terms.state ~= 'a' or find(rest, '@', 1, true)) then
    head = head .. '~' .. digits(terms.limit) .. ',' .. digits(terms.room) .. ',' .. terms.state
  end
  return head .. rest
end

-- Whether all of a bucket can be read; the verbs that go through all of it ask.
local function check_entries(bucket, place)
  local finish = find(bucket, ' !', place, true) or #bucket + 1
  while place < finish do
    place = match(bucket, '^ %d+:%d+:%d+:%d+()[ @]', place) or match(bucket, '^ %d+:%d+:%d+:%d+()$', place)
    place = place and match(bucket, '^@%d+,%d+,%d+[^ ]*()', place) or place
    if not place then
      corrupt()
    end
  end
end

-- How a verb begins that goes through all of a client's bucket and asks nothing before: on a shard that is trusted (L6),
-- of a client that is known. Returns why not, as the verb's reply, else nil, the bucket, and what `read_bucket` returns.
local function read_whole(bucket_key, server_key)
  if recovering(server_key) then
    return 'RECOVERING'
  end
  local bucket, foreign = read_key(bucket_key)
  if foreign then
    corrupt()
  end
  if not bucket then
    return 'UNKNOWN_CLIENT'
  end
  local epoch, owed, grants, terms = read_bucket(bucket)
  check_entries(bucket, grants)
  return nil, bucket, epoch, owed, grants, terms
end

-- How a grant ended, as the field that counts it: 'x' expired, 'v' voided; nil while it has not.
local function ended(own, now)
  return own and (own.voided > 0 and 'v' or own.expires > 0 and own.expires <= now and 'x') or nil
end

-- Whether a grant's SKUs, if it is restricted, have this one; no SKU stands for any.
local function fits(own, sku)
  return not own or own.skus == '' or sku == nil or find(own.skus .. ',', ',' .. sku .. ',', 1, true)
end

-- Whether a grant can pay for a SKU now.
local function pays(terms, grant, sku)
  local own = terms and terms.grants[grant]
  return not own or not ended(own, terms.now) and fits(own, sku)
end

-- What is available, in burn order.
local function read_available(bucket, terms)
  local shares = {}
  for grant, available in gmatch(bucket, ' (%d+):(%d+)') do
    if pays(terms, grant) then
      join(shares, grant, tonumber(available))
    end
  end
  return shares
end

-- Moves up to `need` from the front of `from` into `to`; returns how much of the need is left. With terms, only from
-- grants for this SKU.
local function take(from, need, to, terms, sku)
  for i = 1, #from, 2 do
    if need == 0 then
      break
    end
    if not terms or fits(terms.grants[from[i]], sku) then
      local part = min(from[i + 1], need)
      if part > 0 then
        from[i + 1] = from[i + 1] - part
        need = need - part
        join(to, from[i], part)
      end
    end
  end
  return need
end

-- Lends up to `need` to a hold, in burn order, from the grants that begin at `position`. Returns the changed bucket,
-- what was lent ("12:30 15:5"), how much of the need is left, and for `below_mark` the place in the changed bucket after
-- the last grant that was looked at, with what the grants up to there still have.
local function borrow(bucket, position, need, terms, sku)
  local changed, lent, rest = sub(bucket, 1, position - 1), '', 0
  while need > 0 do
    local grant, available, held, after = match(bucket, '^ (%d+):(%d+):(%d+)():', position)
    if not grant then
      if position <= #bucket and byte(bucket, position + 1) ~= 33 then
        corrupt()
      end
      break
    end
    local part = pays(terms, grant, sku) and min(available, need) or 0
    if part > 0 then
      lent = lent .. (lent == '' and '' or ' ') .. grant .. ':' .. digits(part)
    end
    position = find(bucket, ' ', after, true) or #bucket + 1
    changed = changed .. ' ' .. grant .. ':' .. digits(available - part) .. ':' .. digits(held + part)
      .. sub(bucket, after, position - 1)
    need, rest = need - part, rest + available - part
  end
  return changed .. sub(bucket, position), lent, need, #changed + 1, rest
end

-- How much a client may hold beyond its grants; nil while it owes more than its limit.
local function free_room(debt, terms)
  local owed = tonumber(debt) + (terms and terms.room or 0)
  local limit = terms and terms.limit or 0
  return owed <= limit and limit - owed or nil
end

-- Lends overdraft room to a hold that its grants do not cover. Returns the shares with it.
local function lend_room(shares, credits, terms)
  terms.room = terms.room + credits
  return shares .. (shares == '' and '' or ' ') .. '0:' .. digits(credits)
end

-- Turns a hold's overdraft room back. A bucket that has not as much never lent it: it was lost and opened anew.
local function turn_back(terms, room)
  if room > (terms and terms.room or 0) then
    corrupt()
  end
  if terms then
    terms.room = terms.room - room
  end
end

-- Returns the bucket with one grant's available, held and spent credits changed by so much. It has as much: what is
-- turned back was lent by it.
local function change(bucket, grant, available, held, spent)
  local _, last = find(bucket, ' ' .. grant .. ':', 1, true)
  local a, h, s, after
  if last then
    a, h, s, after = match(bucket, '^(%d+):(%d+):(%d+)()', last + 1)
  end
  if not a or a + available < 0 or h + held < 0 or s + spent < 0 then
    corrupt()
  end
  return sub(bucket, 1, last) .. digits(a + available) .. ':' .. digits(h + held) .. ':' .. digits(s + spent)
    .. sub(bucket, after)
end

-- What the bucket lent to a hold, in the order in which it is charged, and apart from that its overdraft room.
local function lent(hold, epoch)
  if not hold or hold.epoch ~= epoch then
    return {}, 0
  end
  local shares = read_shares(hold.grants)
  for i = 1, #shares, 2 do
    if shares[i] == '0' then
      local room = table.remove(shares, i + 1)
      table.remove(shares, i)
      return shares, room
    end
  end
  return shares, 0
end

-- Gives what is left of a hold back to its grants, debt first: the only way back. `held` is what was lent, `left` what
-- of it was not charged. What comes back to a grant that has ended is neither available nor pays debt. Returns the
-- changed bucket, the debt that remains, and what is to be noted in the hash, as fields and credits.
local function give_back(bucket, debt, held, left, terms)
  local notes
  for i = 1, #held, 2 do
    local grant, back = held[i], left[i + 1]
    local own = terms and terms.grants[grant]
    local ending = ended(own, terms and terms.now)
    local away = ending and back or own and own.skus ~= '' and 0 or min(debt, back)
    if away > 0 then
      notes = notes or {}
      join(notes, (ending or 'r') .. ':' .. grant, away)
      debt = debt - (ending and 0 or away)
    end
    bucket = change(bucket, grant, back - away, -held[i + 1], held[i + 1] - back)
  end
  return bucket, debt, notes
end

-- Adds to fields of the hash. It comes before other writes: on a key of another type it fails, and nothing was changed.
local function note(grants_key, notes)
  for i = 1, notes and #notes or 0, 2 do
    local added = redis.pcall('HINCRBY', grants_key, notes[i], digits(notes[i + 1]))
    if type(added) == 'table' then
      corrupt()
    end
  end
end

-- The sum of all that was granted and of all debt there ever was: no sum over a bucket is larger. Also the former alone.
-- `g` keeps that, so that it costs the same however many grants and adjustments the hash remembers.
local function total_of(grants_key)
  local sums = redis.pcall('HMGET', grants_key, 'g', 's:0', 'j:0')
  if sums.err then
    corrupt()
  end
  local granted = tonumber(sums[1] or 0)
  if not sums[1] then
    -- Nothing was granted, or by scripts that kept no sum.
    local flat = call('HGETALL', grants_key)
    for i = 1, #flat, 2 do
      granted = granted + (sub(flat[i], 1, 2) == 'g:' and flat[i + 1] or 0)
    end
  end
  return granted + (sums[2] or 0) + (sums[3] or 0), granted
end
