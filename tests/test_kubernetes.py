"""Whole runs on a Kubernetes in small: what kubectl does is pretended, what roles do is real."""

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kubectl_stub import Answer, Object, objects, stub_kubectl
from PIL import Image
from small_cluster import FRESH, NAMESPACE, RUN, SmallCluster
from support import (
    SMALL,
    TILES,
    make_images,
    noise,
    processes_with,
    temporary_files,
    wait_until,
)

import studyguide
from studyguide.approaches import APPROACHES
from studyguide.cluster import Cluster, KillWorker
from studyguide.errors import StudyguideError, ToolError, UsageError
from studyguide.images import load, sha256
from studyguide.kubernetes import KubernetesCluster, watcher
from studyguide.kubernetes.pods import manifests, role_of, variables
from studyguide.machinery import places
from studyguide.plan import Plan
from studyguide.record.report import KILLED, RunReport, newest_log, read_log
from studyguide.record.timeline import Event, Recorder
from studyguide.settings import Settings, from_options

pytestmark = pytest.mark.usefixtures("compiled")

HASTY = {"workers": 2, "visibility_s": 0.5, "backoff_s": 0.01, "quiet_s": 0.5, **SMALL}
SLOW = [f"slow:grain.png:{tile}" for tile in range(4, 10)]
# A pod that is seen at work, however soon a warm one would have ended.
SLOWLY = ["sh", "-c", 'sleep 0.5; exec "$@"', "sh", sys.executable, "-m", "studyguide"]
TLS = "Unable to connect to the server: net/http: TLS handshake timeout"


