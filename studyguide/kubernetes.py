"""Where the roles of d to g run: `KubernetesCluster` runs them as pods, through kubectl.

The same approaches, roles and events as on one machine. The manifests in k8s/ describe everything;
this module renders them, fills in the run's settings, brings the images in, follows the events that
the pods write to the volume they share, and brings the outputs home. Whatever keeps a pod from its
work is told as soon as the cluster reports it.
"""

import io
import sys
import tarfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import yaml

from studyguide import images
from studyguide.cluster import Cluster
from studyguide.errors import ToolError, UsageError
from studyguide.kubectl import Kubectl, Object, Trouble, find_trouble, kustomize
from studyguide.settings import Settings, to_options
from studyguide.timeline import Clock, Event, Recorder

DATA = PurePosixPath("/data")  # where all pods mount the volume that they share
FILES = "deployment/files"  # the pod through which we reach that volume
ROLE = "studyguide/role"  # label of the pods that run a role of ours
POLL_S = 1.0  # between two looks at the cluster; a look costs some tenths of a second
PATIENCE_S = 15.0  # how long a passing trouble, such as a volume being made, may last


class KubernetesCluster(Cluster):
    """A deployment of one approach in a cluster's namespace `studyguide`.

    Parameters
    ----------
    keep : bool
        Leave the deployment running at the end.
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
        self._objects = list(yaml.safe_load_all(kustomize(find_manifests() / approach)))
        self._restarts: dict[str, int] = {}  # pod -> restarts seen so far
        self._saved: list[Event] = []
        self._old_events = {_identity(event) for event in kubectl.get("events")}
        self._troubled_since: dict[Trouble, float] = {}

    # -- what the approaches call

    def start_redis(self, persistent: bool) -> None:
        """Do nothing: the manifests bring it, persistent in f and g."""

    def kill_busy_worker(self) -> bool:
        """Delete a pod that has a tile in hand, without grace, as when its node goes down."""
        busy = sorted({pod for (pod, _), event in self.held.items() if event.stage == "wait"})
        if busy:
            self.kubectl("delete", f"pod/{busy[0]}", "--force", "--grace-period=0")
        return bool(busy)

    def start(self, role: str, count: int = 1, *options: str) -> None:
        """Fill in how many pods of a role there shall be, and the settings of the run."""
        target = self.settings.output.name
        inside = replace(
            self.settings, images=Path(DATA / "input"), output=Path(DATA / "output" / target)
        )
        for workload in self._objects:
            if _role(workload) == role:
                if workload["kind"] == "Deployment":
                    workload["spec"]["replicas"] = count
                container = workload["spec"]["template"]["spec"]["containers"][0]
                planted = [part for fault in self.faults for part in ("--fault", str(fault))]
                given = [*to_options(inside), "--run", self.run_id, *planted, *options]
                container["args"] = [*container.get("args", []), *given]

    def watch(self, role: str) -> None:
        """Deploy, follow the Job of this role to its end, and bring everything home."""
        self._deploy()
        while not self._job_is_over(role):
            time.sleep(POLL_S)
            self._look()
        self._look()
        self._fetch_outputs()

    # -- deploying

    def _deploy(self) -> None:
        """First what all need, then the images, then the roles: none starts on an empty folder."""
        roles = [thing for thing in self._objects if _role(thing)]
        self._apply(thing for thing in self._objects if not _role(thing))
        self._await_rollout(FILES)
        self._reset_volume()
        self.recorder.clock = Clock(self._cluster_time())
        self.recorder.mark("run")
        for job in (thing for thing in roles if thing["kind"] == "Job"):
            self.kubectl.delete(f"job/{job['metadata']['name']}")
        self._apply(roles)

    def _apply(self, objects: Iterable[Object]) -> None:
        self.kubectl.apply(yaml.safe_dump_all(objects).encode())

    def _await_rollout(self, deployment: str) -> None:
        """Wait until its pod runs, as long as nothing is wrong with it."""
        while True:
            status = self.kubectl.get_one(deployment).get("status", {})
            if status.get("readyReplicas"):
                return
            self._raise_trouble()
            time.sleep(POLL_S)

    def _reset_volume(self) -> None:
        """Remove what an earlier run left, and bring this run's images in."""
        parts = [str(DATA / name) for name in ("input", "output", "run")]
        self.kubectl.execute(FILES, "rm", "-rf", *parts)
        self.kubectl.execute(FILES, "mkdir", "-p", *parts)
        found, _ = images.find(self.settings.images)
        self.kubectl.send(FILES, found, str(DATA / "input"))

    def _cluster_time(self) -> float:
        """The cluster's clock in seconds since the epoch, half the round trip added."""
        start = time.perf_counter()
        seconds = float(self.kubectl.execute(FILES, "date", "+%s.%N"))
        return seconds + (time.perf_counter() - start) / 2

    # -- following

    def _look(self) -> None:
        """Collect events, see who died, let chaos strike, and stop if something is wrong."""
        self._collect_events()
        self.read_events()
        for strike in self.chaos:
            strike(self)
        self._see_deaths()
        self._raise_trouble()

    def _collect_events(self) -> None:
        """Mirror the event files as they are now; `read_events` finds what is new in them."""
        archive = self.kubectl.execute(FILES, "tar", "-cf", "-", "-C", str(DATA / "run"), ".")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            wanted = [item for item in tar.getmembers() if item.name.startswith("./events/")]
            tar.extractall(self.folder, wanted, filter="data")

    def _see_deaths(self) -> None:
        """A pod that is gone or has restarted died, with what its threads held."""
        now = {pod["metadata"]["name"]: _restarts(pod) for pod in self._pods()}
        for name, before in self._restarts.items():
            if now.get(name, before + 1) > before:
                self.record_death(name)
        self._restarts = now

    def _pods(self) -> list[Object]:
        return self.kubectl.get("pods", selector=ROLE)

    def _raise_trouble(self) -> None:
        """Tell what keeps pods from working: at once, or when it has lasted if it may pass.

        Raises
        ------
        ToolError
            With what the cluster says and the remedy.
        """
        events = [e for e in self.kubectl.get("events") if _identity(e) not in self._old_events]
        found = find_trouble(self.kubectl.get("pods"), events)
        now = time.monotonic()
        self._troubled_since = {
            trouble: self._troubled_since.get(trouble, now) for trouble in found
        }
        for trouble, since in self._troubled_since.items():
            if not trouble.passing or now - since > PATIENCE_S:
                raise ToolError([trouble.where], None, trouble.what, trouble.remedy)

    def _job_is_over(self, role: str) -> bool:
        """Whether the Job has ended; exit code 1 means that some image failed, which events tell.

        Raises
        ------
        ToolError
            If it failed otherwise, with the end of its log.
        """
        conditions = self.kubectl.get_one(f"job/{role}").get("status", {}).get("conditions", [])
        ended = {item["type"] for item in conditions if item["status"] == "True"}
        if "Failed" in ended and not self.failures:
            said = self.kubectl("logs", f"job/{role}", "--tail=10").decode(errors="replace")
            raise ToolError([f"job/{role}"], 1, said)
        return bool(ended & {"Complete", "Failed"})

    # -- coming home

    def note(self, event: Event) -> None:
        """An image that a pod saved will lie in our own output folder."""
        if event.stage == "save":
            name = PurePosixPath(event.detail["path"]).name
            event.detail["path"] = str(self.settings.output / name)
            self._saved.append(event)
        super().note(event)

    def _fetch_outputs(self) -> None:
        """Copy the saved images here and check each against the digest that its pod recorded.

        Raises
        ------
        ToolError
            If one is missing or has other pixels.
        """
        source = str(DATA / "output" / self.settings.output.name)
        archive = self.kubectl.execute(FILES, "tar", "-cf", "-", "-C", source, ".")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for item in (item for item in tar.getmembers() if item.isfile()):
                body = tar.extractfile(item)
                assert body is not None
                with images.atomic(self.settings.output / PurePosixPath(item.name).name) as file:
                    file.write(body.read())
        for event in self._saved:
            self._check_output(Path(event.detail["path"]), event.detail["pixels_sha256"])

    def _check_output(self, path: Path, digest: str) -> None:
        if not path.exists() or images.sha256(images.load(path)) != digest:
            raise ToolError(["fetch", path.name], None, "it did not arrive whole", "Run it again")

    def close(self) -> None:
        """Delete all that was deployed, unless it is to be kept."""
        if not self.keep:
            self.kubectl.delete_namespace()


def find_manifests() -> Path:
    """The folder k8s of the course, around the working folder or this package.

    Raises
    ------
    UsageError
        If it is in neither.
    """
    for around in (Path.cwd() / "x", Path(__file__)):
        for folder in around.resolve().parents:
            if (folder / "k8s" / "base").is_dir():
                return folder / "k8s"
    raise UsageError("No folder k8s is to be found", "Start in the course's own folder")


def _role(thing: Object) -> str:
    """The role that a workload's pods run; empty for all else."""
    template = thing.get("spec", {}).get("template", {})
    return str(template.get("metadata", {}).get("labels", {}).get(ROLE, ""))


def _restarts(pod: Object) -> int:
    return sum(item["restartCount"] for item in pod["status"].get("containerStatuses", []))


def _identity(event: Object) -> tuple[str, int]:
    return event["metadata"]["uid"], event.get("count") or 0
