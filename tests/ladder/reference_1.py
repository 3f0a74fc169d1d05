"""Rung 1: two lists."""


def submit(redis, tiles):
    redis.rpush("tasks", *tiles)


def work(redis, name, blur):
    while True:
        taken = redis.blpop("tasks", timeout=1)
        if taken:
            tile = taken[1]
            redis.rpush("results", f"{tile}:{blur(tile)}")


def collect(redis):
    return dict(line.split(":", 1) for line in redis.lrange("results", 0, -1))
