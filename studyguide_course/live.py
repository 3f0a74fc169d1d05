"""Runs that you watch and interfere with while they work, by buttons or by a script.

Each run is `studyguide.run` in a thread, with chaos that does what the buttons say; all of them
share the view of `studyguide_course.view`.
"""

import atexit
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets

from studyguide import images, runs
from studyguide.approaches import APPROACHES
from studyguide.cluster import Chaos, Cluster, KillWorker, LocalCluster
from studyguide.errors import Cancelled, StudyguideError, UsageError
from studyguide.machinery.run_folder import TemporaryFolder
from studyguide.record.charts import timeline_figure
from studyguide.record.looks import LOOKS
from studyguide.record.report import Ledger, RunReport
from studyguide.record.scene import Bar, Scene
from studyguide.record.timeline import Event, Timeline
from studyguide_course.lesson import Lesson
from studyguide_course.network.controls import BUSY, Controls
from studyguide_course.network.links import LinkedCluster, Network
from studyguide_course.view import Drawing, RunView, side_by_side

IN_HAND = ("tile in hand", *LOOKS["held"][1:])
FRAME_S = 0.2  # how often a run is drawn


class LiveRun(RunView):
    """Runs of e, f or g on processes, side by side: buttons and methods do the same to them.

    They take the images and settings of the lesson, and `options`. Without letters there is one
    run, of the lesson's own approach.
    """

    looks = traitlets.List([*map(list, {**LOOKS, "held": IN_HAND}.values())]).tag(sync=True)
    said = traitlets.Unicode("Press Start.").tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)

    def __init__(self, lesson: Lesson, letters: Iterable[str] = "", **options: Any) -> None:
        self._lesson = lesson
        # Kept in memory, so that it can be started again when the lesson's files are gone.
        self._files = {path.name: path.read_bytes() for path in images.find(lesson.images)[0]}
        self._folder: TemporaryFolder | None = None  # while it runs
        self.options = lesson.options | options
        self._drawing = threading.Lock()
        self.threads = [RunThread(letter) for letter in letters or lesson.approach.letter]
        super().__init__([thread.drawing() for thread in self.threads])
        self.controls = Controls(self.tell, self._change)
        atexit.register(self.stop)  # the kernel ends or is started anew

    def start(self, kill_after: int = 0) -> None:
        """Start the runs, and return at once.

        Kill a worker of each run after `kill_after` blurred tiles; 0 leaves that to people.
        """
        if any(thread.is_alive() for thread in self.threads):
            return
        self._lesson.lock_guesses()
        self._make_folder()
        self.running, self.still, self.said = True, None, "Processes start."
        self.controls.show([], self.running)
        self.threads = [
            RunThread(thread.letter, self.options, kill_after, self._draw)
            for thread in self.threads
        ]
        self._change(**self.controls.quality())
        for thread in self.threads:
            thread.start()

    def _make_folder(self) -> None:
        self._folder = TemporaryFolder("live")
        folder = Path(self._folder.name)
        (folder / "images").mkdir()
        for name, body in self._files.items():
            (folder / "images" / name).write_bytes(body)
        self.options |= {"images": folder / "images", "output": folder / "output"}

    def network(self, latency_s: float = 0.0, jitter_s: float = 0.0, loss: float = 0.0) -> None:
        """Set the sliders, at any time: seconds, and the share of pieces that are lost."""
        self.controls.slide(latency_s=latency_s, jitter_s=jitter_s, loss=loss)

    def _change(self, **quality: float) -> None:
        for thread in self.threads:
            thread.network.change(**quality)

    def tell(self, order: str, target: str = BUSY) -> None:
        """Do what a button does: "start", or an order of `controls.BUTTONS` in each run.

        `target` is whom to kill, to pause or to cut off: "a busy worker", for example "worker-0",
        or "redis", which cannot be cut off.
        """
        if order == "start":
            self.start()
            return
        for thread in self.threads:
            if thread.is_alive():
                thread.orders.append((order, target))

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
        return [thread.result() for thread in self.threads]

    def stop(self) -> None:
        """End the runs, and return when no process of them is left."""
        self.tell("stop")
        self._join()

    def _join(self) -> None:
        for thread in self.threads:
            if thread.is_alive():
                thread.join()

    def close(self) -> None:
        """End the runs and the view."""
        self.stop()
        atexit.unregister(self.stop)
        self.controls.box.close()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle, about = super()._repr_mimebundle_(**options)
        shown = ipywidgets.VBox([self.controls.box, self])._repr_mimebundle_(**options)
        return {**bundle, **{kind: shown[kind] for kind in bundle if "widget" in kind}}, about

    def _draw(self) -> None:
        """Show how the runs are getting on; called in their threads."""
        with self._drawing:
            over = all(thread.report or thread.error for thread in self.threads)
            if over and self._folder:  # the last run to end leaves no file
                self._folder.cleanup()
            reports = [thread.report for thread in self.threads if thread.report]
            if len(reports) == len(self.threads):
                alone = len(reports) == 1
                self.still = timeline_figure(reports[0]) if alone else side_by_side(reports)
            self.drawings = [thread.drawing() for thread in self.threads]
            self._look()
            workers = {name for thread in self.threads for name in thread.workers}
            self.said = " ".join(thread.said for thread in self.threads)
            self.running = not over
            self.controls.show(sorted(workers), self.running)


