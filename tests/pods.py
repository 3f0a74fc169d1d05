"""A kubelet in small: runs the pods of a rendered kustomization with podman, as the manifests say.

It knows what our manifests use: init containers and sidecars, arguments with variables, the
downward API, ConfigMaps, Secrets, claims, services by name, security contexts, memory limits,
probes. Restarts, replacements and the scheduler are the tests' part.
"""

import base64
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from support import wait_until

from studyguide.record.timeline import Event, EventTail

Object = dict[str, Any]

K8S = Path(__file__).parents[1] / "k8s"
ADDRESSES = {"redis": 10, "files": 11}  # last part of a service's address, for want of a DNS
# What some hosts of containers forbid is set to what all allow.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]


def podman(*arguments: str) -> str:
    """Run podman and return what it prints; on failure the test shows what it said."""
    done = subprocess.run(
        ["podman", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stdout}"
    return done.stdout.strip()


def render(overlay: str, kubectl: str = "kubectl") -> list[Object]:
    """The objects of a kustomization, as kubectl renders them."""
    command = [kubectl, "kustomize", str(K8S / overlay)]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, check=True).stdout))


def expand(text: str, variables: dict[str, str]) -> str:
    """Replace $(NAME) as Kubernetes does: what is not known stays."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)


@dataclass
class Pod:
    """One running pod; its folder on this machine holds its volumes."""

    name: str
    folder: Path
    spec: Object
    mounts: dict[str, str] = field(default_factory=dict)  # volume -> its folder
    sidecars: list[str] = field(default_factory=list)

    @property
    def main(self) -> str:
        """The role's container."""
        return f"{self.name}-{self.spec['containers'][0]['name']}"

    @property
    def sandbox(self) -> str:
        """The container that holds its network."""
        return f"{self.name}-sandbox"

    @property
    def events(self) -> list[Event]:
        """What its role has recorded so far."""
        return EventTail(self.folder / "data" / "run" / "events").read()

    def has(self, stage: str, image: str = "", tile: int = -1) -> bool:
        """Whether such an event is among them; of any image and tile if none is named."""
        return any(
            event.stage == stage and (not image or (event.image, event.tile) == (image, tile))
            for event in self.events
        )


