-- Shared by every verb; the loader puts this text in front of them, in one function library.
--
-- A bucket is a hash:
--   epoch   usable   owed   g:<grant> granted   s:<grant> spent   r:<grant> spent on repaying debt
-- `usable` holds the grants that can pay, in burn order, each with what is available, held and spent:
--   " 12:70:30:0 15:50:0:0"; a grant that is used up has left it, and its spent credits stand in s:<grant>.
-- `s:0` is all that nothing covered when it was settled. A missing number is 0. Every verb keeps (L2):
--   per grant   granted = available + held + spent + repaid
--   per client  owed = s:0 - sum(r);  owed > 0 implies that nothing is available, since whatever comes back pays debt
--
-- A run is a string, a field a line, so that a hold stays small and is read and written by one command:
--   held     grants ("12:30 15:5")  epoch  token  created  then the claim, as the client wrote it:
--            client  sku  credits  price version  attempt  length of head  head and draft
--   settled  settlement id  client  entry id
-- A hold of another epoch than its bucket's covers nothing: that bucket never lent it.
--
-- All reading and deciding comes before the first write, since a script that fails half way is not rolled back.

local CREDITS_MAX = 9007199254740991 -- 2^53 - 1, the last whole number that a double counts to

-- Lua's own conversion writes 1e+15; this one is exact.
local function digits(number)
  return string.format('%.0f', number)
end

-- This library is loaded anew by every server process, so that its own run id is asked for once.
local server_run_id

local function current_server()
  if not server_run_id then
    server_run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  end
  return server_run_id
end

-- A shard is trusted only on the server under which it was built or verified (L6).
local function recovering(server_key)
  return redis.call('GET', server_key) ~= current_server()
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
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

-- Takes up to `need` from the front of `from` into `to`; returns how much of the need is left.
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

-- What is available in burn order, but no more than covers `need`; and its sum.
local function available_for(usable, need)
  local shares, sum = {}, 0
  for grant, available in string.gmatch(usable, ' (%d+):(%d+)') do
    available = tonumber(available)
    if available > 0 then
      shares[#shares + 1] = { grant, available }
      sum = sum + available
      if sum >= need then
        break
      end
    end
  end
  return shares, sum
end

-- Returns `usable` with one grant's available, held and spent credits changed by so much.
local function change(usable, grant, available, held, spent)
  local _, last = string.find(usable, ' ' .. grant .. ':', 1, true)
  local a, h, s, after = string.match(usable, '^(%d+):(%d+):(%d+)()', last + 1)
  return string.sub(usable, 1, last) .. digits(a + available) .. ':' .. digits(h + held) .. ':' .. digits(s + spent)
    .. string.sub(usable, after)
end

-- The stored run, or nil: only what most verbs need, `read_claim` reads the rest.
local function read_run(run_key)
  local text = redis.call('GET', run_key)
  if not text then
    return nil
  end
  local grants, epoch, token, created, claim = string.match(text, '^held\n([^\n]*)\n(%d+)\n([^\n]*)\n(%d+)\n()')
  if grants then
    return { grants = grants, epoch = epoch, token = token, created = created, claim = string.sub(text, claim) }
  end
  local settlement, client, entry = string.match(text, '^settled\n([^\n]*)\n([^\n]*)\n(.*)$')
  return { settled = true, settlement = settlement, client = client, entry = entry }
end

local function write_hold(run_key, grants, epoch, token, created, claim)
  redis.call('SET', run_key, 'held\n' .. grants .. '\n' .. epoch .. '\n' .. token .. '\n' .. created .. '\n' .. claim)
end

local function client_of(run)
  return run.client or string.match(run.claim, '^[^\n]*')
end

local function read_claim(text)
  local client, sku, credits, price, attempt, length, body =
    string.match(text, '^([^\n]*)\n([^\n]*)\n(%d+)\n(%d+)\n(%d+)\n(%d+)\n()')
  return {
    client = client, sku = sku, credits = tonumber(credits), price = price, attempt = attempt,
    head = string.sub(text, body, body + length - 1), draft = string.sub(text, body + length),
  }
end

local function write_claim(claim)
  return table.concat({
    claim.client, claim.sku, digits(claim.credits), claim.price, claim.attempt, #claim.head, claim.head .. claim.draft,
  }, '\n')
end

-- What the bucket lent to a hold, in the order in which it is charged, and its sum.
local function lent(hold, epoch)
  if not hold or hold.epoch ~= epoch then
    return {}, 0
  end
  local shares, sum = read_shares(hold.grants), 0
  for _, share in ipairs(shares) do
    sum = sum + share[2]
  end
  return shares, sum
end

-- Lends what `shares` say out of what is available; returns the changed `usable`.
local function lend(usable, shares)
  for _, share in ipairs(shares) do
    usable = change(usable, share[1], -share[2], share[2], 0)
  end
  return usable
end

-- Gives all of a hold back to its grants, debt first: together with settle's the only way back.
local function give_back(bucket_key, hold)
  local state = redis.call('HMGET', bucket_key, 'epoch', 'usable', 'owed')
  local usable, owed = state[2], tonumber(state[3] or 0)
  local shares, sum = lent(hold, state[1])
  if sum == 0 then
    return
  end
  local repaid = {}
  for _, share in ipairs(shares) do
    local pays = math.min(owed, share[2])
    owed = owed - pays
    usable = change(usable, share[1], share[2] - pays, -share[2], 0)
    repaid[#repaid + 1] = { share[1], pays }
  end
  redis.call('HSET', bucket_key, 'usable', usable)
  for _, share in ipairs(repaid) do
    if share[2] > 0 then
      redis.call('HINCRBY', bucket_key, 'r:' .. share[1], digits(share[2]))
      redis.call('HINCRBY', bucket_key, 'owed', digits(-share[2]))
    end
  end
end

-- The sum of all that was granted and of all debt there ever was: no sum over a bucket is larger.
local function total_of(bucket_key)
  local flat, total = redis.call('HGETALL', bucket_key), 0
  for i = 1, #flat, 2 do
    if string.sub(flat[i], 1, 2) == 'g:' or flat[i] == 's:0' then
      total = total + tonumber(flat[i + 1])
    end
  end
  return total
end
