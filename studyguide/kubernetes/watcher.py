"""One run on Kubernetes, from its namespace to its outputs.

The same approaches, roles and events as on one machine. The watcher creates what the manifests
describe in a namespace of the run's own, brings the images in, follows the events that the pods
hand over to the pod `files`, and brings the outputs home. Whatever keeps a pod from its work is
reported as soon as the cluster reports it.
"""

import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NoReturn, TypeVar

from studyguide import images
from studyguide.cluster import Cluster
from studyguide.errors import (
    ImageError,
    StudyguideError,
    ToolError,
    UsageError,
    explained,
    printable,
)
from studyguide.kubernetes import pods
from studyguide.kubernetes.kubectl import AGAIN, RESOURCES, RUN, Kubectl, Object
from studyguide.kubernetes.pods import INPUT, KEPT, OUTPUT, name_of, process_of
from studyguide.kubernetes.trouble import DESCRIBE, Trouble, find_trouble
from studyguide.machinery.files import atomic
from studyguide.plan import Plan, RoleName
from studyguide.record.timeline import Clock, Event, Recorder
from studyguide.work import Run

log = logging.getLogger("studyguide.kubernetes")

T = TypeVar("T")
COMPLETE = ".complete"  # is in /data/run when /data/input has all images (k8s/share.py)
FILES = "deployment/files"  # the pod that keeps images, outputs and events for all others
# What one look takes in. Events first: of a claim they say more than the claim itself.
KINDS = "events,persistentvolumeclaims,pods,deployments,jobs"
POLL_S = 1.0  # between two looks at the cluster; a look costs some tenths of a second
TOLD_S = 5.0  # between two lines that tell how many tiles are blurred
PATIENCE_S = 40.0  # how long calls may fail; longer than kubectl.TIMEOUT_S
PASSING_S = 20.0  # how long a passing trouble, such as a volume being made, may last
# How long `files` and Redis may take to start, and then the roles: an image may have to be pulled.
START_S = 300.0

# What asking again does not change.
FINAL = re.compile(r"\(Forbidden\)|Unauthorized|\(AlreadyExists\)|\(NotFound\).*namespaces")
FORBIDDEN = "Name a namespace in which you may create pods: --namespace NAME"


