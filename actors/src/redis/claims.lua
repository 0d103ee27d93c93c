-- Claims of posts: a post with a key is published by one broker, once.
--
-- KEYS  run:{42}:once:<key>  run:{42}:meta
-- ARGV  claim <fingerprint> <lease ms> <ttl ms>
--         -> MINE <turn> | BUSY | SETTLED <answer> | OTHER
--       settle <turn> <ttl ms> <answer> <producer>  -> OK | LATE
--       release <turn>                              -> OK | LATE
--
-- The claim is a hash: f fingerprint of the post, n how often it was claimed,
-- u until when the last one holds (ms), a the answer once there is one.

local claim, meta = KEYS[1], KEYS[2]
local verb = ARGV[1]

if verb == 'claim' then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local known = redis.call('HMGET', claim, 'f', 'a', 'u', 'n')
  if known[1] and known[1] ~= ARGV[2] then return { 'OTHER', '' } end
  if known[2] then return { 'SETTLED', known[2] } end
  if known[3] and tonumber(known[3]) > now then return { 'BUSY', '' } end
  local turn = (tonumber(known[4]) or 0) + 1
  redis.call('HSET', claim, 'f', ARGV[2], 'n', turn,
    'u', string.format('%.0f', now + tonumber(ARGV[3])))
  redis.call('PEXPIRE', claim, ARGV[4])
  return { 'MINE', tostring(turn) }
end

if redis.call('HGET', claim, 'n') ~= ARGV[2] then return { 'LATE', '' } end
if verb == 'settle' then
  redis.call('HSET', claim, 'a', ARGV[4], 'u', '0')
  redis.call('PEXPIRE', claim, ARGV[3])
  -- From now on the answer stands for the post. Where it was claimed again,
  -- somebody may still be about to publish it: then its numbers stay known.
  if ARGV[2] == '1' then redis.call('HDEL', meta, 'p:' .. ARGV[5]) end
else
  redis.call('HSET', claim, 'u', '0')
end
return { 'OK', '' }
