-- One organization's bucket: its UTC minute with what rolled over, and its UTC day; both pay for a request or neither.
-- bucket.py is the same arithmetic in Python, and a test holds the two together.
--
-- KEYS[1]  the bucket, a hash: m slot (minutes since 1970), u used in it, c carried into it, d day, U used in it
-- ARGV     per_minute burst per_day want before_us [slot day want_day [m u c d U]]
--   want       requests that ask; as many as there is room for are granted, 0 only looks
--   before_us  Redis's time in microseconds after which the caller no longer waits and must not be charged; 0: never
--   slot, day  settle instead of ask: add `want` to u if `slot` is still the current one, `want_day` to U if `day` is
--   m u c d U  beside settling: the bucket as a worker was told it last, which a server that lost its data falls short of
-- Returns  "granted u c U m d seconds microseconds" after the decision, by this server's clock.

local per_minute, burst, per_day = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local want, before_us = tonumber(ARGV[4]), tonumber(ARGV[5])
local clock = redis.call('TIME')
local seconds, microseconds = tonumber(clock[1]), tonumber(clock[2])

if before_us > 0 and seconds * 1000000 + microseconds > before_us then
  return redis.error_reply('LATE the caller no longer waits')
end

local slot_now, day_now = math.floor(seconds / 60), math.floor(seconds / 86400)
local stored = redis.call('HMGET', KEYS[1], 'm', 'u', 'c', 'd', 'U')
local m, u, c, d, U = slot_now, 0, burst, day_now, 0
local rolled = not stored[1]

if ARGV[9] then
  local told = {tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])}
  if not stored[1] then
    stored = told
  else
    if tonumber(stored[1]) == told[1] then
      stored[2], stored[3] = math.max(tonumber(stored[2]), told[2]), math.min(tonumber(stored[3]), told[3])
    end
    if tonumber(stored[4]) == told[4] then
      stored[5] = math.max(tonumber(stored[5]), told[5])
    end
  end
end

if stored[1] then
  m, u, c = tonumber(stored[1]), tonumber(stored[2]), tonumber(stored[3])
  d, U = tonumber(stored[4]), tonumber(stored[5])
  if m - slot_now > 2 or d - day_now > 1 then
    -- A clock that far ahead was wrong (failover to another machine): what was used stays used, nothing is carried.
    m, d, c, rolled = slot_now, day_now, 0, true
  end
  if slot_now > m then
    local left = math.max(0, per_minute + math.min(c, burst) - u)
    c = math.min(burst, left + (slot_now - m - 1) * per_minute)
    m, u, rolled = slot_now, 0, true
  end
  if day_now > d then
    d, U, rolled = day_now, 0, true
  end
end

local granted = want
if ARGV[6] then
  if tonumber(ARGV[6]) == m then
    u = u + want
  end
  if tonumber(ARGV[7]) == d then
    U = U + tonumber(ARGV[8])
  end
else
  local tokens = math.max(0, per_minute + math.min(c, burst) - u)
  granted = math.min(want, tokens, math.max(0, per_day - U))
  u, U = u + granted, U + granted
end

-- A steady denial and a look write nothing, so they cost no replication and no append-only file.
if granted > 0 or ARGV[6] or (rolled and want > 0) then
  -- OOM, READONLY and MISCONF go back under their own names: Redis 6 puts the script's name and line first.
  local written = redis.pcall('HSET', KEYS[1], 'm', m, 'u', u, 'c', c, 'd', d, 'U', U)
  if type(written) == 'table' and written.err then
    return redis.error_reply(string.match(written.err, '%u%u+ .*') or written.err)
  end
  if rolled then
    -- Garbage collection only: by then an idle bucket is full and its day over, which is what a missing key means.
    local idle_seconds = math.max(3600, 60 * (2 + math.ceil(burst / per_minute)))
    redis.call('EXPIREAT', KEYS[1], (d + 1) * 86400 + idle_seconds)
  end
end

-- One text: to read it costs the caller a fifth of what eight integers do.
return string.format('%d %d %d %d %d %d %d %d', granted, u, c, U, m, d, seconds, microseconds)
