"""Rung 7: an attempt is counted when it begins, so a killed process counts too."""

import threading
import time

WINDOW, MOST, PAUSE = 0.5, 3, 0.1
TAKE = """
local tile = redis.call('ZRANGEBYSCORE', 'tiles', '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
if not tile then return {} end
redis.call('ZADD', 'tiles', ARGV[2], tile)
return {tile, redis.call('HINCRBY', 'attempts', tile, 1)}
"""


def submit(redis, tiles):
    redis.zadd("tiles", dict.fromkeys(tiles, 0))


def beat(redis, tile, over):
    while not over.wait(WINDOW / 3):
        redis.zadd("tiles", {tile: time.time() + WINDOW}, xx=True)


def work(redis, name, blur):
    while True:
        now = time.time()
        taken = redis.eval(TAKE, 0, now, now + WINDOW)
        if not taken:
            time.sleep(0.02)
        elif taken[1] > MOST:
            give_up(redis, taken[0])
        else:
            handle(redis, *taken, blur)


def handle(redis, tile, attempt, blur):
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
        pause = PAUSE * 2 ** (attempt - 1)
        redis.zadd("tiles", {tile: time.time() + pause}, xx=True)
    else:
        redis.hsetnx("results", tile, text)
        redis.zrem("tiles", tile)


def give_up(redis, tile):
    redis.sadd("dead", tile)
    redis.zrem("tiles", tile)


def collect(redis):
    return redis.hgetall("results")


def dead(redis):
    return redis.smembers("dead")
