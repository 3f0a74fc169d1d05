"""The ladder: a learner's own queue, judged on real processes that a nemesis strikes.

A learner's file works over a redis-py client that is handed to it (answers are text, nothing is
tried again). It defines three functions, and two more if it needs them::

    submit(redis, tiles)        once: queue these tiles, a list of int
    work(redis, name, blur)     one worker process, for ever: take a tile, call `blur(tile)`, which
                                returns a text or raises, and deliver the text
    collect(redis) -> dict      tile -> text, all that is delivered so far
    tick(redis)                 chores; called every 50 ms
    dead(redis) -> collection   the tiles that were given up

`submit`, `collect`, `tick` and `dead` are called in a process of their own. The processes run
`runner`, which records what they do; `trial` starts and strikes them; `rungs` lists the strikes,
`verdict` judges the events, `climb` is the command. This module is imported by every process of a
trial, so it imports nothing.
"""

IMAGE = "tiles"  # the image's name in the events: a trial has one
TILES = 40
WINDOW_S = 0.5  # the visibility window: how long a lease lasts without renewal
TICK_S = 0.05  # between two calls of `tick` and `collect`
BLUR_S = 0.005  # how long the stand-in for a blur takes
OUTPUT_BYTES = 4 << 20  # so much may each process of the learner's write to a file
