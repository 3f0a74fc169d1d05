"""Rung 8: the server may be away, and what belongs together is written together."""

import threading
import time
from contextlib import suppress

from redis.exceptions import ConnectionError

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
        with suppress(ConnectionError):  # the next beat tries again
            redis.zadd("tiles", {tile: time.time() + WINDOW}, xx=True)


def work(redis, name, blur):
    while True:
        try:
            step(redis, blur)
        except ConnectionError:
            time.sleep(0.1)


def step(redis, blur):
    now = time.time()
    taken = redis.eval(TAKE, 0, now, now + WINDOW)
    if not taken:
        time.sleep(0.02)
    elif taken[1] > MOST:
        settle(redis, taken[0], lambda both: both.sadd("dead", taken[0]))
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
        settle(redis, tile, lambda both: both.hsetnx("results", tile, text))


def settle(redis, tile, write):
    with redis.pipeline(transaction=True) as both:
        write(both)
        both.zrem("tiles", tile)
        both.execute()


def collect(redis):
    return redis.hgetall("results")


def dead(redis):
    return redis.smembers("dead")
