"""A look whether Redis does what this service needs of it: each command that is used, on keys of its own.

A PING alone is answered by a Redis that takes no writes, or refuses single commands. The keys of queues,
budgets and breakers are only read: one of another type, written by somebody else, keeps a provider from
being asked.
"""

from collections.abc import Iterable

import redis

from providers.rate_limits.redis_scripts import PREFIX, keys_of
from providers.registry import PROVIDER_NAMES

_PROBED_FOR_MS = 1000
_QUEUE = f"{PREFIX}:probe:queue"
_KEYS = [f"{PREFIX}:probe:{name}" for name in ("text", "log", "hash")]

# What the scripts of budgets, breakers and leases call.
PROBE_LUA = f"""
local text, log, hash = unpack(KEYS)
redis.call('TIME')
redis.call('INFO', 'server')
redis.call('SET', text, '1', 'PX', {_PROBED_FOR_MS})
redis.call('GET', text)
redis.call('EXISTS', text)
redis.call('PTTL', text)
redis.call('ZADD', log, 1, 'a')
redis.call('ZSCORE', log, 'a')
redis.call('ZCOUNT', log, 0, 1)
redis.call('ZREVRANGE', log, 0, 0)
redis.call('ZRANGEBYSCORE', log, 0, 1)
redis.call('ZREMRANGEBYSCORE', log, 0, 1)
redis.call('ZREM', log, 'a')
redis.call('HSET', hash, 'a', 1)
redis.call('HGET', hash, 'a')
redis.call('HGETALL', hash)
redis.call('HINCRBY', hash, 'a', 1)
redis.call('PEXPIRE', hash, {_PROBED_FOR_MS})
redis.call('HDEL', hash, 'a')
redis.call('DEL', text)
for i = 4, #KEYS, 6 do
  redis.call('ZSCORE', KEYS[i], 'a')
  redis.call('ZSCORE', KEYS[i + 1], 'a')
  redis.call('HGET', KEYS[i + 4], 'state')
  redis.call('GET', KEYS[i + 5])
end
return 1
"""


def probe_redis(client: redis.Redis, *, queues: Iterable[str]) -> None:
    """Read and write as the service does; raise the RedisError that is met first."""
    client.ping()
    with client.pipeline(transaction=False) as commands:
        for queue in queues:
            commands.llen(queue)
        # What a worker would do with its queue, and beat, and the task that drops messages.
        commands.lpush(_QUEUE, "probe")
        commands.pexpire(_QUEUE, _PROBED_FOR_MS)
        commands.lrange(_QUEUE, -1, -1)
        commands.lrem(_QUEUE, -1, "none")
        commands.brpop([_QUEUE], 0.001)
        commands.script_load(PROBE_LUA)
        answers = commands.execute(raise_on_error=False)
    refused = next((answer for answer in answers if isinstance(answer, redis.RedisError)), None)
    if refused is not None:
        raise refused
    keys = _KEYS + [key for provider in PROVIDER_NAMES for key in keys_of(provider)]
    client.evalsha(answers[-1], len(keys), *keys)