class Node:
    """A machine that pods run on, with a private network; removes all of them at its end."""

    def __init__(self, folder: Path, overlay: str, claims: int = 0o777) -> None:
        self.folder = folder
        self.objects = render(overlay)
        self.claims = claims  # mode of the volumes that claims get; they belong to root
        self.network = f"studyguide-{uuid4().hex[:8]}"
        self.pods: list[Pod] = []
        podman("network", "create", "--internal", self.network)
        form = "{{(index .Subnets 0).Subnet}}"  # such as 10.89.0.0/24
        self.subnet = podman("network", "inspect", "--format", form, self.network)[: -len(".0/24")]

    def close(self) -> None:
        """Remove everything; the folder stays."""
        remove = ("rm", "--force", "--time", "0", "--ignore")
        for pod in self.pods:
            podman(*remove, pod.main, f"{pod.name}-pull", *pod.sidecars)
            podman(*remove, pod.sandbox)
        podman("network", "rm", "--force", "--time", "0", self.network)

    # -- pods

    def start(self, workload: str, *arguments: str) -> Pod:
        """Start one pod of a Deployment or Job; `arguments` are added to its role's."""
        name = f"{workload}-{uuid4().hex[:5]}"
        spec = self.find(workload)["spec"]["template"]["spec"]
        pod = Pod(name, self.folder / name, spec)
        self.pods.append(pod)
        pod.mounts = {volume["name"]: self._volume(pod, volume) for volume in spec["volumes"]}
        self._start_sandbox(pod, workload)
        for container in spec.get("initContainers", []):
            if container.get("restartPolicy") == "Always":
                pod.sidecars.append(f"{name}-{container['name']}")
                self._run(pod, container, "--detach")
            else:
                self._run(pod, container, "--rm")
        main = spec["containers"][0]
        self._run(pod, {**main, "args": [*main.get("args", []), *arguments]}, "--detach")
        return pod

    def of(self, workload: str) -> Pod:
        """The first pod of that workload."""
        return next(pod for pod in self.pods if pod.name.startswith(workload))

    def find(self, workload: str) -> Object:
        """The Deployment or Job of that name."""
        kinds = ("Deployment", "Job")
        return next(
            thing
            for thing in self.objects
            if thing["kind"] in kinds and thing["metadata"]["name"] == workload
        )

    def wait_ready(self, pod: Pod) -> None:
        """Wait until its readiness probe succeeds."""
        wait_until(lambda: self.probe(pod, "readiness"))

    def probe(self, pod: Pod, kind: str) -> bool:
        """Ask the role's container as its liveness or readiness probe says: a command or a page."""
        container = pod.spec["containers"][0]
        probe = container[f"{kind}Probe"]
        if "exec" in probe:
            argv = ["podman", "exec", pod.main, *probe["exec"]["command"]]
            return subprocess.run(argv, capture_output=True, timeout=60).returncode == 0
        code, _ = self.get(pod, probe["httpGet"]["path"], probe["timeoutSeconds"])
        return code == 0

    def get(self, pod: Pod, path: str, timeout_s: float) -> tuple[int, str]:
        """A page of the role's first port; (0, text) if there is one.

        Asked at the pod's address, but from its own network: some hosts have no way into it.
        """
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = podman("inspect", "--format", form, pod.sandbox)
        port = pod.spec["containers"][0]["ports"][0]["containerPort"]
        ask = f"from urllib.request import *; print(urlopen({f'http://{address}:{port}{path}'!r},"
        argv = ["podman", "exec", pod.sandbox, "python3", "-c"]
        done = subprocess.run(
            [*argv, f"{ask} timeout={timeout_s}).read().decode())"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout

    def end(self, pod: Pod) -> int:
        """Delete a pod as Kubernetes does: the role ends, then its sidecars; the exit code."""
        podman("stop", "--time", "20", pod.main)
        return self.finish(pod)

    def finish(self, pod: Pod) -> int:
        """Wait until the role has ended, then end the sidecars; the exit code."""
        code = int(podman("wait", pod.main))
        if code:
            print(podman("logs", pod.main), file=sys.stderr)
        for name in pod.sidecars:
            podman("stop", "--time", "20", name)
        return code

    # -- containers

    def _start_sandbox(self, pod: Pod, workload: str) -> None:
        """Start what holds the pod's network, which stays when its containers die."""
        options = ["--network", self.network, "--entrypoint", "sleep"]
        if workload in ADDRESSES:
            options += ["--ip", f"{self.subnet}.{ADDRESSES[workload]}"]
        for service, address in ADDRESSES.items():
            options += ["--add-host", f"{service}:{self.subnet}.{address}"]
        image = f"docker.io/library/{pod.spec['containers'][0]['image']}"
        run = ("--runtime", "runc", "run", "--detach", "--name", pod.sandbox, "--pull", "never")
        podman(*run, *LIMITS, *options, image, "infinity")

    def _run(self, pod: Pod, container: Object, *flags: str) -> None:
        variables = self._variables(pod, container)
        command = [expand(part, variables) for part in container.get("command", [])]
        arguments = [expand(part, variables) for part in container.get("args", [])]
        options = [*flags, "--network", f"container:{pod.sandbox}"]
        options += _security(pod.spec["securityContext"], container)
        if command:
            options += ["--entrypoint", command.pop(0)]
        for mount in container["volumeMounts"]:
            options += ["--volume", f"{pod.mounts[mount['name']]}:{mount['mountPath']}"]
        for key, value in variables.items():
            options += ["--env", f"{key}={value}"]
        name, image = f"{pod.name}-{container['name']}", f"docker.io/library/{container['image']}"
        run = ("--runtime", "runc", "run", "--name", name, "--pull", "never")
        podman(*run, *LIMITS, *options, image, *command, *arguments)

    def _variables(self, pod: Pod, container: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self._named("ConfigMap", source["configMapRef"]["name"])["data"]
        for item in container.get("env", []):
            origin = item.get("valueFrom", {})
            if "secretKeyRef" in origin:
                ref = origin["secretKeyRef"]
                body = self._named("Secret", ref["name"])["data"][ref["key"]]
                found[item["name"]] = base64.b64decode(body).decode()
            elif "fieldRef" in origin:
                path = origin["fieldRef"]["fieldPath"]
                found[item["name"]] = pod.name if path == "metadata.name" else "the-job"
            else:
                found[item["name"]] = expand(item["value"], found)
        return found

    # -- volumes

    def _volume(self, pod: Pod, volume: Object) -> str:
        folder = pod.folder / volume["name"]
        if "persistentVolumeClaim" in volume:
            folder = self.folder / "claims" / volume["persistentVolumeClaim"]["claimName"]
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(self.claims if "persistentVolumeClaim" in volume else 0o777)
        if "configMap" in volume:
            for name, text in self._named("ConfigMap", volume["configMap"]["name"])["data"].items():
                (folder / name).write_text(text)
        return str(folder)

    def _named(self, kind: str, name: str) -> Object:
        return next(
            thing
            for thing in self.objects
            if thing["kind"] == kind and thing["metadata"]["name"] == name
        )


def _security(of_pod: Object, container: Object) -> list[str]:
    own = container["securityContext"]
    options = ["--user", f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}"]
    options += ["--memory", container["resources"]["limits"]["memory"].replace("i", "").lower()]
    options += ["--read-only-tmpfs=false"]
    if own["readOnlyRootFilesystem"]:
        options += ["--read-only"]
    if not own["allowPrivilegeEscalation"]:
        options += ["--security-opt", "no-new-privileges"]
    return [*options, *(f"--cap-drop={name.lower()}" for name in own["capabilities"]["drop"])]


def require(*programs: str) -> None:
    """Skip what these programs are needed for where they are not; fail for it in CI."""
    absent = [name for name in programs if not shutil.which(name)]
    if absent and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(absent)}")
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
