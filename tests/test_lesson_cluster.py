"""A lesson's part on Kubernetes: on a small cluster, and where there is none."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from kubectl_stub import Answer, stub_kubectl
from refresh_notebooks import NOTEBOOKS
from small_cluster import NAMESPACE, VERSION, SmallCluster
from support import SMALL

import studyguide
from studyguide.approaches import APPROACHES
from studyguide.cluster import KillWorker
from studyguide.lesson import Lesson, table
from studyguide.lesson import cluster as lesson_cluster
from studyguide.lesson.cluster import OnCluster

pytestmark = pytest.mark.usefixtures("compiled")

SLOW = [f"slow:grain.png:{tile}" for tile in range(4, 10)]
HASTY = {"workers": 2, "visibility_s": 0.5, "backoff_s": 0.01, **SMALL}


@pytest.fixture
def course(tmp_path: Path, two_images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a course whose sample images are few and small, and work in it."""
    folder = tmp_path / "course"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "input").symlink_to(two_images)
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
    told = capsys.readouterr().out
    assert "context small, namespace studyguide\n" in told
    assert "$ kubectl get pods --watch\n" in told
    assert "s  NAME STATUS\n" in told
    assert told.endswith("$ kubectl get pods --watch | grep -c worker\n2\n")
    assert cluster.names("worker"), "a lesson looks at them afterwards"
    stage.close()
    assert cluster.is_empty
    assert capsys.readouterr().out == f"$ kubectl delete namespace {NAMESPACE}\n"
    assert not [thread for thread in threading.enumerate() if "tell" in thread.name]


def test_a_command_that_fails_shows_what_it_said_and_its_exit_code(
    lesson: Lesson, cluster: SmallCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = OnCluster(lesson)
    stage.shell("kubectl logs job/nothing; (echo $CONTEXT; exit 3)")
    told = capsys.readouterr().out
    assert "is waiting to start" in told
    assert told.endswith("\nsmall\nexit code 3\n")


@pytest.mark.usefixtures("no_cluster")
def test_without_a_cluster_every_cell_says_so_in_one_line(
    lesson: Lesson, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = OnCluster(lesson)
    capsys.readouterr()
    why = "No cluster answers here (The connection to the server localhost:8080 was refused)."
    stage.shell("kubectl delete namespace kube-system")
    told = "$ kubectl delete namespace kube-system   (not run: no cluster answers)\n"
    assert capsys.readouterr().out == told
    assert stage.run() is None
    nothing = "There is no recording of a run on a cluster yet, so none is shown.\n"
    assert capsys.readouterr().out == f"{why}\n{nothing}"
    stage.compare(lesson.reference, None)
    assert capsys.readouterr().out.startswith("No timeline of pods is drawn: no cluster answers")
    stage.close()
    assert capsys.readouterr().out == "Nothing to delete: no cluster answers.\n"


@pytest.mark.usefixtures("no_cluster")
def test_without_a_cluster_a_recorded_run_is_shown_with_its_badge(
    lesson: Lesson, course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = course / lesson_cluster.RECORDINGS
    recorded = studyguide.run("f", images="images/input", output=course / "out", logs=logs, **HASTY)
    stage = OnCluster(lesson)
    assert stage.run() == recorded
    told = capsys.readouterr().out
    assert f"RECORDED, not run here: {recorded.started}; system " in told
    assert f"numba {recorded.machine['numba']}" in told


@pytest.fixture
def course_of_the_lessons(course: Path, two_images: Path) -> None:
    """Have small images under the names that the lessons use."""
    (course / "images" / "input").unlink()
    (course / "images" / "input").mkdir()
    for name, small in {"bubbles.png": "grain.png", "chart.png": "cloud.png"}.items():
        shutil.copy(two_images / small, course / "images" / "input" / name)


@pytest.mark.usefixtures("course_of_the_lessons")
@pytest.mark.parametrize("letter", "defg")
def test_the_cluster_cells_of_a_lesson_run_on_a_cluster(
    letter: str, cluster: SmallCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = NOTEBOOKS.glob(f"*_{APPROACHES[letter].stem}.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    (first,) = [n for n, cell in enumerate(cells) if cell.source.startswith("## On a cluster")]
    (last,) = [n for n, cell in enumerate(cells) if cell.source == "stage.close()"]
    lesson = Lesson(letter, **HASTY | {"quiet_s": 0.5, "tile_size": 8})
    local = lesson.run()
    names = {"lesson": lesson, "KillWorker": KillWorker, "table": table}
    names |= dict.fromkeys(("d", "g", "killed"), local)
    for cell in cells[first : last + 1]:
        if cell.cell_type == "code":
            assert cell.metadata["tags"] == ["nbval-ignore-output"]
            exec(compile(cell.source, cell.id, "exec"), names)
    pods = names["pods"]
    assert len(pods.timeline.of("death")) == (letter in "ef")
    assert (pods.lost_tiles >= 1) == (letter == "e")
    assert pods.ok == (letter != "e")
    assert "No cluster answers" not in capsys.readouterr().out
    assert cluster.is_empty
    lesson.close()
