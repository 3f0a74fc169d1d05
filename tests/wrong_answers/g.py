"""Usual wrong answers to the exercises of lesson g, each with a part of the hint that must come."""

from collections import Counter


def tally(done, redelivered, duplicates):
    return lambda events: {
        "done": done(events),
        "redelivered": redelivered(events),
        "duplicates": duplicates(events),
    }


def of(events, stage):
    return Counter((image, tile) for kind, image, tile in events if kind == stage)


def distinct(events):
    return len(of(events, "commit"))


def beyond(stage):
    return lambda events: of(events, stage).total() - len(of(events, stage))


def commits(events):
    return of(events, "commit").total()


def by_number(events):
    return len({tile for kind, _, tile in events if kind == "commit"})


def more_than_once(events):
    return sum(count > 1 for count in of(events, "deliver").values())


def deliveries_left_over(cores, memory, process, thread):
    return max(1, min(cores, memory // (process + thread))), 1


def drains(queue, stop, blur):
    while not stop.is_set():
        tiles = queue.take()
        for number, tile in enumerate(tiles):
            queue.commit(tile, blur(tile))
            if stop.is_set():
                for rest in tiles[number + 1 :]:
                    queue.give_back(rest)
                break


def deaf(queue, stop, blur):
    while True:
        for tile in queue.take():
            queue.commit(tile, blur(tile))


def until_empty(queue, stop, blur):
    while tiles := queue.take():
        for tile in tiles:
            queue.commit(tile, blur(tile))


def whole_batch(queue, stop, blur):
    while not stop.is_set():
        for tile in queue.take():
            queue.commit(tile, blur(tile))


def drops_tile_in_hand(queue, stop, blur):
    while not stop.is_set():
        for tile in queue.take():
            result = blur(tile)
            if stop.is_set():
                return
            queue.commit(tile, result)


def gives_tile_in_hand_back(queue, stop, blur):
    while not stop.is_set():
        tiles = queue.take()
        for number, tile in enumerate(tiles):
            result = blur(tile)
            if stop.is_set():
                for rest in tiles[number:]:
                    queue.give_back(rest)
                return
            queue.commit(tile, result)


def forgets_the_rest(queue, stop, blur):
    while not stop.is_set():
        for tile in queue.take():
            queue.commit(tile, blur(tile))
            if stop.is_set():
                break


def looks_too_late(queue, stop, blur):
    while True:
        for tile in queue.take():
            if stop.is_set():
                queue.give_back(tile)
            else:
                queue.commit(tile, blur(tile))
        if stop.is_set() and not queue.take():
            return


def gives_back_twice(queue, stop, blur):
    drains(queue, stop, blur)
    for tile in queue.given_back[:]:
        queue.give_back(tile)


def within(share, bounds, counts, first=0):
    rank, low, below = share * counts[-1], first, 0
    for bound, count in zip(bounds, counts, strict=False):
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return bounds[-1]


def bound_of_the_bucket(share, bounds, counts):
    rank = share * counts[-1]
    return next((b for b, n in zip(bounds, counts, strict=False) if n >= rank), bounds[-1])


def running(counts):
    return [sum(counts[: n + 1]) for n in range(len(counts))]


WRONG = {
    "g1": [
        (tally(by_number, beyond("deliver"), beyond("commit")), "not tile 0 of another"),
        (tally(commits, beyond("deliver"), beyond("commit")), "is dropped"),
        (tally(distinct, more_than_once, beyond("commit")), "one of them twice"),
        (tally(distinct, beyond("deliver"), beyond("deliver")), "commits nothing"),
        (tally(distinct, commits, beyond("commit")), "9 deliveries"),
        (tally(distinct, beyond("deliver"), commits), "7 commits of 5 tiles"),
        (tally(lambda events: 0, commits, commits), "5 tiles have a result"),
    ],
    "g2": [
        (lambda cores, memory, process, thread: (1, cores), "2 is enough"),
        (lambda cores, memory, process, thread: (cores, 1), "weighs"),
        (lambda cores, memory, process, thread: (memory // process, 1), "weighs 360 MiB"),
        (deliveries_left_over, "leaves cores idle"),
        (lambda cores, memory, process, thread: (1, 1), "leaves cores idle"),
        (lambda cores, memory, process, thread: (0, cores), "is not a service"),
        (
            lambda cores, memory, process, thread: (memory // (process + thread), 1),
            "an instance more",
        ),
    ],
    "g3": [
        (deaf, "goes on for ever"),
        (until_empty, "left an empty queue"),
        (whole_batch, "began the next one"),
        (drops_tile_in_hand, "was thrown away"),
        (gives_tile_in_hand_back, "was given back"),
        (forgets_the_rest, "fetched and never begun"),
        (looks_too_late, "took tiles all the same"),
        (gives_back_twice, "ended twice"),
    ],
    "g4": [
        (bound_of_the_bucket, "go as far into the bucket"),
        (lambda share, bounds, counts: within(share, bounds, running(counts)), "cumulative"),
        (
            lambda share, bounds, counts: within(share, bounds, [*counts[:-1], counts[-2]]),
            "a share of all",
        ),
        (lambda share, bounds, counts: within(share, bounds, counts, first=bounds[0]), "at 0"),
        (lambda share, bounds, counts: share * bounds[-1], "the answer is 1.5, and yours is 2"),
    ],
}
