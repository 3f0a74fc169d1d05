"""Where the roles of d to g run: `KubernetesCluster` runs them as pods, through kubectl.

The same approaches, roles and events as on one machine. The manifests in k8s/ describe everything;
this module renders them, fills in the run's settings, brings the images in, follows the events that
the pods hand over to the pod `files`, and brings the outputs home. Whatever keeps a pod from its
work is told as soon as the cluster reports it.
"""

import base64
import json
import math
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from studyguide import course, images
from studyguide.cluster import Cluster
from studyguide.errors import ImageError, StudyguideError, ToolError, UsageError, explained
from studyguide.kubectl import DESCRIBE, Kubectl, Object, Trouble, find_trouble, kustomize
from studyguide.settings import Settings, to_options
from studyguide.timeline import Clock, Event, Recorder
from studyguide.work import Run

T = TypeVar("T")
INPUT, OUTPUT, EVENTS = "/data/input", "/data/output", "/data/run/events"  # in every pod
FILES = "deployment/files"  # the pod that keeps these folders for all others
ROLE = "studyguide/role"  # label of the pods that run a role of ours
# What one look takes in. Events first: of a claim they say more than the claim itself.
KINDS = "events,persistentvolumeclaims,pods,deployments,jobs"
POLL_S = 1.0  # between two looks at the cluster; a look costs some tenths of a second
PATIENCE_S = 20.0  # how long a passing trouble, such as a volume being made, may last
# How long `files` and Redis may take to start, and then the roles: an image may have to be pulled.
START_S = 300.0

FINAL = re.compile(r"\(Forbidden\)|Unauthorized")  # what asking again does not change


