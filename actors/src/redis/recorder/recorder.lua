-- Who records plain messages, and how it is fenced off from who did before.
--
-- KEYS  run:{_recorder}
-- ARGV  hold <broker> <channels> <lease ms> <patience ms>
--            <held 0|1> <fresh 0|1> <continuous 0|1> <lost 0|1>
--         -> <whose: mine, other, nobody> <number> <renewals> <breaks>
--       release <broker> <channels>                                    -> 0|1
--
-- KEYS  run:{42}:meta
-- ARGV  fence <number> <ttl s> <channel> <notice>
--         -> OK <last seq> | FENCED <number>
--
-- The lease is a hash: h its holder, n its number (grows with each holder),
-- u until when it holds (ms), r how often a holder that keeps up renewed it,
-- b when messages may have been missed by all, last (ms).

local key, verb = KEYS[1], ARGV[1]

if verb == 'fence' then
  local number = tonumber(ARGV[2])
  local known = redis.call('HMGET', key, 'p:_plain', 'e', 's', 'u')
  local epoch, seq = string.match(known[1] or '', '^(%d+):(%d+):')
  if epoch and tonumber(epoch) > number then return { 'FENCED', epoch } end
  if not epoch or tonumber(epoch) < number then
    seq = '0'
    local last = (known[2] or '0') .. '-' .. (known[3] or '0') .. '-' .. (known[4] or '0')
    redis.call('HSET', key, 'p:_plain', ARGV[2] .. ':0:' .. last)
    if redis.call('TTL', key) < 0 then redis.call('EXPIRE', key, ARGV[3]) end
  end
  -- It comes behind the copy of everything that was recorded before.
  redis.call('PUBLISH', ARGV[4], ARGV[5])
  return { 'OK', seq }
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', key, 'h', 'n', 'u', 'r', 'b')
local holder, number, until_ms = known[1], tonumber(known[2]), tonumber(known[3]) or 0
local renewals, breaks = tonumber(known[4]) or 0, tonumber(known[5]) or 0
local broker = ARGV[2]

if verb == 'release' then
  if holder ~= broker then return 0 end
  redis.call('HSET', key, 'h', '', 'u', string.format('%.0f', now))
  redis.call('PUBLISH', ARGV[3] .. 'free', '')
  return 1
end

local channels, lease, patience = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local held, fresh = ARGV[6] == '1', ARGV[7] == '1'
local continuous, lost = ARGV[8] == '1', ARGV[9] == '1'

local function int(value)
  return string.format('%.0f', value or 0)
end

if holder == broker and not held then
  -- It gave the lease up, and could not say so.
  holder, until_ms = '', now
  redis.call('HSET', key, 'h', '', 'u', int(now))
  redis.call('PUBLISH', channels .. 'free', '')
end
if holder ~= broker then
  if now < until_ms then return { 'other', int(number), int(renewals), int(breaks) } end
  -- Who may have missed something lets others go first.
  if number and not continuous and now < until_ms + patience then
    return { 'nobody', int(number), int(renewals), int(breaks) }
  end
  number = math.max((number or 0) + 1, now)
  lost = lost or not continuous
end
if fresh then renewals = renewals + 1 end
if lost then breaks = math.max(breaks + 1, now) end
redis.call('HSET', key, 'h', broker, 'n', int(number), 'u', int(now + lease),
  'r', int(renewals), 'b', int(breaks))
if lost then redis.call('PUBLISH', channels .. 'break', '') end
return { 'mine', int(number), int(renewals), int(breaks) }
