"""Where the roles of d to g run: `KubernetesCluster` runs them as pods, through kubectl.

The same approaches, roles and events as on one machine. The manifests in k8s/ describe everything;
this module renders them, fills in the run's settings, creates them in a namespace of the run's own,
brings the images in, follows the events that the pods hand over to the pod `files`, and brings the
outputs home. Whatever keeps a pod from its work is reported as soon as the cluster reports it.
"""

import base64
import json
import logging
import math
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from studyguide import images
from studyguide.cluster import DONE, Cluster
from studyguide.errors import (
    ImageError,
    StudyguideError,
    ToolError,
    UsageError,
    explained,
    printable,
)
from studyguide.kubernetes.kubectl import (
    AGAIN,
    DESCRIBE,
    RESOURCES,
    RUN,
    Kubectl,
    Object,
    Trouble,
    find_trouble,
    kustomize,
    labels_of,
)
from studyguide.machinery import places
from studyguide.machinery.files import atomic
from studyguide.plan import Plan, RoleName
from studyguide.record.timeline import Clock, Event, Recorder
from studyguide.settings import to_options
from studyguide.work import Run

log = logging.getLogger(__name__)

T = TypeVar("T")
INPUT, OUTPUT, EVENTS = "/data/input", "/data/output", "/data/run/events"  # in every pod
FILES = "deployment/files"  # the pod that keeps these folders for all others
ROLE = "studyguide/role"  # label of the pods that run a role of ours
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
# Why a pod goes without a chance to finish, in the API's words.
LOST = ("DeletionByTaintManager", "DeletionByPodGC", "TerminationByKubelet")


@dataclass(frozen=True)
class Alive:
    """A pod as the last look at the cluster showed it."""

    process: str  # its name in the timeline
    ends: int  # how often its container had ended
    seen: float  # when that look began


