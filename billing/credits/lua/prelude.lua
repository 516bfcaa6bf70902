-- Shared by every verb; the loader puts this text in front of them, in one function library.
--
-- A bucket is two keys. The string `bucket` is what every reserve and settle reads and writes, in one command with the
-- run: epoch, owed, then the grants that can pay, in burn order, each with what is available, held and spent, last the
-- marks at which the client is alerted (marks.lua):
--   "1 0 12:70:30:0 15:50:0:0 !30:20,8:5,1:0,/"
-- The hash `grants` is the rest: g:<grant> granted, s:<grant> spent by a grant that is used up and has left the string,
-- r:<grant> spent on repaying debt; `s:0` is all that nothing covered when it was settled. A missing number is 0.
-- Every verb keeps (L2):
--   per grant   granted = available + held + spent + repaid
--   per client  owed = s:0 - sum(r);  owed > 0 implies that nothing is available, since whatever comes back pays debt
--
-- A run is a string, a field a line, so that a hold stays small and is read and written by one command:
--   held     grants ("12:30 15:5")  epoch  token  created (s µs)  then the claim, as the client wrote it:
--            client  sku  credits  price version  attempt  length of head  head and draft
--   settled  settlement id  client  entry id
-- A hold of another epoch than its bucket's covers nothing: that bucket never lent it. Shares of grants are flat lists
-- in the scripts: { '12', 30, '15', 5 }.
--
-- All reading and deciding comes before the first write, since a script that fails half way is not rolled back.

local CREDITS_MAX = 9007199254740991 -- 2^53 - 1, the last whole number that a double counts to

local call, find, floor, format, gmatch, match, min, sub
local server_run_id

-- Runs before every verb. A server process loads this library anew, so that its own run id is asked for once; and what
-- a library may use is there at its first call only, not yet when it is loaded.
local function begin()
  if call then
    return
  end
  find, format, gmatch, match, sub = string.find, string.format, string.gmatch, string.match, string.sub
  floor, min = math.floor, math.min
  server_run_id = match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  call = redis.call
end

-- A shard is trusted only on the server under which it was built or verified (L6).
local function recovering(server_key)
  return call('GET', server_key) ~= server_run_id
end

-- Lua's own conversion writes 1e+15 (Redis', of a number that a command is given, is exact). This one is exact where a C long has 64 bits (`verify` makes sure of that), in a
-- quarter of the time of '%.0f'.
local function digits(number)
  return format('%d', number)
end

-- Redis' time in ms, and as a run notes it: "<seconds> <microseconds>".
local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000), time[1] .. ' ' .. time[2]
end

-- Adds to a grant's share, so that no grant is named twice.
local function join(shares, grant, credits)
  for i = 1, #shares, 2 do
    if shares[i] == grant then
      shares[i + 1] = shares[i + 1] + credits
      return
    end
  end
  local last = #shares
  shares[last + 1], shares[last + 2] = grant, credits
end

-- "12:30 15:5" -> { '12', 30, '15', 5 }; first the usual case of one grant, which is three times as quick.
local function read_shares(text)
  local only, amount = match(text, '^(%d+):(%d+)$')
  if only then
    return { only, tonumber(amount) }
  end
  local shares = {}
  for grant, credits in gmatch(text, '(%d+):(%d+)') do
    join(shares, grant, tonumber(credits))
  end
  return shares
end

local function write_shares(shares)
  local text = ''
  for i = 1, #shares, 2 do
    text = text .. (i == 1 and '' or ' ') .. shares[i] .. ':' .. digits(shares[i + 1])
  end
  return text
end

-- What is available, in burn order.
local function read_available(bucket)
  local shares = {}
  for grant, available in gmatch(bucket, ' (%d+):(%d+)') do
    join(shares, grant, tonumber(available))
  end
  return shares
end

-- Moves up to `need` from the front of `from` into `to`; returns how much of the need is left.
local function take(from, need, to)
  for i = 1, #from, 2 do
    if need == 0 then
      break
    end
    local part = min(from[i + 1], need)
    if part > 0 then
      from[i + 1] = from[i + 1] - part
      need = need - part
      join(to, from[i], part)
    end
  end
  return need
end

