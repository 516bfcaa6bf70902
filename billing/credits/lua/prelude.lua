-- Shared by every script; the loader puts this text in front of each verb's file.
--
-- A bucket is a hash: `epoch`, `order` (usable grants in burn order: "12 15"), `owed` (debt in use), and per grant id
-- g:<id> granted, a:<id> available, h:<id> held, s:<id> spent, r:<id> spent on repaying debt; `s:0` is all that nothing
-- covered when it was settled. A missing number is 0. Held to by every script:
--     per grant   g = a + h + s + r
--     per client  owed = s:0 - sum(r);  owed > 0 implies that every a is 0, since whatever comes back pays debt first
--
-- A run is a string of fields, one a line, so that a hold stays small and is read and written by one command:
--     held     client sku token credits grants epoch price_version attempt created length_of_head head..lines
--     settled  settlement_id client entry_id
-- `grants` is "12:30 15:5". A hold of another epoch than its bucket's covers nothing: that bucket never lent it.
--
-- All reading and deciding comes before the first write: a script that fails half way is not rolled back.

local call = redis.call
local CREDITS_MAX = 9007199254740991 -- 2^53 - 1, the last whole number that a double counts to

-- Lua's own conversion writes 1e+15; this one is exact.
local function digits(number)
  return string.format('%.0f', number)
end

-- A shard is trusted only on the server under which it was built or verified (L6).
local function recovering(server_key)
  local verified = call('GET', server_key)
  return not verified or not string.find(call('INFO', 'server'), 'run_id:' .. verified, 1, true)
end

local function now_ms()
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- "12:30 15:5" -> {{'12', 30}, {'15', 5}}
local function read_shares(text)
  local shares = {}
  for grant, credits in string.gmatch(text, '(%d+):(%d+)') do
    shares[#shares + 1] = { grant, tonumber(credits) }
  end
  return shares
end

local function write_shares(shares)
  local texts = {}
  for i, share in ipairs(shares) do
    texts[i] = share[1] .. ':' .. digits(share[2])
  end
  return table.concat(texts, ' ')
end

local function sum_of(shares)
  local sum = 0
  for _, share in ipairs(shares) do
    sum = sum + share[2]
  end
  return sum
end

local FIELD = '([^\n]*)\n'
local HELD = '^held\n' .. string.rep(FIELD, 10) .. '()'

-- The stored run, or nil.
local function read_run(run_key)
  local text = call('GET', run_key)
  if not text then
    return nil
  end
  if string.sub(text, 1, 5) ~= 'held\n' then
    local settlement, client, entry = string.match(text, '^settled\n([^\n]*)\n([^\n]*)\n(.*)$')
    return { settled = true, settlement = settlement, client = client, entry = entry }
  end
  local client, sku, token, credits, grants, epoch, price, attempt, created, length, body = string.match(text, HELD)
  return {
    client = client, sku = sku, token = token, credits = tonumber(credits), grants = grants, epoch = epoch,
    price = price, attempt = attempt, created = created,
    head = string.sub(text, body, body + length - 1), lines = string.sub(text, body + length),
  }
end

local function write_hold(run_key, hold)
  call('SET', run_key, table.concat({
    'held', hold.client, hold.sku, hold.token, digits(hold.credits), hold.grants, hold.epoch, hold.price, hold.attempt,
    hold.created, #hold.head, hold.head .. hold.lines,
  }, '\n'))
end

-- What the bucket lent to a hold, in the order in which it is charged.
local function lent(hold, epoch)
  if hold and hold.epoch == epoch then
    return read_shares(hold.grants)
  end
  return {}
end

-- What is available, in burn order, and the sum.
local function read_available(bucket_key, order)
  local grants, fields = {}, {}
  for grant in string.gmatch(order or '', '%d+') do
    grants[#grants + 1] = grant
    fields[#fields + 1] = 'a:' .. grant
  end
  if #grants == 0 then
    return {}, 0
  end
  local shares, sum = {}, 0
  for i, value in ipairs(call('HMGET', bucket_key, unpack(fields))) do
    local credits = tonumber(value or 0)
    shares[i] = { grants[i], credits }
    sum = sum + credits
  end
  return shares, sum
end

-- Adds to a grant's share, so that no grant is named twice.
local function join(shares, grant, credits)
  for _, share in ipairs(shares) do
    if share[1] == grant then
      share[2] = share[2] + credits
      return
    end
  end
  shares[#shares + 1] = { grant, credits }
end

-- Moves up to `need` from the front of `from` to the end of `to`; returns how much of the need is left.
local function take(from, need, to)
  for _, share in ipairs(from) do
    if need == 0 then
      break
    end
    local part = math.min(share[2], need)
    if part > 0 then
      share[2] = share[2] - part
      need = need - part
      join(to, share[1], part)
    end
  end
  return need
end

-- Adds to one field of the bucket.
local function add(bucket_key, field, credits)
  if credits ~= 0 then
    call('HINCRBY', bucket_key, field, digits(credits))
  end
end

-- Lends available credits to a hold.
local function lend(bucket_key, shares)
  for _, share in ipairs(shares) do
    add(bucket_key, 'a:' .. share[1], -share[2])
    add(bucket_key, 'h:' .. share[1], share[2])
  end
end

-- Gives held credits back to their grants, debt first: the one place where debt is repaid by what returns.
local function give_back(bucket_key, shares, owed)
  local repaid = 0
  for _, share in ipairs(shares) do
    local pays = math.min(owed - repaid, share[2])
    repaid = repaid + pays
    add(bucket_key, 'h:' .. share[1], -share[2])
    add(bucket_key, 'r:' .. share[1], pays)
    add(bucket_key, 'a:' .. share[1], share[2] - pays)
  end
  add(bucket_key, 'owed', -repaid)
end

-- The sum of all that was granted and of all debt there ever was: no sum over a bucket is larger.
local function total_of(bucket_key)
  local flat, total = call('HGETALL', bucket_key), 0
  for i = 1, #flat, 2 do
    if string.sub(flat[i], 1, 2) == 'g:' or flat[i] == 's:0' then
      total = total + tonumber(flat[i + 1])
    end
  end
  return total
end
