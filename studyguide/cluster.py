"""Where the roles of d to g run: `LocalCluster` runs them as processes of this machine.

It keeps what a Kubernetes Deployment promises: so many processes of a role, and a new one for each
that died. It follows the events that they write, so that it can tell what a process held when it
died, and lets chaos strike by progress and never by time.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from studyguide.errors import ToolError
from studyguide.faults import Fault
from studyguide.processes import Child, Reaper
from studyguide.queues import clear
from studyguide.redis_server import RedisServer, external_server
from studyguide.settings import Settings, redis_url, to_options
from studyguide.timeline import Event, EventTail, Recorder

ROLE = (sys.executable, "-m", "studyguide")
STEP_S = 0.01  # how often the cluster looks at its processes
GRACE_S = 10.0  # between SIGTERM and SIGKILL, as in a pod
MAX_RESTARTS = 5  # of one process, with doubling pauses; then it is a crash loop
DONE = (0, 1)  # exit codes of a role that did its work; 1: some image failed
HOPELESS = (2, 75)  # wrong usage, or Redis away for longer than our patience: no use to try again


class Chaos(Protocol):
    """Something that strikes a cluster while it works; called a hundred times a second."""

    def __call__(self, cluster: "LocalCluster") -> None:
        """Strike, if it is time."""


@dataclass
class Process:
    """One process of a role, over its restarts."""

    name: str
    command: list[str]
    child: Child
    restarts: int = 0
    due: float = 0.0  # monotonic time of its next restart, 0.0 while it runs

    @property
    def role(self) -> str:
        """The role is its name without the number."""
        return self.name.rpartition("-")[0]


class LocalCluster:
    """A cluster of processes on this machine; a context manager that leaves none behind."""

    def __init__(self, settings: Settings, approach: str, folder: Path, recorder: Recorder) -> None:
        self.settings = settings
        self.approach = approach
        self.folder = folder
        self.recorder = recorder
        self.chaos: Sequence[Chaos] = ()
        self.faults: Sequence[Fault] = ()
        self.processes: dict[str, Process] = {}
        self.held: dict[tuple[str, str], Event] = {}  # (process, lane) -> last event of its tile
        self.blurred = 0  # tiles so far
        self.redis: RedisServer | None = None
        self.redis_url = ""
        self.run_id = f"{time.time_ns():x}"
        self._prefix = "{sg}:"
        self._tail = EventTail(folder / "events")
        self._reaper = Reaper()

    # -- what the approaches call

    def start_redis(self, persistent: bool) -> None:
        """Use the server that the environment names, or start one that ends with this cluster."""
        url = redis_url()
        if url:
            external_server(url)
            self.redis_url = url
            self._prefix = f"{{sg-{self.run_id}}}:"  # others may use that server too
        else:
            self.redis = RedisServer.start(self.folder / "redis", persistent, self._reaper)
            self.redis_url = self.redis.url

    def start(self, role: str, count: int = 1, *options: str) -> None:
        """Start `count` processes of a role."""
        for n in range(count):
            name = f"{role}-{n}"
            if name not in self.processes:
                command = [*ROLE, *self._arguments(role, name), *options]
                self.processes[name] = Process(name, command, self._spawn(name, command))

    def watch(self, role: str) -> None:
        """Keep the cluster going until the process of this role has done its work."""
        process = self.processes[f"{role}-0"]
        while process.child.poll() not in DONE:
            self.step()
            time.sleep(STEP_S)
        self.step()

    # -- one step: read events, let chaos strike, restart what died

    def step(self) -> None:
        """Do all that is due."""
        self.read_events()
        for strike in self.chaos:
            strike(self)
        for process in self.processes.values():
            code = process.child.poll()
            if code is not None and code not in DONE:
                self._revive(process, code)
        if self.redis and not self.redis.alive:
            self.recorder.sink(self._death("redis", "redis", None))
            self.redis.restart()

    def read_events(self) -> None:
        """Follow what the processes write."""
        for event in self._tail.read():
            lane = (event.process, event.lane)
            if event.tile >= 0 and event.stage in ("wait", "blur"):
                self.held[lane] = event
                self.blurred += event.stage == "blur"
            elif event.stage in ("transfer", "retry", "dead"):
                self.held.pop(lane, None)
            self.recorder.sink(event)

    def _revive(self, process: Process, code: int) -> None:
        now = time.monotonic()
        if process.due == 0.0:
            self._record_death(process, code)
            if code in HOPELESS or process.restarts == MAX_RESTARTS:
                raise ToolError([process.name], code, process.child.tail())
            process.due = now + 0.1 * 2**process.restarts
        elif now >= process.due:
            process.child = self._spawn(process.name, process.command)
            process.restarts += 1
            process.due = 0.0

    def _record_death(self, process: Process, code: int) -> None:
        """A cross on each lane of the process, with the tile that it held."""
        lanes = [lane for owner, lane in self.held if owner == process.name] or [process.name]
        for lane in lanes:
            held = self.held.pop((process.name, lane), None)
            self.recorder.sink(self._death(process.name, lane, held, exit_code=code))

    def _death(self, process: str, lane: str, held: Event | None, **detail: int) -> Event:
        now = self.recorder.clock()
        if held is None:
            return Event("death", now, now, process, lane, detail=detail)
        return Event("death", now, now, process, lane, held.image, held.tile, held.attempt, detail)

    # -- what chaos and people do to it

    def kill(self, name: str) -> None:
        """SIGKILL a process; it will be started again."""
        self.processes[name].child.kill()
        self.processes[name].child.wait()

    def scale(self, role: str, count: int, *options: str) -> None:
        """Have `count` processes of a role: drain those too many, start those missing."""
        names = {f"{role}-{n}" for n in range(count)}
        for process in list(self.processes.values()):
            if process.role == role and process.name not in names:
                self.processes.pop(process.name).child.stop(GRACE_S)
        self.start(role, count, *options)

    # -- processes

    def _arguments(self, role: str, name: str) -> list[str]:
        verb = ["service", "--mode", role] if self.approach == "g" else [role]
        options = ["--approach", self.approach, "--name", name, "--folder", str(self.folder)]
        planted = [part for fault in self.faults for part in ("--fault", str(fault))]
        run = ["--run", self.run_id, "--prefix", self._prefix] if self.redis_url else []
        return [*verb, *options, *run, *to_options(self.settings), *planted]

    def _spawn(self, name: str, command: list[str]) -> Child:
        # The address holds a password: in the environment it shows in no process list.
        env = {**os.environ, "REDIS_URL": self.redis_url}
        return Child.start(name, command, env, self.folder / f"{name}.log", self._reaper)

    def close(self) -> None:
        """Drain all processes at once, then end Redis."""
        for process in self.processes.values():
            process.child.resume()
            process.child.terminate()
        for process in self.processes.values():
            process.child.stop(GRACE_S)
        self.read_events()
        if self.redis:
            self.redis.stop()
        elif self.redis_url:
            clear(self.redis_url, self._prefix)
        self._reaper.close()

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KillWorker:
    """Chaos: once `after` tiles are blurred, SIGKILL a worker in the middle of its next tile.

    The victim is frozen first and killed only if its events say that it has a tile and has not
    finished it, so the fault always bites.
    """

    def __init__(self, after: int, times: int = 1) -> None:
        self.after = after
        self.left = times

    def __call__(self, cluster: LocalCluster) -> None:
        """Strike if it is time."""
        if self.left == 0 or cluster.blurred < self.after:
            return
        busy = [owner for (owner, _), event in cluster.held.items() if event.stage == "wait"]
        for name in sorted(set(busy)):
            child = cluster.processes[name].child
            child.pause()
            cluster.read_events()
            if any(owner == name and e.stage == "wait" for (owner, _), e in cluster.held.items()):
                cluster.kill(name)
                self.left -= 1
                self.after = cluster.blurred + 1
                return
            child.resume()