class KubernetesCluster(Cluster):
    """A deployment of one approach in a namespace of its own, `studyguide-<run>`.

    Raises ToolError if there is no kubectl, no current context, or the cluster does not answer;
    UsageError if the manifests are not to be found.

    With `keep` the deployment is left running at the end. A `namespace` that is named may exist
    already; then only what this run has created in it is deleted.
    """

    def __init__(
        self, plan: Plan, recorder: Recorder, *, namespace: str = "", keep: bool = False
    ) -> None:
        delivery = replace(plan.settings.delivery, payload="redis")  # pods share no folder
        settings = replace(plan.settings, delivery=delivery)
        super().__init__(replace(plan, settings=settings), recorder)
        self.keep = keep
        self.kubectl = kubectl = Kubectl.current(namespace or f"studyguide-{plan.run_id}")
        self._owns_namespace = not namespace
        # Nobody's cluster is touched without having been named.
        where = f"context {kubectl.context}, namespace {kubectl.namespace}"
        print(printable(where), file=sys.stderr)
        kubectl.answers()
        self._objects = pods.manifests(self.plan, kubectl.namespace)
        self._output = f"{OUTPUT}/{settings.output.name}"
        self._images: dict[str, bytes] = {}  # those that could be read
        self._pending: set[str] = set()  # images neither saved nor failed yet
        self._saved: dict[str, Event] = {}  # name of an output -> its save
        self._looked = recorder.clock()  # when the last look at the cluster began
        self._seen = 0.0  # when the last but one did
        self._alive: dict[str, Object] = {}  # pods as they were then
        self._struck: dict[str, float] = {}  # pods that chaos killed, and when
        self._spoke: dict[str, float] = {}  # process -> end of its last event
        self._before: dict[str, float] = {}  # the same of the process before its restart
        self._silent: dict[str, float] = {}  # process -> when a tile was first taken over from it
        self._troubled_since: dict[str, float] = {}  # where there is trouble
        self._heard_by = math.inf  # when the first event has to have come
        self._told: tuple[float, str] = (0.0, "")  # when and how far it was said to be
        (plan.folder / "events").mkdir()

    # -- what the approaches call

    def start_redis(self, persistent: bool) -> None:
        """Do nothing: the manifests bring it, persistent in f and g."""

    def kill_busy_worker(self) -> bool:
        """Kill a pod that has a tile in hand."""
        busy = sorted({pod for (pod, _), event in self.held.items() if event.stage == "wait"})
        return self._kill(busy[:1])

    def kill_redis(self) -> bool:
        """Kill the pod of Redis; its Deployment starts another."""
        return self._kill([name for name, pod in self._alive.items() if process_of(pod) == "redis"])

    def _kill(self, names: list[str]) -> bool:
        for name in names:
            self._struck[name] = self.recorder.clock()
            self.kubectl.kill(name)
        return bool(names)

    def start(self, role: RoleName, count: int = 1, threads: int | None = None) -> None:
        """Fill in how many pods of a role there shall be, and what is this run's alone.

        Raises UsageError if the manifests have no such role.
        """
        workloads = [thing for thing in self._objects if pods.role_of(thing) == role]
        if not workloads:
            problem = f"Nothing in k8s/{self.plan.approach} has the label {pods.ROLE}: {role}"
            raise UsageError(problem, "Use the manifests of this version of the course")
        planted = [part for fault in self.plan.faults for part in ("--fault", str(fault))]
        for workload in workloads:
            if workload["kind"] == "Deployment":
                workload["spec"]["replicas"] = count
            container = workload["spec"]["template"]["spec"]["containers"][0]
            container["args"] += ["--run", self.plan.run_id, *planted]
        for thing in self._objects if threads else ():
            if "THREADS" in thing.get("data", {}):
                thing["data"]["THREADS"] = str(threads)

    def watch(self, role: str) -> None:
        """Deploy, follow the Job of this role to its end, and bring everything home.

        Raises StudyguideError if something keeps the pods from their work, or the Job fails.
        """
        self._deploy()
        while not self._look(role):
            time.sleep(POLL_S)
        self._fetch_outputs()

    # -- deploying

    def _deploy(self) -> None:
        """First what all need, then the images, then the roles: none starts on an empty folder."""
        self._create_namespace([thing for thing in self._objects if thing["kind"] == "Namespace"])
        others = [thing for thing in self._objects if thing["kind"] != "Namespace"]
        common = [thing for thing in others if not pods.role_of(thing)]
        self._create(common)
        self._await_ready({name_of(thing) for thing in common if thing["kind"] == "Deployment"})
        self.recorder.clock = Clock(self._patiently(lambda: self.kubectl.time(FILES)))
        self.recorder.mark("run", **self.kubectl.describe())
        self._load_images()
        self._observe()
        self._create([thing for thing in others if pods.role_of(thing)])
        self._heard_by = time.monotonic() + START_S

    def _create_namespace(self, namespaces: list[Object]) -> None:
        """Create the namespace; one that was named may exist, or be another's to create."""
        try:
            self._patiently(lambda: self.kubectl.create(namespaces))
            self._owns_namespace = True
        except ToolError as error:
            if self._owns_namespace and "(Forbidden)" in error.stderr:
                raise ToolError(error.command, error.exit_code, error.stderr, FORBIDDEN) from error
            if not re.search(r"\((Forbidden|AlreadyExists)\)", error.stderr):
                raise

    def _create(self, things: list[Object]) -> None:
        """Create objects. Raises ToolError if another of the same name is there: it stays as is."""

        def ask() -> None:  # a call that timed out may have created some of them
            mine = self.kubectl.get(RESOURCES, f"--selector={RUN}={self.plan.run_id}")
            there = {(thing["kind"], name_of(thing)) for thing in mine}
            self.kubectl.create(it for it in things if (it["kind"], name_of(it)) not in there)

        self._patiently(ask)

    def _await_ready(self, deployments: set[str]) -> None:
        """Wait until a pod of each is ready, as long as nothing is wrong."""
        deadline = time.monotonic() + START_S
        while True:
            things = self._get()
            self._raise_lasting(find_trouble(things))
            ready = {name_of(it) for it in things if it.get("status", {}).get("readyReplicas")}
            self._tell(pods.readiness(things))
            if deployments <= ready:
                return
            if time.monotonic() > deadline:
                problem = f"Not ready after {START_S:g} s: {', '.join(sorted(deployments - ready))}"
                raise StudyguideError(problem, DESCRIBE)
            time.sleep(POLL_S)

    def _tell(self, text: str, least_s: float = 0.0) -> None:
        """Log how far the run is, when that has changed and not more often than `least_s`."""
        since, before = self._told
        if text != before and time.monotonic() >= since + least_s:
            log.info("%s", text)
            self._told = (time.monotonic(), text)

    def _load_images(self) -> None:
        """Read the images; those that cannot be read are recorded as failed."""
        run = Run(self.settings, self.recorder)
        for path in run.paths():
            told = explained(ImageError, f"{path} cannot be read", "Replace or remove the file")
            with run.guarded(path.name), told:
                self._images[path.name] = path.read_bytes()
        self._pending = set(self._images)

    # -- following

    def _look(self, role: str) -> bool:
        """Collect events, see who died, let chaos strike; tell whether the run is over."""
        things = self._observe()
        self._see_deaths(things)
        tiles = f"tiles blurred {self.blurred}" if self.blurred else ""
        self._tell(tiles or pods.readiness(things), TOLD_S if tiles else 0.0)
        found, missing = find_trouble(things), ", ".join(sorted(self._pending))
        has_ended = self._job_has_ended(f"job/{role}", things, found)
        if has_ended:
            if not missing:
                return True
            late = f"has ended without a word of {missing}"
            found.append(Trouble(f"job/{role}", late, DESCRIBE, passing=True))
        self._raise_lasting(found)
        if time.monotonic() > self._heard_by:
            raise StudyguideError(f"No pod has begun its work within {START_S:g} s", DESCRIBE)
        for strike in () if has_ended else self.plan.chaos:
            strike(self)
        return False

    def _observe(self) -> list[Object]:
        """What there is, and then all events so far: a pod that is gone has written its last.

        A pod `files` without the images is given them: the first one, and each with a new folder.
        """
        self._looked = self.recorder.clock()
        things = self._get()
        files = self._patiently(lambda: self.kubectl.read(FILES, KEPT))
        for name in (name for name in files if name.endswith(".jsonl")):
            (self.plan.folder / "events" / name).write_bytes(files[name])
        self.read_events()
        if COMPLETE not in files:
            self._patiently(self._send_images)
        return things

    def _send_images(self) -> None:
        """Bring the images in; pods that need them wait for the mark that is left after them."""
        self.kubectl.send(FILES, self._images, INPUT)
        finish = f"mkdir -p {self._output} && touch {KEPT}/{COMPLETE}"
        self.kubectl.execute(FILES, "sh", "-c", finish)
        total = len(images.find(self.settings.images)[0])
        log.info("images sent %d of %d", len(self._images), total)

    def _get(self) -> list[Object]:
        things = self._patiently(lambda: self.kubectl.get(KINDS))
        return [thing for thing in things if self._is_ours(thing)]

    def _is_ours(self, thing: Object) -> bool:
        """Whether it belongs to this run: in a namespace that was named there may be others."""
        about = thing.get("involvedObject")
        if about is None:
            return bool(pods.labels_of(thing).get(RUN) == self.plan.run_id)
        names = {name_of(it) for it in self._objects}  # a ReplicaSet's adds a digest
        is_shown = about["kind"] in ("Pod", "PersistentVolumeClaim")  # itself, with labels
        return is_shown or bool(names & {about["name"], about["name"].rpartition("-")[0]})

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask a busy cluster again when a call fails, at least once.

        Raises ToolError if it fails for longer than PATIENCE_S, or is refused.
        """
        deadline, tries = time.monotonic() + PATIENCE_S, 0
        while True:
            try:
                return ask()
            except ToolError as error:
                tries += 1
                is_late = tries > 1 and time.monotonic() > deadline
                if is_late or FINAL.search(error.stderr):
                    raise
                time.sleep(POLL_S)

    # -- deaths

    def _see_deaths(self, things: Iterable[Object]) -> None:
        """Record pods that are gone or have restarted; one that was asked to end has not died."""
        there = {name_of(thing): thing for thing in things if thing["kind"] == "Pod"}
        for name, before in self._alive.items():
            pod = there.get(name)
            if pod is None or pods.count_ends(pod) > pods.count_ends(before):
                self.record_death(process_of(before), self._died_at(before, pod))
        self._alive = {name: pod for name, pod in there.items() if pods.is_alive(pod)}
        self._seen = self._looked

    def _died_at(self, before: Object, pod: Object | None) -> float:
        """When a pod died, before all that its death caused and after all that it did itself.

        The kubelet gives full seconds, and nothing of a pod that is gone. Then the pod died after
        it was killed, or after the last look that showed it, but before others took its tiles.
        """
        process = process_of(before)
        silent = self._silent.pop(process, math.inf)
        struck = self._struck.pop(name_of(before), min(self._seen, silent))
        at = pods.ended_at(pod) or struck
        spoke = self._before.pop(process, None) or self._spoke.pop(process, at)
        return max(at, spoke)

    def _job_has_ended(self, job: str, things: Iterable[Object], found: list[Trouble]) -> bool:
        """Whether it has; exit code 1 means that some image failed, as its events report.

        Raises StudyguideError if it failed otherwise: with a pod's trouble, or the end of its log.
        """
        its = [it for it in things if it["kind"] == "Job" and f"job/{name_of(it)}" == job]
        told = [condition for it in its for condition in it["status"].get("conditions", [])]
        ended = {item["type"]: item for item in told if item["status"] == "True"}
        if "Failed" in ended and not self.failures:
            self._raise_lasting(found)  # a pod without memory has no log that could tell
            self._raise(job, ended["Failed"]["message"], "Fix what its log reports")
        return "Complete" in ended or "Failed" in ended

    def _raise_lasting(self, found: list[Trouble]) -> None:
        """Tell what keeps pods from working: at once, or when it has lasted if it may pass."""
        now, before = time.monotonic(), self._troubled_since
        self._troubled_since = {item.where: before.get(item.where, now) for item in found}
        for item in found:
            if not item.passing or now - self._troubled_since[item.where] > PASSING_S:
                self._raise(item.where, item.what, item.remedy)

    def _raise(self, where: str, what: str, remedy: str) -> NoReturn:
        """Raise StudyguideError with the end of a pod's log: with the namespace it will be gone."""
        try:
            said = self.kubectl("logs", where, "--tail=10").decode(errors="replace")
        except ToolError:
            said = ""  # it never started, or is no pod
        raise StudyguideError(f"{where}: {what}\n{said}".strip(), remedy)

    # -- coming home

    def note(self, event: Event) -> None:
        """Keep account of an event; what it says of files is true of the local ones at the end."""
        self._heard_by = math.inf
        if event.stage == "start" and event.process in self._spoke:
            self._before[event.process] = self._spoke.pop(event.process)
        self._spoke[event.process] = max(event.end, self._spoke.get(event.process, 0.0))
        if event.stage == "reclaim":
            self._silent.setdefault(event.detail["from_worker"].partition("/")[0], event.start)
        if event.stage == "save":
            name = PurePosixPath(event.detail["path"]).name
            event.detail["path"] = str(self.settings.output / name)
            self._saved[name] = event
        if event.stage == "failed":
            told = event.detail["error"]
            event.detail["error"] = told.replace(INPUT, str(self.settings.images))
        if event.stage in ("save", "failed"):
            self._pending.discard(event.image)
        super().note(event)

    def _fetch_outputs(self) -> None:
        """Bring the outputs here. Raises StudyguideError if one is not as its pod saved it."""
        for name, body in self._patiently(self._outputs).items():
            with atomic(self.settings.output / name) as file:
                file.write(body)
        for name, event in self._saved.items():
            path = self.settings.output / name
            if images.sha256(images.load(path)) != event.detail["pixels_sha256"]:
                raise StudyguideError(
                    f"{path} has not the pixels that {event.process} saved", AGAIN
                )

    def _outputs(self) -> dict[str, bytes]:
        """Fetch all outputs. ToolError while one is missing: a new pod `files` gets them again."""
        files = self.kubectl.fetch(FILES, self._output)
        if missing := ", ".join(sorted(self._saved.keys() - files.keys())):
            raise ToolError(["kubectl", "exec", FILES, "tar"], 0, f"no {missing} there", AGAIN)
        return files

    def close(self) -> None:
        """Delete what this run has created, unless it is to be kept."""
        if not self.keep:
            kinds = "namespaces" if self._owns_namespace else RESOURCES
            self._patiently(lambda: self.kubectl.delete(kinds, f"{RUN}={self.plan.run_id}"))
