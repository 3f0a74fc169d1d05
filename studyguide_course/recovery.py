"""What became of the tiles of a run in which something broke, computed from its events.

All times are wall seconds, which a clock shows.
"""

from dataclasses import dataclass

from studyguide.record.timeline import Timeline


@dataclass(frozen=True)
class Fate:
    """What became of a tile that a killed worker held.

    `heir` is the thread that took it over, `after_s` wall seconds after the death. Without an heir
    nobody had to: its result had arrived before the kill (`placed`), or the tile was lost.
    """

    image: str
    tile: int
    owner: str
    heir: str = ""
    after_s: float = 0.0
    placed: bool = False

    def timeouts(self, visibility_s: float) -> float:
        """`after_s` in visibility timeouts of so many seconds."""
        return self.after_s / visibility_s


def fates(timeline: Timeline) -> list[Fate]:
    """Follow every tile that a killed process held, as far as its events or Redis knew.

    Redis may know of tiles that no event named: a thread takes several where tiles are quick.
    """
    died = {death.process: death.start for death in reversed(timeline.of("death"))}
    found: dict[tuple[str, int], Fate] = {}
    for event in timeline.of("reclaim"):
        owner = str(event.detail.get("from_worker", ""))
        since = died.get(owner.split("/")[0], event.start)
        late = max(0.0, event.start - since)
        found.setdefault(event.what, Fate(*event.what, owner, "/".join(event.who), late))
    placed = {event.what for event in timeline.of("assemble")}
    for death in timeline.of("death"):
        if death.tile >= 0 and death.what not in found:
            owner, safe = "/".join(death.who), death.what in placed
            found[death.what] = Fate(*death.what, owner, placed=safe)
    return list(found.values())


def silence_s(timeline: Timeline) -> float:
    """Wall seconds from the last tile in its place until the missing ones are given up as lost.

    0 if none is lost.
    """
    given_up = [event.start for event in timeline.of("lost")]
    arrived = [event.end for event in timeline.of("assemble")]
    return min(given_up) - max(arrived, default=timeline.start) if given_up else 0.0


def outage_s(timeline: Timeline, process: str = "redis") -> float:
    """Wall seconds from the death of a process until the next result is handed on; 0 without."""
    deaths = [event.start for event in timeline.of("death") if event.process == process]
    handed_on = [event.end for event in timeline.of("transfer") if deaths and event.end > deaths[0]]
    return min(handed_on) - deaths[0] if handed_on else 0.0


@dataclass(frozen=True)
class Retry:
    """A failed attempt at a tile, the delay that was drawn for it and the wait that came of it.

    `planned_s` is the backoff before chance was added, `delay_s` after; `waited_s` is wall seconds
    until the tile was delivered again. All are seconds.
    """

    tile: int
    attempt: int
    planned_s: float
    delay_s: float
    waited_s: float


def retries(timeline: Timeline, backoff_s: float) -> list[Retry]:
    """Follow every retry until its tile is delivered again.

    The first retry was planned after `backoff_s` seconds, each further one after twice as long.
    """
    found = []
    for event in timeline.of("retry"):
        waits = (wait for wait in timeline.of("wait") if wait.what == event.what)
        again = [wait.end for wait in waits if wait.end > event.start]
        planned_s = backoff_s * 2 ** (event.attempt - 1)
        waited_s = min(again, default=timeline.end) - event.start
        delay_s = float(event.detail.get("delay_s", 0.0))
        found.append(Retry(event.tile, event.attempt, planned_s, delay_s, waited_s))
    return found