class KubernetesCluster(Cluster):
    """A deployment of one approach in a namespace of its own, `studyguide-<run>`.

    Raises ToolError if there is no kubectl, no current context, or the cluster does not answer;
    UsageError if the manifests are not to be found.

    With `keep` the deployment is left running at the end. A `namespace` that is named may exist
    already; then only what this run has created in it is deleted.
    """

    def __init__(
        self,
        plan: Plan,
        recorder: Recorder,
        *,
        namespace: str = "",
        keep: bool = False,
    ) -> None:
        delivery = replace(plan.settings.delivery, payload="redis")  # pods share no folder
        super().__init__(
            replace(plan, settings=replace(plan.settings, delivery=delivery)), recorder
        )
        self.keep = keep
        self.kubectl = kubectl = Kubectl.current(namespace or f"studyguide-{self.plan.run_id}")
        self._owns_namespace = not namespace
        # Nobody's cluster is touched without having been named.
        where = f"context {kubectl.context}, namespace {kubectl.namespace}"
        print(printable(where), file=sys.stderr)
        kubectl.answers()
        self._objects = self._own(_load(kustomize(places.find("k8s") / plan.approach)))
        self._output = f"{OUTPUT}/{self.settings.output.name}"
        self._looked = recorder.clock()  # when the last look at the cluster began
        self._alive: dict[str, Alive] = {}  # pods at that look
        self._struck: dict[str, float] = {}  # pods that chaos killed, and when
        self._spoke: dict[str, float] = {}  # process -> end of its last event
        self._before: dict[str, float] = {}  # the same of the process before its restart
        self._silent: dict[str, float] = {}  # process -> when a tile was first taken over from it
        self._troubled_since: dict[str, float] = {}  # where there is trouble
        self._pending: set[str] = set()  # images neither saved nor failed yet
        self._saved: list[Event] = []
        self._heard_by = math.inf  # when the first event has to have come
        self._told: tuple[float, str] = (0.0, "")  # when and how far it was said to be
        (plan.folder / "events").mkdir()

    def _own(self, things: list[Object]) -> list[Object]:
        """Put the manifests into the run's namespace and label them; give the run a password."""
        text = json.dumps(things)
        for secret in (thing for thing in things if thing["kind"] == "Secret"):
            text = text.replace(
                _name(secret), f"redis-{self.plan.run_id}"
            )  # of no other deployment
        things = json.loads(text)
        labels = labels_of(self.plan.run_id)
        for thing in things:
            which = "name" if thing["kind"] == "Namespace" else "namespace"
            thing["metadata"][which] = self.kubectl.namespace
            template = thing.get("spec", {}).get("template")
            for labelled in (thing, template) if template else (thing,):
                labelled["metadata"]["labels"] = _labels(labelled) | labels
            if thing["kind"] == "Secret":
                password = base64.b64encode(secrets.token_hex(16).encode()).decode()
                thing["data"] = dict.fromkeys(thing["data"], password)
        return things

    # -- what the approaches call

    def start_redis(self, persistent: bool) -> None:
        """Do nothing: the manifests bring it, persistent in f and g."""

    def kill_busy_worker(self) -> bool:
        """Kill a pod that has a tile in hand."""
        busy = sorted({pod for (pod, _), event in self.held.items() if event.stage == "wait"})
        return self._kill(busy[:1])

    def kill_redis(self) -> bool:
        """Kill the pod of Redis; its Deployment starts another."""
        return self._kill([name for name, pod in self._alive.items() if pod.process == "redis"])

    def _kill(self, pods: list[str]) -> bool:
        for pod in pods:
            self._struck[pod] = self.recorder.clock()
            self.kubectl.kill(pod)
        return bool(pods)

    def start(self, role: RoleName, count: int = 1, threads: int | None = None) -> None:
        """Fill in how many pods of a role there shall be, and the settings of the run.

        Raises UsageError if the manifests have no such role.
        """
        workloads = [thing for thing in self._objects if _role(thing) == role]
        if not workloads:
            problem = f"Nothing in k8s/{self.plan.approach} has the label {ROLE}: {role}"
            raise UsageError(problem, "Use the manifests of this version of the course")
        for workload in workloads:
            if workload["kind"] == "Deployment":
                workload["spec"]["replicas"] = count
            pod = workload["spec"]["template"]["spec"]
            container = pod["containers"][0]
            container["args"] = [*container.get("args", []), *self._arguments(threads)]

    def _arguments(self, threads: int | None) -> list[str]:
        """The settings of this run, for which those of the manifests give way."""
        inside = replace(self.settings, images=Path(INPUT), output=Path(self._output))
        if threads:
            inside = replace(inside, workers=threads)
        planted = [part for fault in self.plan.faults for part in ("--fault", str(fault))]
        return [*to_options(inside), "--run", self.plan.run_id, *planted]

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
        common = [it for it in self._objects if not _role(it) and it["kind"] != "Namespace"]
        self._create(common)
        self._await_ready({_name(thing) for thing in common if thing["kind"] == "Deployment"})
        self._execute("mkdir", "-p", INPUT, self._output, EVENTS)
        self._execute("find", "-H", INPUT, "-type", "f", "-delete")  # the samples
        self.recorder.clock = Clock(self._patiently(self._cluster_time))
        self.recorder.mark("run", **self._describe())
        self._send_images()
        self._create([thing for thing in self._objects if _role(thing)])
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
            there = {(thing["kind"], _name(thing)) for thing in mine}
            self.kubectl.create(it for it in things if (it["kind"], _name(it)) not in there)

        self._patiently(ask)

    def _execute(self, *command: str) -> None:
        self._patiently(lambda: self.kubectl.execute(FILES, *command))

    def _await_ready(self, deployments: set[str]) -> None:
        """Wait until a pod of each is ready, as long as nothing is wrong."""
        deadline = time.monotonic() + START_S
        while True:
            things = self._get()
            self._raise_lasting(find_trouble(things))
            ready = {_name(it) for it in things if it.get("status", {}).get("readyReplicas")}
            self._tell(_readiness(things))
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

    def _cluster_time(self) -> float:
        """The cluster's clock in seconds since the epoch, half the round trip added."""
        start = time.perf_counter()
        seconds = float(self.kubectl.execute(FILES, "date", "+%s.%N"))
        return seconds + (time.perf_counter() - start) / 2

    def _describe(self) -> dict[str, Any]:
        """What the pods run on, as far as we may ask: without names or addresses."""
        try:
            server = json.loads(self.kubectl("version", "--output", "json"))["serverVersion"]
            nodes = [node["status"] for node in self.kubectl.get("nodes")]
        except ToolError:
            return {}
        return {
            "kubernetes": server["gitVersion"],
            "nodes": "; ".join(
                f"{node['capacity']['cpu']} cores, {node['nodeInfo']['osImage']}, "
                f"{node['nodeInfo']['containerRuntimeVersion']}"
                for node in nodes
            ),
        }

    def _send_images(self) -> None:
        """Bring the images in; those that cannot be read are recorded as failed."""
        run, bodies = Run(self.settings, self.recorder), {}
        paths = list(run.paths())
        for path in paths:
            told = explained(ImageError, f"{path} cannot be read", "Replace or remove the file")
            with run.guarded(path.name), told:
                bodies[path.name] = path.read_bytes()
        self._pending = set(bodies)
        self._patiently(lambda: self.kubectl.send(FILES, bodies, INPUT))
        log.info("images sent %d of %d", len(bodies), len(paths))

    # -- following

    def _look(self, role: str) -> bool:
        """Collect events, see who died, let chaos strike; tell whether the run is over."""
        things = self._observe()
        self._see_deaths(things)
        tiles = f"tiles blurred {self.blurred}" if self.blurred else ""
        self._tell(tiles or _readiness(things), TOLD_S if tiles else 0.0)
        found, missing = find_trouble(things), ", ".join(sorted(self._pending))
        has_ended = self._job_has_ended(f"job/{role}", things, found)
        if has_ended and not missing:
            return True
        if has_ended:
            late = f"has ended without a word of {missing}"
            found.append(Trouble(f"job/{role}", late, DESCRIBE, passing=True))
        self._raise_lasting(found)
        if time.monotonic() > self._heard_by:
            raise StudyguideError(f"No pod has begun its work within {START_S:g} s", DESCRIBE)
        for strike in () if has_ended else self.plan.chaos:
            strike(self)
        return False

    def _observe(self) -> list[Object]:
        """What there is, and then all events so far: a pod that is gone has written its last."""
        self._looked = self.recorder.clock()
        things = self._get()
        files = self._patiently(lambda: self.kubectl.read(FILES, EVENTS))
        for name, body in files.items():
            (self.plan.folder / "events" / name).write_bytes(body)
        self.read_events()
        return things

    def _get(self) -> list[Object]:
        things = self._patiently(lambda: self.kubectl.get(KINDS))
        return [thing for thing in things if self._is_ours(thing)]

    def _is_ours(self, thing: Object) -> bool:
        """Whether it belongs to this run: in a namespace that was named there may be others."""
        about = thing.get("involvedObject")
        if about is None:
            return _labels(thing).get(RUN) == self.plan.run_id
        names = {_name(it) for it in self._objects}  # a ReplicaSet's adds a digest
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
        pods = {_name(it): it for it in things if it["kind"] == "Pod"}
        for name, before in self._alive.items():
            pod = pods.get(name)
            if pod is None or _ends(pod) > before.ends:
                self.record_death(before.process, self._died_at(name, before, pod))
        self._alive = {
            name: Alive(_process(pod), _ends(pod), self._looked)
            for name, pod in pods.items()
            if pod["status"].get("phase") not in ("Succeeded", "Failed")
            and ("deletionTimestamp" not in pod["metadata"] or _is_lost(pod))
        }

    def _died_at(self, name: str, before: Alive, pod: Object | None) -> float:
        """When a pod died, before all that its death caused and after all that it did itself.

        The kubelet gives full seconds, and nothing of a pod that is gone. Then the pod died after
        it was killed, or after the last look that showed it, but before others took its tiles.
        """
        ends = _moments(pod, "terminated", "finishedAt")
        starts = _moments(pod, "running", "startedAt")
        silent = self._silent.pop(before.process, math.inf)
        at = max(ends) if ends else self._struck.pop(name, min(before.seen, silent, *starts))
        spoke = self._before.pop(before.process, None) or self._spoke.pop(before.process, at)
        return max(at, spoke)

    def _job_has_ended(self, job: str, things: Iterable[Object], found: list[Trouble]) -> bool:
        """Whether it has; exit code 1 means that some image failed, as its events report.

        Raises StudyguideError if it failed otherwise: with a pod's trouble, or the end of its log.
        """
        its = [it for it in things if it["kind"] == "Job" and f"job/{_name(it)}" == job]
        told = [condition for it in its for condition in it["status"].get("conditions", [])]
        ended = {item["type"]: item for item in told if item["status"] == "True"}
        if "Failed" in ended and not self.failures:
            self._raise_lasting(found)  # a pod without memory has no log that could tell
            said = f"{job}: {ended['Failed']['message']}\n{self._log_of(job)}"
            raise StudyguideError(said.strip(), "Fix what its log reports")
        return bool({"Complete", "Failed"} & set(ended))

    def _raise_lasting(self, found: list[Trouble]) -> None:
        """Tell what keeps pods from working: at once, or when it has lasted if it may pass."""
        now, before = time.monotonic(), self._troubled_since
        self._troubled_since = {item.where: before.get(item.where, now) for item in found}
        for item in found:
            if not item.passing or now - self._troubled_since[item.where] > PASSING_S:
                said = f"{item.where}: {item.what}\n{self._log_of(item.where)}"
                raise StudyguideError(said.strip(), item.remedy)

    def _log_of(self, where: str) -> str:
        """Its last words: with the namespace its log will be gone. Empty if it said nothing."""
        try:
            return self.kubectl("logs", where, "--tail=10").decode(errors="replace")
        except ToolError:
            return ""  # it never started, or is no pod

    # -- coming home

    def note(self, event: Event) -> None:
        """Keep account of an event; what it says of files is true of ours at the end."""
        self._heard_by = math.inf
        if event.stage == "start" and event.process in self._spoke:
            self._before[event.process] = self._spoke.pop(event.process)
        self._spoke[event.process] = max(event.end, self._spoke.get(event.process, 0.0))
        if event.stage == "reclaim":
            self._silent.setdefault(event.detail["from_worker"].partition("/")[0], event.start)
        if event.stage == "save":
            name = PurePosixPath(event.detail["path"]).name
            event.detail["path"] = str(self.settings.output / name)
            self._saved.append(event)
        if event.stage == "failed":
            told = event.detail["error"]
            event.detail["error"] = told.replace(INPUT, str(self.settings.images))
        if event.stage in ("save", "failed"):
            self._pending.discard(event.image)
        super().note(event)

    def _fetch_outputs(self) -> None:
        """Bring the outputs here. Raises ToolError if one is not as its pod saved it."""
        files = self._patiently(self._outputs)
        for name, body in files.items():
            with atomic(self.settings.output / name) as file:
                file.write(body)
        for event in self._saved:
            path = Path(event.detail["path"])
            if images.sha256(images.load(path)) != event.detail["pixels_sha256"]:
                problem = f"{path} has not the pixels that {event.process} saved"
                raise StudyguideError(problem, "Run it again")

    def _outputs(self) -> dict[str, bytes]:
        """Fetch all outputs. ToolError while one is missing: a new pod `files` gets them again."""
        files = self.kubectl.fetch(FILES, self._output)
        saved = {PurePosixPath(event.detail["path"]).name for event in self._saved}
        if missing := ", ".join(sorted(saved - files.keys())):
            raise ToolError(["kubectl", "exec", FILES, "tar"], 0, f"no {missing} there", AGAIN)
        return files

    def close(self) -> None:
        """Delete what this run has created, unless it is to be kept."""
        if not self.keep:
            kinds = "namespaces" if self._owns_namespace else RESOURCES
            self._patiently(lambda: self.kubectl.delete(kinds, f"{RUN}={self.plan.run_id}"))


