"""A run as Chrome trace JSON, which https://ui.perfetto.dev and chrome://tracing open.

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from collections.abc import Iterator
from typing import Any

from studyguide.record.timeline import MARKS, SPANS, Event, Timeline

Ids = dict[str, int]  # of process and thread
QUEUE: Ids = {"pid": 0, "tid": 0}  # belongs to no process
HANDOVERS = {"blur": "enqueue", "assemble": "transfer"}  # who uses it -> who hands it over


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """Slices, marks, the queue's length, hand-overs as flows, and each tile's time in the queue.

    Times are microseconds from the start of the run. Process and thread ids are counted from 1.
    """
    lanes = timeline.lanes()
    processes = {name: n for n, name in enumerate(dict.fromkeys(name for name, _ in lanes), 1)}
    ids = {lane: {"pid": processes[lane[0]], "tid": n} for n, lane in enumerate(lanes, 1)}
    names = [_name("process", QUEUE, "queue")]
    names += [_name("process", {"pid": n, "tid": 0}, name) for name, n in processes.items()]
    names += [_name("thread", ids[lane], lane[1]) for lane in lanes]
    events = sorted(_events(timeline, ids), key=lambda event: event["ts"])
    return {"displayTimeUnit": "ms", "traceEvents": names + events}


def _name(kind: str, place: Ids, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": f"{kind}_name", **place, "args": {"name": name}}


def _events(timeline: Timeline, ids: dict[tuple[str, str], Ids]) -> Iterator[dict[str, Any]]:
    def at(moment: float) -> float:
        return round(1e6 * (moment - timeline.start), 3)

    handed, flow = dict[tuple[str, str, int], tuple[Ids, float, float]](), 0
    busy: dict[tuple[str, str], float] = {}
    for event in sorted(timeline.of(*SPANS), key=lambda event: event.end):
        lane = ids[event.who]
        # A call that hands over several tiles is recorded for each: they must not overlap.
        start = min(max(at(event.start), busy.get(event.who, 0.0)), at(event.end))
        busy[event.who] = at(event.end)
        yield lane | _event("X", event, start) | {"dur": round(at(event.end) - start, 3)}
        giver = handed.get((HANDOVERS.get(event.stage, ""), *event.what))
        if giver and event.tile >= 0 and giver[2] <= start:  # clocks differ: none goes back in time
            flow += 1
            both = {"name": "handed over", "cat": "flow", "id": flow}
            # A tile may be taken before its own part of the call that queues it and others.
            given = giver[1] if giver[1] <= start else giver[2]
            yield giver[0] | {"ph": "s", "ts": given, **both}
            yield lane | {"ph": "f", "bp": "e", "ts": start, **both}
        handed[event.stage, *event.what] = (lane, start, at(event.start))
    for mark in timeline.of(*MARKS):
        yield ids[mark.who] | _event("i", mark, at(mark.start)) | {"s": "t"}
    for moment, tiles in timeline.queue_depth():
        yield QUEUE | {"ph": "C", "name": "queue", "ts": at(moment), "args": {"tiles": tiles}}
    taken = timeline.delivered()
    for n, put in enumerate(timeline.tiles("enqueue")):  # each tile's stay in the queue
        if put.what in taken:
            stay = {"cat": "queue", "id": n, "name": f"{put.image} {put.tile}"}
            yield QUEUE | {"ph": "b", "ts": at(min(put.end, taken[put.what])), **stay}
            yield QUEUE | {"ph": "e", "ts": at(taken[put.what]), **stay}


def _event(phase: str, event: Event, start: float) -> dict[str, Any]:
    args = {"image": event.image, "tile": event.tile, "attempt": event.attempt, **event.detail}
    return {"ph": phase, "name": event.stage, "cat": "stage", "ts": start, "args": args}
