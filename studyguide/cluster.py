"""Where the roles of d to g run: `Cluster` is what both kinds share, `LocalCluster` runs processes.

A cluster keeps what a Kubernetes Deployment promises: so many processes of a role, and a new one
for each that died. It follows the events that they write, so that it can tell what a process held
when it died, and lets chaos strike by progress and never by time. `studyguide.kubernetes` has the
other kind, whose processes are pods.
"""

import logging
import os
import sys
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from studyguide import images
from studyguide.approaches import APPROACHES
from studyguide.errors import ImageError, ToolError, UsageError
from studyguide.machinery import files
from studyguide.machinery.link import Link, clear, expire
from studyguide.machinery.processes import Child, Reaper
from studyguide.machinery.redis_server import RedisServer, external_server
from studyguide.machinery.run_folder import KEPT_S
from studyguide.machinery.warm import Template
from studyguide.plan import Plan, Role, RoleName
from studyguide.record.timeline import LET_GO, Event, EventTail, Recorder
from studyguide.settings import Settings, redis_url
from studyguide.states import reopen

log = logging.getLogger(__name__)

STUDYGUIDE = (sys.executable, "-m", "studyguide")
STEP_S = 0.01  # how often the cluster looks at its processes
GRACE_S = 10.0  # between SIGTERM and SIGKILL, as in a pod
MAX_RESTARTS = 5  # of one process, with doubling pauses; then it is a crash loop
HEALTHY_S = 60.0  # a process that ran for so long begins to count its restarts anew
DONE = (0, 1)  # exit codes of a role that did its work; 1: some image failed
HOPELESS = (2, 75)  # a restart cannot help: wrong usage; Redis away too long, or a full disk


class Chaos(Protocol):
    """Something that strikes a cluster while it works; called a hundred times a second."""

    def __call__(self, cluster: "Cluster") -> None:
        """Strike, if it is time."""