class KubernetesCluster(Cluster):
    """A deployment of one approach in a cluster's namespace `studyguide`.

    Raises ToolError if there is no kubectl, no current context, or the cluster does not answer;
    UsageError if the manifests are not to be found.

    With `keep` the deployment is left running at the end.
    """

    def __init__(
        self,
        settings: Settings,
        approach: str,
        folder: Path,
        recorder: Recorder,
        keep: bool = False,
    ) -> None:
        super().__init__(settings, approach, folder, recorder)
        self.kubectl = kubectl = Kubectl.current()
        self.keep = keep
        # Nobody's cluster is touched without having been named.
        print(f"context {kubectl.context}, namespace {kubectl.namespace}", file=sys.stderr)
        kubectl.answers()
        self._objects = _load(kustomize(course.find("k8s") / approach))
        for secret in (thing for thing in self._objects if thing["kind"] == "Secret"):
            password = base64.b64encode(secrets.token_hex(16).encode()).decode()  # of this run
            secret["data"] = dict.fromkeys(secret["data"], password)
        self._output = f"{OUTPUT}/{settings.output.name}"
        self._restarts: dict[str, int] = {}  # pod -> restarts seen so far
        self._troubled_since: dict[str, float] = {}  # where there is trouble
        self._pending: set[str] = set()  # images neither saved nor failed yet
        self._saved: list[Event] = []
        self._heard_by = math.inf  # when the first event has to have come
        (folder / "events").mkdir()

    # -- what the approaches call

    def start_redis(self, persistent: bool) -> None:
        """Do nothing: the manifests bring it, persistent in f and g."""

    def kill_busy_worker(self) -> bool:
        """Kill a pod that has a tile in hand."""
        busy = sorted({pod for (pod, _), event in self.held.items() if event.stage == "wait"})
        if busy:
            self.kubectl.kill(busy[0])
        return bool(busy)

    def start(self, role: str, count: int = 1, *options: str) -> None:
        """Fill in how many pods of a role there shall be, and the settings of the run.

        Raises UsageError if the manifests have no such role.
        """
        workloads = [thing for thing in self._objects if _role(thing) == role]
        if not workloads:
            problem = f"Nothing in k8s/{self.approach} has the label {ROLE}: {role}"
            raise UsageError(problem, "Use the manifests of this version of the course")
        for workload in workloads:
            if workload["kind"] == "Deployment":
                workload["spec"]["replicas"] = count
            pod = workload["spec"]["template"]["spec"]
            container = pod["containers"][0]
            container["args"] = [*container.get("args", []), *self._arguments(), *options]

    def _arguments(self) -> list[str]:
        """The settings of this run, for which those of the manifests give way."""
        delivery = replace(self.settings.delivery, payload="redis")  # pods share no folder
        inside = replace(
            self.settings, images=Path(INPUT), output=Path(self._output), delivery=delivery
        )
        planted = [part for fault in self.faults for part in ("--fault", str(fault))]
        return [*to_options(inside), "--run", self.run_id, *planted]

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
        self.kubectl.delete_namespace()  # what an earlier run left would take part in this one
        common = [thing for thing in self._objects if not _role(thing)]
        self.kubectl.apply(common)
        self._await_ready({_name(thing) for thing in common if thing["kind"] == "Deployment"})
        folders = (INPUT, self._output, EVENTS)
        self.kubectl.execute(FILES, "mkdir", "-p", *folders)
        # Samples, and what an earlier run left on the claim, to which `folders` may be links.
        self.kubectl.execute(FILES, "find", "-H", *folders, "-type", "f", "-delete")
        self.recorder.clock = Clock(self._cluster_time())
        self.recorder.mark("run", **self._describe())
        self._send_images()
        self.kubectl.apply(thing for thing in self._objects if _role(thing))
        self._heard_by = time.monotonic() + START_S

    def _await_ready(self, deployments: set[str]) -> None:
        """Wait until a pod of each is ready, as long as nothing is wrong."""
        deadline = time.monotonic() + START_S
        while True:
            things = self._get()
            self._raise_lasting(find_trouble(things))
            ready = {_name(it) for it in things if it.get("status", {}).get("readyReplicas")}
            if deployments <= ready:
                return
            if time.monotonic() > deadline:
                problem = f"Not ready after {START_S:g} s: {', '.join(sorted(deployments - ready))}"
                raise StudyguideError(problem, DESCRIBE)
            time.sleep(POLL_S)

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
        """Bring the images in; those that cannot be read are told as failed."""
        run, bodies = Run(self.settings, self.recorder), {}
        for path in run.paths():
            told = explained(ImageError, f"{path} cannot be read", "Replace or remove the file")
            with run.guarded(path.name), told:
                bodies[path.name] = path.read_bytes()
        self._pending = set(bodies)
        self.kubectl.send(FILES, bodies, INPUT)

    # -- following

    def _look(self, role: str) -> bool:
        """Collect events, see who died, let chaos strike; tell whether the run is over."""
        things = self._observe()
        self._see_deaths(things)
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
        for strike in () if has_ended else self.chaos:
            strike(self)
        return False

    def _observe(self) -> list[Object]:
        """What there is, and then all events so far: a pod that is gone has written its last."""
        things = self._get()
        files = self._patiently(lambda: self.kubectl.read(FILES, EVENTS))
        for name, body in files.items():
            (self.folder / "events" / name).write_bytes(body)
        self.read_events()
        return things

    def _get(self) -> list[Object]:
        return self._patiently(lambda: self.kubectl.get(KINDS))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask a busy cluster again when a call fails.

        Raises ToolError if it fails for longer than a hiccup lasts, or is refused.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask()
            except ToolError as error:
                if time.monotonic() > deadline or FINAL.search(error.stderr):
                    raise
                time.sleep(POLL_S)

    def _see_deaths(self, things: Iterable[Object]) -> None:
        """A pod that is gone or has restarted died; one that was told to end did not."""
        pods, restarts = [it for it in things if it["kind"] == "Pod" and ROLE in _labels(it)], {}
        for pod in pods:
            states = pod["status"].get("containerStatuses", [])
            restarts[_name(pod)] = sum(state["restartCount"] for state in states)
        for name, before in self._restarts.items():
            if restarts.get(name, math.inf) > before:
                self.record_death(name)
        ending = {_name(pod) for pod in pods if "deletionTimestamp" in pod["metadata"]}
        self._restarts = {name: n for name, n in restarts.items() if name not in ending}

    def _job_has_ended(self, job: str, things: Iterable[Object], found: list[Trouble]) -> bool:
        """Whether it has; exit code 1 means that some image failed, of which its events tell.

        Raises StudyguideError if it failed otherwise, with what befell a pod or else with the end
        of its log.
        """
        its = [it for it in things if it["kind"] == "Job" and f"job/{_name(it)}" == job]
        told = [condition for it in its for condition in it["status"].get("conditions", [])]
        ended = {item["type"]: item for item in told if item["status"] == "True"}
        if "Failed" in ended and not self.failures:
            self._raise_lasting(found)  # a pod without memory has no log that could tell
            said = f"{job}: {ended['Failed']['message']}\n{self._log_of(job)}"
            raise StudyguideError(said.strip(), "Mend what its log tells")
        return bool({"Complete", "Failed"} & set(ended))

    def _raise_lasting(self, found: list[Trouble]) -> None:
        """Tell what keeps pods from working: at once, or when it has lasted if it may pass."""
        now, before = time.monotonic(), self._troubled_since
        self._troubled_since = {item.where: before.get(item.where, now) for item in found}
        for item in found:
            if not item.passing or now - self._troubled_since[item.where] > PATIENCE_S:
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
        files = self._patiently(lambda: self.kubectl.fetch(FILES, self._output))
        for name, body in files.items():
            with images.atomic(self.settings.output / name) as file:
                file.write(body)
        for event in self._saved:
            path = Path(event.detail["path"])
            if images.sha256(images.load(path)) != event.detail["pixels_sha256"]:
                problem = f"{path} has not the pixels that {event.process} saved"
                raise StudyguideError(problem, "Run it again")

    def close(self) -> None:
        """Delete all that was deployed, unless it is to be kept."""
        if not self.keep:
            self.kubectl.delete_namespace()


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