class RunThread(threading.Thread):
    """The thread of one run: it is also chaos that obeys orders, and knows the run so far."""

    def __init__(
        self,
        letter: str,
        options: Mapping[str, Any] | None = None,
        kill_after: int = 0,
        draw: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name=f"live-{letter}", daemon=True)
        self.letter, self.options, self.draw = letter, options or {}, draw
        self.network = Network()
        self.kills = [KillWorker(kill_after)] if kill_after else []
        self.orders: deque[tuple[str, str]] = deque()
        self.events: list[Event] = []
        self.workers: list[str] = []
        self.report: RunReport | None = None
        self.error: Exception | None = None
        self.said = ""
        self.drawn = 0.0

    def run(self) -> None:
        """Run the approach to its end."""
        try:
            chaos: list[Chaos] = [self, *self.kills]
            options = {"on_event": self.note, "chaos": chaos, **self.options}
            self.report = runs.run(self.letter, local=self.network.cluster, **options)
            placed = "{assembled} of {enqueued} tiles in place, {lost} lost."
            self.said = f"{self.letter} has ended: " + placed.format(**self.report.ledger)
        except (StudyguideError, OSError) as error:
            self.error, self.said = error, f"{self.letter}: {error}."
        self.draw()

    def note(self, event: Event) -> None:
        """Keep an event, and say so if it is a fault."""
        self.events.append(event)
        tile = f" tile {event.tile} of {event.image}" if event.tile >= 0 else ""
        if event.stage in ("death", "reclaim", "lost", "dead", "duplicate"):
            self.said = f"{self.letter}: {event.stage} on {event.process}{tile}."

    def __call__(self, cluster: Cluster) -> None:
        """Do what was ordered; what cannot be done yet is tried again at the next step."""
        assert isinstance(cluster, LinkedCluster)
        for _ in range(len(self.orders)):
            order = self.orders.popleft()
            if not obey(cluster, *order):
                self.orders.append(order)
        self.workers = workers_of(cluster)
        if time.monotonic() > self.drawn + FRAME_S:
            self.draw()
            self.drawn = time.monotonic()

    def result(self) -> RunReport:
        """The report of the run that has ended; its error, if it could not go on."""
        if self.error:
            raise self.error
        if not self.report:
            raise UsageError("There is no run to wait for", "Start one")
        return self.report

    def drawing(self) -> "LiveDrawing":
        """The run as it is now."""
        timeline = self.report.timeline if self.report else Timeline(list(self.events))
        return LiveDrawing(self.letter, timeline, ended=self.report is not None)


def workers_of(cluster: LocalCluster) -> list[str]:
    """Names of the workers' processes."""
    return [process.role.name for process in cluster.having("worker")]


def obey(cluster: LinkedCluster, order: str, target: str) -> bool:
    """Carry out one order; False if it has to be tried again."""
    if order == "stop":
        raise Cancelled
    if order in ("kill", "cut") and target == BUSY:
        return bool(cluster.kill_busy_worker() if order == "kill" else cluster.cut_busy_worker())
    victims: dict[str, Any] = {name: it.child for name, it in cluster.processes.items()}
    if cluster.redis:
        victims["redis"] = cluster.redis
    if order == "add":
        cluster.scale("worker", len(workers_of(cluster)) + 1)
    elif order == "cut":
        cluster.cut(target)
    elif order == "heal":
        cluster.network.heal()
    elif order == "resume":
        for victim in victims.values():
            victim.resume()
    else:
        name = next((owner for owner, _ in cluster.held), "") if target == BUSY else target
        if victim := victims.get(name):
            (victim.kill if order == "kill" else victim.pause)()
        return bool(name)
    return True


class LiveDrawing(Drawing):
    """A drawing with the tiles that are in hand now, and the counters."""

    def __init__(self, letter: str, timeline: Timeline, ended: bool) -> None:
        self.timeline = timeline
        # Whether its queue hears what became of a tile.
        self.acknowledges = APPROACHES[letter].resumable
        scene = Scene(timeline)
        if not ended:
            scene.bars += in_hand(scene)
        super().__init__(f"approach {letter}", scene, ended)

    def seen(self, start: float, end: float) -> dict[str, Any]:
        """With ledger and progress."""
        counts = Ledger.of(self.timeline)
        tiles = {(e.stage, e.image, e.tile) for e in self.timeline.events if e.tile >= 0}
        done = Counter((stage, image) for stage, image, _ in tiles)
        acknowledged = sum(stage == "transfer" for stage, *_ in tiles)
        ledger = {
            "enqueued": counts.enqueued,
            "delivered": counts.delivered,
            "acknowledged": acknowledged if self.acknowledges else None,
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
