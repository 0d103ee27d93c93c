-- Which runs are archived, and who writes one, in the run's own meta.
--
-- KEYS  run:{42}:meta
-- ARGV  claim <writer> <lease ms>
--         -> MINE <epoch> | LATER <ms> | NOTHING '' | GONE ''
--       settle <writer> <epoch, or nothing if it was not archived>
--         -> OK '' | LATE ''
--
-- Fields beside those of runcast.lua: ad the epoch that was archived last, aw
-- who writes the one that is over, au until when that holds (ms).

local key, verb, writer = KEYS[1], ARGV[1], ARGV[2]
local known = redis.call('HMGET', key, 'e', 'c', 'g', 'ad', 'aw', 'au')
local epoch, closed, sealed = known[1], known[2], known[3]
local archived, by, until_ms = known[4], known[5], tonumber(known[6]) or 0

if verb == 'settle' then
  if by ~= writer then return { 'LATE', '' } end
  if ARGV[3] ~= '' then redis.call('HSET', key, 'ad', ARGV[3]) end
  redis.call('HDEL', key, 'aw', 'au')
  return { 'OK', '' }
end

if not epoch then return { 'GONE', '' } end
if not closed or archived == epoch then return { 'NOTHING', '' } end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
-- Version 1 of the library did not note the end of the grace.
local sealed_us = tonumber(sealed) or tonumber(closed) + 2000000
if now_us <= sealed_us then
  return { 'LATER', string.format('%.0f', math.ceil((sealed_us - now_us) / 1000) + 1) }
end
if by and by ~= writer and until_ms > now then
  return { 'LATER', string.format('%.0f', until_ms - now + 1) }
end
redis.call('HSET', key, 'aw', writer, 'au', string.format('%.0f', now + tonumber(ARGV[3])))
return { 'MINE', epoch }
