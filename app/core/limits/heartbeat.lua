-- Says that a worker lives and counts those that do, by this server's clock: the workers' own may disagree.
-- KEYS[1] a sorted set of workers by heartbeat, ARGV[1] the worker, ARGV[2] seconds after which a silent one is gone,
-- ARGV[3] a second. Returns {how many live, 1 if this one was not among them, how many were heard of after that second}:
-- a worker that was here before learns that it was forgotten, and who else is back.

local now = tonumber(redis.call('TIME')[1])
local written = redis.pcall('ZADD', KEYS[1], now, ARGV[1])
if type(written) == 'table' and written.err then
  return redis.error_reply(string.match(written.err, '%u%u+ .*') or written.err)  -- see limiter.lua
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - tonumber(ARGV[2])))
redis.call('EXPIRE', KEYS[1], 3600)
return {redis.call('ZCARD', KEYS[1]), written, redis.call('ZCOUNT', KEYS[1], '(' .. ARGV[3], '+inf')}
