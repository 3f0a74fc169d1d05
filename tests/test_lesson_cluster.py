"""A lesson's part on Kubernetes: on a small cluster, and where there is none."""

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from kubectl_stub import Answer, stub_kubectl
from refresh_notebooks import NOTEBOOKS
from small_cluster import VERSION, SmallCluster
from support import SMALL

from studyguide.approaches import APPROACHES
from studyguide.cluster import KillWorker
from studyguide.errors import MessageError, ToolError
from studyguide.kubernetes.kubectl import Kubectl
from studyguide.machinery.places import MARK, PARTS
from studyguide.record.report import RunReport, newest_log, read_log
from studyguide_course import cluster as lesson_cluster
from studyguide_course.cluster import OnCluster
from studyguide_course.lesson import Lesson, table
from studyguide_course.measures import starts_s
from studyguide_course.recording import Mask
from studyguide_course.recovery import fates

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.usefixtures("compiled")

SLOW = [f"slow:grain.png:{tile}" for tile in range(4, 10)]
HASTY = {"workers": 2, "visibility_s": 0.5, "backoff_s": 0.01, **SMALL}


@pytest.fixture
def course(tmp_path: Path, two_images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a course whose sample images are few and small, and work in it."""
    folder = tmp_path / "course"
    for part in PARTS:
        (folder / part).mkdir(parents=True)
    (folder / MARK).touch()
    (folder / "images" / "input").rmdir()
    (folder / "images" / "input").symlink_to(two_images)
    (folder / "k8s").rmdir()
    (folder / "k8s").symlink_to(ROOT / "k8s")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def lesson(course: Path) -> Iterator[Lesson]:
    lesson = Lesson("f", **HASTY)
    yield lesson
    lesson.close()


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    said = b"E1123 noise\nThe connection to the server localhost:8080 was refused\n"

    def answer(arguments: list[str], stdin: bytes) -> Answer:
        assert arguments == ["config", "current-context"], "what is not there was used"
        return Answer(1, stderr=said)

    with stub_kubectl(answer, tmp_path, monkeypatch):
        yield


@pytest.mark.slow
def test_a_run_on_pods_is_watched_killed_and_drawn_beside_the_local_one(
    lesson: Lesson, cluster: SmallCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = OnCluster(lesson)
    report = stage.run(chaos=[KillWorker(after=6)], faults=SLOW)
    assert report
    assert report.ok
    assert lesson.check(report).startswith("2/2 images")
    assert len(report.timeline.of("death")) == 1
    assert report.machine["kubernetes"] == VERSION
    assert report.machine["nodes"] == "2 cores, Small Linux, containerd://1.6.20"
    stage.compare(report, report)
    stage.shell("kubectl get pods --watch | grep -c worker")
    told, warned = capsys.readouterr()
    (name,) = re.findall(r"context small, namespace (studyguide-\w+)\n", told + warned)
    assert "$ kubectl get pods --watch\n" in told
    assert "s  NAME STATUS\n" in told
    assert told.endswith("$ kubectl get pods --watch | grep -c worker\n2\n")
    assert cluster.names("worker"), "a lesson looks at them afterwards"
    stage.close()
    assert cluster.is_empty
    assert capsys.readouterr().out == f"$ kubectl delete namespace {name}\n"
    assert not [thread for thread in threading.enumerate() if "tell" in thread.name]


def test_a_command_that_fails_shows_what_it_said_and_its_exit_code(
    lesson: Lesson, cluster: SmallCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = OnCluster(lesson)
    stage.shell("kubectl logs job/nothing; (echo $CONTEXT; exit 3)")
    told = capsys.readouterr().out
    assert re.search(r"namespaces \"studyguide-\w+\" not found", told)
    assert told.endswith("\nsmall\nexit code 3\n")


@pytest.fixture
def recordings(course: Path) -> Path:
    """Have the recordings of the repository in the course."""
    folder = course / "logs" / "kubernetes"
    folder.rmdir()
    folder.symlink_to(ROOT / "logs" / "kubernetes")
    return folder


@pytest.mark.usefixtures("no_cluster")
def test_without_cluster_and_recording_every_cell_says_so_in_one_line(
    lesson: Lesson, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    stage = OnCluster(lesson)
    why = "No cluster answers here (The connection to the server localhost:8080 was refused).\n"
    assert capsys.readouterr().out.startswith(f"{why}There is no recording in ")
    stage.shell("kubectl delete namespace kube-system")
    told = (
        "$ kubectl delete namespace kube-system   (no cluster answers, and there is no recording)"
    )
    assert capsys.readouterr().out == f"{told}\n"
    assert stage.run() is None
    assert capsys.readouterr().out == "No cluster answers, and there is no recording of a run.\n"
    stage.compare(lesson.reference, None)
    assert capsys.readouterr().out.startswith("No timeline of pods is drawn: no cluster answers")
    stage.close()
    assert capsys.readouterr().out == "Nothing to delete: no cluster was used.\n"


@pytest.mark.usefixtures("no_cluster", "recordings")
def test_without_a_cluster_the_recorded_run_and_commands_are_shown_with_their_origin(
    lesson: Lesson, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    stage = OnCluster(lesson)
    where = "Kubernetes v1.36.2, nodes 2 cores, Debian GNU/Linux 12 (bookworm), containerd://1.6.20"
    assert f"RECORDED 2026-11-27, {where}.\n" in capsys.readouterr().out
    report = stage.run(visibility_s=3.0)
    told = capsys.readouterr().out
    assert told.startswith(f"RECORDED 2026-11-27, {where}, not run here.\n$ kubectl get pods --w")
    assert "   8.7 s  worker-5bc5c66855-mnf5b      2/2     Terminating  " in told
    assert report == read_log(newest_log(recordings / lesson.approach.stem, lesson.approach.stem))
    stage.compare(report, report)
    assert f"RECORDED 2026-11-27, {where}\n" in capsys.readouterr().out
    stage.shell("kubectl get  --namespace other poddisruptionbudget")
    told = "$ kubectl get poddisruptionbudget   (RECORDED 2026-11-27)\nNAME     MIN AVAILABLE"
    assert capsys.readouterr().out.startswith(told)
    stage.shell("kubectl get secrets")
    told = "$ kubectl get secrets   (not in the recording of 2026-11-27)\n"
    assert capsys.readouterr().out == told


@pytest.mark.usefixtures("no_cluster", "recordings")
def test_a_command_that_was_reworded_or_is_typed_again_shows_what_was_recorded(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson = Lesson("e", **HASTY)
    stage = OnCluster(lesson)
    capsys.readouterr()
    for _ in range(2):
        stage.shell("kubectl scale deployment/worker --replicas=8")
        told = "$ kubectl scale deployment/worker --replicas=6   (RECORDED 2026-11-27)\n"
        assert capsys.readouterr().out == f"{told}deployment.apps/worker scaled\n"
    lesson.close()


@pytest.mark.usefixtures("no_cluster")
def test_a_damaged_recording_is_an_error_that_names_it(lesson: Lesson, course: Path) -> None:
    steps = course / lesson_cluster.RECORDINGS / lesson.approach.stem / "steps.jsonl"
    steps.parent.mkdir(parents=True)
    steps.write_text('{"kind": "run"')
    with pytest.raises(MessageError, match=r"steps\.jsonl is not a recording .* Record it again"):
        OnCluster(lesson)


@pytest.mark.usefixtures("no_cluster")
def test_a_recording_needs_a_cluster(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORD", "1")
    with pytest.raises(ToolError, match="localhost:8080 was refused"):
        OnCluster(lesson)


PRIVATE = {
    "a folder": r"/(home|root|Users|tmp|var|work|mnt|opt)\b",
    "an address": r"(?<![\w.])(?!192\.0\.2\.)\d+\.\d+\.\d+\.\d+(?![\w.])",
    "an address of version 6": r"(?<![\w:])(?!2001:db8:)[0-9a-f]+:[0-9a-f:]*::?[0-9a-f]*(?![\w:])",
    "a host": r"https?://\w|\bserver \S+ was refused|\bNode:",
    "a secret": r"(?i)password|token|secret|BEGIN",
    "a user": r"\w@\w",
}


@pytest.mark.parametrize("what", PRIVATE)
def test_no_recording_tells_of_people_or_machines(what: str) -> None:
    files = [path for path in (ROOT / "logs" / "kubernetes").rglob("*") if path.is_file()]
    assert len(files) >= 13
    recorded = [path for path in files if path.name != "README.md"]
    assert not [path.name for path in recorded if re.search(PRIVATE[what], path.read_text())]
    name = socket.gethostname()
    words = {word for path in recorded for word in re.findall(r"[\w.-]+", path.read_text())}
    assert name == "localhost" or name not in words


def test_a_recording_has_no_folders_names_and_addresses(tmp_path: Path) -> None:
    mask = Mask([(tmp_path, "studyguide"), (tmp_path / "in", "images/input")], ["box", "node-a"])
    text = f"{tmp_path}/in/a.png {tmp_path}/x box node-a boxes sandbox-box"
    assert mask(text) == "images/input/a.png studyguide/x name-1 name-2 boxes sandbox-box"
    table = "10.244.0.183   17s\n10.244.0.184   17s\nfd00::1 127.0.0.1 1.6.20 13:42:34 10.244.0.183"
    assert mask(table) == (
        "192.0.2.1      17s\n192.0.2.2      17s\n2001:db8::3 127.0.0.1 1.6.20 13:42:34 192.0.2.1"
    )
    assert mask('{"host": "10.0.0.1"}, 10.0.0.1:6379, 2026-11-27T13:42:34+00:00').count("10.0") == 0


@pytest.fixture
def course_of_the_lessons(course: Path, two_images: Path) -> None:
    """Have small images under the names that the lessons use."""
    (course / "images" / "input").unlink()
    (course / "images" / "input").mkdir()
    for name, small in {"bubbles.png": "cloud.png", "chart.png": "grain.png"}.items():
        shutil.copy(two_images / small, course / "images" / "input" / name)


def execute_cluster_cells(letter: str, names: dict[str, object]) -> None:
    """Run the section of a lesson that is about a cluster."""
    (path,) = NOTEBOOKS.glob(f"*_{APPROACHES[letter].stem}.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (first,) = [n for n, cell in enumerate(cells) if cell.source.startswith("## On a cluster")]
    (last,) = [n for n, cell in enumerate(cells) if cell.source == "on_cluster.close()"]
    for cell in cells[first : last + 1]:
        if cell.cell_type == "code":
            assert cell.metadata["tags"] == ["nbval-ignore-output"]
            exec(compile(cell.source, cell.id, "exec"), names)


def names_of(lesson: Lesson) -> dict[str, object]:
    """What the earlier cells of a lesson leave to those about a cluster."""
    local = lesson.run()
    names = {"lesson": lesson, "KillWorker": KillWorker, "table": table}
    names |= {"starts_s": starts_s, "fates": fates}
    return names | dict.fromkeys(("d", "g", "killed"), local)


@pytest.mark.slow
@pytest.mark.usefixtures("course_of_the_lessons")
@pytest.mark.parametrize("letter", "defg")
def test_the_cluster_cells_of_a_lesson_run_on_a_cluster_and_are_recorded(
    letter: str,
    cluster: SmallCluster,
    course: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RECORD", "1")
    lesson = Lesson(letter, **HASTY | {"quiet_s": 0.5, "tile_size": 8})
    names = names_of(lesson)
    execute_cluster_cells(letter, names)
    pods = names["pods"]
    assert isinstance(pods, RunReport)
    assert len(pods.timeline.of("death")) == (letter in "ef")
    assert (pods.lost_tiles >= 1) == (letter == "e")
    assert pods.ok == (letter != "e")
    live = capsys.readouterr().out
    assert "No cluster answers" not in live
    assert cluster.is_empty

    monkeypatch.delenv("RECORD")
    monkeypatch.setattr(Kubectl, "current", classmethod(no_context))
    execute_cluster_cells(letter, names)
    replayed = names["pods"]
    assert isinstance(replayed, RunReport)
    assert replayed.timeline.events
    assert replayed.ledger == pods.ledger
    assert replayed.settings["output"] == f"images/output/{lesson.approach.stem}"
    told = capsys.readouterr().out
    assert commands(told) == commands(live)
    texts = [path.read_text() for path in (course / "logs").rglob("*.*") if path.is_file()]
    assert len(texts) == 3
    assert not [text for text in texts if str(lesson.folder) in text or str(course) in text]
    lesson.close()


def no_context(_: type[Kubectl], namespace: str = "") -> Kubectl:
    raise ToolError(["kubectl"], 1, "error: current-context is not set")


def commands(told: str) -> list[str]:
    """What was typed, without the end of the lesson, which a replay does not need."""
    typed = re.findall(r"\$ (kubectl .*?)(?:   \(RECORDED .*\))?$", told, re.MULTILINE)
    return [command for command in typed if not command.startswith("kubectl delete namespace")]


@pytest.mark.slow
@pytest.mark.usefixtures("no_cluster", "course_of_the_lessons", "recordings")
@pytest.mark.parametrize("letter", "defg")
def test_without_a_cluster_every_command_of_a_lesson_is_in_its_recording(
    letter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson = Lesson(letter, **HASTY)
    execute_cluster_cells(letter, names_of(lesson))
    told = capsys.readouterr().out
    shown = [line for line in told.splitlines() if line.startswith("$ ") and "--watch" not in line]
    assert len(shown) >= 3
    assert all(line.endswith("   (RECORDED 2026-11-27)") for line in shown)
    lesson.close()


@pytest.mark.usefixtures("course")
def test_a_lesson_that_is_not_finished_leaves_the_old_recording(
    lesson: Lesson, cluster: SmallCluster, course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORD", "1")
    old = course / lesson_cluster.RECORDINGS / lesson.approach.stem / "steps.jsonl"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    stage = OnCluster(lesson)
    stage.shell("kubectl get pods")
    stage.close()
    assert [path.read_text() for path in (course / "logs").rglob("*.*")] == ["old"]
