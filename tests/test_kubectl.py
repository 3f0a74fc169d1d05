"""kubectl's failures as people are reported them, and what its answers say of pods in trouble."""

import io
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kubectl_stub import Answer, Answerer, Object, Replay, objects, recorded, stub_kubectl
from pods import require

from studyguide.errors import ToolError
from studyguide.kubernetes.kubectl import Kubectl, kustomize
from studyguide.kubernetes.trouble import find_trouble

KUBECTL = Kubectl("local", "studyguide")
Install = Callable[[Answerer], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a stub before the real kubectl."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(stub_kubectl(answer, tmp_path, monkeypatch))


def error_of(call: Callable[[], object]) -> ToolError:
    with pytest.raises(ToolError) as caught:
        call()
    return caught.value


# what kubectl refuses at once

REFUSALS = [
    (
        ("no cluster", "get", "pods"),
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host",
        "Start the cluster, for example with minikube start, or choose another context",
    ),
    (
        ("wrong context", "get", "pods"),
        "context was not found for specified context: nowhere",
        "See which there are: kubectl config get-contexts",
    ),
    (
        ("forbidden", "get", "pods"),
        'User "learner" cannot list resource "pods" in API group "" in the namespace "studyguide"',
        "Ask for the right to do so, or use a cluster of your own",
    ),
    (
        ("forbidden", "apply", "-k", "k"),
        'User "learner" cannot get resource "namespaces"',
        "Ask for the right to do so, or use a cluster of your own",
    ),
    (
        ("before apply", "get", "deploy", "worker"),
        'namespaces "studyguide" not found',
        "Deploy first: make -C k8s deploy A=e",
    ),
    (
        ("missing namespace", "apply", "-f", "k/all.yaml"),
        'error when creating "k/all.yaml": namespaces "studyguide" not found',
        "Create it first: kubectl create namespace NAME",
    ),
    (
        ("job is immutable", "apply", "-f", "immutable.yaml"),
        "field is immutable",
        "Delete the object first, or all: make -C k8s clean A=e",
    ),
    (
        ("bad field", "apply", "-f", "badfield.yaml"),
        'unknown field "spec.template.spec.containerz"',
        "Correct it in k8s/; kubectl explain tells which fields there are",
    ),
    (
        ("unknown kind", "apply", "-f", "-"),
        'no matches for kind "ScaledObject" in version "keda.sh/v1"',
        "The cluster lacks that kind: use Kubernetes 1.29 or newer",
    ),
    (
        ("exec", "exec", "deploy/worker", "--", "sh", "-c", "exit 7"),
        "command terminated with exit code 7",
        "It failed inside its pod, of which kubectl get pods tells more",
    ),
    (
        ("exec", "exec", "deploy/nothing", "--", "true"),
        'deployments.apps "nothing" not found',
        "Deploy first: make -C k8s deploy A=e",
    ),
    (
        ("starting", "logs", "job/coordinator"),
        'container "coordinator" in pod "coordinator-tcvft" is waiting to start',
        "Wait until its pod runs: kubectl get pods",
    ),
    (
        ("locked", "apply", "-f", "rootpod.yaml"),
        'violates PodSecurity "restricted:latest"',
        "The namespace forbids such a pod: use the manifests as they are",
    ),
]


@pytest.mark.parametrize(
    ("call", "problem", "remedy"), REFUSALS, ids=lambda item: item[0] if item[0:1] else None
)
def test_a_refusal_is_told_with_command_exit_code_stderr_and_remedy(
    call: tuple[str, ...], problem: str, remedy: str, install: Install
) -> None:
    scenario, *arguments = call
    install(Replay(scenario))
    error = error_of(lambda: KUBECTL(*arguments))
    told = recorded(scenario, *arguments)
    assert error.command[0] == "kubectl"
    assert error.command[-len(arguments) :] == tuple(arguments)
    assert (error.exit_code, error.stderr) == (told["exit"], told["stderr"])
    assert problem in error.problem
    assert error.remedy == remedy


@pytest.mark.parametrize("call", [call for call, _, _ in REFUSALS], ids="-".join)
def test_a_message_is_short_whatever_kubectl_says(call: tuple[str, ...], install: Install) -> None:
    scenario, *arguments = call
    install(Replay(scenario))
    message = str(error_of(lambda: KUBECTL(*arguments)))
    assert len(message) < 1000
    assert len(message.splitlines()) <= 4
    assert "memcache.go" not in message


@pytest.mark.parametrize(
    ("stderr", "remedy"),
    [  # as Kubernetes' and kubectl's sources word them
        (
            'Error from server (Forbidden): pods "x" is forbidden: exceeded quota: small, '
            "requested: pods=1, used: pods=1, limited: pods=1",
            "The namespace's quota is used up: delete something or ask for more",
        ),
        (
            "error: You must be logged in to the server (Unauthorized)",
            "Log in to the cluster again",
        ),
        (
            "Unable to connect to the server: net/http: TLS handshake timeout",
            "Start the cluster, for example with minikube start, or choose another context",
        ),
        (
            "tar: ./big.png: Cannot write: No space left on device\n"
            "command terminated with exit code 2",
            "Free space on the node, or use fewer images",
        ),
        (
            "error: timed out waiting for the condition on namespaces/studyguide",
            "See what holds it: kubectl describe namespace NAME",
        ),
        (
            "error: invalid configuration: no configuration has been provided, try setting "
            "KUBERNETES_MASTER environment variable",
            "Choose one: kubectl config use-context NAME",
        ),
    ],
)
def test_other_refusals_have_their_remedies(stderr: str, remedy: str, install: Install) -> None:
    install(lambda arguments, stdin: Answer(1, stderr=stderr.encode()))
    assert error_of(lambda: KUBECTL("apply")).remedy == remedy


def test_noise_is_told_when_there_is_nothing_else(install: Install) -> None:
    noise = b'E1123 19:54:25.934407   22782 run.go:72] "command failed" err="no such directory"\n'
    install(lambda arguments, stdin: Answer(1, stderr=noise))
    assert "no such directory" in str(error_of(lambda: KUBECTL("get", "pods")))


def test_a_cluster_that_does_not_answer_is_told_after_the_timeout(install: Install) -> None:
    install(lambda arguments, stdin: None)
    start = time.monotonic()
    error = error_of(lambda: KUBECTL("get", "pods", timeout_s=0.5))
    assert time.monotonic() - start < 30
    assert error.exit_code is None
    assert "get pods` timed out" in str(error)
    assert error.remedy == "The cluster did not answer within 0.5 s: see whether it runs"


def test_a_warning_with_exit_code_0_is_no_error(install: Install) -> None:
    install(Replay("cluster"))
    assert "exceeds the supported minor version skew" in recorded("cluster", "version")["stderr"]
    assert b'"serverVersion"' in KUBECTL("version", "-o", "json")


def test_a_warning_of_pod_security_is_no_error_here_but_trouble_later(install: Install) -> None:
    install(Replay("locked"))
    made = KUBECTL("create", "deployment", "root", "--image=busybox:1.36")
    assert made == b"deployment.apps/root created\n"
    (trouble,) = find_trouble(KUBECTL.get("events"))
    assert trouble.where.startswith("replicaset/root-")
    assert 'violates PodSecurity "restricted:latest"' in trouble.what
    assert trouble.remedy == "The namespace forbids such a pod: use the manifests as they are"


def test_without_kubectl_it_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = error_of(lambda: Kubectl.current("studyguide"))
    assert (error.exit_code, error.remedy) == (127, "Install kubectl, or use --backend local")


# context and namespace


def test_the_current_context_is_asked_once_and_then_named_in_every_call(install: Install) -> None:
    replay = Replay("cluster")
    install(replay)
    kubectl = Kubectl.current("studyguide")
    kubectl.answers()
    kubectl("version", "--output", "json")
    first, *others = replay.calls
    assert first == ["config", "current-context"]
    assert len(others) == 2
    for call in others:
        assert call[:4] == ["--context", "local", "--namespace", "studyguide"]


def test_no_current_context_is_told(install: Install) -> None:
    install(Replay("no cluster"))
    error = error_of(lambda: Kubectl.current("studyguide"))
    assert (error.exit_code, error.stderr) == (1, "error: current-context is not set\n")
    assert error.remedy == "Choose one: kubectl config use-context NAME"


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: gone, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: me, user: {}}]
contexts: [{name: gone, context: {cluster: gone, user: me}}]
current-context: gone
"""


def test_a_cluster_that_is_gone_is_told_by_the_real_kubectl_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("kubectl")
    (tmp_path / "config").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    start = time.monotonic()
    error = error_of(Kubectl.current("studyguide").answers)
    assert time.monotonic() - start < 30
    assert "The connection to the server 127.0.0.1:1 was refused" in str(error)
    assert "Start the cluster" in error.remedy


def test_a_folder_without_kustomization_is_told(tmp_path: Path) -> None:
    require("kubectl")
    error = error_of(lambda: kustomize(tmp_path))
    assert "unable to find one of 'kustomization.yaml'" in str(error)


# files on their way


class Pod:
    """Answers `exec` by running tar, find and the like on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spoil: Callable[[bytes], bytes] = lambda archive: archive

    def __call__(self, arguments: list[str], stdin: bytes) -> Answer:
        command = arguments[arguments.index("--") + 1 :]
        if "-xf" in command:
            stdin = self.spoil(stdin)
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
        out = self.spoil(done.stdout) if "-cf" in command else done.stdout
        return Answer(done.returncode, out, done.stderr)


