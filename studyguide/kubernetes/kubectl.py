"""kubectl from Python: its own verbs, its own words when it fails, and what its answers mean.

Every call names its context and namespace, so that a learner's other clusters are never touched.
kubectl says little of what goes wrong later, in the cluster; `find_trouble` reads that from the
state of pods and claims and from events, within seconds and not after a time-out.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from studyguide.errors import ToolError

TIMEOUT_S = 15.0  # for one call; a caller with more patience asks again
TRANSFER_S = 60.0  # for a call that carries images
GONE_S = 120.0  # until what is deleted is gone
READY_TIMEOUT_S = 5.0  # for the cluster's first answer
POD_TIMEOUT_S = 5.0  # how long `exec` waits for a pod; its own default is a minute
# Labels of all that a run creates: they say whose it is.
MANAGED_BY, RUN, OWNER = "app.kubernetes.io/managed-by", "studyguide/run", "studyguide/owner"
# Kinds of which a run creates objects, beside its namespace.
RESOURCES = "deployments,jobs,services,configmaps,secrets,persistentvolumeclaims"
RESOURCES += ",networkpolicies,poddisruptionbudgets"
UNFINISHED = "--exclude=.*.tmp"  # files that are being written have such names
MAX_LINES, MAX_COLUMNS = 4, 400  # of stderr in a message; an error carries all of it besides

LOAD_IMAGE = "Build and load the image: make -C k8s image load"
AGAIN = "Run it again"
DESCRIBE = "Run it with --keep and see kubectl describe pods"
# What kubectl, the scheduler or a controller says -> what to do about it. The first that fits.
REMEDIES = {
    r"current-context is not set|no configuration has been provided": (
        "Choose one: kubectl config use-context NAME"
    ),
    r"context was not found|context \S+ does not exist": (
        "See which there are: kubectl config get-contexts"
    ),
    r"getting credentials|Unauthorized|must be logged in": "Log in to the cluster again",
    r"x509|tls:": "Its certificate does not fit: get the cluster's kubeconfig anew",
    r"was refused|no such host|timeout|deadline exceeded|Unable to connect": (
        "Start the cluster, for example with minikube start, or choose another context"
    ),
    r"\(AlreadyExists\)": "Use another --namespace, or see studyguide clusters --namespace NAME",
    r"violates PodSecurity": "The namespace forbids such a pod: use the manifests as they are",
    r"exceeded quota": "The namespace's quota is used up: delete something or ask for more",
    r"[Ff]orbidden": "Ask for the right to do so, or use a cluster of your own",
    r"no matches for kind": "The cluster lacks that kind: use Kubernetes 1.29 or newer",
    r"unknown field": "Correct it in k8s/; kubectl explain tells which fields there are",
    r"field is immutable": "Delete the object first, or all: make -C k8s clean A=e",
    r"container not found|is waiting to start": "Wait until its pod runs: kubectl get pods",
    r"timed out waiting": "See what holds it: kubectl describe namespace NAME",
    r"No space left|low on resource|disk-pressure": "Free space on the node, or use fewer images",
    r"PersistentVolumeClaim|persistentvolumeclaim|storageclass|FailedMount|MountVolume": (
        "No storage for us: see kubectl get storageclass, or use the manifests in k8s/on-host"
    ),
    r"Insufficient": "Too few free cores or too little memory: use fewer workers or a larger node",
    r"when creating .*namespaces \S+ not found": "Create it first: kubectl create namespace NAME",
    r"\(NotFound\)": "Deploy first: make -C k8s deploy A=e",
    r"command terminated": "It failed inside its pod, of which kubectl get pods tells more",
}
# Lines of kubectl's own that say nothing of what went wrong.
NOISE = re.compile(r"[EWI]\d{4} |WARNING: version difference|Warning: |Defaulted container ")

Object = dict[str, Any]  # as Kubernetes' API gives it


@dataclass
class Kubectl:
    """One context and one namespace of one cluster; ToolError tells whatever fails."""

    context: str  # as `kubectl config get-contexts` shows it
    namespace: str  # the only one that is touched

    @classmethod
    def current(cls, namespace: str) -> "Kubectl":
        """Return kubectl for its current context and a namespace, which need not exist yet."""
        return cls(_run(["kubectl", "config", "current-context"]).decode().strip(), namespace)

    def __call__(self, *arguments: str, stdin: bytes = b"", timeout_s: float = 0.0) -> bytes:
        """Run one kubectl command in our context and namespace; return what it prints.

        Raises ToolError with the command, its exit code, its stderr, and a remedy.
        """
        return _run(self.command(*arguments), stdin, timeout_s or TIMEOUT_S)

    def command(self, *arguments: str) -> list[str]:
        """The command line of a call, for who runs it elsewhere."""
        where = ["--context", self.context, "--namespace", self.namespace]
        return ["kubectl", *where, *arguments]

    def answers(self) -> None:
        """Check that the cluster answers, within seconds."""
        self("get", "--raw", "/readyz", f"--request-timeout={READY_TIMEOUT_S:g}s")

    def get(self, kinds: str, *options: str) -> list[Object]:
        """Objects of these kinds (`pods`, `pods,events`), as the API gives them."""
        found: list[Object] = json.loads(self("get", kinds, *options, "--output", "json"))["items"]
        return found

    def create(self, objects: Iterable[Object]) -> None:
        """Create objects; ToolError if one of that name exists, which is left as it is."""
        # As JSON: in YAML a string such as 1e3 would need quotes, on which not all writers agree.
        everything = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self("create", "--filename", "-", stdin=json.dumps(everything).encode())

    def delete(self, kinds: str, labels: str) -> None:
        """Delete what runs have created and has these labels; wait until it is gone."""
        options = [f"--timeout={GONE_S:g}s", "--selector", f"{MANAGED_BY}=studyguide,{labels}"]
        if kinds != "namespaces":
            options.append("--cascade=foreground")  # a Deployment is gone when its pods are
        self("delete", kinds, *options, timeout_s=GONE_S + TIMEOUT_S)

    def left(self, kinds: str) -> str:
        """Return kubectl's table of what runs have created, with its age, run and owner."""
        columns = ("--label-columns", f"{RUN},{OWNER}")
        return self("get", kinds, "--selector", f"{MANAGED_BY}=studyguide", *columns).decode()

    def delete_namespace(self) -> None:
        """Delete the namespace, if a run has created it, and wait until it is gone."""
        self.delete("namespaces", f"kubernetes.io/metadata.name={self.namespace}")

    def kill(self, pod: str) -> None:
        """Kill all that runs in a pod, and have it replaced, as when its node loses power.

        `delete --force` alone is no such thing: the kubelet still sends SIGTERM and waits a little.
        The pod's containers must share their process namespace, or nothing in it can be killed.
        """
        try:
            self.execute(f"pod/{pod}", "sh", "-c", "kill -KILL -1")
        except ToolError as error:
            if error.exit_code != 137:  # it took our own shell along
                raise
        self("delete", f"pod/{pod}", "--force", "--grace-period=0")

    def execute(
        self, target: str, *command: str, stdin: bytes = b"", timeout_s: float = 0.0
    ) -> bytes:
        """Run a command in a pod (`pod/name` or `deployment/name`); return what it prints."""
        patience = f"--pod-running-timeout={POD_TIMEOUT_S:g}s"
        call = ("exec", "--stdin", patience, target, "--", *command)
        return self(*call, stdin=stdin, timeout_s=timeout_s)

    def send(self, target: str, files: Mapping[str, bytes], folder: str) -> None:
        """Write files into a folder of a pod; ToolError if one is missing there or differs."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, body in files.items():
                item = tarfile.TarInfo(name)
                item.size = len(body)
                tar.addfile(item, io.BytesIO(body))
        unpack = ("tar", "-xf", "-", "-C", folder)
        self.execute(target, *unpack, stdin=archive.getvalue(), timeout_s=TRANSFER_S)
        _check_whole("send", _digests(files), self._digests(target, folder))

    def read(self, target: str, folder: str, timeout_s: float = 0.0) -> dict[str, bytes]:
        """Name -> content of the files in a folder of a pod, as they are at this moment.

        Raises ToolError if their archive is damaged, as when the connection broke: kubectl then
        still says 0.
        """
        pack = ("tar", "-cf", "-", UNFINISHED, "-C", folder, ".")
        archive = self.execute(target, *pack, timeout_s=timeout_s)
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                bodies = [(item.name, tar.extractfile(item)) for item in tar if item.isfile()]
                return {PurePosixPath(name).name: body.read() for name, body in bodies if body}
        except tarfile.TarError as error:
            raise ToolError(["kubectl", "exec", target, "tar"], 0, str(error), AGAIN) from error

    def fetch(self, target: str, folder: str) -> dict[str, bytes]:
        """The same of files that do not change any more: each is checked by its digest."""
        files = self.read(target, folder, TRANSFER_S)
        _check_whole("fetch", self._digests(target, folder), _digests(files))
        return files

    def _digests(self, target: str, folder: str) -> dict[str, str]:
        find = ["find", "-H", folder, "-type", "f", "!", "-name", ".*.tmp"]
        find += ["-exec", "sha256sum", "--zero", "{}", "+"]
        lines = os.fsdecode(self.execute(target, *find)).split("\0")[:-1]
        return {PurePosixPath(line[66:]).name: line[:64] for line in lines}


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}


def _check_whole(verb: str, sent: Mapping[str, str], arrived: Mapping[str, str]) -> None:
    bad = [name for name, digest in sent.items() if arrived.get(name) != digest]
    if bad:
        what = f"{len(bad)} of {len(sent)} files did not arrive whole: {', '.join(bad)}"
        raise ToolError(["kubectl", "exec", "tar"], 0, f"{verb}: {what}", AGAIN)


def owner() -> str:
    """Return the value of the label OWNER: who runs this, as far as a label can say it."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", os.environ.get("USER", ""))[:63].strip("-._")
    return name or str(os.getuid())


