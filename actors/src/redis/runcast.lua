#!lua name=runcast

-- A run's history in Redis: how it is appended to, and how it is read.
--
-- One source, used in two ways. As a function library, loaded by every broker
-- at start. Where functions are missing or forbidden, as scripts: the first
-- line then gives way to `local SCRIPT = 'publish'` or `'read'`.
--
--   FCALL runcast_publish 2 run:{42}:stream run:{42}:meta
--         42 output stdout <payload>
--         [MAXLEN n] [MAXBYTES n] [TTL s] [GRACE ms] [MAXEVENT n]
--         [TERMINAL status,status…] [RESTART] [PRODUCER id epoch seq]
--         [TRACE "traceparent tracestate"]
--   -> ["OK", "<epoch>-<seq>-<us>"] | ["DUP", id or ""] | ["FENCED", epoch]
--      | ["CLOSED", id] | ["TOO_LARGE", limit]
--
-- appends an event to its run's stream and announces a framed copy on
-- run:{42}:events, in one atomic step. Any Redis client may call it. TRACE of a
-- trace that is recorded is kept with the event, and announced right before it.
--
--   FCALL_RO runcast_read 2 run:{42}:stream run:{42}:meta
--         after|before <seq> <most events> <most bytes>
--   -> [] | [head, now, first id, anchor id, entries, more 0|1]
--
-- reads a page of the stream and the run's state, of one moment.
--
-- Keys share the run id as hash tag, so they lie in one cluster slot.
--   stream  <seq>-<us>: k kind, s source, d data, l lost (if any),
--           p <producer>:<its epoch>:<its seq> (if numbered), t trace (if recorded)
--   meta    e epoch (ms), s last seq, u its us, b bytes of all payloads and
--           sources, t terminal status, c its time (us), g end of the grace
--           (us), l last status word, ko ks kl events accepted by kind,
--           p:<producer> <its epoch>:<its last seq>:<id of that event>

local VERSION = 4
-- Whether events are announced only where their run is subscribed to by its
-- name (`SSUBSCRIBE`), not at every node of a Cluster. Whoever loads the library
-- says so, by this line.
local SHARDED = false

local DEFAULTS = {
  MAXLEN = 10000,
  MAXBYTES = 16 * 1024 * 1024,
  TTL = 24 * 3600,
  GRACE = 2000,
  MAXEVENT = 256 * 1024,
}
-- The run's memory outlives its history, so that ids never come again.
local META_TTL_EXTRA = 24 * 3600
local TERMINAL = 'completed,succeeded,failed,cancelled,canceled,error,timeout'
-- Kinds, and where meta counts them.
local KINDS = { output = 'ko', status = 'ks', log = 'kl' }
local STATUS_CHARS_MAX = 64
-- Of so many producers a run remembers the numbers; the one silent longest is
-- forgotten first.
local PRODUCERS_MAX = 64
-- How far back an old number is looked for.
local SCAN_ENTRIES_MAX, SCAN_BYTES_MAX = 1000, 4 * 1024 * 1024
-- Entries read at a time: first few, since they may be large.
local CHUNK_MIN, CHUNK_MAX = 4, 128
-- The producer that records what others only publish: the copies of its events
-- say so.
local RECORDER = '_plain'
local TRACE_BYTES_MAX = 600
-- Numbers stay below 2^53, where Lua's are exact.
local NUMBER_MAX = 9007199254740992

local function int(number)
  return string.format('%.0f', number)
end

local function id_of(epoch, seq, us)
  return string.format('%.0f-%.0f-%.0f', epoch, seq, us)
end

-- Returns field `name` of a stream entry.
local function field(entry, name)
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- Reads a decimal number of at least `min`.
local function whole(text, min)
  local number = text and string.match(text, '^%d+$') and tonumber(text)
  return number and number >= min and number < NUMBER_MAX and number or nil
end

-- ---- options ---------------------------------------------------------------

local function producer_option(id, epoch, seq)
  if not id or not string.match(id, '^[%w._-]+$') or #id > 64 then return nil end
  epoch, seq = whole(epoch, 0), whole(seq, 1)
  if not epoch or not seq then return nil end
  local tag = id .. ':' .. int(epoch) .. ':'
  return { field = 'p:' .. id, tag = tag, epoch = epoch, seq = seq }
end

-- Returns a W3C traceparent, perhaps with a space and its tracestate, if it is of
-- a trace that is recorded. No event is refused because of its trace.
local function trace_option(text)
  local trace_id, parent_id = string.match(text, '^%x%x%-(%x+)%-(%x+)%-%x[13579bdf]')
  local is_good = trace_id and #trace_id == 32 and #parent_id == 16
  return is_good and #text <= TRACE_BYTES_MAX and text or nil
end

