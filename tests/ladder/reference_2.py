"""Rung 2: a list for each worker, with what it holds."""


def submit(redis, tiles):
    redis.rpush("tasks", *tiles)


def work(redis, name, blur):
    held = f"held:{name}"
    while redis.lmove(held, "tasks"):  # we died with it in hand
        pass
    while True:
        tile = redis.blmove("tasks", held, timeout=1)
        if tile:
            redis.hset("results", tile, blur(tile))
            redis.lrem(held, 1, tile)


def collect(redis):
    return redis.hgetall("results")
