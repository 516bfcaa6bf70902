-- stage: replace the draft of a held run's usage event, so that it can be finished if the worker dies.
--
-- KEYS   1 run (string)  2 server (string)
-- ARGV   1 attempt token  2 draft  3 head, or '' to leave it
-- Reply  1 staged | 0 no hold of this attempt, or recovering
-- Atomic because a stale attempt must not write into the hold of a live one.

if recovering(KEYS[2]) then
  return 0
end
local hold = read_run((read_key(KEYS[1])))
if not hold or hold.settled or hold.token ~= ARGV[1] and hold.token ~= '*' then
  return 0
end
local claim = read_claim(hold.text, hold.claim)
claim.draft = ARGV[2]
if ARGV[3] ~= '' then
  claim.head = ARGV[3]
end
call('SET', KEYS[1], hold_text(hold.grants, hold.epoch, hold.token, hold.created, write_claim(claim)))
return 1
