"""A Kubernetes in small that answers kubectl: pods are processes of this machine, with one /data.

It does what `KubernetesCluster` leans on: Deployments keep their number of pods, Jobs end, settings
come from ConfigMaps and Secrets, pods that are deleted get SIGTERM first. Redis is a server that
runs already, and the pod `files` is a folder, for here all pods share one.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from operator import getitem
from pathlib import Path
from uuid import uuid4

from kubectl_stub import Answer, Object
from pods import render

from studyguide.processes import Child, Reaper

CONTEXT, NAMESPACE = "small", "studyguide"
WHERE = ["--context", CONTEXT, "--namespace", NAMESPACE]
ROLE = "studyguide/role"
VERSION = "v1.36.2"
NODE = {
    "capacity": {"cpu": "2"},
    "nodeInfo": {"osImage": "Small Linux", "containerRuntimeVersion": "containerd://1.6.20"},
}
GRACE_S = 2.0  # what a pod still gets that is deleted by force
KINDS = {
    "deployments": "Deployment",
    "jobs": "Job",
    "persistentvolumeclaims": "PersistentVolumeClaim",
}


class RefusedError(Exception):
    """What kubectl would say on stderr."""


@dataclass
class Pod:
    """A pod of a Deployment or Job; those without a role need no process here."""

    name: str
    owner: Object
    child: Child | None = None
    restarts: int = 0
    codes: list[int] = field(default_factory=list)  # exit codes so far
    is_ending: bool = False

    @property
    def spec(self) -> Object:
        """Of its pod template."""
        spec: Object = self.owner["spec"]["template"]["spec"]
        return spec

    @property
    def has_ended(self) -> bool:
        """Whether its process has."""
        return self.child is not None and self.child.poll() is not None

    def describe(self) -> Object:
        """As the API gives it."""
        ends = [{"terminated": {"exitCode": code, "reason": "Error"}} for code in self.codes]
        metadata: Object = {"name": self.name, **self.owner["spec"]["template"]["metadata"]}
        metadata["ownerReferences"] = [{"name": self.owner["metadata"]["name"]}]
        if self.is_ending:
            metadata["deletionTimestamp"] = "2026-11-23T17:18:01Z"
        container = {
            "name": self.spec["containers"][0]["name"],
            "restartCount": self.restarts,
            "state": ends[-1] if self.has_ended else {"running": {}},
            "lastState": ends[-1] if ends and not self.has_ended else {},
        }
        phase = "Running" if not self.has_ended else "Failed" if self.codes[-1] else "Succeeded"
        status = {"phase": phase, "containerStatuses": [container]}
        return {"kind": "Pod", "metadata": metadata, "status": status}


def _fill_in(template: str, thing: Object) -> bytes:
    """A jsonpath template with plain paths such as {.spec.backoffLimit}."""
    paths = re.compile(r"\{\.([\w.]+)\}")
    return paths.sub(
        lambda path: str(reduce(getitem, path[1].split("."), thing)), template
    ).encode()


class SmallCluster:
    """Answers one call of kubectl after the other; ends all processes when it is left.

    Tests change what it does: `extra` objects that it shows, `refusals` that meet the next looks,
    `spoil` for outputs on their way, `program` that pods run.
    """

    def __init__(self, folder: Path, redis_url: str, kubectl: str) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.kubectl = kubectl
        self.calls: list[list[str]] = []
        self.objects: dict[tuple[str, str], Object] = {}
        self.pods: list[Pod] = []
        self.extra: list[Object] = []
        self.refusals: list[str] = []
        self.spoil: Callable[[bytes], bytes] = lambda archive: archive
        self.program = [sys.executable, "-m", "studyguide"]
        self.started = ""  # when the newest Job was made, as the API gives it
        self.uid = ""  # of the newest Job
        self._reaper = Reaper()
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "SmallCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.delete_all()
        for timer in self._timers:
            timer.join()
        self._reaper.close()

    @property
    def is_empty(self) -> bool:
        """Whether the namespace is gone and all that was in it."""
        return not self.objects and not self.pods and not self.folder.exists()

    def names(self, role: str) -> list[str]:
        """The pods of a role."""
        return [pod.name for pod in self.pods if _role(pod.owner) == role]

    # -- kubectl

    def __call__(self, arguments: list[str], stdin: bytes) -> Answer:
        """Do what one call asks for."""
        with self._lock:
            self.calls.append(arguments)
            try:
                return self._answer(arguments, stdin)
            except RefusedError as error:
                return Answer(1, stderr=f"Error from server {error}\n".encode())

    def _answer(self, arguments: list[str], stdin: bytes) -> Answer:
        if arguments == ["config", "current-context"]:
            return Answer(stdout=f"{CONTEXT}\n".encode())
        if arguments[0] == "kustomize":
            done = subprocess.run([self.kubectl, *arguments], capture_output=True, check=True)
            return Answer(stdout=done.stdout)
        assert arguments[:4] == WHERE, f"who is meant? kubectl {' '.join(arguments)}"
        verb, *rest = arguments[4:]
        if verb == "get" and rest[0] == "--raw":
            return Answer(stdout=b"ok")
        if verb == "exec":
            target, command = rest[rest.index("--") - 1], rest[rest.index("--") + 1 :]
            return self._execute(target, command, stdin)
        answers: dict[str, Callable[[], bytes]] = {
            "apply": lambda: self._apply(
                self._rendered(rest) if "--kustomize" in rest else json.loads(stdin)["items"]
            ),
            "get": lambda: self._get(rest),
            "rollout": lambda: b"successfully rolled out\n",
            "version": lambda: json.dumps({"serverVersion": {"gitVersion": VERSION}}).encode(),
            "logs": lambda: self._log(rest),
            "scale": lambda: self._scale(rest[0], int(rest[1].removeprefix("--replicas="))),
            "delete": lambda: self._delete(rest),
        }
        if verb not in answers:
            raise RefusedError(f"(NotImplemented): {verb}")
        return Answer(stdout=answers[verb]())

    def _rendered(self, arguments: list[str]) -> list[Object]:
        """What `--kustomize FOLDER` means, as far as a selector wants it."""
        folder = arguments[arguments.index("--kustomize") + 1]
        things = render(folder, self.kubectl)
        return [thing for thing in things if _is_selected(thing, arguments)]

    def _apply(self, items: list[Object]) -> bytes:
        for item in items:
            key = item["kind"], item["metadata"]["name"]
            if item["kind"] == "Namespace":
                assert item["metadata"]["name"] == NAMESPACE
            elif ("Namespace", NAMESPACE) not in self.objects:
                raise RefusedError(
                    f'Error from server (NotFound): namespaces "{NAMESPACE}" not found'
                )
            else:
                assert item["metadata"]["namespace"] == NAMESPACE
            if item["kind"] == "Job" and self.objects.get(key, item) != item:
                raise RefusedError(f'The Job "{key[1]}" is invalid: field is immutable')
            self.objects[key] = item
            if item["kind"] == "Job":
                self.uid = uuid4().hex
                self.started = datetime.now(UTC).isoformat(timespec="seconds")
        (self.folder / "data" / "input").mkdir(parents=True, exist_ok=True)
        self._reconcile()
        return b"".join(b"%s configured\n" % item["kind"].lower().encode() for item in items)

    def _watch(self) -> bytes:
        """One look: a stub cannot go on answering."""
        return "\n".join(["NAME STATUS", *(f"{pod.name} Running" for pod in self.pods)]).encode()

    def _get(self, arguments: list[str]) -> bytes:
        if "--watch" in arguments:
            return self._watch()
        if arguments[0] == "nodes":
            return json.dumps({"items": [{"metadata": {"name": "node"}, "status": NODE}]}).encode()
        if self.refusals:
            raise RefusedError(self.refusals.pop(0))
        self._reconcile()
        return self._as_asked(arguments) if "json" not in arguments else self._json(arguments[0])

    def _as_asked(self, arguments: list[str]) -> bytes:
        """In the other forms of output that the Makefile uses."""
        kinds, form = arguments[0], arguments[-1]
        if "{.spec" in form:
            return _fill_in(
                form.removeprefix("jsonpath="), self.objects[kinds.capitalize(), arguments[1]]
            )
        if "jsonpath" in form:
            job = self.objects["Job", arguments[1]]
            types = " ".join(item["type"] for item in self._conditions(job))
            return (self.started if "startTime" in form else types).encode()
        if kinds == "pod":
            names = [pod.name for pod in self.pods if _is_selected(pod.owner, arguments)]
        else:
            names = [name for kind, name in self.objects if kind.lower() in kinds.split(",")]
        return "".join(f"{kinds}/{name}\n" for name in names).encode()

    def _json(self, kinds: str) -> bytes:
        found = [*self.extra, *(pod.describe() for pod in self.pods)]
        for (kind, _), thing in self.objects.items():
            if kind in [KINDS.get(name) for name in kinds.split(",")]:
                found.append({**thing, "status": self._status(thing)})
        return json.dumps({"kind": "List", "items": found}).encode()

    def _log(self, arguments: list[str]) -> bytes:
        kind, _, name = arguments[0].partition("/")
        logs = [
            pod.child.log.read_bytes()
            for pod in self.pods
            if pod.child
            and (
                _is_selected(pod.owner, arguments)
                if "--selector" in arguments
                else name == (pod.name if kind == "pod" else pod.owner["metadata"]["name"])
            )
        ]
        if not logs:
            raise RefusedError(f'(BadRequest): "{name}" is waiting to start')
        return b"".join(logs)

    def _scale(self, target: str, count: int) -> bytes:
        self.objects["Deployment", target.removeprefix("deployment/")]["spec"]["replicas"] = count
        self._reconcile()
        return b"scaled\n"

    def _delete(self, arguments: list[str]) -> bytes:
        if arguments[:2] == ["namespace", NAMESPACE]:
            self.delete_all()
            return b""
        if "--kustomize" in arguments:
            assert self._rendered(arguments)[0]["kind"] == "Namespace"
            self.delete_all()
            return b""
        if "--cascade=foreground" in arguments:
            return self._delete_workloads(arguments)
        pod = self._pod(arguments[0].removeprefix("pod/"))
        assert arguments[1:] == ["--force", "--grace-period=0"]
        self.pods.remove(pod)
        if pod.child:
            pod.child.terminate()
            self._timers.append(threading.Timer(GRACE_S, pod.child.kill))
            self._timers[-1].start()
        self._reconcile()
        return b""

    def _delete_workloads(self, arguments: list[str]) -> bytes:
        """Those of a selector, or of a name; their pods have ended when the call does."""
        for (kind, name), thing in list(self.objects.items()):
            meant = name in arguments if "job" in arguments else _is_selected(thing, arguments)
            if kind in ("Deployment", "Job") and meant:
                for pod in [pod for pod in self.pods if pod.owner is thing]:
                    if pod.child:
                        pod.child.stop(grace_s=10)
                    self.pods.remove(pod)
                del self.objects[kind, name]
        return b""

    def delete_all(self) -> None:
        """Drain all pods and forget everything."""
        children = [pod.child for pod in self.pods if pod.child]
        for child in children:
            child.terminate()
        for child in children:
            child.stop(grace_s=10)
        self.pods, self.objects = [], {}
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- inside pods

    def _execute(self, target: str, command: list[str], stdin: bytes) -> Answer:
        if command == ["sh", "-c", "kill -KILL -1"]:
            return self._kill(self._pod(target.removeprefix("pod/")))
        if target != "deployment/files" or ("Deployment", "files") not in self.objects:
            raise RefusedError(f"(NotFound): {target} not found")
        assert command[0] in ("tar", "rm", "mkdir", "date", "find", "sh", "ls")
        with tempfile.TemporaryDirectory() as copy:
            inside = [self._path(part) for part in command]
            if command[:2] == ["tar", "-cf"]:  # files that grow would make it fail
                there = command.index("-C") + 1
                shutil.copytree(inside[there], copy, dirs_exist_ok=True)
                inside[there] = copy
            done = subprocess.run(inside, input=stdin, capture_output=True, check=False)
        is_output = command[:2] == ["tar", "-cf"] and any("/data/output" in it for it in command)
        stdout = self.spoil(done.stdout) if is_output else done.stdout
        return Answer(done.returncode, stdout, done.stderr)

    def _kill(self, pod: Pod) -> Answer:
        """Nothing within a container can kill its process 1."""
        if not pod.spec.get("shareProcessNamespace"):
            return Answer(1, stderr=b"sh: 1: kill: No such process\n")
        assert pod.child
        pod.child.kill()
        pod.child.wait()
        return Answer(137, stderr=b"command terminated with exit code 137\n")

    def _path(self, part: str) -> str:
        return re.sub(r"(^|[= ])/data\b", rf"\g<1>{self.folder}/data", part)

    # -- what the control plane does

    def _reconcile(self) -> None:
        for pod in [pod for pod in self.pods if pod.has_ended]:
            if pod.is_ending:
                self.pods.remove(pod)
            elif pod.owner["kind"] == "Deployment":
                self._note_end(pod)
                pod.restarts += 1
                self._start(pod)
            elif not pod.codes:
                self._note_end(pod)
        for thing in self.objects.values():
            if thing["kind"] in ("Deployment", "Job"):
                self._match(thing)

    def _note_end(self, pod: Pod) -> None:
        code = pod.child and pod.child.poll()
        pod.codes.append(128 - code if code and code < 0 else code or 0)

    def _match(self, thing: Object) -> None:
        """Have as many pods as a Deployment or Job shall have."""
        mine = [pod for pod in self.pods if pod.owner is thing and not pod.is_ending]
        count = thing["spec"].get("replicas", 1)
        if thing["kind"] == "Job":
            failed = [pod for pod in mine if pod.codes and pod.codes[-1]]
            count = len(mine) if self._conditions(thing) else len(failed) + 1
        for _ in range(count - len(mine)):
            pod = Pod(f"{thing['metadata']['name']}-{uuid4().hex[:5]}", thing)
            self.pods.append(pod)
            self._start(pod)
        for pod in mine[count:]:
            pod.is_ending = True
            if pod.child:
                pod.child.terminate()

    def _status(self, thing: Object) -> Object:
        if thing["kind"] == "Job":
            return {"conditions": self._conditions(thing)}
        if thing["kind"] == "Deployment":
            return {"readyReplicas": len([pod for pod in self.pods if pod.owner is thing])}
        return {"phase": "Bound"}

    def _conditions(self, job: Object) -> list[Object]:
        codes = [code for pod in self.pods if pod.owner is job for code in pod.codes]
        policy = job["spec"].get("podFailurePolicy", {"rules": []})["rules"]
        final = {code for rule in policy for code in rule["onExitCodes"]["values"]}
        if 0 in codes:
            return [{"type": "Complete", "status": "True"}]
        if final & set(codes) or len(codes) > job["spec"]["backoffLimit"]:
            return [{"type": "Failed", "status": "True", "message": f"exit codes {codes}"}]
        return []

    def _start(self, pod: Pod) -> None:
        if _role(pod.owner):
            container = pod.spec["containers"][0]
            variables = dict(self._variables(pod, container))
            given = [_expand(part, variables) for part in container["args"]]
            # Pods have an address each; here all would listen at the same one.
            given = [part for part in given if not part.startswith("--metrics-port")]
            argv = [*self.program, *(self._path(part) for part in given)]
            variables["REDIS_URL"] = self.redis_url  # service names have no meaning here
            log = self.folder / f"{pod.name}.log"
            pod.child = Child(pod.name, argv, {**os.environ, **variables}, log, self._reaper)

    def _variables(self, pod: Pod, container: Object) -> Iterator[tuple[str, str]]:
        for source in container.get("envFrom", []):
            yield from self.objects["ConfigMap", source["configMapRef"]["name"]]["data"].items()
        known: dict[str, str] = {}
        for item in container.get("env", []):
            known[item["name"]] = self._value(pod, item, known)
            yield item["name"], known[item["name"]]

    def _value(self, pod: Pod, item: Object, known: dict[str, str]) -> str:
        origin = item.get("valueFrom", {})
        if "secretKeyRef" in origin:
            secret = self.objects["Secret", origin["secretKeyRef"]["name"]]
            return base64.b64decode(secret["data"][origin["secretKeyRef"]["key"]]).decode()
        if "fieldRef" in origin:
            is_name = origin["fieldRef"]["fieldPath"] == "metadata.name"
            return pod.name if is_name else self.uid
        return _expand(item["value"], known)

    def _pod(self, name: str) -> Pod:
        with suppress(StopIteration):
            return next(pod for pod in self.pods if pod.name == name)
        raise RefusedError(f'(NotFound): pods "{name}" not found')


def _is_selected(thing: Object, arguments: list[str]) -> bool:
    """Whether `--selector`, if there is one, takes it in."""
    if "--selector" not in arguments:
        return True
    selector = arguments[arguments.index("--selector") + 1]
    if not selector.startswith(ROLE):
        return True  # all that is ours
    role = thing["metadata"].get("labels", {}).get(ROLE)
    names = set(re.findall(r"\w+", selector.removeprefix(ROLE)))
    if " notin " in selector:
        return role not in names
    return role is not None and (selector == ROLE or role in names)


def _role(thing: Object) -> str:
    return str(thing["spec"]["template"]["metadata"]["labels"].get(ROLE, ""))


def _expand(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)
