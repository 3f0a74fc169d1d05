"""Rung 5: the first result of a tile stays."""

import threading
import time

WINDOW = 0.5
TAKE = """
local tile = redis.call('ZRANGEBYSCORE', 'tiles', '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
if tile then redis.call('ZADD', 'tiles', ARGV[2], tile) end
return tile
"""


def submit(redis, tiles):
    redis.zadd("tiles", dict.fromkeys(tiles, 0))


def beat(redis, tile, over):
    while not over.wait(WINDOW / 3):
        redis.zadd("tiles", {tile: time.time() + WINDOW}, xx=True)


def work(redis, name, blur):
    while True:
        now = time.time()
        tile = redis.eval(TAKE, 0, now, now + WINDOW)
        if tile:
            over = threading.Event()
            heart = threading.Thread(target=beat, args=(redis, tile, over), daemon=True)
            heart.start()
            redis.hsetnx("results", tile, blur(tile))
            over.set()
            heart.join()
            redis.zrem("tiles", tile)
        else:
            time.sleep(0.02)


def collect(redis):
    return redis.hgetall("results")
