"""kubectl from Python: its own verbs, its own words when it fails, and what its answers mean.

Every call names its context and namespace, so that a learner's other clusters are never touched.
kubectl says little of what goes wrong later, in the cluster; `find_trouble` reads that from the
state of pods and from events, within seconds and not after a time-out.
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studyguide.errors import ToolError

TIMEOUT_S = 60.0  # for one call; what takes longer is asked for again and again instead

# What kubectl says -> what to do about it.
REMEDIES = {
    r"executable file not found|No such file": "Install kubectl, or use --backend local",
    r"current-context is not set": "Choose one: kubectl config use-context NAME",
    r"context was not found|does not exist": "See which there are: kubectl config get-contexts",
    r"was refused|no such host|i/o timeout|Unable to connect": (
        "Start the cluster, for example with minikube start, or choose another context"
    ),
    r"Forbidden|forbidden": "Ask for the right to do so, or use a cluster of your own",
    r"no matches for kind": "The cluster lacks that kind: use Kubernetes 1.29 or newer",
    r"namespaces? \S+ not found": "Deploy first: make -C k8s deploy A=e",
}
NOISE = re.compile(r"^(E\d{4} |W\d{4} |I\d{4} |WARNING: version difference|Warning: )")

Object = dict[str, Any]  # as Kubernetes' API gives it


class Kubectl:
    """One context and one namespace of one cluster.

    Parameters
    ----------
    context : str
        As `kubectl config get-contexts` shows it.
    namespace : str
        The only one that is touched.
    """

    def __init__(self, context: str, namespace: str = "studyguide") -> None:
        self.context = context
        self.namespace = namespace

    @classmethod
    def current(cls, namespace: str = "studyguide") -> "Kubectl":
        """The context that kubectl would use.

        Raises
        ------
        ToolError
            If there is none, or no kubectl.
        """
        command = ["kubectl", "config", "current-context"]
        return cls(_run(command, b"", TIMEOUT_S).decode().strip(), namespace)

    def __call__(self, *arguments: str, stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> bytes:
        """Run one kubectl command in our context and namespace; return what it prints.

        Raises
        ------
        ToolError
            With the command, its exit code, the line of stderr that matters, and a remedy.
        """
        where = ["--context", self.context, "--namespace", self.namespace]
        return _run(["kubectl", *where, *arguments], stdin, timeout_s)

    def get(self, kinds: str, selector: str = "") -> list[Object]:
        """Objects of these kinds (`pods`, `pods,events`), as the API gives them."""
        chosen = ["--selector", selector] if selector else []
        found: list[Object] = json.loads(self("get", kinds, *chosen, "--output", "json"))["items"]
        return found

    def get_one(self, what: str) -> Object:
        """One object (`job/coordinator`); empty if there is none of that name."""
        found = self("get", what, "--ignore-not-found", "--output", "json")
        return json.loads(found) if found else {}

    def apply(self, manifest: bytes) -> None:
        """Create or change what a manifest describes."""
        self("apply", "--filename", "-", stdin=manifest)

    def delete(self, what: str) -> None:
        """Delete an object and wait until it is gone; it is no error if it was gone before."""
        self("delete", what, "--ignore-not-found")

    def delete_namespace(self) -> None:
        """Delete all that we made, and wait until it is gone."""
        self("delete", "namespace", self.namespace, "--ignore-not-found", timeout_s=3 * TIMEOUT_S)

    def execute(self, target: str, *command: str, stdin: bytes = b"") -> bytes:
        """Run a command in a pod (`pod/name` or `deployment/name`); return what it prints."""
        return self("exec", "--stdin", target, "--", *command, stdin=stdin)

    def send(self, target: str, paths: Sequence[Path], folder: str) -> None:
        """Copy files into a folder of a pod; check that all arrived, by their digests.

        Raises
        ------
        ToolError
            If one is missing there or differs.
        """
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in paths:
                tar.add(path, path.name)
        self.execute(target, "tar", "-xf", "-", "-C", folder, stdin=archive.getvalue())
        there = self.execute(target, "sh", "-c", f"cd {folder} && sha256sum ./*").decode()
        for path in paths:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if f"{digest}  ./{path.name}" not in there.splitlines():
                raise ToolError(
                    ["send", path.name], None, "it did not arrive whole", "Run it again"
                )

    def answers(self) -> None:
        """Check that the cluster answers; raises ToolError with the remedy if not."""
        self("get", "--raw", "/readyz", "--request-timeout=5s")


def kustomize(folder: Path) -> bytes:
    """Render a kustomization; no cluster is asked."""
    return _run(["kubectl", "kustomize", str(folder)], b"", TIMEOUT_S)


def _run(command: list[str], stdin: bytes, timeout_s: float) -> bytes:
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=timeout_s, check=True
        )
        return done.stdout
    except subprocess.CalledProcessError as error:
        raise _error(command, error.returncode, error.stderr.decode(errors="replace")) from error
    except subprocess.TimeoutExpired as error:
        remedy = f"The cluster did not answer within {timeout_s:g} s: see whether it runs"
        raise ToolError(command, None, "", remedy) from error
    except FileNotFoundError as error:
        raise _error(command, 127, str(error)) from error


def _error(command: list[str], code: int, stderr: str) -> ToolError:
    said = "\n".join(line for line in stderr.splitlines() if line and not NOISE.match(line))
    remedy = next((text for pattern, text in REMEDIES.items() if re.search(pattern, said)), "")
    return ToolError(command, code, said, remedy)


# --- what goes wrong in the cluster --------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """Something that keeps a pod from its work.

    `passing` troubles are normal for some seconds after a start; they count if they last.
    """

    where: str
    what: str
    remedy: str
    passing: bool = False


# Why a container waits, in the API's words -> remedy.
WAITING = {
    "ErrImagePull": "Build and load the image: make -C k8s image load",
    "ImagePullBackOff": "Build and load the image: make -C k8s image load",
    "ErrImageNeverPull": "Build and load the image: make -C k8s image load",
    "InvalidImageName": "Correct the image's name in k8s/base/kustomization.yaml",
    "CreateContainerConfigError": "Apply the whole kustomization: a ConfigMap or Secret is missing",
    "CreateContainerError": "See kubectl describe pod",
    "RunContainerError": "See kubectl describe pod: its command cannot be started",
    "CrashLoopBackOff": "See what it said: kubectl logs --previous",
}
OUT_OF_MEMORY = "Give it more memory in k8s/base, or use fewer workers or smaller tiles"
# What the scheduler or a controller says -> remedy.
PENDING = {
    r"PersistentVolumeClaim|ProvisioningFailed|storageclass": (
        "No storage for us: see kubectl get storageclass, or use the hostPath overlay"
    ),
    r"Insufficient": "Too few free cores or too little memory: use fewer workers or a larger node",
    r"violates PodSecurity": "The namespace forbids such a pod: use the manifests as they are",
    r"exceeded quota": "The namespace's quota is used up: delete something or ask for more",
    r"forbidden": "Ask for the right to create pods here",
}


def find_trouble(pods: Iterable[Object], events: Iterable[Object] = ()) -> list[Trouble]:
    """What keeps pods from working, as their state and the namespace's events tell.

    Parameters
    ----------
    pods, events : lists of objects
        As `Kubectl.get` returns them.
    """
    found = [trouble for pod in pods for trouble in _of_pod(pod)]
    return found + [trouble for event in events for trouble in _of_event(event)]


def _of_pod(pod: Object) -> Iterator[Trouble]:
    name, status = f"pod {pod['metadata']['name']}", pod["status"]
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield _pending(name, condition.get("message", "cannot be scheduled"))
    containers = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    for container in containers:
        yield from _of_container(name, container)


def _of_container(name: str, container: Object) -> Iterator[Trouble]:
    ends = [
        container[when].get("terminated") for when in ("state", "lastState") if when in container
    ]
    if any(end and end["reason"] == "OOMKilled" for end in ends):
        yield Trouble(name, "was killed for using more memory than its limit", OUT_OF_MEMORY)
    waiting = container["state"].get("waiting", {})
    reason = waiting.get("reason", "")
    if reason in WAITING:
        what = f"{reason}: {waiting.get('message', '')}".rstrip(": ")
        yield Trouble(name, what, WAITING[reason], passing=reason == "CrashLoopBackOff")


def _of_event(event: Object) -> Iterator[Trouble]:
    """What no pod can tell, because there is none or it waits for a volume."""
    if event["reason"] in ("FailedCreate", "ProvisioningFailed"):
        about = event["involvedObject"]
        yield _pending(f"{about['kind']} {about['name']}", event["message"])


def _pending(where: str, message: str) -> Trouble:
    remedy = next((text for pattern, text in PENDING.items() if re.search(pattern, message)), "")
    return Trouble(where, message, remedy or "See kubectl describe", passing=True)
