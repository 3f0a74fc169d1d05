"""Rung 3: one sorted set; the score of a tile is the time from which on it is free."""

import time

WINDOW = 0.5
TAKE = """
local tile = redis.call('ZRANGEBYSCORE', 'tiles', '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
if tile then redis.call('ZADD', 'tiles', ARGV[2], tile) end
return tile
"""


def submit(redis, tiles):
    redis.zadd("tiles", dict.fromkeys(tiles, 0))


def work(redis, name, blur):
    while True:
        now = time.time()
        tile = redis.eval(TAKE, 0, now, now + WINDOW)
        if tile:
            redis.hset("results", tile, blur(tile))
            redis.zrem("tiles", tile)
        else:
            time.sleep(0.02)


def collect(redis):
    return redis.hgetall("results")
