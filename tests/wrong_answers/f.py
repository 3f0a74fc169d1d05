"""Usual wrong answers to the exercises of lesson f, each with a part of the hint that must come."""

import os
import random
import statistics
import time
from functools import cache

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def jitter():
    return random.uniform(0.5, 1.5)


def fresh(alive):
    return time.time() - alive.stat().st_mtime < 30


def ping(url):
    client = redis.Redis.from_url(url, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def touches(url, alive):
    live = fresh(alive)
    os.utime(alive)
    return live, ping(url)


def falls_over(url, alive):
    with redis.Redis.from_url(url, socket_timeout=0.3, retry=None) as client:
        return fresh(alive), client.ping()


def hangs(url, alive):
    with redis.Redis.from_url(url, retry=None) as client:
        try:
            return fresh(alive), client.ping()
        except redis.RedisError:
            return fresh(alive), False


def remembers():
    seen = []

    def probe(url, alive):
        seen.append(ping(url))
        return fresh(alive), all(seen)

    return probe


def overwrites(client, tile, digest):
    client.hset("results", tile, digest)
    client.decr("left")
    return True


def looks_first(client, tile, digest):
    if client.hexists("results", tile):
        return False
    client.hset("results", tile, digest)
    client.decr("left")
    return True


def counts_apart(client, tile, digest):
    first = client.hsetnx("results", tile, digest)
    if first:
        client.decr("left")
    return bool(first)


def counts_first(client, tile, digest):
    if client.hexists("results", tile):
        return False
    client.decr("left")
    return bool(client.hsetnx("results", tile, digest))


def looks_then_transaction(client, tile, digest):
    if client.hexists("results", tile):
        return False
    with client.pipeline() as pipe:
        pipe.hset("results", tile, digest).decr("left").execute()
    return True


def gives_up_on_watch_error(client, tile, digest):
    with client.pipeline() as pipe:
        pipe.watch("results")
        if pipe.hexists("results", tile):
            return False
        pipe.multi()
        pipe.hset("results", tile, digest).decr("left").execute()
    return True


def forgets_result(client, tile, digest):
    client.setnx("left", 2)
    return False


def locks(client, tile, digest):
    with client.lock("lock"):
        if client.hexists("results", tile):
            return False
        client.hset("results", tile, digest)
        client.decr("left")
    return True


ONCE = """
local first = redis.call('HSETNX', 'results', ARGV[1], ARGV[2])
if first == 1 then redis.call('DECR', 'left') end
return first
"""
LAST_WINS = """
if redis.call('HSET', 'results', ARGV[1], ARGV[2]) == 1 then
  redis.call('DECR', 'left')
  return 1
end
return 0
"""


def says_nothing(client, tile, digest):
    client.eval(ONCE, 0, tile, digest)


def last_wins(client, tile, digest):
    return bool(client.eval(LAST_WINS, 0, tile, digest))


def quantile(q, times=1.0, beats=3):
    def choose(service_s):
        visibility_s = times * sorted(service_s)[int(q * (len(service_s) - 1))]
        return visibility_s, visibility_s / beats

    return choose


def spread(service_s):
    visibility_s = statistics.mean(service_s) + 3 * statistics.stdev(service_s)
    return visibility_s, visibility_s / 3


def few(service_s):
    return max(service_s[:50]), max(service_s[:50]) / 3


WRONG = {
    "f1": [
        (
            lambda attempt, first_s, cap_s: min(cap_s, first_s * 2 ** (attempt - 1)),
            "draw each wait anew",
        ),
        (lambda attempt, first_s, cap_s: first_s * 2 ** (attempt - 1) * jitter(), "longer than"),
        (
            lambda attempt, first_s, cap_s: min(cap_s, first_s * 2 ** (attempt - 1)) * jitter(),
            "longer than cap_s",
        ),
        (
            lambda attempt, first_s, cap_s: min(cap_s, first_s * 2**attempt * jitter()),
            "count from 1",
        ),
        (lambda attempt, first_s, cap_s: min(cap_s, first_s * attempt * jitter()), "double twice"),
        (
            lambda attempt, first_s, cap_s: min(
                cap_s, first_s * 2 ** (attempt - 1) + random.uniform(0, 0.02)
            ),
            "draw a share",
        ),
        (lambda attempt, first_s, cap_s: random.uniform(0, first_s), "should be first_s"),
    ],
    "f2": [
        (lambda service_s: (statistics.mean(service_s), statistics.mean(service_s) / 3), "usual"),
        (quantile(0.5, times=2), "the slow ones"),
        (spread, "look farther out"),
        (quantile(0.99), "look farther out"),
        (few, "look farther out"),
        (quantile(1.0, times=100), "hardly any tile"),
        (lambda service_s: (3.0, 1.0), "hardly any tile"),
        (quantile(0.999, beats=1), "third must still be in time"),
        (quantile(0.999, beats=1000), "keep Redis busy"),
    ],
    "f3": [
        (hangs, "Redis hangs, and so does your probe"),
        (falls_over, "Redis hangs, and your probe raises TimeoutError"),
        (lambda url, alive: (ping(url) and fresh(alive), ping(url)), "is a worker then live?"),
        (lambda url, alive: (fresh(alive), True), "Redis hangs: is a worker then ready?"),
        (lambda url, alive: (True, ping(url)), "the heart stands still: is a worker then live?"),
        (
            cache(lambda url, alive: (fresh(alive), ping(url))),
            "Redis hangs: is a worker then ready",
        ),
        (remembers(), "Redis is back: is a worker then ready?"),
        (touches, "touches the file"),
        (lambda url, alive: ping(url), "fails with"),
    ],
    "f4": [
        (overwrites, "committed twice in a row: `left` is 0"),
        (looks_first, "another worker commits between"),
        (looks_then_transaction, "another worker commits between"),
        (counts_apart, "killed between two of your requests"),
        (counts_first, "another worker commits between"),
        (gives_up_on_watch_error, "catch WatchError"),
        (locks, "still has your lock"),
        (forgets_result, "there is no result"),
        (says_nothing, "exactly one of the two"),
        (last_wins, "was overwritten"),
    ],
}