local function options(args)
  local opts = { TERMINAL = TERMINAL }
  for name, value in pairs(DEFAULTS) do opts[name] = value end
  local i = 5
  while i <= #args do
    local name = string.upper(args[i])
    if name == 'RESTART' then
      opts.RESTART = true
      i = i + 1
    elseif name == 'TERMINAL' and args[i + 1] then
      opts.TERMINAL = args[i + 1]
      i = i + 2
    elseif name == 'PRODUCER' then
      opts.PRODUCER = producer_option(args[i + 1], args[i + 2], args[i + 3])
      if not opts.PRODUCER then return nil, 'bad value of PRODUCER' end
      i = i + 4
    elseif name == 'TRACE' and args[i + 1] then
      opts.TRACE = trace_option(args[i + 1])
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

-- ---- statuses --------------------------------------------------------------

-- The status as a word: a JSON string, field `status` of an object, or plain
-- text.
local function status_word(data)
  if #data > 65536 then return nil end
  local ok, value = pcall(cjson.decode, data)
  if not ok then return data end
  if type(value) == 'table' then value = value.status end
  return type(value) == 'string' and value or nil
end

local function is_terminal(word, statuses)
  word = string.lower(word)
  for status in string.gmatch(statuses, '[^,]+') do
    if string.lower(status) == word then return true end
  end
  return false
end