def labels_of(run: str) -> dict[str, str]:
    """Return the labels of all that a run creates."""
    return {MANAGED_BY: "studyguide", RUN: run, OWNER: owner()}


def kustomize(folder: Path) -> bytes:
    """Render a kustomization; no cluster is asked."""
    return _run(["kubectl", "kustomize", str(folder)])


def _run(command: list[str], stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> bytes:
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=timeout_s, check=True
        )
        return done.stdout
    except subprocess.CalledProcessError as error:
        raise _error(command, error.returncode, error.stderr.decode(errors="replace")) from error
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        remedy = f"The cluster did not answer within {timeout_s:g} s: see whether it runs"
        raise ToolError(command, None, said, remedy) from error
    except OSError as error:
        remedy = "Install kubectl, or use --backend local"
        raise ToolError(command, 127, str(error), remedy) from error


def _error(command: list[str], code: int, stderr: str) -> ToolError:
    """Tell what matters of stderr: no noise, nothing twice, long lines without their middle."""
    lines, half = stderr.strip().splitlines(), MAX_COLUMNS // 2
    telling = [line for line in lines if line and not NOISE.match(line)] or lines
    gist = "\n".join(
        line if len(line) <= MAX_COLUMNS else f"{line[:half]} ... {line[-half:]}"
        for line in list(dict.fromkeys(telling))[:MAX_LINES]
    )
    error = ToolError(command, code, gist, _remedy(gist))
    error.stderr = stderr
    return error


