"""kubectl from Python: its own verbs, and its own words when it fails.

Every call names its context and namespace, so that a learner's other clusters are never touched.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
import tomllib
from collections.abc import Iterable, Mapping
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
UNFINISHED = ".*.tmp"  # files that are being written have such names
MAX_LINES, MAX_COLUMNS = 4, 400  # of stderr in a message; an error carries all of it besides
AGAIN = "Run it again"
REMEDIES = tomllib.loads(Path(__file__).with_name("remedies.toml").read_text("utf-8"))
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

    def describe(self) -> dict[str, Any]:
        """What pods run on, as far as we may ask: without names or addresses."""
        try:
            server = json.loads(self("version", "--output", "json"))["serverVersion"]
            nodes = [node["status"] for node in self.get("nodes")]
        except ToolError:
            return {}
        told = [
            f"{node['capacity']['cpu']} cores, {node['nodeInfo']['osImage']}, "
            f"{node['nodeInfo']['containerRuntimeVersion']}"
            for node in nodes
        ]
        return {"kubernetes": server["gitVersion"], "nodes": "; ".join(told)}

    def time(self, target: str) -> float:
        """A pod's clock in seconds since the epoch, half the round trip added."""
        start = time.perf_counter()
        seconds = float(self.execute(target, "date", "+%s.%N"))
        return seconds + (time.perf_counter() - start) / 2

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
        """Write files into an empty folder of a pod; ToolError if they do not arrive whole."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, body in files.items():
                item = tarfile.TarInfo(name)
                item.size = len(body)
                tar.addfile(item, io.BytesIO(body))
        unpack = ("tar", "-xf", "-", "-C", folder)
        self.execute(target, *unpack, stdin=archive.getvalue(), timeout_s=TRANSFER_S)
        self._check_whole("send", files, target, folder)

    def read(self, target: str, folder: str, timeout_s: float = 0.0) -> dict[str, bytes]:
        """Name -> content of the files in a folder of a pod, as they are at this moment.

        Raises ToolError if their archive is damaged, as when the connection broke: kubectl then
        still says 0.
        """
        pack = ("tar", "-cf", "-", f"--exclude={UNFINISHED}", "-C", folder, ".")
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
        self._check_whole("fetch", files, target, folder)
        return files

    def _check_whole(self, verb: str, files: Mapping[str, bytes], target: str, folder: str) -> None:
        find = ["find", "-H", folder, "-type", "f", "!", "-name", UNFINISHED]
        find += ["-exec", "sha256sum", "--zero", "{}", "+"]
        lines = os.fsdecode(self.execute(target, *find)).split("\0")[:-1]
        there = {PurePosixPath(line[66:]).name: line[:64] for line in lines}
        here = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
        if bad := sorted({name for name, _ in here.items() ^ there.items()}):
            what = f"{len(bad)} of {len(here | there)} files did not arrive whole: {', '.join(bad)}"
            raise ToolError(["kubectl", "exec", "tar"], 0, f"{verb}: {what}", AGAIN)


def owner() -> str:
    """Return the value of the label OWNER: who runs this, as far as a label can say it."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", os.environ.get("USER", ""))[:63].strip("-._")
    return name or str(os.getuid())


def kustomize(folder: Path) -> bytes:
    """Render a kustomization; no cluster is asked."""
    return _run(["kubectl", "kustomize", str(folder)])


def remedy_for(said: str, otherwise: str = "") -> str:
    """Return what to do about what kubectl, the scheduler or a controller said."""
    fitting = (text for pattern, text in REMEDIES["said"].items() if re.search(pattern, said))
    return next(fitting, otherwise)


def _run(command: list[str], stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> bytes:
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=timeout_s, check=True
        ).stdout
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
    error = ToolError(command, code, gist, remedy_for(gist))
    error.stderr = stderr
    return error
