"""Rung 6: a failed tile is free again after a pause, and dead after its last attempt."""

import threading
import time

WINDOW, MOST, PAUSE = 0.5, 3, 0.1
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
            handle(redis, tile, blur)
        else:
            time.sleep(0.02)


def handle(redis, tile, blur):
    over = threading.Event()
    heart = threading.Thread(target=beat, args=(redis, tile, over), daemon=True)
    heart.start()
    try:
        text = blur(tile)
    except Exception:
        text = None
    over.set()
    heart.join()
    if text is None:
        fail(redis, tile)
    else:
        redis.hsetnx("results", tile, text)
        redis.zrem("tiles", tile)


def fail(redis, tile):
    failures = redis.hincrby("failures", tile, 1)
    if failures < MOST:
        pause = PAUSE * 2 ** (failures - 1)
        redis.zadd("tiles", {tile: time.time() + pause}, xx=True)
    else:
        redis.sadd("dead", tile)
        redis.zrem("tiles", tile)


def collect(redis):
    return redis.hgetall("results")


def dead(redis):
    return redis.smembers("dead")
