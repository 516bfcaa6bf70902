-- Shared by every verb; the loader puts this text in front of them, in one function library.
--
-- How a bucket is written stands in bucket.lua, its marks in marks.lua.
--
-- A run is a string, a field a line, so that a hold stays small and is read and written by one command:
--   held     grants ("12:30 15:5")  epoch  token  created (s µs)  then the claim, as the client wrote it:
--            client  sku  credits  price version  attempt  length of head  head and draft
--   settled  settlement id  client  entry id
-- A hold of another epoch than its bucket's covers nothing: that bucket never lent it. Shares of grants are flat lists
-- in the scripts: { '12', 30, '15', 5 }. A hold's share of "grant 0" is overdraft room, which no grant covers.
-- A record that is neither is no run's: billing did not write it.
--
-- All reading and deciding comes before the first write, since a script that fails half way is not rolled back.

local CREDITS_MAX = 9007199254740991 -- 2^53 - 1, the last whole number that a double counts to

-- Raised where a bucket is not one that billing wrote, before anything is written; a verb then answers `CORRUPT`, for
-- this one client (L10).
local CORRUPT = 'a bucket that billing did not write'

local byte, call, find, floor, format, gmatch, match, min, sub
local server_run_id

-- Runs before every verb. A server process loads this library anew, so that its own run id is asked for once; and what
-- a library may use is there at its first call only, not yet when it is loaded.
local function begin()
  if call then
    return
  end
  byte, find, format, gmatch = string.byte, string.find, string.format, string.gmatch
  match, sub = string.match, string.sub
  floor, min = math.floor, math.min
  server_run_id = match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  call = redis.call
end

-- A verb as it is registered: `reply` is its answer where a bucket is not one that billing wrote.
local function guarded(verb, reply)
  return function(KEYS, ARGV)
    local done, answer = pcall(verb, KEYS, ARGV)
    if done then
      return answer
    end
    if answer == CORRUPT then
      return reply
    end
    error(answer, 0)
  end
end

local function corrupt()
  error(CORRUPT, 0)
end

-- A key of another type holds nothing that billing wrote: as a bucket it is corrupt, as a run it is none.
local function read_key(key)
  local value = redis.pcall('GET', key)
  return type(value) ~= 'table' and value or nil, type(value) == 'table'
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
  return settlement and { settled = true, settlement = settlement, client = client, entry = entry }
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
