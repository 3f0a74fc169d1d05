"""A Kubernetes in small that answers kubectl: pods are processes of this machine, with one /data.

It does what `KubernetesCluster` uses: namespaces that know nothing of each other, Deployments
that keep their number of pods, Jobs that end, settings from ConfigMaps and Secrets, pods that are
deleted get SIGTERM first. Redis is a server that runs already, of which each namespace has a
database; the pod `files` is a folder, for in a namespace all pods share one.
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
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from operator import getitem
from pathlib import Path
from uuid import uuid4

import redis
from kubectl_stub import Answer, Object
from pods import render

from studyguide.machinery.processes import Child, Reaper
from studyguide.machinery.warm import Template

CONTEXT, NAMESPACE = "small", "studyguide"
FRESH = [sys.executable, "-m", "studyguide"]  # as real pods start
ROLE, RUN = "studyguide/role", "studyguide/run"
VERSION = "v1.36.2"
NODE = {
    "capacity": {"cpu": "2"},
    "nodeInfo": {"osImage": "Small Linux", "containerRuntimeVersion": "containerd://1.6.20"},
}
GRACE_S = 2.0  # what a pod still gets that is deleted by force
KINDS = {
    f"{kind.lower()}s": kind
    for kind in ("Deployment", "Job", "PersistentVolumeClaim", "ConfigMap", "Secret", "Service")
}
KINDS |= {"networkpolicies": "NetworkPolicy", "poddisruptionbudgets": "PodDisruptionBudget"}


class RefusedError(Exception):
    """What kubectl would say on stderr."""


def moment(seconds: float) -> str:
    """As the API gives it: without a fraction."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Pod:
    """A pod of a Deployment or Job; those without a role need no process here."""

    name: str
    owner: Object
    child: Child | None = None
    restarts: int = 0
    began: float = field(default_factory=time.time)  # seconds since the epoch
    ends: list[Object] = field(default_factory=list)  # how its container has ended so far
    is_ending: bool = False
    is_dead: bool = False  # killed or evicted, where there is no process
    disruption: str = ""  # why its node threw it out
    password: str = ""  # of Redis, as it was when the pod was started
    is_refused: bool = False  # by a Redis with another password

    @property
    def spec(self) -> Object:
        """Of its pod template."""
        spec: Object = self.owner["spec"]["template"]["spec"]
        return spec

    @property
    def codes(self) -> list[int]:
        """Its exit codes so far."""
        return [end["terminated"]["exitCode"] for end in self.ends]

    @property
    def has_ended(self) -> bool:
        """Whether its process has."""
        return self.is_dead or (self.child is not None and self.child.poll() is not None)

    @property
    def is_ready(self) -> bool:
        """Whether its container runs, and Redis takes its password."""
        return not (self.has_ended or self.is_refused)

    def note_end(self, code: int) -> None:
        """Keep how its container has ended, as the kubelet does."""
        times = {"startedAt": moment(self.began), "finishedAt": moment(time.time())}
        reason = "Error" if code else "Completed"
        self.ends.append({"terminated": {"exitCode": code, "reason": reason, **times}})

    def describe(self) -> Object:
        """As the API gives it."""
        metadata: Object = {"name": self.name, **self.owner["spec"]["template"]["metadata"]}
        by = "Job" if self.owner["kind"] == "Job" else "ReplicaSet"
        metadata["ownerReferences"] = [{"kind": by, "name": self.owner["metadata"]["name"]}]
        if self.is_ending:
            metadata["deletionTimestamp"] = "2026-11-23T17:18:01Z"
        running = {"running": {"startedAt": moment(self.began)}}
        ended = self.has_ended and bool(self.ends)  # its end is noted a moment after it
        container = {
            "name": self.spec["containers"][0]["name"],
            "restartCount": self.restarts,
            "state": self.ends[-1] if ended else running,
            "lastState": self.ends[-1] if self.ends and not ended else {},
        }
        phase = "Running" if not ended else "Failed" if self.codes[-1] else "Succeeded"
        status = {"phase": phase, "containerStatuses": [container], "conditions": self.conditions}
        status["initContainerStatuses"] = [self._before(item) for item in self._init]
        if self.disruption:
            said = f"{self.disruption}: the node was low on resource: memory."
            status |= {"reason": "Evicted", "message": said}
        return {"kind": "Pod", "metadata": metadata, "status": status}

    @property
    def _init(self) -> list[Object]:
        return list(self.spec.get("initContainers", []))

    def _before(self, container: Object) -> Object:
        """A sidecar runs, another init container has ended before the role began."""
        times = {"startedAt": moment(self.began), "finishedAt": moment(self.began)}
        done = {"terminated": {"exitCode": 0, "reason": "Completed", **times}}
        running = {"running": {"startedAt": moment(self.began)}}
        state = running if container.get("restartPolicy") == "Always" else done
        return {"name": container["name"], "restartCount": 0, "state": state, "lastState": {}}

    @property
    def conditions(self) -> list[Object]:
        """Whether it is ready; why it was thrown out."""
        found = [{"type": "Ready", "status": str(self.is_ready)}]
        if self.disruption:
            reason = {"reason": self.disruption}
            found.append({"type": "DisruptionTarget", "status": "True", **reason})
        return found