def _load(manifests: bytes) -> list[Object]:
    try:
        import yaml
    except ImportError as error:
        raise UsageError(
            f"{error}", "Install what pods need: pip install studyguide[cluster]"
        ) from error
    return list(yaml.safe_load_all(manifests))


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def _labels(thing: Object) -> Object:
    labels: Object = thing["metadata"].get("labels", {})
    return labels


def _role(thing: Object) -> str:
    """The role that a workload's pods run; empty for all else."""
    template = thing.get("spec", {}).get("template", {})
    return str(_labels(template).get(ROLE, "")) if template else ""


def _readiness(things: Iterable[Object]) -> str:
    """How many of the pods are ready, in words."""
    pods = [thing["status"].get("conditions", []) for thing in things if thing["kind"] == "Pod"]
    ready = sum(
        {"type": "Ready", "status": "True"}.items() <= it.items() for pod in pods for it in pod
    )
    return f"pods ready {ready} of {len(pods)}"


def _is_lost(pod: Object) -> bool:
    """Whether its node failed or threw it out."""
    conditions = pod["status"].get("conditions", [])
    return any(it.get("reason") in LOST and it["status"] == "True" for it in conditions)


def _process(pod: Object) -> str:
    """The name of a pod in the timeline; Redis is `redis`, as on one machine."""
    return _name(pod) if ROLE in _labels(pod) else str(_labels(pod)["app"])


def _ends(pod: Object) -> int:
    """How often the container of a pod has ended, when it should have gone on."""
    states = pod["status"].get("containerStatuses", [])
    codes = [it["state"]["terminated"]["exitCode"] for it in states if "terminated" in it["state"]]
    is_job = any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))
    over = [code for code in codes if not (is_job and code in DONE)]
    restarts: int = sum(state["restartCount"] for state in states)
    return restarts + max(len(over), _is_lost(pod))


def _moments(pod: Object | None, state: str, key: str) -> list[float]:
    """When the containers of a pod began or ended that state, in seconds since the epoch."""
    states = pod["status"].get("containerStatuses", []) if pod else []
    spans = [
        item.get(when, {}).get(state, {}) for item in states for when in ("state", "lastState")
    ]
    return [datetime.fromisoformat(span[key]).timestamp() for span in spans if span.get(key)]
