"""A run to watch and to meddle with while it works, and the same run driven by a script.

Its parts are `studyguide.run` in a thread for each approach, chaos that does what the buttons say,
and the view of `studyguide_course.view`.
"""

import atexit
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import traitlets

from studyguide import images
from studyguide.approaches import APPROACHES
from studyguide.cluster import Chaos, Cluster, KillWorker, LocalCluster
from studyguide.errors import Cancelled, StudyguideError, UsageError
from studyguide.machinery.processes import Child
from studyguide.record.charts import timeline_figure
from studyguide.record.report import Ledger, RunReport
from studyguide.record.scene import LOOKS, Bar, Scene
from studyguide.record.timeline import Event, Timeline
from studyguide.runs import TemporaryFolder, run
from studyguide_course.lesson import Lesson
from studyguide_course.view import Picture, RunView, side_by_side

BUSY = "a busy worker"
IN_HAND = ("tile in hand", *LOOKS["held"][1:])
FRAME_S = 0.2  # how often a run is drawn
CONTROLS = {
    "start": ("Start", "Start the run, or start it again"),
    "kill": ("Kill", "SIGKILL: it ends at once and cannot clean up"),
    "pause": ("Pause", "SIGSTOP: it stands still, and nobody is told"),
    "resume": ("Resume", "SIGCONT: whoever was paused goes on"),
    "add": ("Add a worker", "One more process"),
    "stop": ("Stop", "End the run"),
}


class LiveRun(RunView):
    """Runs of approaches on processes, side by side: buttons and methods do the same to them.

    Parameters
    ----------
    lesson : Lesson
        Whose images and settings they have.
    letters : iterable of {"e", "f", "g"}
        The lesson's own approach when none is given.
    **options
        Settings that all of them share.
    """

    looks = traitlets.List([*map(list, {**LOOKS, "held": IN_HAND}.values())]).tag(sync=True)
    controls = traitlets.Dict(CONTROLS).tag(sync=True)
    targets = traitlets.List([BUSY, "redis"]).tag(sync=True)
    said = traitlets.Unicode("Press Start.").tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)

    def __init__(self, lesson: Lesson, letters: Iterable[str] = "", **options: Any) -> None:
        self._lesson = lesson
        # Kept in memory, so that it can be started again when the lesson's files are gone.
        self._files = {path.name: path.read_bytes() for path in images.find(lesson.images)[0]}
        self._folder: TemporaryFolder | None = None  # while it runs
        self.options = lesson.options | options
        self._drawing = threading.Lock()
        self.stages = {letter: Stage(letter) for letter in letters or lesson.approach.letter}
        super().__init__([stage.picture() for stage in self.stages.values()])
        self.on_msg(lambda _, order, __: self.tell(order["do"], order.get("to", BUSY)))
        atexit.register(self.stop)  # the kernel ends or is started anew

    def start(self, kill_after: int = 0) -> None:
        """Start the runs, and return at once.

        Parameters
        ----------
        kill_after : int
            Kill a worker of each when so many of its tiles are blurred; 0: leave that to people.
        """
        if any(stage.thread.is_alive() for stage in self.stages.values()):
            return
        self._lesson.lock_guesses()
        self._make_folder()
        self.running, self.still, self.said = True, None, "Processes start."
        for letter in self.stages:
            self.stages[letter] = stage = Stage(letter, kill_after)
            stage.thread = threading.Thread(target=self._play, args=[stage], daemon=True)
        for stage in self.stages.values():
            stage.thread.start()

    def _make_folder(self) -> None:
        self._folder = TemporaryFolder("live")
        folder = Path(self._folder.name)
        (folder / "images").mkdir()
        for name, body in self._files.items():
            (folder / "images" / name).write_bytes(body)
        self.options |= {"images": folder / "images", "output": folder / "output"}

    def tell(self, order: str, target: str = BUSY) -> None:
        """Do what a button does: "start", or "kill", "pause", "resume", "add", "stop" in each run.

        Parameters
        ----------
        target : str
            Whom to kill or to pause: "a busy worker", "redis" or for example "worker-0".
        """
        if order == "start":
            self.start()
        for stage in self.stages.values():
            if stage.thread.is_alive() and order != "start":
                stage.orders.append((order, target))

    def kill_worker(self, target: str = BUSY) -> None:
        """SIGKILL a worker, or whoever is named, in each run."""
        self.tell("kill", target)

    def wait(self) -> list[RunReport]:
        """Wait until the runs have ended, and return their reports.

        Raises StudyguideError if one of them could not go on, or was stopped; KeyboardInterrupt if
        the cell is interrupted; the runs are stopped first.
        """
        try:
            self._join()
        except KeyboardInterrupt:
            self.stop()
            raise
        return [stage.result() for stage in self.stages.values()]

    def stop(self) -> None:
        """End the runs, and return when no process of them is left."""
        self.tell("stop")
        self._join()

    def _join(self) -> None:
        for stage in self.stages.values():
            if stage.thread.is_alive():
                stage.thread.join()

    def close(self) -> None:
        """End the runs and the view."""
        self.stop()
        atexit.unregister(self.stop)
        super().close()

    # -- in the thread of a run

    def _play(self, stage: "Stage") -> None:
        stage.draw = self._draw
        try:
            kills = [KillWorker(stage.kill_after)] if stage.kill_after else []
            chaos: list[Chaos] = [stage, *kills]
            stage.report = run(stage.letter, on_event=stage.note, chaos=chaos, **self.options)
            placed = "{assembled} of {enqueued} tiles in place, {lost} lost."
            stage.said = f"{stage.letter} has ended: " + placed.format(**stage.report.ledger)
        except (StudyguideError, OSError) as error:
            stage.error, stage.said = error, f"{stage.letter}: {error}."
        with self._drawing:  # the last run to end leaves no file
            if self._folder and all(it.report or it.error for it in self.stages.values()):
                self._folder.cleanup()
        ended = [other.report for other in self.stages.values() if other.report]
        if len(ended) == len(self.stages):
            self.still = timeline_figure(ended[0]) if len(ended) == 1 else side_by_side(ended)
        self._draw()

    def _draw(self) -> None:
        stages = list(self.stages.values())
        with self._drawing:
            self.pictures = [stage.picture() for stage in stages]
            self._look()
            workers = {name for stage in stages for name in stage.workers}
            self.targets = [BUSY, *sorted(workers), "redis"]
            self.said = " ".join(stage.said for stage in stages)
            self.running = not all(stage.report or stage.error for stage in stages)