FILES = {"a.png": b"first", "name with blanks.png": bytes(20_000), "größe.png": b"\0\xff"}


@pytest.fixture
def pod(tmp_path: Path, install: Install) -> Pod:
    (tmp_path / "volume").mkdir()
    pod = Pod(tmp_path / "volume")
    install(pod)
    return pod


def test_files_are_sent_and_fetched_whole(pod: Pod) -> None:
    KUBECTL.send("deployment/files", FILES, str(pod.folder))
    assert {path.name: path.read_bytes() for path in pod.folder.iterdir()} == FILES
    assert KUBECTL.fetch("deployment/files", str(pod.folder)) == FILES


def test_an_empty_folder_is_fetched_as_nothing(pod: Pod) -> None:
    assert KUBECTL.fetch("deployment/files", str(pod.folder)) == {}


def without(name: str) -> Callable[[bytes], bytes]:
    """Leave one file out of an archive, as kubectl does that finds none: with exit code 0."""

    def spoil(archive: bytes) -> bytes:
        result = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(archive)) as old,
            tarfile.open(fileobj=result, mode="w") as new,
        ):
            for item in old:
                if not item.name.endswith(name):
                    new.addfile(item, old.extractfile(item))
        return result.getvalue()

    return spoil


def hostile(archive: bytes) -> bytes:
    """An archive as our tar never makes it: names that lead away, and links."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("../../up.png", "/etc/absolute.png"):
            item = tarfile.TarInfo(name)
            item.size = 1
            tar.addfile(item, io.BytesIO(b"x"))
        for name, kind in (("soft.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE)):
            item = tarfile.TarInfo(name)
            item.type, item.linkname = kind, "/etc/passwd"
            tar.addfile(item)
    return made.getvalue()


def test_an_archive_from_a_pod_cannot_lead_out_of_its_folder(pod: Pod) -> None:
    pod.spoil = hostile
    read = KUBECTL.read("deployment/files", str(pod.folder))
    assert read == {"up.png": b"x", "absolute.png": b"x"}


SPOILS = {
    "one is missing": without("a.png"),
    "a byte has changed": lambda archive: archive.replace(b"first", b"forst"),
}


@pytest.mark.parametrize("how", SPOILS)
def test_a_file_that_arrives_otherwise_there_is_an_error(how: str, pod: Pod) -> None:
    pod.spoil = SPOILS[how]
    error = error_of(lambda: KUBECTL.send("deployment/files", FILES, str(pod.folder)))
    assert "1 of 3 files did not arrive whole: a.png" in str(error)
    assert error.remedy == "Run it again"


@pytest.mark.parametrize("how", SPOILS)
def test_a_file_that_arrives_otherwise_here_is_an_error(how: str, pod: Pod) -> None:
    KUBECTL.send("deployment/files", FILES, str(pod.folder))
    pod.spoil = SPOILS[how]
    error = error_of(lambda: KUBECTL.fetch("deployment/files", str(pod.folder)))
    assert "1 of 3 files did not arrive whole: a.png" in str(error)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_an_archive_that_breaks_off_is_an_error(share: float, pod: Pod) -> None:
    KUBECTL.send("deployment/files", FILES, str(pod.folder))
    pod.spoil = lambda archive: archive[: int(share * len(archive))]
    assert error_of(lambda: KUBECTL.fetch("deployment/files", str(pod.folder))).remedy


def test_a_folder_that_is_missing_is_an_error_though_kubectl_cp_says_nothing(pod: Pod) -> None:
    silent = recorded("cp", "no.png")
    assert (silent["exit"], silent["stdout"], silent["stderr"]) == (0, "", "")
    error = error_of(lambda: KUBECTL.fetch("deployment/files", str(pod.folder / "nothing")))
    assert "nothing: Cannot open: No such file or directory" in str(error)
    assert "Install kubectl" not in error.remedy


# killing


def test_a_pod_is_killed_before_it_is_deleted(install: Install) -> None:
    calls: list[list[str]] = []
    answers = [recorded("redis restarts", "exec"), recorded("kill a worker", "delete")]

    def answer(arguments: list[str], stdin: bytes) -> Answer:
        call = answers[len(calls)]
        calls.append(arguments[4:])
        return Answer(call["exit"], call["stdout"].encode(), call["stderr"].encode())

    install(answer)
    KUBECTL.kill("worker-1")
    assert calls[0][-5:] == ["pod/worker-1", "--", "sh", "-c", "kill -KILL -1"]
    assert calls[1] == ["delete", "pod/worker-1", "--force", "--grace-period=0"]


def test_a_pod_that_cannot_be_killed_is_told(install: Install) -> None:
    said = b"sh: 1: kill: No such process\n\ncommand terminated with exit code 1\n"
    install(lambda arguments, stdin: Answer(1, stderr=said))
    assert "No such process" in str(error_of(lambda: KUBECTL.kill("worker-1")))


# trouble

LOAD = "Build and load the image: make -C k8s image load"
TROUBLE = {  # where -> what is reported of it, its remedy, whether it may pass
    "pod/bad-command": ("executable file not found", "Its image lacks the command", False),
    "pod/claim-pending": ("unbound immediate PersistentVolumeClaims", "No storage for us", True),
    "pod/config-missing": ('configmap "nowhere" not found', "Apply the whole", False),
    "pod/crash-loop": ("again and again, the last time with exit code 3", "its log", True),
    "pod/image-missing": ("failed to pull and unpack image", LOAD, False),
    "pod/oom": ("more memory than its limit", "Give it more memory in k8s/", False),
    "pod/unschedulable": ("1 Insufficient cpu", "Too few free cores", True),
}
MOMENTS = ["trouble after 4 s", "trouble after 25 s", "trouble after 60 s"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_exactly_the_pods_in_trouble_are_named_with_cause_and_remedy(moment: str) -> None:
    found = find_trouble([*objects(moment, "pods"), *objects(moment, "events")])
    assert sorted(item.where for item in found) == sorted(TROUBLE)
    for item in found:
        what, remedy, passing = TROUBLE[item.where]
        assert what in item.what
        assert remedy in item.remedy
        assert item.passing == passing


@pytest.mark.parametrize("moment", MOMENTS)
def test_pods_alone_tell_as_much(moment: str) -> None:
    found = find_trouble(objects(moment, "pods"))
    assert sorted(item.where for item in found) == sorted(TROUBLE)


def test_a_crash_loop_is_the_same_trouble_at_every_moment() -> None:
    found = [find_trouble(objects(moment, "pods")) for moment in MOMENTS]
    assert len({item for items in found for item in items if item.where == "pod/crash-loop"}) == 1


def test_a_claim_without_a_volume_is_named_with_what_its_event_says() -> None:
    claims = objects("trouble", "pvc,job")
    found = find_trouble([*objects(MOMENTS[0], "events"), *claims])
    assert [item.where for item in found] == ["persistentvolumeclaim/pending-claim"]
    assert found[0].what == 'storageclass.storage.k8s.io "no-such-class" not found'
    assert "No storage for us" in found[0].remedy
    assert found[0].passing


@pytest.mark.parametrize("scenario", ["starting", "running", "scale", "redis restarts"])
def test_pods_that_start_run_end_or_have_restarted_are_in_no_trouble(scenario: str) -> None:
    assert find_trouble(objects(scenario, "pods")) == []


def test_what_an_event_complained_about_is_forgotten_once_it_is_well() -> None:
    events = objects("locked", "events")
    (trouble,) = find_trouble(events)
    owner = {"kind": "ReplicaSet", "name": trouble.where.removeprefix("replicaset/")}
    (pod, *_) = objects("running", "pods")
    started = {**pod, "metadata": {"name": "root-1", "ownerReferences": [owner]}}
    assert find_trouble([*events, started]) == []
    claims = [{**claim, "status": {"phase": "Bound"}} for claim in objects("trouble", "pvc,job")]
    assert find_trouble([*objects(MOMENTS[0], "events"), *claims]) == []


def test_a_pod_on_its_way_out_is_in_no_trouble() -> None:
    pods = objects(MOMENTS[0], "pods")
    for pod in pods:
        pod["metadata"]["deletionTimestamp"] = "2026-11-23T17:18:01Z"
    assert find_trouble(pods) == []


def waiting(reason: str, message: str) -> Object:
    container = {"restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}
    status = {"phase": "Pending", "initContainerStatuses": [container]}
    return {"kind": "Pod", "metadata": {"name": "worker-1"}, "status": status}


def refused(message: str, reason: str = "FailedCreate", kind: str = "ReplicaSet") -> Object:
    about = {"kind": kind, "name": "worker-1"}
    metadata = {"name": "worker-1.18eabc3faa94736b"}
    return {
        "kind": "Event", "metadata": metadata, "involvedObject": about, "reason": reason,
        "message": message,
    }  # fmt: skip


# As the kubelet's, the quota admission's and the eviction manager's sources word them.
NEVER_PULL = 'Container image "studyguide:0.1.0" is not present with pull policy of Never'
QUOTA = 'Error creating: pods "worker-1" is forbidden: exceeded quota: small, requested: pods=1'
NO_ACCOUNT = 'Error creating: pods "worker-1" is forbidden: serviceaccount "default" not found'
LOW = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 0."
EVICTED = {
    "kind": "Pod",
    "metadata": {"name": "worker-1"},
    "status": {"phase": "Failed", "reason": "Evicted", "message": LOW},
}


@pytest.mark.parametrize(
    ("thing", "what", "remedy", "passing"),
    [
        (waiting("ErrImageNeverPull", NEVER_PULL), NEVER_PULL, LOAD, False),
        (waiting("ImagePullBackOff", "Back-off pulling image"), "Back-off", LOAD, False),
        (refused(QUOTA), "exceeded quota", "The namespace's quota is used up", False),
        (refused(NO_ACCOUNT), "serviceaccount", "Ask for the right", True),  # not there yet
        (EVICTED, "low on resource", "Free space on the node", True),  # it is replaced
    ],
)
def test_other_troubles_are_named_with_their_remedies(
    thing: Object, what: str, remedy: str, passing: bool
) -> None:
    (found,) = find_trouble([thing])
    assert what in found.what
    assert remedy in found.remedy
    assert found.passing == passing


def test_an_evicted_pod_is_in_no_trouble_once_another_has_taken_its_place() -> None:
    owners = {"ownerReferences": [{"kind": "ReplicaSet", "name": "worker", "uid": "1"}]}
    evicted = EVICTED | {"metadata": {"name": "worker-1", **owners}}
    other = {
        "kind": "Pod",
        "metadata": {"name": "worker-2", **owners},
        "status": {"phase": "Pending"},
    }
    assert [item.where for item in find_trouble([evicted, other])] == ["pod/worker-1"]
    assert find_trouble([evicted, other | {"status": {"phase": "Running"}}]) == []


def test_a_pod_that_gets_no_network_is_named() -> None:
    event = refused("failed to setup network for sandbox", "FailedCreatePodSandBox", "Pod")
    pod = waiting("ContainerCreating", "")
    (found,) = find_trouble([event, pod])
    assert (found.where, found.passing) == ("pod/worker-1", True)
    assert "network for sandbox" in found.what


def test_a_refusal_of_pod_security_does_not_pass() -> None:
    (found,) = find_trouble(objects("locked", "events"))
    assert not found.passing


def test_a_file_that_is_being_written_is_neither_fetched_nor_missed(pod: Pod) -> None:
    KUBECTL.send("deployment/files", FILES, str(pod.folder))
    (pod.folder / ".a.png.7.tmp").write_bytes(b"half")
    assert KUBECTL.fetch("deployment/files", str(pod.folder)) == FILES


def test_a_folder_that_is_a_link_to_the_claim_is_checked_like_any_other(pod: Pod) -> None:
    link = pod.folder.with_name("link")
    link.symlink_to(pod.folder)
    KUBECTL.send("deployment/files", FILES, str(link))
    assert KUBECTL.fetch("deployment/files", str(link)) == FILES
