-- The gateway workers that live, with what each says of itself, by this server's clock: the workers' own may disagree.
-- KEYS[1] a hash of texts by worker, KEYS[2] a sorted set of workers by heartbeat
-- ARGV[1] seconds after which a silent worker is gone; ARGV[2], ARGV[3] the worker that speaks and its text, both absent
-- for somebody who only looks. Returns the texts.

local now = tonumber(redis.call('TIME')[1])
local gone = '(' .. (now - tonumber(ARGV[1]))
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', gone)) do
  redis.call('HDEL', KEYS[1], worker)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', gone)

if ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  redis.call('ZADD', KEYS[2], now, ARGV[2])
  redis.call('EXPIRE', KEYS[1], 3600)
  redis.call('EXPIRE', KEYS[2], 3600)
end
return redis.call('HVALS', KEYS[1])