@pytest.fixture(scope="module")
def expected(two_images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What approach a makes of the same images."""
    output = tmp_path_factory.mktemp("a")
    return studyguide.run("a", images=two_images, output=output, **SMALL).pixels()


def perform(letter: str, images: Path, folder: Path, **options: Any) -> RunReport:
    places = {"images": images, "output": folder / "out"}
    return studyguide.run(letter, backend="kubernetes", **{**HASTY, **places, **options})


def saved_by(letter: str, folder: Path) -> list[str]:
    output = folder / "out" / APPROACHES[letter].stem
    return sorted(path.name for path in output.iterdir())


# good runs


@pytest.mark.parametrize("letter", "defg")
def test_a_run_on_pods_saves_the_same_pixels_and_leaves_nothing_behind(
    letter: str,
    two_images: Path,
    tmp_path: Path,
    cluster: SmallCluster,
    expected: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = perform(letter, two_images, tmp_path)
    assert report.ok
    assert report.backend == "kubernetes"
    assert report.pixels() == expected
    assert saved_by(letter, tmp_path) == sorted(TILES)
    assert temporary_files(tmp_path) == []
    tiles = 0 if letter == "d" else sum(TILES.values())
    assert (report.tiles, report.lost_tiles, report.redelivered) == (tiles, 0, 0)
    assert report.timeline.of("death") == []
    assert cluster.is_empty
    assert processes_with(str(cluster.folder)) == []
    told = capsys.readouterr().err
    shown = re.fullmatch(r"context small, namespace (studyguide-[0-9a-f]+)\n", told)
    assert shown
    assert_only_one_namespace_is_touched(cluster, shown[1])


def assert_only_one_namespace_is_touched(cluster: SmallCluster, namespace: str) -> None:
    calls = [call for call in cluster.calls if call[0] not in ("config", "kustomize")]
    assert len(calls) > 10
    where = ["--context", "small", "--namespace", namespace]
    assert [call for call in calls if call[:4] != where] == []


def test_context_and_namespace_are_shown_before_the_cluster_is_asked_for_anything(
    two_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[str] = []

    def answer(arguments: list[str], stdin: bytes) -> Answer:
        if arguments == ["config", "current-context"]:
            return Answer(stdout=b"work\n")
        shown.append(capsys.readouterr().err)
        return Answer(1, stderr=b"Error from server (Forbidden): no\n")

    with (
        stub_kubectl(answer, tmp_path, monkeypatch),
        pytest.raises(ToolError, match="Ask for the right"),
    ):
        perform("d", two_images, tmp_path)
    (told,) = shown
    assert re.fullmatch(r"context work, namespace studyguide-[0-9a-f]+\n", told)


@pytest.mark.slow
def test_each_run_has_a_password_of_its_own(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    found = set()
    lesson = base64.b64encode(b"blurred-lines").decode()
    for _ in range(2):
        perform("e", two_images, tmp_path, keep=True)
    for space in cluster.namespaces.values():
        (secret,) = (thing for (kind, _), thing in space.objects.items() if kind == "Secret")
        found.add(secret["data"]["REDIS_PASSWORD"])
    assert len(found - {lesson}) == 2


@pytest.mark.slow
def test_a_deployment_is_kept_if_wanted_and_no_other_run_touches_it(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, expected: dict[str, str]
) -> None:
    perform("d", two_images, tmp_path, keep=True)
    kept = list(cluster.namespaces)
    assert len(cluster.names("sequential")) == 1
    left = cluster.data / "output" / "d_distributed_sequential" / "left.png"
    shutil.copy(two_images / "cloud.png", left)
    assert perform("d", two_images, tmp_path).pixels() == expected
    assert "left.png" not in saved_by("d", tmp_path)
    assert list(cluster.namespaces) == kept
    assert left.exists()


# a worker dies


@pytest.mark.slow
def test_f_loses_no_tile_when_a_worker_is_killed(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, expected: dict[str, str]
) -> None:
    pods: set[str] = set()
    chaos = [KillWorker(after=6), lambda _: pods.update(cluster.names("worker"))]
    report = perform("f", two_images, tmp_path, chaos=chaos, faults=SLOW)
    assert report.ok
    assert report.pixels() == expected
    assert (report.lost_tiles, report.redelivered >= 1) == (0, True)
    (death,) = report.timeline.of("death")
    (reclaim, *_) = report.timeline.of("reclaim")
    assert reclaim.detail["from_worker"].startswith(death.process)
    assert len(pods - {death.process}) == 2  # one stayed, one took the place of the dead


@pytest.mark.slow
def test_e_tells_what_was_lost_when_a_worker_is_killed(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, expected: dict[str, str]
) -> None:
    report = perform("e", two_images, tmp_path, chaos=[KillWorker(after=6)], faults=SLOW[:4])
    assert not report.ok
    assert report.lost_tiles >= 1
    assert report.pixels() == {"cloud.png": expected["cloud.png"]}
    (failed,) = report.failed_images
    assert failed["image"] == "grain.png"
    assert "of 12 tiles were lost" in failed["error"]
    assert len(report.timeline.of("death")) == 1
    assert cluster.is_empty


# what goes wrong


def shown(pod: str) -> list[Object]:
    """A pod as a real cluster showed it."""
    pods = objects("trouble after 60 s", "pods")
    return [item for item in pods if item["metadata"]["name"] == pod]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pod", "message"),
    [
        ("crash-loop", "crashes again and again, the last time with exit code 3. Fix what"),
        ("image-missing", "not found. Build and load the image: make -C k8s image load."),
        ("unschedulable", "Too few free cores or too little memory: use fewer workers or a larger"),
    ],
)
def test_what_keeps_a_pod_from_its_work_is_told_with_its_remedy(
    pod: str,
    message: str,
    two_images: Path,
    tmp_path: Path,
    cluster: SmallCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watcher, "PASSING_S", 0.2)
    cluster.extra, cluster.program = shown(pod), SLOWLY
    with pytest.raises(StudyguideError) as caught:
        perform("d", two_images, tmp_path)
    assert str(caught.value).startswith(f"pod/{pod}: ")
    assert message in str(caught.value)
    assert cluster.is_empty


@pytest.mark.slow
def test_trouble_in_the_middle_of_a_run_ends_it(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    def fill_the_memory(running: Cluster) -> None:
        cluster.extra = shown("oom")

    cluster.program = FRESH  # it lasts long enough to be looked at
    cluster.program = SLOWLY
    with pytest.raises(StudyguideError, match="pod/oom: was killed for using more memory"):
        perform("d", two_images, tmp_path, chaos=[fill_the_memory])
    assert cluster.is_empty


@pytest.mark.slow
def test_trouble_that_passes_and_calls_that_fail_now_and_then_are_borne(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, expected: dict[str, str]
) -> None:
    def disturb(running: Cluster) -> None:
        cluster.refusals = [] if cluster.extra else [TLS, TLS]
        cluster.extra = [] if cluster.extra else shown("unschedulable")

    cluster.program = FRESH
    cluster.program = SLOWLY
    assert perform("d", two_images, tmp_path, chaos=[disturb]).pixels() == expected
    assert cluster.refusals == []


def test_a_cluster_that_goes_away_in_the_middle_of_a_run_is_told(
    two_images: Path,
    tmp_path: Path,
    cluster: SmallCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave(running: Cluster) -> None:
        monkeypatch.setattr(watcher, "PATIENCE_S", 0.2)
        cluster.refusals = [TLS] * 1000

    cluster.program = SLOWLY
    with pytest.raises(ToolError, match=r"TLS handshake timeout\. Start the cluster"):
        perform("d", two_images, tmp_path, chaos=[leave])


def test_a_right_that_is_taken_away_in_the_middle_of_a_run_is_told_at_once(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    def take_away(running: Cluster) -> None:
        cluster.refusals = ['(Forbidden): events is forbidden: User "learner" cannot list'] * 3

    cluster.program = SLOWLY
    with pytest.raises(ToolError, match="Ask for the right"):
        perform("d", two_images, tmp_path, chaos=[take_away])
    assert len(cluster.refusals) == 2, "asked again"


def test_a_job_that_ran_out_of_memory_is_told_so_and_not_to_mend_what_its_log_tells(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    cluster.program = ["sh", "-c", "exit 2", "studyguide"]

    def run_out(items: list[Object]) -> None:
        if any(item["kind"] == "Job" for item in items):
            cluster.extra = shown("oom")

    cluster.on_create = run_out
    with pytest.raises(StudyguideError, match=r"pod/oom: .*memory.*Give it more memory in k8s/"):
        perform("d", two_images, tmp_path)


def test_pods_that_never_begin_are_told(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.program = ["sh", "-c", "exec sleep 60", "studyguide"]
    monkeypatch.setattr(watcher, "START_S", 0.2)
    with pytest.raises(StudyguideError, match=r"No pod has begun its work within 0\.2 s\. Run"):
        perform("d", two_images, tmp_path)
    assert cluster.is_empty


def test_a_job_that_fails_is_told_with_the_end_of_its_log(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    cluster.program = ["sh", "-c", "echo unrecognized arguments: --new >&2; exit 2", "studyguide"]
    with pytest.raises(StudyguideError, match=r"(?s)job/sequential: .*arguments: --new.*Fix what"):
        perform("d", two_images, tmp_path)
    assert cluster.is_empty


def test_a_job_that_ends_without_a_word_of_its_images_is_told(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "PASSING_S", 0.2)
    cluster.program = ["true"]
    said = r"job/sequential: has ended without a word of cloud\.png, grain\.png"
    with pytest.raises(StudyguideError, match=said):
        perform("d", two_images, tmp_path)


def test_pods_that_never_get_ready_are_told(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "START_S", 0.2)
    cluster.never_ready = True
    with pytest.raises(StudyguideError, match=r"Not ready after 0\.2 s: files\. Run"):
        perform("d", two_images, tmp_path)
    assert cluster.is_empty


def test_a_role_that_crashes_again_and_again_is_told_with_the_end_of_its_log(
    two_images: Path,
    tmp_path: Path,
    cluster: SmallCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watcher, "PASSING_S", 0.2)
    (pod,) = shown("crash-loop")

    def crash(running: Cluster) -> None:
        pod["metadata"]["name"] = cluster.names("sequential")[0]
        cluster.extra = [pod]

    cluster.program = ["sh", "-c", "echo cannot reach redis >&2; exec sleep 60", "studyguide"]
    said = r"(?s)pod/sequential-\w+: crashes again and again.*cannot reach redis.*Fix what its log"
    with pytest.raises(StudyguideError, match=said):
        perform("d", two_images, tmp_path, chaos=[crash])


@pytest.mark.slow
def test_outputs_that_arrive_damaged_once_are_fetched_again(
    pods: KubernetesCluster, two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    pods.kubectl.create(pods._objects)
    shutil.copytree(two_images, cluster.data / "output" / "e_distributed_queue")

    def cut(archive: bytes) -> bytes:
        cluster.spoil = bytes
        return archive[:1000]

    cluster.spoil = cut
    pods._fetch_outputs()
    for name in TILES:
        came = tmp_path / "e_distributed_queue" / name
        assert came.read_bytes() == (two_images / name).read_bytes()


@pytest.mark.slow
def test_outputs_that_a_new_pod_files_does_not_have_yet_are_waited_for(
    pods: KubernetesCluster, two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    pods.kubectl.create(pods._objects)
    there = cluster.data / "output" / "e_distributed_queue"
    there.mkdir(parents=True)
    shutil.copy(two_images / "cloud.png", there)
    digest = sha256(load(two_images / "grain.png"))
    detail = {"path": "/data/output/grain.png", "pixels_sha256": digest}
    pods.note(Event("save", 0, 1, "assembler-1", "main", "grain.png", detail=detail))

    archives: list[bytes] = []

    def arrive(archive: bytes) -> bytes:
        archives.append(archive)
        if len(archives) > 1:  # the first has every file that is there
            shutil.copy(two_images / "grain.png", there)
        return archive

    cluster.spoil = arrive
    pods._fetch_outputs()
    assert (tmp_path / "e_distributed_queue" / "grain.png").exists()


@pytest.mark.slow
def test_outputs_that_arrive_damaged_again_and_again_are_an_error(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "PATIENCE_S", 0.2)
    cluster.spoil = lambda archive: archive[: len(archive) // 3]
    with pytest.raises(ToolError, match=r"unexpected end of data.*Run it again"):
        perform("d", two_images, tmp_path)
    assert saved_by("d", tmp_path) == []
    assert cluster.is_empty


@pytest.mark.slow
def test_an_image_that_is_not_what_its_pod_saved_is_an_error(
    pods: KubernetesCluster, two_images: Path, cluster: SmallCluster
) -> None:
    pods.kubectl.create(pods._objects)
    there = cluster.data / "output" / "e_distributed_queue"
    shutil.copytree(two_images, there)
    detail = {"path": "/data/output/grain.png", "pixels_sha256": "0" * 64}
    pods.note(Event("save", 0, 1, "assembler-1", "main", "grain.png", detail=detail))
    with pytest.raises(StudyguideError, match=r"grain\.png has not the pixels that assem"):
        pods._fetch_outputs()


def test_bad_images_are_told_under_their_own_names_and_the_others_are_saved(
    tmp_path: Path, cluster: SmallCluster, expected: dict[str, str]
) -> None:
    folder = make_images(tmp_path / "images")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()  # is skipped
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    Image.fromarray(noise()).save(folder / "cloud.webp", lossless=True)
    report = perform("d", folder, tmp_path)
    assert report.pixels() == expected
    errors = {item["image"]: item["error"] for item in report.failed_images}
    assert sorted(errors) == ["cloud.webp", "empty.png", "gone.png"]
    assert f"{folder}/empty.png is empty" in errors["empty.png"]
    assert f"{folder}/gone.png cannot be read (No such file" in errors["gone.png"]


# pieces


def test_a_role_that_the_manifests_lack_is_told(pods: KubernetesCluster) -> None:
    with pytest.raises(UsageError, match="Nothing in k8s/e has the label studyguide/role: nobody"):
        pods.start("nobody")


def test_an_error_of_a_pod_names_the_image_as_people_know_it(
    pods: KubernetesCluster, tmp_path: Path
) -> None:
    event = Event("failed", 0, 0, "pod", "main", "x.png", detail={"error": "/data/input/x.png is"})
    pods.note(event)
    assert event.detail["error"] == f"{tmp_path}/x.png is"


@pytest.mark.parametrize("letter", "defg")
def test_what_a_pod_is_told_are_the_settings_of_the_run_each_once(
    letter: str, tmp_path: Path, cluster: SmallCluster
) -> None:
    given = {**HASTY, "sigma": 1.5, "max_attempts": 9, "queue_size": 7, "patience_s": 20.0}
    chosen = from_options({**given, "output": tmp_path / APPROACHES[letter].stem})
    watched = KubernetesCluster(Plan(letter, chosen, tmp_path, "1"), Recorder(lambda event: None))
    (settings,) = [it["data"] for it in watched._objects if "STEM" in it.get("data", {})]
    wanted = variables(watched.settings)
    own = {"IMAGES", "OUTPUT", "WORKERS", "INSTANCES", "IMAGES_IN_MEMORY", "PAYLOAD", "START"}
    assert {name: settings[name] for name in wanted.keys() - own} == {
        name: wanted[name] for name in wanted.keys() - own
    }
    for thing in (it for it in watched._objects if role_of(it)):
        watched.start(role_of(thing), 3, 6)
        container = thing["spec"]["template"]["spec"]["containers"][0]
        told = [part for part in container["args"] if part.startswith("--")]
        names = [part.partition("=")[0] for part in told if not part.startswith("--run")]
        assert len(set(names)) == len(names)
        assert told[-1] == "--run"  # what no manifest can know comes last and counts
        assert container["args"][-1] == "1"
        assert settings.get("THREADS", "6") == "6"
        assert thing["kind"] == "Job" or thing["spec"]["replicas"] == 3


def test_a_new_pod_files_is_given_the_images_again_before_new_pods_read_any(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    chosen = from_options({**HASTY, "images": two_images, "output": tmp_path / "out"})
    watched = KubernetesCluster(Plan("e", chosen, tmp_path, "1"), Recorder(lambda event: None))
    watched.kubectl.create(watched._objects)
    watched._load_images()
    there, complete = cluster.data / "input", cluster.data / "run" / ".complete"
    for _ in range(2):
        watched._observe()
        assert complete.exists()
        assert sorted(path.name for path in there.iterdir()) == sorted(TILES)
        sent = len(cluster.calls)
        watched._observe()
        assert len(cluster.calls) == sent + 2, "they were sent once more"
        shutil.rmtree(there)  # a claim that cannot be written: the new pod has an empty folder
        there.mkdir()
        complete.unlink()


def test_the_extra_that_pods_need_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UsageError, match=r"pip install studyguide\[cluster\]"):
        manifests(Plan("e", Settings(), tmp_path, "1"), "here")


# two runs, one cluster


@pytest.mark.slow
@pytest.mark.parametrize("letters", ["df", "ff"])
def test_two_runs_at_once_end_as_each_would_alone(
    letters: str,
    two_images: Path,
    tmp_path: Path,
    cluster: SmallCluster,
    expected: dict[str, str],
) -> None:
    both, shared = threading.Barrier(2, timeout=300), set[int]()

    def meet(_: Cluster) -> None:
        """Neither goes on before both are deployed."""
        if threading.get_ident() not in shared:
            shared.add(threading.get_ident())
            both.wait()

    cluster.program = SLOWLY
    with ThreadPoolExecutor(2) as pool:
        folders = [tmp_path / "one", tmp_path / "other"]
        runs = [
            pool.submit(perform, letter, two_images, folder, chaos=[meet])
            for letter, folder in zip(letters, folders, strict=True)
        ]
        reports = [run.result() for run in runs]
    assert len(shared) == 2
    for letter, report in zip(letters, reports, strict=True):
        assert report.pixels() == expected
        assert (report.approach, report.lost_tiles) == (letter, 0)
        assert report.timeline.of("death") == []
        assert report.tiles == (0 if letter == "d" else sum(TILES.values()))
    assert cluster.is_empty


def stranger(kind: str, name: str, **labels: str) -> Object:
    """An object that somebody else has in the namespace `team`."""
    spec = {"replicas": 0, "template": {"metadata": {"labels": {"app": name}}, "spec": {}}}
    metadata = {"name": name, "namespace": "team", "labels": labels}
    return {"kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.slow
def test_a_run_in_a_named_namespace_leaves_alone_what_others_have_there(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, expected: dict[str, str]
) -> None:
    cluster.forbidden = {"create namespaces", "get namespaces", "delete namespaces"}
    team = cluster.make("team")
    team.put(stranger("Deployment", "web"))
    (sick,) = shown("oom")
    sick["metadata"]["labels"] = {RUN: "of-somebody-else"}
    cluster.extra = [sick]
    report = perform("d", two_images, tmp_path, namespace="team")
    assert report.pixels() == expected
    assert list(cluster.namespaces) == ["team"]
    assert list(team.objects) == [("Deployment", "web")]
    assert_only_one_namespace_is_touched(cluster, "team")


@pytest.mark.slow
def test_a_deployment_by_hand_after_a_run_that_was_kept_gets_a_redis_with_its_own_password(
    tmp_path: Path, two_images: Path, cluster: SmallCluster
) -> None:
    settings = from_options({**HASTY, "images": two_images, "output": tmp_path / "f"})
    plan = Plan("f", settings, tmp_path, "1")
    kept = KubernetesCluster(plan, Recorder(lambda event: None), namespace=NAMESPACE)
    kept.kubectl.create(kept._objects)
    (before,) = [pod for pod in cluster.pods if pod.name.startswith("redis")]
    make("deploy", "A=f")
    (after,) = [pod for pod in cluster.pods if pod.name.startswith("redis")]
    assert (before.password != "blurred-lines", after.password) == (True, "blurred-lines")
    assert not [pod.name for pod in cluster.pods if pod.is_refused]
    make("clean", "A=f")
    assert cluster.is_empty


@pytest.mark.slow
def test_a_run_goes_on_however_often_nodes_evict_its_job(
    two_images: Path, tmp_path: Path, cluster: SmallCluster, expected: dict[str, str]
) -> None:
    evicted: list[str] = []

    def evict(_: Cluster) -> None:
        (pod,) = [it for it in cluster.pods if it.name.startswith("seq") and not it.disruption]
        if len(evicted) < 3 and pod.child and not pod.has_ended:
            cluster.space.evict(pod)
            evicted.append(pod.name)

    cluster.program = SLOWLY
    report = perform("d", two_images, tmp_path, chaos=[evict])
    assert report.pixels() == expected
    assert [event.process for event in report.timeline.of("death")] == evicted


# what is reported


@pytest.mark.slow
def test_the_command_line_tells_how_far_a_deployment_is_and_prints_only_the_report(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    places = ["--images", two_images, "--output", tmp_path / "out", "--logs", tmp_path / "logs"]
    options = ["--backend", "kubernetes", "--json", "--kernel-size=5"]
    command = [sys.executable, "-m", "studyguide", "run", "d", *options, *places]
    cluster.program = SLOWLY
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert report["settings"]["payload"] == "redis"
    lines = re.findall(r"studyguide.kubernetes: (.*)", done.stderr)
    assert lines[0] == "pods ready 1 of 1"
    assert "images sent 2 of 2" in lines
    assert "pods ready 2 of 2" in lines[lines.index("images sent 2 of 2") :]


# by hand


def make(*arguments: str, code: int = 0) -> str:
    command = ["make", "--no-print-directory", "-C", str(places.PACKAGE.parent / "k8s"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_commands_of_the_makefile_do_by_hand_what_the_library_does(
    tmp_path: Path, cluster: SmallCluster
) -> None:
    home = tmp_path / "images" / "f_fault_tolerant_queue"
    own = tmp_path / "own"
    own.mkdir()
    Image.fromarray(np.tile(noise()[..., 0], (16, 16))).save(own / "big.png")  # 42 tiles
    a = studyguide.run("a", images=own, output=tmp_path / "a")

    def bring(items: list[Object]) -> None:
        if any(item["kind"] == "Job" for item in items):
            shutil.copy(own / "big.png", cluster.data / "input")

    cluster.make(NAMESPACE)
    cluster.on_create = bring
    make("deploy", "A=e")
    in_e = cluster.names("worker")
    assert make("deploy", "A=f").startswith("context small, namespace studyguide\n")
    assert len(cluster.names("worker")) == 4
    assert not set(in_e) & set(cluster.names("worker")), "they would take part in f"
    wait_until(lambda: [it["type"] for it in conditions(cluster, "coordinator")] == ["Complete"])

    assert "big.png: OK" in make("fetch", f"IMAGES={tmp_path / 'images'}")
    assert {path.name: sha256(load(path)) for path in home.iterdir()} == a.pixels()

    make("scale", "A=f", "N=2")
    assert len([pod for pod in cluster.pods if "worker" in pod.name and not pod.is_ending]) == 2
    assert "worker" in make("status")
    for role, word in {"": "blur", "-coordinator": "enqueue", "-workers": "blur"}.items():
        assert f" {word} " in make(f"logs{role}"), role
    assert " assemble " in make("logs-assembler")
    make("clean", "A=f")
    assert cluster.is_empty
    assert_only_one_namespace_is_touched(cluster, NAMESPACE)


def conditions(cluster: SmallCluster, job: str) -> list[Object]:
    """What the API says of a Job, after a look that lets the control plane go on."""
    kubectl = watcher.Kubectl.current(NAMESPACE)
    (found,) = [it for it in kubectl.get("jobs") if it["kind"] == "Job"]
    return list(found["status"]["conditions"])


@pytest.mark.slow
def test_make_run_brings_home_what_a_run_of_its_own_has_saved(
    tmp_path: Path, cluster: SmallCluster, two_images: Path, expected: dict[str, str]
) -> None:
    homes = [f"{key}={tmp_path / key.lower()}" for key in ("IMAGES", "LOGS", "CHARTS")]
    said = make(
        "run", "A=d", f"ARGS=--images {two_images} --kernel-size 5 --method separable", *homes
    )
    assert re.search(r"^context small, namespace studyguide-\w+$", said, re.M)
    home = tmp_path / "images" / APPROACHES["d"].stem
    assert {path.name: sha256(load(path)) for path in home.iterdir()} == expected
    assert list((tmp_path / "charts").iterdir())
    assert cluster.is_empty


@pytest.mark.slow
def test_make_chaos_test_kills_a_worker_of_a_run_of_its_own(
    tmp_path: Path, cluster: SmallCluster
) -> None:
    pixels = np.tile(noise()[..., 0], (16, 16))  # 42 tiles
    (tmp_path / "own").mkdir()
    Image.fromarray(pixels).save(tmp_path / "own" / "big.png")
    slow = " ".join(f"--fault slow:big.png:{tile}" for tile in range(10, 20))
    given = [f"ARGS=--images {tmp_path / 'own'} --workers 2 --visibility 0.5"]
    given += [f"{key}={tmp_path / key.lower()}" for key in ("IMAGES", "LOGS")]
    said = make("chaos-test", "A=f", f"CHAOS=--kill-worker-after 6 {slow}", *given)
    assert "context small, namespace studyguide-" in said
    report = read_log(newest_log(tmp_path / "logs", APPROACHES["f"].stem + KILLED))
    assert report.ok
    assert len(report.timeline.of("death")) == 1
    assert report.timeline.of("reclaim")
    assert cluster.is_empty


@pytest.mark.slow
def test_make_run_tells_why_a_job_failed(tmp_path: Path, cluster: SmallCluster) -> None:
    cluster.program = ["sh", "-c", "echo out of luck >&2; exit 2", "studyguide"]
    homes = [f"{key}={tmp_path / key.lower()}" for key in ("IMAGES", "LOGS", "CHARTS")]
    assert "out of luck" in make("run", "A=d", *homes, code=2)
