"""A run as Chrome trace JSON, which https://ui.perfetto.dev and chrome://tracing open.

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from collections.abc import Iterator
from typing import Any

from studyguide.record.timeline import MARKS, SPANS, Event, Timeline

QUEUE = 0  # process id of what belongs to no process: the queue
HANDOVERS = {"blur": "enqueue", "assemble": "transfer"}  # who uses it -> who hands it over


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """Slices, marks, the queue's length, hand-overs as flows, and each tile's time in the queue.

    Times are microseconds from the start of the run. Process and thread ids are numbers of ours.
    """
    lanes = timeline.lanes()
    processes: dict[str, int] = {}
    for process, _ in lanes:
        processes.setdefault(process, len(processes) + 1)
    ids = {lane: (processes[lane[0]], n + 1) for n, lane in enumerate(lanes)}
    names = [_name("process", QUEUE, 0, "queue")]
    names += [_name("process", n, 0, process) for process, n in processes.items()]
    names += [_name("thread", *ids[lane], lane[1]) for lane in lanes]
    spans = [{"pid": pid, "tid": tid, **rest} for (pid, tid), rest in _found(timeline, ids)]
    return {
        "displayTimeUnit": "ms",
        "traceEvents": names + sorted(spans, key=lambda event: event["ts"]),
    }


def _name(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": f"{kind}_name", "pid": pid, "tid": tid, "args": {"name": name}}


Ids = dict[tuple[str, str], tuple[int, int]]
Found = Iterator[tuple[tuple[int, int], dict[str, Any]]]


def _found(timeline: Timeline, ids: Ids) -> Found:
    def at(moment: float) -> float:
        return round(1e6 * (moment - timeline.start), 3)

    handed: dict[tuple[str, str, int], tuple[int, int, float]] = {}
    busy: dict[tuple[int, int], float] = {}
    flow = 0
    for event in sorted(timeline.of(*SPANS), key=lambda event: event.end):
        lane, key = ids[event.process, event.lane], (event.stage, event.image, event.tile)
        # A call that hands over several tiles is recorded for each: they must not overlap.
        start = min(max(at(event.start), busy.get(lane, 0.0)), at(event.end))
        busy[lane] = at(event.end)
        yield lane, _event("X", event, start) | {"dur": round(at(event.end) - start, 3)}
        giver = handed.get((HANDOVERS.get(event.stage, ""), event.image, event.tile))
        if giver and event.tile >= 0:
            flow += 1
            both = {"name": "handed over", "cat": "flow", "id": flow}
            # A tile may be taken while the call that queues it and others is still recorded.
            given = min(giver[2], start)
            yield giver[:2], {"ph": "s", "ts": given, **both}
            yield lane, {"ph": "f", "bp": "e", "ts": start, **both}
        handed[key] = (*lane, start)
    for mark in timeline.of(*MARKS):
        yield ids[mark.process, mark.lane], _event("i", mark, at(mark.start)) | {"s": "t"}
    for moment, tiles in timeline.queue_depth():
        args = {"tiles": tiles}
        yield (QUEUE, 0), {"ph": "C", "name": "queue", "ts": at(moment), "args": args}
    yield from _queued(timeline, at)


def _queued(timeline: Timeline, at: Any) -> Found:
    """Each tile's stay in the queue, from its enqueue to its first delivery."""
    taken: dict[tuple[str, int], float] = {}
    for wait in timeline.of("wait"):
        taken.setdefault((wait.image, wait.tile), wait.end)
    for n, put in enumerate(timeline.of("enqueue")):
        end = taken.get((put.image, put.tile))
        if end is not None and put.tile >= 0:
            stay = {"cat": "queue", "id": n, "name": f"{put.image} {put.tile}"}
            yield (QUEUE, 0), {"ph": "b", "ts": at(min(put.end, end)), **stay}
            yield (QUEUE, 0), {"ph": "e", "ts": at(end), **stay}


def _event(phase: str, event: Event, start: float) -> dict[str, Any]:
    args = {"image": event.image, "tile": event.tile, "attempt": event.attempt, **event.detail}
    return {"ph": phase, "name": event.stage, "cat": "stage", "ts": start, "args": args}
