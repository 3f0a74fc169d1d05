"""Wrong solutions: each is a reference with one mistake that learners make, and must fail."""

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent


class Wrong(NamedTuple):
    """A mistake on a rung: what of a reference is replaced, and a part of what must be found."""

    rung: int
    name: str
    found: str
    reference: int
    edits: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        source = (FOLDER / f"reference_{self.reference}.py").read_text()
        for old, new in self.edits:
            assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in the reference"
            source = source.replace(old, new)
        return source


TAKE_ONE = """local tile = redis.call('ZRANGEBYSCORE', 'tiles', '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
if not tile then return {} end
redis.call('ZADD', 'tiles', ARGV[2], tile)
return {tile, redis.call('HINCRBY', 'attempts', tile, 1)}
"""
TAKE_MANY = """local taken = {}
for _, tile in ipairs(redis.call('ZRANGEBYSCORE', 'tiles', '-inf', ARGV[1], 'LIMIT', 0, 20)) do
  redis.call('ZADD', 'tiles', ARGV[2], tile)
  table.insert(taken, tile)
  table.insert(taken, redis.call('HINCRBY', 'attempts', tile, 1))
end
return taken
"""
HANDLE_ONE = """        elif taken[1] > MOST:
            give_up(redis, taken[0])
        else:
            handle(redis, *taken, blur)
"""
HANDLE_MANY = """        for tile, attempt in zip(taken[::2], taken[1::2]):
            if attempt > MOST:
                give_up(redis, tile)
            else:
                handle(redis, tile, attempt, blur)
"""
RENEW_ALL = """def tick(redis):
    for tile, until in redis.zrange("tiles", 0, -1, withscores=True):
        if until:
            redis.zadd("tiles", {tile: time.time() + WINDOW}, xx=True)


"""
CLEAN_UP = """DONE = set()


def tick(redis):
    DONE.update(redis.hkeys("results"))
    if DONE:
        redis.zrem("tiles", *DONE)


"""
LOOP = "    while True:\n        now = time.time()\n"
EVAL = "redis.eval(TAKE, 0, now, now + WINDOW)"
COLLECT = "def collect(redis):\n"
STORE = 'redis.hset("results", tile, blur(tile))\n'
STORE_FIRST = 'redis.hsetnx("results", tile, blur(tile))\n'
ACK = 'redis.zrem("tiles", tile)\n'
LRANGE = 'return dict(line.split(":", 1) for line in redis.lrange("results", 0, -1))\n'
PUSH = 'redis.rpush("results", f"{tile}:{blur(tile)}")\n'

