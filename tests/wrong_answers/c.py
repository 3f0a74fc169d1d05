"""Usual wrong answers to the exercises of lesson c, each with a part of the hint that must come."""


def room(limit, window):
    return limit // window


def greedy(seconds, after):
    step = max((name for name in seconds if not after[name]), key=seconds.get)
    path = [step]
    while following := [name for name in seconds if path[-1] in after[name]]:
        path.append(max(following, key=seconds.get))
    return path


def longest(seconds, after, weight):
    def chain(step):
        return [*max(map(chain, after[step]), key=weight, default=[]), step]

    return max(map(chain, seconds), key=weight)


def in_seconds(seconds, after):
    return longest(seconds, after, lambda chain: sum(map(seconds.get, chain)))


def in_order(jobs, workers):
    ends = [0] * workers
    for job in jobs:
        ends[ends.index(min(ends))] += job
    return max(ends)


def dealt(jobs, workers):
    ends = [0] * workers
    for n, job in enumerate(sorted(jobs, reverse=True)):
        ends[n % workers] += job
    return max(ends)


WRONG = {
    "c1": [
        (lambda limit, t, r, c, w: room(limit, t * t * c) - w - 1, "with its halo"),
        (lambda limit, t, r, c, w: room(limit, (t + r) ** 2 * c) - w - 1, "both sides"),
        (lambda limit, t, r, c, w: room(limit, (t + 2 * r) ** 2 * c), "in the hands of"),
        (lambda limit, t, r, c, w: room(limit, (t + 2 * r) ** 2 * c) - w, "the coordinator has"),
        (lambda limit, t, r, c, w: room(limit, (t + 2 * r) ** 2) - w - 1, "each of its channels"),
        (lambda limit, t, r, c, w: -(-limit // ((t + 2 * r) ** 2 * c)) - w - 1, "breaks the limit"),
        (lambda limit, t, r, c, w: 100, "the answer is 21, and yours is 100"),
    ],
    "c2": [
        (lambda good, places: good.count(False) >= places, "the last file"),
        (lambda good, places: good.count(False) > places, "may be a good one"),
        (lambda good, places: len(good) > places, "give their place back"),
        (lambda good, places: not all(good), "one place only"),
        (
            lambda good, places: any(
                not any(good[n : n + places]) for n in range(len(good) - places)
            ),
            "need not follow each other",
        ),
        (lambda good, places: False, "the answer is True, and yours is False"),
    ],
    "c3": [
        (greedy, "need not lead to the longest chain"),
        (lambda seconds, after: longest(seconds, after, len), "most steps"),
        (lambda seconds, after: in_seconds(seconds, after)[::-1], "backwards"),
        (lambda seconds, after: sum(seconds.values()), "a list of names"),
        (lambda seconds, after: sorted(seconds), "'blur 1' does not wait for 'blur 0'"),
        (lambda seconds, after: [], "empty"),
        (lambda seconds, after: in_seconds(seconds, after)[:-1], "takes 7 s"),
    ],
    "c4": [
        (in_order, "as they come"),
        (lambda jobs, workers: in_order(sorted(jobs), workers), "comes to the same"),
        (dealt, "comes to the same"),
        (lambda jobs, workers: max(*jobs, sum(jobs) / workers, 0), "no schedule"),
        (lambda jobs, workers: sum(jobs), "the answer is 10, and yours is 18"),
    ],
}