def _fill_in(template: str, thing: Object) -> bytes:
    """A jsonpath template with plain paths such as {.spec.backoffLimit}."""
    paths = re.compile(r"\{\.([\w.]+)\}")
    return paths.sub(
        lambda path: str(reduce(getitem, path[1].split("."), thing)), template
    ).encode()


class SmallCluster:
    """Answers one call of kubectl after the other; ends all processes when it is left.

    Tests change what it does: `extra` objects that it shows, `refusals` that meet the next looks,
    `hangs` that meet the next calls of a verb, `forbidden` verbs, `spoil` for outputs on their way,
    `program` that pods run, `never_ready`, and `on_create`, which is given what is to be created.
    """

    def __init__(self, folder: Path, redis_url: str, kubectl: str) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.kubectl = kubectl
        self.calls: list[list[str]] = []
        self.namespaces: dict[str, Space] = {}
        self.extra: list[Object] = []
        self.refusals: list[str] = []
        self.hangs: dict[str, int] = {}
        self.forbidden: set[str] = set()  # such as "create namespaces"
        self.spoil: Callable[[bytes], bytes] = lambda archive: archive
        # What runs in each pod. Nothing: studyguide, warm, which saves each a second of imports.
        self.program: list[str] = []
        self.never_ready = False
        self.on_create: Callable[[list[Object]], None] = lambda items: None
        self.reaper = Reaper()
        self.timers: list[threading.Timer] = []
        self._made = 0  # namespaces so far
        self._lock = threading.Lock()

    def __enter__(self) -> "SmallCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.delete_all()
        for timer in self.timers:
            timer.join()
        self.reaper.close()

    @property
    def is_empty(self) -> bool:
        """Whether no namespace is left, nor anything that was in one."""
        return not self.namespaces and not list(self.folder.glob("*"))

    @property
    def space(self) -> "Space":
        """The only namespace."""
        (only,) = self.namespaces.values()
        return only

    @property
    def data(self) -> Path:
        """The folder /data of the only namespace."""
        return self.space.folder / "data"

    @property
    def objects(self) -> dict[tuple[str, str], Object]:
        """What is in the only namespace, by kind and name."""
        return self.space.objects

    @property
    def pods(self) -> list[Pod]:
        """All pods."""
        return [pod for space in self.namespaces.values() for pod in space.pods]

    def names(self, role: str) -> list[str]:
        """The pods of a role."""
        return [pod.name for pod in self.pods if _role(pod.owner) == role]

    def make(self, name: str, **labels: str) -> "Space":
        """Make a namespace, as its administrator would."""
        self._made += 1
        url = f"{self.redis_url.rpartition('/')[0]}/{1 + self._made % 15}"
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        named = {"kubernetes.io/metadata.name": name, **labels}
        self.namespaces[name] = space = Space(self, name, named, self.folder / name, url)
        return space

    def delete_all(self) -> None:
        """Drain all pods and forget everything."""
        for name in list(self.namespaces):
            self.delete(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def delete(self, name: str) -> None:
        """Drain the pods of a namespace and forget it."""
        self.namespaces.pop(name).clear()

    # -- kubectl

    def __call__(self, arguments: list[str], stdin: bytes) -> Answer | None:
        """Do what one call asks for."""
        with self._lock:
            self.calls.append(arguments)
            verb = arguments[4] if arguments[0] == "--context" else arguments[0]
            if self.hangs.get(verb, 0):
                self.hangs[verb] -= 1
                return None
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
        where = ["--context", CONTEXT, "--namespace"]
        assert arguments[:3] == where, f"who is meant? kubectl {' '.join(arguments)}"
        name, verb, *rest = arguments[3:]
        if verb == "get" and rest[0] == "--raw":
            return Answer(stdout=b"ok")
        if verb == "version":
            return Answer(stdout=json.dumps({"serverVersion": {"gitVersion": VERSION}}).encode())
        if verb == "get" and rest[0] == "nodes":
            nodes = [{"metadata": {"name": "node"}, "status": NODE}]
            return Answer(stdout=json.dumps({"items": nodes}).encode())
        if verb in ("get", "delete") and rest[0] == "namespaces":
            return Answer(stdout=self._on_namespaces(verb, rest))
        if verb in ("apply", "create") or "--kustomize" in rest:
            return Answer(stdout=self._on_files(name, verb, rest, stdin))
        if name not in self.namespaces and verb == "get":  # as kubectl: no error
            if "json" in rest:
                return Answer(stdout=b'{"items": []}')
            if "--watch" in rest:
                return Answer(stdout=b"NAME STATUS\n")
        if name not in self.namespaces and verb == "delete" and "--selector" in rest:
            return Answer(stdout=b"No resources found\n")
        if name not in self.namespaces:
            raise RefusedError(f'(NotFound): namespaces "{name}" not found')
        return self.namespaces[name].answer(verb, rest, stdin)

    def _on_namespaces(self, verb: str, arguments: list[str]) -> bytes:
        """List or delete those that a selector means."""
        if f"{verb} namespaces" in self.forbidden:
            raise RefusedError(f"(Forbidden): namespaces is forbidden: cannot {verb} it")
        wanted = {it: _matches(space.labels, arguments) for it, space in self.namespaces.items()}
        found = [name for name, is_wanted in wanted.items() if is_wanted]
        for name in found if verb == "delete" else ():
            self.delete(name)
        return "".join(f"{name} {self._row(name)}\n" for name in found).encode()

    def _row(self, name: str) -> str:
        space = self.namespaces.get(name)
        return " ".join(space.labels.values()) if space else "deleted"

    def _on_files(self, name: str, verb: str, arguments: list[str], stdin: bytes) -> bytes:
        """Create, apply or delete what a file or a kustomization describes."""
        if "--kustomize" in arguments:
            things = render(arguments[arguments.index("--kustomize") + 1], self.kubectl)
            things = [thing for thing in things if _is_selected(thing, arguments)]
        else:
            things = json.loads(stdin)["items"]
        if verb == "delete":
            self.delete(things[0]["metadata"]["name"])
            return b""
        self.on_create(things)
        said = [self._put(name, verb, thing) for thing in things]
        for space in self.namespaces.values():
            space.reconcile()
        refused = [str(error) for error in said if error]
        if refused:
            raise RefusedError("\nError from server ".join(refused))
        return b"".join(b"%s configured\n" % item["kind"].lower().encode() for item in things)

    def _put(self, namespace: str, verb: str, thing: Object) -> RefusedError | None:
        """Create or change one object; the others are still done if that is refused."""
        kind, name = thing["kind"], thing["metadata"]["name"]
        where = f'error when creating "STDIN": {kind.lower()}s "{name}"'
        is_new = kind == "Namespace" and name not in self.namespaces
        if is_new and f"{verb} namespaces" in self.forbidden:
            said = "error when creating: namespaces is forbidden: cannot create it"
            return RefusedError(f"(Forbidden): {said}")
        if is_new:
            self.make(name, **thing["metadata"]["labels"])
        if kind == "Namespace":
            exists = verb == "create" and not is_new
            return RefusedError(f"(AlreadyExists): {where} already exists") if exists else None
        assert thing["metadata"]["namespace"] == namespace
        if namespace not in self.namespaces:
            said = f'error when creating "STDIN": namespaces "{namespace}" not found'
            return RefusedError(f"(NotFound): {said}")
        space = self.namespaces[namespace]
        if verb == "create" and (kind, name) in space.objects:
            return RefusedError(f"(AlreadyExists): {where} already exists")
        return space.put(thing)


class Space:
    """One namespace: its objects, its pods, their folder and their database of Redis."""

    def __init__(
        self, cluster: SmallCluster, name: str, labels: dict[str, str], folder: Path, redis_url: str
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.labels = labels
        self.folder = folder
        self.redis_url = redis_url
        self.objects: dict[tuple[str, str], Object] = {}
        self.pods: list[Pod] = []
        self.uid = ""  # of the newest Job
        for name in ("input", "run"):
            (folder / "data" / name).mkdir(parents=True)

    def answer(self, verb: str, rest: list[str], stdin: bytes) -> Answer:
        """Do what one call asks for."""
        if verb == "exec":
            target, command = rest[rest.index("--") - 1], rest[rest.index("--") + 1 :]
            return self._execute(target, command, stdin)
        answers: dict[str, Callable[[], bytes]] = {
            "get": lambda: self._get(rest),
            "rollout": lambda: self._rollout(rest[-1].removeprefix("deployment/")),
            "logs": lambda: self._log(rest),
            "scale": lambda: self._scale(rest[0], int(rest[1].removeprefix("--replicas="))),
            "delete": lambda: self._delete(rest),
        }
        if verb not in answers:
            raise RefusedError(f"(NotImplemented): {verb}")
        return Answer(stdout=answers[verb]())

    def put(self, thing: Object) -> RefusedError | None:
        """Create or change an object; a Deployment whose pods shall be others ends the old ones."""
        key = thing["kind"], thing["metadata"]["name"]
        before = self.objects.get(key)
        if thing["kind"] == "Job":
            if before not in (None, thing):
                return RefusedError(f'The Job "{key[1]}" is invalid: field is immutable')
            self.uid = uuid4().hex
        if before and "template" in thing.get("spec", {}):
            if before["spec"]["template"] != thing["spec"]["template"]:
                self._end_pods_of(before)
            labels = before["metadata"].get("labels", {}) | thing["metadata"].get("labels", {})
            before.update(thing)
            before["metadata"]["labels"] = labels  # those of another writer stay
        else:
            self.objects[key] = thing
        return None

    def clear(self) -> None:
        """Drain all pods and forget everything."""
        children = [pod.child for pod in self.pods if pod.child]
        for child in children:
            child.terminate()
        for child in children:
            child.stop(grace_s=10)
        self.pods, self.objects = [], {}
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_pods_of(self, thing: Object) -> None:
        for pod in [pod for pod in self.pods if pod.owner is thing]:
            if pod.child:
                pod.child.stop(grace_s=10)
            self.pods.remove(pod)

    def _watch(self) -> bytes:
        """One look: a stub cannot go on answering."""
        return "\n".join(["NAME STATUS", *(f"{pod.name} Running" for pod in self.pods)]).encode()

    def _get(self, arguments: list[str]) -> bytes:
        if "--watch" in arguments:
            return self._watch()
        if self.cluster.refusals:
            raise RefusedError(self.cluster.refusals.pop(0))
        self.reconcile()
        return self._as_asked(arguments) if "json" not in arguments else self._json(arguments)

    def _as_asked(self, arguments: list[str]) -> bytes:
        """In the other forms of output that lessons and the Makefile use."""
        kinds, form = arguments[0], arguments[-1]
        if "--label-columns" in arguments:
            return "".join(f"{name}\n" for name in self._selected(arguments)).encode()
        if "{.spec" in form:
            return _fill_in(
                form.removeprefix("jsonpath="), self.objects[kinds.capitalize(), arguments[1]]
            )
        if kinds == "pod":
            names = [pod.name for pod in self.pods if _is_selected(pod.owner, arguments)]
        else:
            names = [name for kind, name in self.objects if kind.lower() in kinds.split(",")]
        return "".join(f"{kinds}/{name}\n" for name in names).encode()

    def _json(self, arguments: list[str]) -> bytes:
        run = self._run()
        found = [pod.describe() for pod in self.pods]
        for extra in self.cluster.extra:
            labels = {RUN: run} | extra["metadata"].get("labels", {})
            found.append(extra | {"metadata": extra["metadata"] | {"labels": labels}})
        found = [] if any(part.startswith("--selector") for part in arguments) else found
        for (kind, _), thing in self.objects.items():
            labels = thing["metadata"].get("labels", {})
            kinds = [KINDS.get(name) for name in arguments[0].split(",")]
            if kind in kinds and _matches(labels, arguments):
                found.append({**thing, "status": self._status(thing)})
        return json.dumps({"kind": "List", "items": found}).encode()

    def _run(self) -> str:
        """The newest run in this namespace."""
        labels = [thing["metadata"].get("labels", {}) for thing in self.objects.values()]
        return next((str(it[RUN]) for it in reversed(labels) if RUN in it), "")

    def _selected(self, arguments: list[str]) -> list[tuple[str, str]]:
        kinds = [KINDS.get(name) for name in arguments[0].split(",")]
        return [
            key
            for key, thing in self.objects.items()
            if key[0] in kinds and _matches(thing["metadata"].get("labels", {}), arguments)
        ]

    def _rollout(self, name: str) -> bytes:
        if not all(pod.is_ready for pod in self.pods if pod.owner["metadata"]["name"] == name):
            raise RefusedError("error: timed out waiting for the condition")
        return b"successfully rolled out\n"

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
        self.reconcile()
        return b"scaled\n"

    def _delete(self, arguments: list[str]) -> bytes:
        if arguments[0] in ("pods", "pod") or arguments[0].startswith("pod/"):
            return self._delete_pod(arguments)
        if "configmaps" in arguments[0]:
            for key in self._selected(arguments):
                self._end_pods_of(self.objects.pop(key))
            return b""
        if "--cascade=foreground" in arguments:
            return self._delete_workloads(arguments)
        raise RefusedError(f"(NotImplemented): delete {arguments}")

    def _delete_pod(self, arguments: list[str]) -> bytes:
        pod = self._pod(arguments[0].removeprefix("pod/"))
        assert arguments[1:] == ["--force", "--grace-period=0"]
        self.pods.remove(pod)
        if pod.child:
            pod.child.terminate()
            self.cluster.timers.append(threading.Timer(GRACE_S, pod.child.kill))
            self.cluster.timers[-1].start()
        self.reconcile()
        return b""

    def _delete_workloads(self, arguments: list[str]) -> bytes:
        """Those of a selector, or of a name; their pods have ended when the call does."""
        for (kind, name), thing in list(self.objects.items()):
            meant = name in arguments if "job" in arguments else _is_selected(thing, arguments)
            if kind in ("Deployment", "Job") and meant:
                self._end_pods_of(thing)
                del self.objects[kind, name]
        return b""

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
        stdout = self.cluster.spoil(done.stdout) if is_output else done.stdout
        return Answer(done.returncode, stdout, done.stderr)

    def _kill(self, pod: Pod) -> Answer:
        """Nothing within a container can kill its process 1."""
        if not pod.spec.get("shareProcessNamespace"):
            return Answer(1, stderr=b"sh: 1: kill: No such process\n")
        if pod.child:
            pod.child.kill()
            pod.child.wait()
        else:
            pod.is_dead = True
        self._note_end(pod, 137)
        return Answer(137, stderr=b"command terminated with exit code 137\n")

    def _path(self, part: str) -> str:
        return re.sub(r"(^|[= ])/data\b", rf"\g<1>{self.folder}/data", part)

    # -- what the control plane does

    def evict(self, pod: Pod) -> None:
        """Kill a pod for want of memory on its node; it stays to be seen, and another starts."""
        if pod.child:
            pod.child.kill()
            pod.child.wait()
        pod.is_dead, pod.disruption = True, "TerminationByKubelet"
        self._note_end(pod, 137)

    def reconcile(self) -> None:
        """Do what the control plane does, once."""
        for pod in [pod for pod in self.pods if pod.has_ended]:
            if pod.is_ending:
                self.pods.remove(pod)
            elif pod.owner["kind"] == "Deployment" and not pod.disruption:
                self._note_end(pod)
                pod.restarts += 1
                self._start(pod)
            elif not pod.codes:
                self._note_end(pod)
        workloads = [it for it in self.objects.values() if it["kind"] in ("Deployment", "Job")]
        for thing in sorted(workloads, key=lambda it: bool(_role(it))):  # Redis first
            self._match(thing)

    def _note_end(self, pod: Pod, code: int | None = None) -> None:
        if len(pod.ends) == pod.restarts:  # not noted yet
            given = code or (pod.child and pod.child.poll()) or 0
            pod.note_end(128 - given if given < 0 else given)

    def _match(self, thing: Object) -> None:
        """Have as many pods as a Deployment or Job shall have."""
        mine = [pod for pod in self.pods if pod.owner is thing and not pod.is_ending]
        if thing["kind"] == "Deployment":
            mine = [pod for pod in mine if not pod.disruption]
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
            mine = [pod for pod in self.pods if pod.owner is thing and pod.is_ready]
            return {} if self.cluster.never_ready else {"readyReplicas": len(mine)}
        return {"phase": "Bound"}

    def _conditions(self, job: Object) -> list[Object]:
        mine = [pod for pod in self.pods if pod.owner is job]
        rules = job["spec"].get("podFailurePolicy", {"rules": []})["rules"]
        final = {code for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])}
        ignored = {it["type"] for rule in rules for it in rule.get("onPodConditions", [])}
        counted = [pod for pod in mine if not (pod.disruption and "DisruptionTarget" in ignored)]
        codes = [code for pod in counted for code in pod.codes]
        if 0 in codes:
            return [{"type": "Complete", "status": "True"}]
        if final & set(codes) or len(codes) > job["spec"]["backoffLimit"]:
            return [{"type": "Failed", "status": "True", "message": f"exit codes {codes}"}]
        return []

    def _start(self, pod: Pod) -> None:
        container = pod.spec["containers"][0]
        variables = dict(self._variables(pod, container))
        pod.began, pod.is_dead = time.time(), False
        pod.password = variables.get("REDIS_PASSWORD", "")
        if _role(pod.owner):
            given = [_expand(part, variables) for part in container["args"]]
            # Pods have an address each; here all would listen at the same one.
            given = [part for part in given if not part.startswith("--metrics-port")]
            pod.is_refused = bool(pod.password) and pod.password != self._password(pod)
            refused = ["sh", "-c", "echo invalid username-password pair >&2; exit 75"]
            program = refused if pod.is_refused else self.cluster.program
            argv = [*program, *(self._path(part) for part in given)]
            fork = None if program else Template.current().fork
            variables["REDIS_URL"] = self.redis_url  # service names have no meaning here
            log = self.folder / f"{pod.name}.log"
            environment = {**os.environ, **variables}
            pod.child = Child(pod.name, argv, environment, log, self.cluster.reaper, fork)

    def _password(self, client: Pod) -> str:
        """What Redis was started with, whatever its Secret says now; if not yet, the client's."""
        servers = [pod for pod in self.pods if pod.owner["metadata"]["name"] == "redis"]
        return servers[0].password if servers else client.password

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


def _matches(labels: dict[str, str], arguments: list[str]) -> bool:
    """Whether a selector of labels with and without values means something with these."""
    given = " ".join(arguments)
    found = re.search(r"--selector[= ](\S+)", given)
    terms = [term.partition("=") for term in found[1].split(",")] if found else []
    return all(
        labels.get(key) == value if equals else key in labels for key, equals, value in terms
    )


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