WRONG = [
    Wrong(1, "reads_without_removing", "begun", 1, (
        ('taken = redis.blpop("tasks", timeout=1)', 'taken = redis.lrange("tasks", 0, 0)'),
        ("tile = taken[1]", "tile = taken[0]"),
        (PUSH, PUSH + '            redis.lrem("tasks", 1, tile)\n'),
    )),
    Wrong(1, "results_without_names", "not what blur returned", 1, (
        (PUSH, 'redis.rpush("results", blur(tile))\n'),
        (LRANGE, 'return dict(enumerate(redis.lrange("results", 0, -1)))\n'),
    )),
    Wrong(1, "ends_when_the_queue_is_empty", "work came back", 1, (
        ('taken = redis.blpop("tasks", timeout=1)', 'taken = redis.lpop("tasks", 1)'),
        ("        if taken:\n", "        if not taken:\n            return\n        else:\n"),
        ("tile = taken[1]", "tile = taken[0]"),
    )),
    Wrong(2, "acknowledges_nothing", "lost", 1),
    Wrong(2, "acknowledges_first", "lost", 2, (
        ('            redis.lrem(held, 1, tile)\n', ""),
        ("        if tile:\n", "        if tile:\n            redis.lrem(held, 1, tile)\n"),
    )),
    Wrong(2, "never_looks_at_what_it_held", "lost", 2, (
        ('redis.lmove(held, "tasks")', "None"),
    )),
    Wrong(3, "keeps_lists_by_name", "lost", 2),
    Wrong(3, "takes_without_a_lease", "begun", 3, (
        ("if tile then redis.call('ZADD', 'tiles', ARGV[2], tile) end\n", ""),
    )),
    Wrong(3, "leases_for_ever", "lost", 3, (("now + WINDOW", "now + 3600"),)),
    Wrong(3, "leases_too_long", "after the kill", 3, (("now + WINDOW", "now + 4 * WINDOW"),)),
    Wrong(4, "beats_not_at_all", "times, allowed: 1", 3),
    Wrong(4, "beats_once", "times, allowed: 1", 4, (("while not over", "if not over"),)),
    Wrong(4, "beats_too_slowly", "times, allowed: 1", 4, (("WINDOW / 3", "WINDOW * 2"),)),
    Wrong(4, "renews_what_the_dead_hold", "lost", 4, ((COLLECT, RENEW_ALL + COLLECT),)),
    Wrong(5, "overwrites", "then changed", 4),
    Wrong(5, "collects_the_last", "then changed", 5, (
        (STORE_FIRST, PUSH),
        ('return redis.hgetall("results")\n', LRANGE),
    )),
    Wrong(5, "takes_it_away", "then changed", 5, (
        (STORE_FIRST, 'if not redis.hsetnx("results", tile, blur(tile)):\n'
         '                redis.hdel("results", tile)\n'),
    )),
    Wrong(5, "puts_it_back", "was begun", 5, (
        (STORE_FIRST, 'if not redis.hsetnx("results", tile, blur(tile)):\n'
         '                time.sleep(0.2)  # the one that came first takes it away meanwhile\n'
         '                redis.zadd("tiles", {tile: 0})\n                continue\n'),
    )),
    Wrong(6, "ends_with_the_error", "ended by itself", 5),
    Wrong(6, "tries_again_at_once", " s after attempt ", 6, (
        ("pause = PAUSE * 2 ** (failures - 1)", "pause = 0"),
    )),
    Wrong(6, "never_waits_longer", " s after attempt ", 6, (
        ("pause = PAUSE * 2 ** (failures - 1)", "pause = PAUSE"),
    )),
    Wrong(6, "gives_up_at_once", "was given up", 6, (
        ("MOST, PAUSE = 0.5, 3,", "MOST, PAUSE = 0.5, 1,"),
    )),
    Wrong(6, "never_gives_up", "begun", 6, (
        ("MOST, PAUSE = 0.5, 3,", "MOST, PAUSE = 0.5, 99,"),
    )),
    Wrong(7, "counts_what_it_catches", "begun", 6),
    Wrong(7, "blames_the_neighbours", "was given up", 7, (
        (TAKE_ONE, TAKE_MANY), (HANDLE_ONE, HANDLE_MANY),
    )),
    Wrong(7, "gives_up_after_one_death", "was given up", 7, (
        ("MOST, PAUSE = 0.5, 3,", "MOST, PAUSE = 0.5, 1,"),
    )),
    Wrong(8, "ends_with_the_server", "ended by itself", 7),
    Wrong(8, "comes_back_from_work", "work came back", 8, (
        ("            time.sleep(0.1)\n", "            return\n"),
    )),
    Wrong(8, "acknowledges_before_it_delivers", "lost", 8, (
        ("        write(both)\n        both.zrem(\"tiles\", tile)\n",
         "        redis.zrem(\"tiles\", tile)\n        write(both)\n"),
    )),
    Wrong(8, "believes_its_memory", "lost", 8, ((COLLECT, CLEAN_UP + COLLECT),)),
    Wrong(8, "loads_its_script_once", "NoScriptError", 8, (
        ("def step(redis, blur):\n", "SCRIPT = []\n\n\ndef step(redis, blur):\n"
         "    if not SCRIPT:\n        SCRIPT.append(redis.script_load(TAKE))\n"),
        (EVAL, "redis.evalsha(SCRIPT[0], 0, now, now + WINDOW)"),
    )),
]  # fmt: skip