-- The epoch of a bucket, what it owes, and where its grants begin.
local function read_bucket(bucket)
  return match(bucket, '^(%d+) (%d+)()')
end

-- Lends up to `need` to a hold, in burn order, from the grants that begin at `position`. Returns the changed bucket,
-- what was lent ("12:30 15:5"), how much of the need is left, and for `below_mark` the place in the changed bucket after
-- the last grant that was looked at, with what the grants up to there still have.
local function borrow(bucket, position, need)
  local changed, lent, rest = sub(bucket, 1, position - 1), '', 0
  while need > 0 do
    local grant, available, held, after = match(bucket, '^ (%d+):(%d+):(%d+)()', position)
    if not grant then
      break
    end
    local part = min(available, need)
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

-- Returns the bucket with one grant's available, held and spent credits changed by so much.
local function change(bucket, grant, available, held, spent)
  local _, last = find(bucket, ' ' .. grant .. ':', 1, true)
  local a, h, s, after = match(bucket, '^(%d+):(%d+):(%d+)()', last + 1)
  return sub(bucket, 1, last) .. digits(a + available) .. ':' .. digits(h + held) .. ':' .. digits(s + spent)
    .. sub(bucket, after)
end

-- A run from its text: only what most verbs need, `read_claim` reads the rest. Nil if there is none.
local function read_run(text)
  if not text then
    return nil
  end
  local grants, epoch, token, created, claim, client =
    match(text, '^held\n([^\n]*)\n(%d+)\n([^\n]*)\n([^\n]*)\n()([^\n]*)')
  if grants then
    return {
      grants = grants, epoch = epoch, token = token, created = created, client = client, claim = claim, text = text,
    }
  end
  local settlement, entry
  settlement, client, entry = match(text, '^settled\n([^\n]*)\n([^\n]*)\n(.*)$')
  return { settled = true, settlement = settlement, client = client, entry = entry }
end

local function hold_text(grants, epoch, token, created, claim)
  return 'held\n' .. grants .. '\n' .. epoch .. '\n' .. token .. '\n' .. created .. '\n' .. claim
end

-- The claim as text, and the claim that begins at a place in a text.
local function claim_of(hold)
  return sub(hold.text, hold.claim)
end

local function read_claim(text, place)
  local client, sku, credits, price, attempt, length, body =
    match(text, '^([^\n]*)\n([^\n]*)\n(%d+)\n(%d+)\n(%d+)\n(%d+)\n()', place or 1)
  return {
    client = client, sku = sku, credits = tonumber(credits), price = price, attempt = attempt,
    head = sub(text, body, body + length - 1), draft = sub(text, body + length),
  }
end

local function write_claim(claim)
  return table.concat({
    claim.client, claim.sku, digits(claim.credits), claim.price, claim.attempt, #claim.head, claim.head .. claim.draft,
  }, '\n')
end

-- What the bucket lent to a hold, in the order in which it is charged.
local function lent(hold, epoch)
  if hold and hold.epoch == epoch then
    return read_shares(hold.grants)
  end
  return {}
end

-- Gives what is left of a hold back to its grants, debt first: the only way back. `held` is what was lent, `left` what
-- of it was not charged. Returns the changed bucket, what is still owed, and what repaid debt.
local function give_back(bucket, owed, held, left)
  local repaid
  for i = 1, #held, 2 do
    local pays = min(owed, left[i + 1])
    if pays > 0 then
      owed = owed - pays
      repaid = repaid or {}
      join(repaid, held[i], pays)
    end
    bucket = change(bucket, held[i], left[i + 1] - pays, -held[i + 1], held[i + 1] - left[i + 1])
  end
  return bucket, owed, repaid
end

local function note_repaid(grants_key, repaid)
  for i = 1, repaid and #repaid or 0, 2 do
    call('HINCRBY', grants_key, 'r:' .. repaid[i], digits(repaid[i + 1]))
  end
end

-- The sum of all that was granted and of all debt there ever was: no sum over a bucket is larger.
local function total_of(grants_key)
  local flat, total = call('HGETALL', grants_key), 0
  for i = 1, #flat, 2 do
    if sub(flat[i], 1, 2) == 'g:' or flat[i] == 's:0' then
      total = total + tonumber(flat[i + 1])
    end
  end
  return total
end
