"""Usual wrong answers to the exercises of lesson e, each with a part of the hint that must come."""

from collections.abc import Callable
from typing import Any


def naive(client, blur):
    tile = client.rpop("tasks")
    if tile:
        client.lpush("results", blur(tile))


def two_steps(client, blur):
    tile = client.rpop("tasks")
    if tile:
        client.lpush("doing", tile)
        hand_in(client, tile, blur(tile))


def crosses_out_first(client, blur):
    tile = client.lmove("tasks", "doing", "RIGHT", "LEFT")
    if tile:
        client.lrem("doing", 1, tile)
        client.lpush("results", blur(tile))


def crosses_out_before_handing_in(client, blur):
    tile = client.lmove("tasks", "doing", "RIGHT", "LEFT")
    if tile:
        result = blur(tile)
        client.lrem("doing", 1, tile)
        client.lpush("results", result)


def never_crosses_out(client, blur):
    tile = client.lmove("tasks", "doing", "RIGHT", "LEFT")
    if tile:
        client.lpush("results", blur(tile))


def peeks(client, blur):
    tile = client.lindex("tasks", -1)
    if tile:
        client.lpush("results", blur(tile))
        client.lrem("tasks", -1, tile)


def acknowledges(client, blur):
    tile = client.lmove("tasks", "doing", "RIGHT", "LEFT")
    if tile:
        hand_in(client, tile, blur(tile))


def waits_for_ever(client, blur):
    tile = client.blmove("tasks", "doing", 0, "RIGHT", "LEFT")
    hand_in(client, tile, blur(tile))


def forgets_empty(client, blur):
    tile = client.lmove("tasks", "doing", "RIGHT", "LEFT")
    hand_in(client, tile, blur(tile))


def throws_result_away(client, blur):
    tile = client.lmove("tasks", "doing", "RIGHT", "LEFT")
    if tile:
        blur(tile)
        client.lrem("doing", 1, tile)


def hand_in(client, tile, result):
    client.lpush("results", result)
    client.lrem("doing", 1, tile)


def recover(client):
    while client.lmove("doing", "tasks", "RIGHT", "RIGHT"):
        pass


def unfinished(client):
    pass


def recovers_nothing(client):
    client.delete("results:old")


def factor(of: Callable[[list[float]], float], times: float = 5) -> Any:
    def may_give_up(silence_s, pauses_s, waiting):
        return waiting == 0 and silence_s > max(2.0, times * of(pauses_s or [1.0]))

    return may_give_up


WRONG = {
    "e1": [
        (lambda kills, busy, in_hand: (kills * in_hand, (1 - busy) ** kills), "no tile to lose"),
        (lambda kills, busy, in_hand: (kills * busy, 1 - kills * busy), "a chance is never"),
        (lambda kills, busy, in_hand: (kills * busy * in_hand, 1 - (1 - busy) ** kills), "0.875"),
        (lambda kills, busy, in_hand: (kills * busy * in_hand, 1 - busy), "empty hands"),
        (lambda kills, busy, in_hand: (kills * busy, (1 - busy) ** kills), "takes all 4 along"),
        (
            lambda kills, busy, in_hand: (
                kills * busy * in_hand,
                (1 - busy) ** (kills * in_hand),
            ),
            "does not depend on how much",
        ),
        (lambda kills, busy, in_hand: (1 - busy**kills, 0.125), "on average"),
    ],
    "e2": [
        (lambda silence_s, pauses_s, waiting: silence_s > 2, "still wait"),
        (lambda silence_s, pauses_s, waiting: not waiting and silence_s > 0.9, "no tile has come"),
        (
            lambda silence_s, pauses_s, waiting: (
                not waiting and silence_s > 5 * max(pauses_s or [1.0])
            ),
            "a hiccup",
        ),
        (factor(lambda pauses_s: sum(pauses_s) / len(pauses_s)), "the longest pause"),
        (factor(max, times=1), "leave room"),
        (lambda silence_s, pauses_s, waiting: False, "never ends"),
        (factor(max, times=200), "give up"),
        (
            lambda silence_s, pauses_s, waiting: not waiting and silence_s > 5 * max(pauses_s),
            "`pauses_s` is empty",
        ),
        (
            lambda silence_s, pauses_s, waiting: (
                bool(pauses_s) and factor(max)(silence_s, pauses_s, waiting)
            ),
            "must end as well",
        ),
        (lambda silence_s, pauses_s, waiting: "wait", "True or False"),
    ],
    "e3": [
        ((naive, recover), "killed in mid-blur, and tile 0 is nowhere"),
        ((two_steps, recover), "had left one list and not yet reached the other"),
        ((crosses_out_first, recover), "crossed out before its result"),
        ((crosses_out_before_handing_in, recover), "crossed out before its result"),
        ((never_crosses_out, recover), "queues a tile again"),
        ((peeks, recover), "still in `tasks`"),
        ((acknowledges, recovers_nothing), "does not bring it back"),
        ((waits_for_ever, recover), "a timeout"),
        ((forgets_empty, recover), "return when there is no tile"),
        ((acknowledges, unfinished), "`unfinished` is not answered yet"),
        ((throws_result_away, recover), "these results: []"),
    ],
}