@dataclass
class Stage:
    """One of the runs: chaos that obeys, and what is known of the run so far."""

    letter: str
    kill_after: int = 0
    orders: deque[tuple[str, str]] = field(default_factory=deque)
    thread: threading.Thread = field(default_factory=threading.Thread)
    events: list[Event] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    report: RunReport | None = None
    error: Exception | None = None
    said: str = ""
    draw: Any = None
    drawn: float = 0.0

    def note(self, event: Event) -> None:
        """Keep an event; one that people should hear of is told."""
        self.events.append(event)
        tile = f" tile {event.tile} of {event.image}" if event.tile >= 0 else ""
        if event.stage in ("death", "reclaim", "lost", "dead", "duplicate"):
            self.said = f"{self.letter}: {event.stage} on {event.process}{tile}."

    def __call__(self, cluster: Cluster) -> None:
        """Do what was ordered; what cannot be done yet is tried again at the next step."""
        assert isinstance(cluster, LocalCluster)
        for _ in range(len(self.orders)):
            order = self.orders.popleft()
            if not obey(cluster, *order):
                self.orders.append(order)
        self.workers = [name for name, p in cluster.processes.items() if p.role == "worker"]
        if self.draw and time.monotonic() > self.drawn + FRAME_S:
            self.draw()
            self.drawn = time.monotonic()

    def result(self) -> RunReport:
        """The report of the run that has ended; its error, if it could not go on."""
        if self.error:
            raise self.error
        if not self.report:
            raise UsageError("There is no run to wait for", "Start one")
        return self.report

    def picture(self) -> "LivePicture":
        """The run as it is now."""
        timeline = self.report.timeline if self.report else Timeline(list(self.events))
        picture = LivePicture(f"approach {self.letter}", timeline, bool(self.report))
        picture.acknowledges = APPROACHES[self.letter].resumable
        return picture


def obey(cluster: LocalCluster, order: str, target: str) -> bool:
    """Carry out one order; False if it has to be tried again."""
    if order == "stop":
        raise Cancelled
    children: dict[str, Child] = {name: p.child for name, p in cluster.processes.items()}
    if order == "add":
        workers = [p for p in cluster.processes.values() if p.role == "worker"]
        command = workers[0].command
        options = command[command.index("--workers") :] if "--workers" in command else []
        cluster.scale("worker", len(workers) + 1, *options)
    elif order == "resume":
        for child in children.values():
            child.resume()
        if cluster.redis:
            cluster.redis.resume()
    elif target == BUSY and order == "kill":
        return cluster.kill_busy_worker()
    elif target == "redis" and cluster.redis:
        (cluster.redis.kill if order == "kill" else cluster.redis.pause)()
    else:
        busy = next((process for process, _ in cluster.held), "") if target == BUSY else target
        with suppress(KeyError):
            (children[busy].kill if order == "kill" else children[busy].pause)()
        return bool(busy)
    return True


class LivePicture(Picture):
    """A picture with the tiles that are in hand now, and the counters."""

    acknowledges = True  # whether its queue hears what became of a tile

    def __init__(self, name: str, timeline: Timeline, ended: bool) -> None:
        self.timeline = timeline
        scene = Scene(timeline)
        if not ended:
            scene.bars += in_hand(scene)
        super().__init__(name, scene, ended)

    def seen(self, start: float, end: float) -> dict[str, Any]:
        """With ledger and progress."""
        counts = Ledger.of(self.timeline)
        tiles = {(e.stage, e.image, e.tile) for e in self.timeline.events if e.tile >= 0}
        done = Counter((stage, image) for stage, image, _ in tiles)
        ledger = {
            "enqueued": counts.enqueued,
            "delivered": counts.delivered,
            "acknowledged": self.acknowledges * sum(stage == "transfer" for stage, *_ in tiles),
            "redelivered": counts.redelivered,
            "dead": counts.dead_letters,
            "lost": counts.lost,
        }
        state = {e.image: e.stage for e in self.timeline.of("save", "failed")}
        progress = [
            (image, done["transfer", image], n, state.get(image, "").replace("save", "saved"))
            for (stage, image), n in sorted(done.items())
            if stage == "enqueue"
        ]
        return super().seen(start, end) | {"ledger": ledger, "progress": progress}


def in_hand(scene: Scene) -> list[Bar]:
    """A bar for each tile that a lane was handed and has not finished with."""
    now = scene.timeline.end
    dead = {event.process: event.start for event in scene.timeline.of("death")}
    bars = []
    for lane, spans in scene.spans.items():
        last = max(spans, key=lambda span: span.end)
        if last.stage == "wait" and last.tile >= 0 and dead.get(lane[0], 0.0) < last.end:
            bars.append(Bar("held", lane, scene.at(last.end), scene.at(now), last))
    return bars