def _remedy(said: str, otherwise: str = "") -> str:
    return next((text for pattern, text in REMEDIES.items() if re.search(pattern, said)), otherwise)


# --- what goes wrong in the cluster --------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """Something that keeps a pod from its work.

    `passing` troubles are normal for some seconds after a start; they count if they last.
    """

    where: str  # as kubectl names it: pod/redis-0
    what: str
    remedy: str
    passing: bool = False


# Why a container waits, in the API's words -> remedy. These do not pass by themselves.
WAITING = {
    "ErrImagePull": LOAD_IMAGE,
    "ImagePullBackOff": LOAD_IMAGE,
    "ErrImageNeverPull": LOAD_IMAGE,
    "InvalidImageName": "Correct the image's name in k8s/components/pod/kustomization.yaml",
    "CreateContainerConfigError": "Apply the whole kustomization: a ConfigMap or Secret is missing",
    "CreateContainerError": DESCRIBE,
    "RunContainerError": "Its image lacks the command: make -C k8s image load",
}
OUT_OF_MEMORY = "Give it more memory in k8s/, or use fewer workers or smaller tiles"
# Events of what no pod can tell, because there is none or it waits for a volume.
TELLING = ("FailedCreate", "FailedCreatePodSandBox", "FailedMount", "ProvisioningFailed")
# Refusals that do not pass by themselves, whatever the cluster is busy with.
LASTING = re.compile(r"violates PodSecurity|exceeded quota")


def find_trouble(things: Iterable[Object]) -> list[Trouble]:
    """What keeps pods from working, as pods, claims and events tell, one trouble for each.

    Events of what has come right since are passed over.
    """
    things = list(things)
    found: dict[str, Trouble] = {}
    for trouble in (trouble for thing in things for trouble in _of_thing(thing, things)):
        found.setdefault(trouble.where, trouble)
    return list(found.values())


def _of_thing(thing: Object, things: Iterable[Object]) -> Iterator[Trouble]:
    if thing["kind"] == "Pod" and "deletionTimestamp" not in thing["metadata"]:
        yield from _of_pod(thing, things)
    elif thing["kind"] == "PersistentVolumeClaim" and thing["status"]["phase"] == "Pending":
        yield _pending(f"persistentvolumeclaim/{thing['metadata']['name']}", "has no volume")
    elif thing["kind"] == "Event" and thing["reason"] in TELLING:
        about = thing["involvedObject"]
        if _still_waits(about, things):
            yield _pending(f"{about['kind'].lower()}/{about['name']}", thing["message"])


def _still_waits(about: Object, things: Iterable[Object]) -> bool:
    """Whether a pod or claim is still pending, a workload without a pod: events stay for long."""
    if about["kind"] in ("Pod", "PersistentVolumeClaim"):
        return any(
            (thing["kind"], thing["metadata"]["name"]) == (about["kind"], about["name"])
            and thing["status"]["phase"] == "Pending"
            for thing in things
        )
    owners = (owner for thing in things for owner in thing["metadata"].get("ownerReferences", []))
    return all(owner["name"] != about["name"] for owner in owners)


def _of_pod(pod: Object, things: Iterable[Object]) -> Iterator[Trouble]:
    where, status = f"pod/{pod['metadata']['name']}", pod["status"]
    if status.get("reason") == "Evicted":
        if not _is_replaced(pod, things):
            yield _pending(where, status["message"])
        return
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield _pending(where, condition.get("message", "cannot be scheduled"))
    for container in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
        yield from _of_container(where, container)


def _is_replaced(pod: Object, things: Iterable[Object]) -> bool:
    """Whether another pod of the same owner has started: an evicted one stays to be seen."""
    owners = pod["metadata"].get("ownerReferences", [])
    return any(
        thing["kind"] == "Pod"
        and thing["status"]["phase"] in ("Running", "Succeeded")
        and thing["metadata"].get("ownerReferences") == owners
        for thing in things
    )


def _of_container(where: str, container: Object) -> Iterator[Trouble]:
    state, before = container["state"], container.get("lastState", {})
    end = state.get("terminated") or before.get("terminated") or {}
    waiting = state.get("waiting", {})
    if end.get("reason") == "OOMKilled":
        yield Trouble(where, "was killed for using more memory than its limit", OUT_OF_MEMORY)
    elif "running" in state:
        return
    elif waiting.get("reason") in WAITING:
        what = f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        yield Trouble(where, what, WAITING[waiting["reason"]])
    elif end.get("reason") == "StartError":
        yield Trouble(where, end["message"], WAITING["RunContainerError"])
    elif container["restartCount"] and end.get("exitCode"):
        what = f"crashes again and again, the last time with exit code {end['exitCode']}"
        yield Trouble(where, what, "Fix what its log reports", passing=True)


def _pending(where: str, message: str) -> Trouble:
    passing = not LASTING.search(message)
    return Trouble(where, message, _remedy(f"{where} {message}", DESCRIBE), passing)