class Cluster(ABC):
    """Processes or pods that work on one run, and the events that they write.

    Approaches call `start_redis`, `start` and `watch`; chaos calls `kill_busy_worker`.
    """

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        self.plan = plan
        self.recorder = recorder
        self.held: dict[tuple[str, str], Event] = {}  # (process, lane) -> last event of its tile
        self.blurred = 0  # tiles so far
        self.failures = 0  # images so far
        self.cut_short = False  # it ends with an error, or was asked to stop
        self._tail = EventTail(plan.folder / "events")

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self.plan.settings

    @abstractmethod
    def start_redis(self, persistent: bool) -> None:
        """Have a Redis for this run, persistent or not."""

    @abstractmethod
    def start(self, role: RoleName, count: int = 1, threads: int | None = None) -> None:
        """Have `count` processes of a role, with so many threads each if they blur."""

    @abstractmethod
    def watch(self, role: str) -> None:
        """Keep the cluster going until the one process of this role has done its work."""

    @abstractmethod
    def kill_busy_worker(self) -> bool:
        """Kill a worker that has a tile in hand; False if none was caught this time."""

    @abstractmethod
    def kill_redis(self) -> bool:
        """Kill the Redis of this run; False if there is none at this moment."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""

    def read_events(self) -> None:
        """Follow what the processes write."""
        for event in self._tail.read():
            self.note(event)

    def note(self, event: Event) -> None:
        """Keep account of one event and hand it on."""
        lane = (event.process, event.lane)
        if event.tile >= 0 and event.stage in ("wait", "blur"):
            self.held[lane] = event
        elif event.stage in LET_GO:
            self.held.pop(lane, None)
        self.blurred += event.stage == "blur" and event.tile >= 0
        self.failures += event.stage == "failed"
        self.recorder.sink(event)

    def record_death(self, process: str, at: float | None = None, **detail: Any) -> None:
        """Record a death, now or `at`, on each lane of a process that was at work.

        With the tile that the lane held.
        """
        now = self.recorder.clock() if at is None else at
        lanes = [lane for owner, lane in self.held if owner == process] or [process]
        for lane in lanes:
            tile = self.held.pop((process, lane), Event("death", now, now, process, lane))
            what = (tile.image, tile.tile, tile.attempt, detail)
            self.recorder.sink(Event("death", now, now, process, lane, *what))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, fault: BaseException | None, _: object) -> None:
        self.cut_short = kind is not None
        try:
            self.close()
        except Exception as error:
            if fault is None:
                raise
            log.warning("what runs for %s was not closed well: %s", self.plan.folder, error)


@dataclass
class Process:
    """One process of a role, over its restarts."""

    role: Role
    child: Child
    restarts: int = 0
    since: float = field(default_factory=time.monotonic)  # when its child was started
    due: float = 0.0  # monotonic time of its next restart, 0.0 while it runs


class LocalCluster(Cluster):
    """A cluster of processes on this machine; a context manager that leaves none behind."""

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        super().__init__(plan, recorder)
        self.processes: dict[str, Process] = {}
        self.redis: RedisServer | None = None
        self.redis_url = ""
        self._awaited: Process | None = None  # the one that may end by itself
        self._reaper = Reaper()

    def prepare(self) -> None:
        """Have a warm template, if roles are forked from one, before the clock starts."""
        if self.settings.start == "warm":
            Template.current().warm_up(self.settings.blur)

    # -- what the approaches call

    def start_redis(self, persistent: bool) -> None:
        """Use the server that the environment names, or start one that ends with this cluster."""
        url = redis_url()
        if url:
            external_server(url)
            self.redis_url = url
            if self._is_resumed:
                expire(url, self.plan.prefix, None)
        else:
            self.redis = RedisServer.start(self.plan.folder / "redis", persistent, self._reaper)
            self.redis_url = self.redis.url
        if self._is_resumed:
            reopen(Link(self.redis_url), self.plan.prefix, self._intact())
        if persistent:
            log.info("run %s, in %s", self.plan.run_id, self.plan.folder)  # what --resume takes

    @property
    def _is_resumed(self) -> bool:
        return (self.plan.folder / "events").exists()

    def _intact(self) -> set[str]:
        """Images that were saved, and whose files are still what they were."""
        events = EventTail(self.plan.folder / "events").read()
        ends = [event for event in events if event.stage in ("save", "failed")]
        last = {event.image: event for event in sorted(ends, key=lambda event: event.end)}
        saved = [event for event in last.values() if event.stage == "save"]
        return {event.image for event in saved if _is_as_recorded(event)}

    def start(self, role: RoleName, count: int = 1, threads: int | None = None) -> None:
        """Start those of `count` processes of a role that are missing."""
        for name in (f"{role}-{n}" for n in range(count)):
            if name not in self.processes:
                its = self.plan.role(role, name, threads)
                its.write()
                self.processes[name] = Process(its, self._spawn(its))

    def watch(self, role: str) -> None:
        """Keep the cluster going until the process of this role has done its work."""
        self._awaited = process = self.processes[f"{role}-0"]
        while process.child.poll() not in DONE:
            self.step()
            time.sleep(STEP_S)
        self.step()
        if process.child.poll() and not self.failures:  # Python's own 1: it never came to its work
            raise ToolError([process.role.name], process.child.poll(), process.child.tail())

    # -- one step: read events, let chaos strike, restart what died

    def step(self) -> None:
        """Do all that is due."""
        self.read_events()
        for strike in self.plan.chaos:
            strike(self)
        for process in self.processes.values():
            code = process.child.poll()
            if code is not None and not (process is self._awaited and code in DONE):
                self._revive(process, code)
        if self.redis and not self.redis.alive:
            self.record_death("redis")
            self.redis.restart()

    def _revive(self, process: Process, code: int) -> None:
        now = time.monotonic()
        if process.due == 0.0:
            self.record_death(process.role.name, exit_code=code)
            files.sweep(self.settings.output)
            if now - process.since > HEALTHY_S:
                process.restarts = 0
            if code in HOPELESS or process.restarts == MAX_RESTARTS:
                silence = f"nothing, as it is where the disk of {self.plan.folder} is full"
                raise ToolError([process.role.name], code, process.child.tail() or silence)
            process.due = now + 0.1 * 2**process.restarts
        elif now >= process.due:
            process.child = self._spawn(process.role)
            process.restarts += 1
            process.since, process.due = now, 0.0

    # -- what chaos and people do to it

    def kill(self, name: str) -> None:
        """SIGKILL a process; it will be started again."""
        self.processes[name].child.kill()
        self.processes[name].child.wait()

    def kill_busy_worker(self) -> bool:
        """Kill a worker that is in the middle of a tile."""
        name = self.freeze_busy_worker()
        if name:
            self.kill(name)
        return bool(name)

    def kill_redis(self) -> bool:
        """Kill the server that this run started; `step` starts it again.

        Raises UsageError if this run uses another server, which others may use too.
        """
        if self.redis is None:
            problem = "The Redis of this run is external; refusing to kill it"
            raise UsageError(problem, "Unset REDIS_URL")
        self.redis.kill()
        return True

    def freeze_busy_worker(self) -> str:
        """Freeze a worker; return its name if it is in the middle of a tile, else let it go on."""
        for name in sorted({owner for owner, _ in self._blurring()}):
            child = self.processes[name].child
            child.pause()
            self.read_events()
            if any(owner == name for owner, _ in self._blurring()):
                return name
            child.resume()
        return ""

    def _blurring(self) -> list[tuple[str, str]]:
        """Lanes that were handed a tile and have not finished its blur."""
        return [lane for lane, event in self.held.items() if event.stage == "wait"]

    def scale(self, role: RoleName, count: int) -> None:
        """Have `count` processes of a role: drain those too many, start more like the first."""
        there = self.having(role)
        for process in there[count:]:
            self.processes.pop(process.role.name).child.stop(GRACE_S)
        self.start(role, count, there[0].role.settings.workers if there else None)

    def having(self, role: RoleName) -> list[Process]:
        """The processes that have this role."""
        return [process for process in self.processes.values() if process.role.role == role]

    # -- processes

    def address(self, name: str) -> str:
        """Where this process finds Redis; a cluster with a network in between overrides it."""
        return self.redis_url

    def _spawn(self, role: Role) -> Child:
        """Start `studyguide role FILE`, which is `_written_role` in `__main__`."""
        command = ["role", str(role.path)]
        # The address holds a password: in the environment it shows in no process list.
        env = {**os.environ, "REDIS_URL": self.address(role.name)}
        log = self.plan.folder / f"{role.name}.log"
        if self.settings.start == "fresh":
            return Child(role.name, [*STUDYGUIDE, *command], env, log, self._reaper)
        return Child(role.name, command, env, log, self._reaper, Template.current().fork)

    def close(self) -> None:
        """Drain all processes at once, then end Redis.

        Each step is taken though another one fails or is interrupted: the reaper is the last and
        kills what is still there.
        """
        with ExitStack() as steps:  # the last one first
            steps.callback(self._reaper.close)
            steps.callback(self._leave_redis)
            steps.callback(self.read_events)
            for process in self.processes.values():
                steps.callback(process.child.kill)  # if its stop was interrupted
                steps.callback(process.child.stop, GRACE_S)
            for process in self.processes.values():
                steps.callback(process.child.ask_to_end)

    def _leave_redis(self) -> None:
        """End our server; on another one leave nothing, or what `--resume` needs for some days."""
        if self.redis:
            self.redis.stop()
        elif self.redis_url and self.cut_short and APPROACHES[self.plan.approach].resumable:
            expire(self.redis_url, self.plan.prefix, KEPT_S)
        elif self.redis_url:
            clear(self.redis_url, self.plan.prefix)


def _is_as_recorded(save: Event) -> bool:
    """Whether a file that was saved is there with the pixels that it had."""
    try:
        pixels = images.load(Path(save.detail["path"]))
        return bool(images.sha256(pixels) == save.detail["pixels_sha256"])
    except ImageError:
        return False


@dataclass
class KillWorker:
    """Chaos: once `after` tiles are blurred, kill a worker in the middle of its next tile."""

    after: int
    times: int = 1

    def __call__(self, cluster: Cluster) -> None:
        """Strike if it is time; try again at the next step if no worker was caught."""
        if self.times and cluster.blurred >= self.after and cluster.kill_busy_worker():
            self.times -= 1
            self.after = cluster.blurred + 1


@dataclass
class KillRedis:
    """Chaos: once `after` tiles are blurred, kill the server; the cluster starts it again.

    Raises UsageError when it strikes a server that this run did not start.
    """

    after: int
    done: bool = False

    def __call__(self, cluster: Cluster) -> None:
        """Strike if it is time."""
        if not self.done and cluster.blurred >= self.after:
            self.done = cluster.kill_redis()