-- The first characters of a UTF-8 text.
local function short(text)
  if #text <= STATUS_CHARS_MAX then return text end
  local chars = {}
  for char in string.gmatch(text, '[%z\1-\127\192-\255][\128-\191]*') do
    chars[#chars + 1] = char
    if #chars == STATUS_CHARS_MAX then break end
  end
  return table.concat(chars)
end

-- ---- producers -------------------------------------------------------------

-- Returns the id of the event that its producer gave a number before its last
-- one, or '' if it is not found: too old, trimmed, or overtaken and never
-- accepted.
local function find_event(stream, run_epoch, producer, last)
  local epoch, last_seq = string.match(last.id, '^(%d+)-(%d+)-%d+$')
  if tonumber(epoch) ~= run_epoch then return '' end
  local function id_in(entry)
    local seq, us = string.match(entry[1], '^(%d+)-(%d+)$')
    return id_of(run_epoch, tonumber(seq), tonumber(us))
  end
  local wanted = producer.tag .. int(producer.seq)
  -- If it was alone and lost nothing, its event lies just there.
  local guess = tonumber(last_seq) - (last.seq - producer.seq)
  if guess > 0 then
    local entry = redis.call('XRANGE', stream, int(guess), int(guess), 'COUNT', 1)[1]
    if entry and field(entry, 'p') == wanted then return id_in(entry) end
  end
  local before, scanned, bytes = last_seq .. '-0', 0, 0
  while scanned < SCAN_ENTRIES_MAX and bytes < SCAN_BYTES_MAX do
    local chunk = redis.call('XREVRANGE', stream, '(' .. before, '-', 'COUNT', 16)
    for _, entry in ipairs(chunk) do
      local by = field(entry, 'p')
      if by == wanted then return id_in(entry) end
      -- Its numbers grow along the stream.
      if by and string.sub(by, 1, #producer.tag) == producer.tag
        and tonumber(string.sub(by, #producer.tag + 1)) < producer.seq then
        return ''
      end
      bytes = bytes + #(field(entry, 'd') or '')
    end
    if #chunk < 16 then break end
    before, scanned = chunk[#chunk][1], scanned + #chunk
  end
  return ''
end

-- Checks the producer's number. Returns how many of its events were lost
-- before this one, or nil and the answer if this one is not to be accepted.
local function check_producer(stream, run_epoch, producer, known)
  if not known then return producer.seq - 1 end
  local epoch, seq, id = string.match(known, '^(%d+):(%d+):(.*)$')
  local last = { epoch = tonumber(epoch), seq = tonumber(seq), id = id }
  if producer.epoch < last.epoch then return nil, { 'FENCED', int(last.epoch) } end
  -- A new process numbers from 1.
  if producer.epoch > last.epoch then return producer.seq - 1 end
  if producer.seq > last.seq then return producer.seq - last.seq - 1 end
  if producer.seq == last.seq then return nil, { 'DUP', last.id } end
  return nil, { 'DUP', find_event(stream, run_epoch, producer, last) }
end

-- Makes room for another producer.
local function forget_oldest_producer(meta)
  if redis.call('HLEN', meta) < PRODUCERS_MAX then return end
  local all = redis.call('HGETALL', meta)
  local count, oldest, oldest_epoch, oldest_seq = 0, nil, nil, nil
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'p:' then
      count = count + 1
      local epoch, seq = string.match(all[i + 1], ':(%d+)-(%d+)-%d+$')
      epoch, seq = tonumber(epoch), tonumber(seq)
      if not oldest or epoch < oldest_epoch or (epoch == oldest_epoch and seq < oldest_seq) then
        oldest, oldest_epoch, oldest_seq = all[i], epoch, seq
      end
    end
  end
  if count >= PRODUCERS_MAX then redis.call('HDEL', meta, oldest) end
end

-- ---- publish ---------------------------------------------------------------

local function announce(channel, message)
  if SHARDED then
    -- Where it is unknown (before 7.0) or the caller may not: as ever.
    local sent = redis.pcall('SPUBLISH', channel, message)
    if type(sent) == 'number' then return end
  end
  redis.call('PUBLISH', channel, message)
end

-- Returns what meta says of the run; without `epoch` for one it does not know.
local function state(meta, kind, producer)
  local known = redis.call('HMGET', meta, 'e', 's', 'u', 'b', 'c', 'g', KINDS[kind],
    producer and producer.field or 'e')
  return {
    epoch = tonumber(known[1]),
    seq = tonumber(known[2]) or 0,
    us = tonumber(known[3]) or 0,
    bytes = tonumber(known[4]) or 0,
    closed = tonumber(known[5]),
    sealed = tonumber(known[6]),
    count = tonumber(known[7]) or 0,
    producer = producer and known[8],
  }
end

-- Begins an epoch, later than any before it. Producers keep their numbers.
local function begin_epoch(stream, meta, run, now_us)
  local earliest = 0
  if run.epoch then
    earliest = run.epoch + 1
    redis.call('HDEL', meta, 'c', 'g', 't', 'l', 'ko', 'ks', 'kl')
  else
    -- Of a run whose meta is gone the stream still knows about when it was.
    local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    local us = newest and string.match(newest[1], '-(%d+)$')
    if us then earliest = math.floor(tonumber(us) / 1000) + 1 end
  end
  redis.call('DEL', stream)
  run.epoch = math.max(math.floor(now_us / 1000), earliest)
  run.seq, run.us, run.bytes, run.count = 0, run.epoch * 1000, 0, 0
  run.closed, run.sealed = nil, nil
end

local function publish(keys, args)
  local stream, meta = keys[1], keys[2]
  local name, kind, source, data = args[1], args[2], args[3], args[4]
  if #keys ~= 2 or not data then
    return redis.error_reply('ERR runcast_publish takes 2 keys and run, kind, source, payload')
  end
  if not KINDS[kind] then return redis.error_reply('ERR unknown kind ' .. kind) end
  local opts, problem = options(args)
  if not opts then return redis.error_reply('ERR ' .. problem) end

  local producer, lost = opts.PRODUCER, 0
  local run = state(meta, kind, producer)
  -- Before all else: a retry of an accepted event stays one, also when the run
  -- was closed since or that very event began it anew.
  if producer then
    local answer
    lost, answer = check_producer(stream, run.epoch, producer, run.producer)
    if answer then return answer end
  end
  if #data > opts.MAXEVENT then return { 'TOO_LARGE', tostring(opts.MAXEVENT) } end

  local time = redis.call('TIME')
  local us = time[1] * 1000000 + time[2]
  if opts.RESTART or not run.epoch then
    begin_epoch(stream, meta, run, us)
  elseif run.closed then
    -- Version 1 kept no end of the grace.
    local sealed = run.sealed or run.closed + opts.GRACE * 1000
    if us > sealed then return { 'CLOSED', id_of(run.epoch, run.seq, run.us) } end
  end
  -- A clock set back does not turn ids back.
  us = math.max(us, run.us)
  local seq, bytes = run.seq + 1, run.bytes + #data + #source

  -- The byte budget is kept by keeping fewer events of this run's mean size.
  local keep = math.min(opts.MAXLEN, math.floor(opts.MAXBYTES * seq / math.max(bytes, 1)))
  local entry = { 'k', kind, 's', source, 'd', data }
  if lost > 0 then
    entry[7], entry[8] = 'l', int(lost)
  end
  if producer then
    entry[#entry + 1], entry[#entry + 2] = 'p', producer.tag .. int(producer.seq)
  end
  if opts.TRACE then
    entry[#entry + 1], entry[#entry + 2] = 't', opts.TRACE
  end
  redis.call('XADD', stream, 'MAXLEN', '~', int(math.max(1, keep)),
    int(seq) .. '-' .. int(us), unpack(entry))

  -- Only now is the number taken: a failed add burns none.
  local id = id_of(run.epoch, seq, us)
  local known = { 'e', int(run.epoch), 's', int(seq), 'u', int(us), 'b', int(bytes),
    KINDS[kind], int(run.count + 1) }
  local function note(name, value)
    known[#known + 1], known[#known + 2] = name, value
  end
  local terminal = false
  local word = kind == 'status' and status_word(data)
  if word then
    note('l', short(word))
    terminal = is_terminal(word, opts.TERMINAL)
    if terminal and not run.closed then
      note('t', string.lower(word))
      note('c', int(us))
      note('g', int(us + opts.GRACE * 1000))
    end
  end
  if producer then
    if not run.producer then forget_oldest_producer(meta) end
    note(producer.field, int(producer.epoch) .. ':' .. int(producer.seq) .. ':' .. id)
  end
  redis.call('HSET', meta, unpack(known))
  redis.call('EXPIRE', stream, opts.TTL)
  redis.call('EXPIRE', meta, opts.TTL + META_TTL_EXTRA)

  local prefix = string.match(stream, '^(.*){')
  local flags = (terminal and 1 or 0)
    + ((producer and producer.field == 'p:' .. RECORDER) and 2 or 0)
  local header = string.format('1 %.0f %.0f %.0f %.0f %s %d %d %s\n',
    run.epoch, seq, us, lost, kind, flags, #source, source)
  local channel = prefix .. '{' .. name .. '}:events'
  if opts.TRACE then announce(channel, 'trace ' .. id .. ' ' .. opts.TRACE) end
  announce(channel, header .. data)
  return { 'OK', id }
end

-- ---- read ------------------------------------------------------------------

-- Reads entries from a place on, until there are enough or there are no more;
-- says whether there are no more.
local function entries_from(stream, backward, seq, events_max, bytes_max)
  local entries, bytes, chunk_max = {}, 0, CHUNK_MIN
  local last = backward and seq .. '-0' or seq .. '-18446744073709551615'
  while true do
    local count = math.min(chunk_max, events_max - #entries)
    local chunk
    if backward then
      chunk = redis.call('XREVRANGE', stream, '(' .. last, '-', 'COUNT', count)
    else
      chunk = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', count)
    end
    for i, entry in ipairs(chunk) do
      entries[#entries + 1] = entry
      bytes = bytes + #(field(entry, 'd') or '')
      if bytes >= bytes_max then return entries, i == #chunk and #chunk < count end
    end
    if #chunk < count then return entries, true end
    if #entries >= events_max then return entries, false end
    last = chunk[#chunk][1]
    chunk_max = math.min(chunk_max * 2, CHUNK_MAX)
  end
end

local function seq_of(id)
  return tonumber(string.match(id, '^%d+'))
end

local function read(keys, args)
  local stream, meta = keys[1], keys[2]
  local backward, seq = args[1] == 'before', whole(args[2], 0)
  local events_max, bytes_max = whole(args[3], 1), whole(args[4], 0)
  if #keys ~= 2 or not seq or not events_max or not bytes_max
    or (args[1] ~= 'after' and not backward) then
    return redis.error_reply('ERR runcast_read takes 2 keys and after|before, seq, events, bytes')
  end
  local head = redis.call('HMGET', meta, 'e', 's', 'u', 'c', 'g', 't', 'l', 'ko', 'ks', 'kl')
  if not head[1] then return {} end
  if head[4] and not head[5] then head[5] = int(tonumber(head[4]) + DEFAULTS.GRACE * 1000) end

  local time = redis.call('TIME')
  local now = int(time[1] * 1000000 + time[2])
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local anchor = seq > 0 and redis.call('XRANGE', stream, args[2], args[2], 'COUNT', 1)[1]
  local entries, at_end = {}, true
  if first and not (backward and seq == 0) then
    entries, at_end = entries_from(stream, backward, args[2], events_max, bytes_max)
  end
  local more = 0
  if not at_end then
    local edge = seq_of(entries[#entries][1])
    local beyond = backward and edge > seq_of(first[1]) or not backward and edge < tonumber(head[2])
    more = beyond and 1 or 0
  end
  if backward then
    local n = #entries
    for i = 1, math.floor(n / 2) do
      entries[i], entries[n + 1 - i] = entries[n + 1 - i], entries[i]
    end
  end
  return { head, now, first and first[1] or '', anchor and anchor[1] or '', entries, more }
end

-- ---- both ways in ----------------------------------------------------------

if redis.register_function then
  redis.register_function('runcast_publish', publish)
  redis.register_function {
    function_name = 'runcast_read', callback = read, flags = { 'no-writes' },
  }
  redis.register_function {
    function_name = 'runcast_version',
    callback = function() return VERSION end,
    flags = { 'no-writes' },
  }
  redis.register_function {
    function_name = 'runcast_sharded',
    callback = function() return SHARDED and 1 or 0 end,
    flags = { 'no-writes' },
  }
elseif SCRIPT == 'read' then
  return read(KEYS, ARGV)
else
  return publish(KEYS, ARGV)
end
