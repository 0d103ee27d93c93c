#!lua name=runcast

-- Durable publish: one atomic step that appends an event to its run's stream
-- and announces a framed copy. Loaded by every broker at start; any Redis
-- client may call it:
--
--   FCALL runcast_publish 2 run:{42}:stream run:{42}:meta
--         42 output stdout <payload>
--         [MAXLEN n] [MAXBYTES n] [TTL s] [GRACE ms] [MAXEVENT n]
--         [TERMINAL status,status…] [RESTART]
--   -> ["OK", "<epoch>-<seq>-<us>"] | ["CLOSED", id] | ["TOO_LARGE", limit]
--
-- Keys share the run id as hash tag, so they lie in one cluster slot.
-- meta: e epoch (ms), s last seq, u its us, b bytes of all payloads, c time of
-- the terminal status (us).

local VERSION = 1

local DEFAULTS = {
  MAXLEN = 10000,
  MAXBYTES = 16 * 1024 * 1024,
  TTL = 24 * 3600,
  GRACE = 2000,
  MAXEVENT = 256 * 1024,
}
-- The run's memory outlives its history, so that ids never come again.
local META_TTL_EXTRA = 24 * 3600

local TERMINAL = {
  completed = true, succeeded = true, failed = true, cancelled = true,
  canceled = true, error = true, timeout = true,
}
local KINDS = { output = true, status = true, log = true }

local function options(args)
  local opts = { RESTART = false, TERMINAL = TERMINAL }
  for name, value in pairs(DEFAULTS) do opts[name] = value end
  local i = 5
  while i <= #args do
    local name = string.upper(args[i])
    if name == 'RESTART' then
      opts.RESTART = true
      i = i + 1
    elseif name == 'TERMINAL' and args[i + 1] then
      opts.TERMINAL = {}
      for word in string.gmatch(args[i + 1], '[^,]+') do
        opts.TERMINAL[string.lower(word)] = true
      end
      i = i + 2
    elseif DEFAULTS[name] then
      local value = tonumber(args[i + 1])
      if not value or value < 1 then return nil, 'bad value of ' .. name end
      opts[name] = math.floor(value)
      i = i + 2
    else
      return nil, 'unknown option ' .. name
    end
  end
  return opts
end

-- Whether a status event's data ends the run: a word, as a JSON string, as
-- plain text, or as field `status` of an object.
local function is_terminal(kind, data, statuses)
  if kind ~= 'status' or #data > 65536 then return false end
  local ok, value = pcall(cjson.decode, data)
  if not ok then value = data end
  if type(value) == 'table' then value = value.status end
  return type(value) == 'string' and statuses[string.lower(value)] == true
end

local function publish(keys, args)
  local stream, meta = keys[1], keys[2]
  local run, kind, source, data = args[1], args[2], args[3], args[4]
  if #keys ~= 2 or not data then
    return redis.error_reply('ERR runcast_publish takes 2 keys and run, kind, source, payload')
  end
  if not KINDS[kind] then return redis.error_reply('ERR unknown kind ' .. kind) end
  local opts, problem = options(args)
  if not opts then return redis.error_reply('ERR ' .. problem) end
  if #data > opts.MAXEVENT then return { 'TOO_LARGE', tostring(opts.MAXEVENT) } end

  local time = redis.call('TIME')
  -- Numbers stay below 2^53, where Lua's are exact.
  local us = time[1] * 1000000 + time[2]
  local known = redis.call('HMGET', meta, 'e', 's', 'u', 'b', 'c')
  local epoch, seq = tonumber(known[1]), tonumber(known[2])
  local last_us, bytes, closed = tonumber(known[3]), tonumber(known[4]), tonumber(known[5])

  if opts.RESTART and epoch then
    local next_epoch = math.max(math.floor(us / 1000), epoch + 1)
    redis.call('DEL', stream, meta)
    epoch, seq, last_us, bytes, closed = next_epoch, 0, 0, 0, nil
  elseif not epoch then
    redis.call('DEL', stream)
    epoch, seq, last_us, bytes = math.floor(us / 1000), 0, 0, 0
  end
  if closed and us > closed + opts.GRACE * 1000 then
    return { 'CLOSED', string.format('%.0f-%.0f-%.0f', epoch, seq, last_us) }
  end
  -- A clock set back does not turn ids back.
  if us < last_us then us = last_us end

  seq = seq + 1
  bytes = bytes + #data + #source
  -- The byte budget is kept by keeping fewer events of this run's mean size.
  local keep = math.max(1, math.min(opts.MAXLEN, math.floor(opts.MAXBYTES * seq / math.max(bytes, 1))))
  local entry = string.format('%.0f-%.0f', seq, us)
  redis.call('XADD', stream, 'MAXLEN', '~', keep, entry, 'k', kind, 's', source, 'd', data)
  -- Only now is the number taken: a failed add burns none.
  local terminal = is_terminal(kind, data, opts.TERMINAL)
  if terminal and not closed then
    redis.call('HSET', meta, 'c', string.format('%.0f', us))
  end
  redis.call('HSET', meta, 'e', string.format('%.0f', epoch), 's', string.format('%.0f', seq),
    'u', string.format('%.0f', us), 'b', string.format('%.0f', bytes))
  redis.call('EXPIRE', stream, opts.TTL)
  redis.call('EXPIRE', meta, opts.TTL + META_TTL_EXTRA)

  local prefix = string.match(stream, '^(.*){')
  local header = string.format('1 %.0f %.0f %.0f 0 %s %d %d %s\n',
    epoch, seq, us, kind, terminal and 1 or 0, #source, source)
  redis.call('PUBLISH', prefix .. '{' .. run .. '}:events', header .. data)
  return { 'OK', string.format('%.0f-%.0f-%.0f', epoch, seq, us) }
end

redis.register_function('runcast_publish', publish)
redis.register_function {
  function_name = 'runcast_version',
  callback = function() return VERSION end,
  flags = { 'no-writes' },
}
