"""What `KubernetesCluster` makes of what kubectl answers, where no role has to run for it."""

import copy
import math
import random
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kubectl_stub import Object, objects
from pods import render
from small_cluster import KINDS, ROLE, RUN, SmallCluster, moment
from test_kubernetes import perform, stranger

from studyguide.__main__ import main
from studyguide.cluster import KillRedis
from studyguide.errors import ToolError
from studyguide.kubernetes import KubernetesCluster, kubectl, watcher
from studyguide.kubernetes.kubectl import RESOURCES, owner
from studyguide.kubernetes.pods import role_of
from studyguide.record.report import RunReport
from studyguide.record.timeline import Event, Timeline

# a namespace of its own


def test_a_run_changes_and_deletes_nothing_that_others_have_under_its_names(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    team = cluster.make("team")
    mine = stranger("Deployment", "redis"), stranger("Secret", "key", **{RUN: "another"})
    for thing in mine:
        team.put(copy.deepcopy(thing))
    with pytest.raises(ToolError, match=r'"redis" already exists.*Use another --namespace'):
        perform("f", two_images, tmp_path, namespace="team")
    assert list(team.objects.values()) == list(mine)
    assert list(cluster.namespaces) == ["team"]


def test_who_may_not_create_a_namespace_is_shown_the_option(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    cluster.forbidden = {"create namespaces"}
    with pytest.raises(ToolError, match=r"Forbidden.*Name a namespace.*--namespace NAME"):
        perform("d", two_images, tmp_path)
    assert cluster.is_empty


def test_a_named_namespace_that_nobody_has_created_is_asked_for(
    two_images: Path, tmp_path: Path, cluster: SmallCluster
) -> None:
    cluster.forbidden = {"create namespaces"}
    with pytest.raises(ToolError, match=r'"team" not found.*kubectl create namespace'):
        perform("d", two_images, tmp_path, namespace="team")
    assert cluster.is_empty


def test_a_run_labels_all_that_it_creates(pods: KubernetesCluster) -> None:
    labels = {
        "app.kubernetes.io/managed-by": "studyguide",
        "app.kubernetes.io/part-of": "studyguide",
        RUN: pods.plan.run_id,
        "studyguide/owner": owner(),
    }
    for thing in pods._objects:
        assert labels.items() <= thing["metadata"]["labels"].items()
        where = "name" if thing["kind"] == "Namespace" else "namespace"
        assert thing["metadata"][where] == f"studyguide-{pods.plan.run_id}"
        if "template" in thing.get("spec", {}):
            assert labels.items() <= thing["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("user", "value"),
    [("ada", "ada"), ("Ada Lovelace@home", "Ada-Lovelace-home"), ("_x_", "x"), ("é", "0")],
)
def test_an_owner_is_a_value_that_a_label_may_have(
    user: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", user)
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert owner() == value
    assert re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", owner(), flags=re.A)


def test_what_runs_left_is_listed_and_deleted_by_run_or_owner(
    cluster: SmallCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    by = {"app.kubernetes.io/managed-by": "studyguide"}
    mine, other = {"studyguide/owner": owner()}, {"studyguide/owner": "somebody"}
    for run, labels in {"1": mine, "2": mine, "3": other}.items():
        cluster.make(f"studyguide-{run}", **by, **labels, **{RUN: run})
    cluster.make("studyguide")
    team = cluster.make("team")
    team.put(stranger("Deployment", "files", **by, **mine, **{RUN: "4"}))
    team.put(stranger("Deployment", "web"))

    assert main(["clusters"]) == 0
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines() if line] == [
        "studyguide-1", "studyguide-2", "studyguide-3",
    ]  # fmt: skip
    assert told.err == "context small\n"
    assert main(["clusters", "--delete", "1"]) == 0
    assert "studyguide-1" not in capsys.readouterr().out
    assert main(["clusters", "--all"]) == 0
    assert list(cluster.namespaces) == ["studyguide-3", "studyguide", "team"]
    assert main(["clusters", "--namespace", "team", "--all"]) == 0
    assert list(team.objects) == [("Deployment", "web")]


@pytest.mark.slow
def test_every_kind_that_a_run_creates_can_be_listed_and_deleted() -> None:
    kinds = {thing["kind"] for letter in "defg" for thing in render(letter)} - {"Namespace"}
    assert {KINDS[name] for name in RESOURCES.split(",")} == kinds


# deaths


def a_pod(name: str, run: str, app: str = "worker", **changes: Any) -> Object:
    """A pod as the API gives it, with one container that runs since 17:17:40."""
    labels = {RUN: run, "app": app} | ({ROLE: app} if app != "redis" else {})
    container = {
        "restartCount": changes.get("restarts", 0),
        "state": changes.get("state", {"running": {"startedAt": "2026-11-23T17:17:40Z"}}),
        "lastState": changes.get("last", {}),
    }
    status = {"containerStatuses": [container]} | changes.get("status", {})
    metadata = {"name": name, "labels": labels} | changes.get("metadata", {})
    return {"kind": "Pod", "metadata": metadata, "status": status}


def ended(second: float, code: int = 137) -> Object:
    return {"terminated": {"exitCode": code, "finishedAt": moment(second), "startedAt": None}}


def test_no_effect_is_dated_before_the_death_that_caused_it(
    pods: KubernetesCluster,
) -> None:
    """Whatever the moments of the kubelet's seconds, of looks, reclaims and restarts are."""
    deaths: list[Event] = []
    pods.recorder.sink = lambda event: deaths.append(event) if event.stage == "death" else None
    chance = random.Random(7)
    for n in range(300):
        name, start = f"worker-{n}", 1_800_000_000.0
        last = start + chance.uniform(1, 3)  # its last event
        death = last + chance.choice([0.0, chance.uniform(0, 2)])
        effect = death + chance.uniform(0.001, 3)  # a tile is taken over, or it has restarted
        looked = chance.uniform(last - 1, death)
        pods._looked = looked
        pods._see_deaths([a_pod(name, pods.plan.run_id)])
        pods.note(Event("start", start, start + 0.5, name, "MainThread"))
        pods.note(Event("wait", last, last, name, "worker-0", "x.png", 1))
        how = chance.choice(["restarted", "restarted unknown", "gone", "killed"])
        if how.startswith("restarted"):
            pods.note(Event("start", effect, effect + 0.5, name, "MainThread"))
            pods.note(Event("wait", effect + 1, effect + 1, name, "worker-0", "x.png", 2))
            running = {"running": {"startedAt": moment(effect)}}
            before = ended(death) if how == "restarted" else {"terminated": {"exitCode": 137}}
            after = [a_pod(name, pods.plan.run_id, restarts=1, state=running, last=before)]
        else:
            detail = {"from_worker": f"{name}/worker-0"}
            reclaim = Event("reclaim", effect, effect, "other", "w", "x.png", 1, detail=detail)
            pods.note(reclaim)
            after = []
            if how == "killed":
                pods._struck[name] = chance.uniform(looked, death)
        pods._see_deaths(after)
        found = deaths.pop()
        assert deaths == []
        pods._alive = {}
        assert found.process == name
        assert last <= found.start <= effect, how
        assert found.start <= death
        assert found.start > death - 1 or how != "restarted"


def test_a_death_is_dated_by_the_kubelet_and_not_by_the_look_that_found_it(
    pods: KubernetesCluster,
) -> None:
    deaths: list[Event] = []
    pods.recorder.sink = deaths.append
    (after,) = objects("redis restarts", "pods")
    (before,) = [pod for pod in objects("running", "pods") if "redis" in pod["metadata"]["name"]]
    end = after["status"]["containerStatuses"][0]["lastState"]["terminated"]["finishedAt"]
    for pod in (before, after, after):
        pods._looked = pods.recorder.clock()
        pods._see_deaths([pod])
    assert [(event.process, event.start) for event in deaths] == [
        ("redis", datetime.fromisoformat(end).timestamp())
    ]


LOST = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
EVICTED = {"phase": "Failed", "reason": "Evicted", "containerStatuses": []}
PRESSURE = LOST | {"reason": "TerminationByKubelet"}
DRAINED = LOST | {"reason": "EvictionByEvictionAPI"}
LEAVING = {"deletionTimestamp": "2026-11-23T17:18:01Z"}


@pytest.mark.parametrize(
    ("change", "died"),
    [
        ({"status": EVICTED | {"conditions": [PRESSURE]}}, True),
        ({"status": {"conditions": [LOST]}, "metadata": LEAVING}, True),  # its node is NotReady
        ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, False),  # not yet
        ({"status": {"conditions": [DRAINED]}, "metadata": LEAVING}, False),  # told to end
        ({"state": ended(1_800_000_000)}, True),  # restarts soon
    ],
)
def test_a_pod_that_its_node_took_along_has_died_once(
    change: dict[str, Any], died: bool, pods: KubernetesCluster
) -> None:
    deaths: list[Event] = []
    pods.recorder.sink = deaths.append
    name = "worker-1"
    metadata = {"name": name, "labels": {RUN: pods.plan.run_id, ROLE: "worker", "app": "worker"}}
    if "metadata" in change:
        change = change | {"metadata": metadata | change["metadata"]}
    after = a_pod(name, pods.plan.run_id, **change)
    for things in ([a_pod(name, pods.plan.run_id)], [after], [after]):
        pods._see_deaths(things)
    assert [event.process for event in deaths] == [name] * died


def test_a_job_that_ends_as_it_should_has_not_died(pods: KubernetesCluster) -> None:
    deaths: list[Event] = []
    pods.recorder.sink = deaths.append
    of = {"ownerReferences": [{"kind": "Job", "name": "coordinator"}]}
    labels = {"labels": {RUN: pods.plan.run_id, ROLE: "coordinator", "app": "coordinator"}}
    for code, name in enumerate(("all-well", "an-image-failed", "wrong-usage")):
        over = {"phase": "Failed" if code else "Succeeded"}
        for state, status in (({"running": {}}, {}), (ended(1_800_000_000, code), over)):
            changes = {"metadata": {"name": name, **labels, **of}, "status": status}
            pods._see_deaths([a_pod(name, pods.plan.run_id, state=state, **changes)])
    assert [event.process for event in deaths] == ["wrong-usage"]


def test_redis_is_killed_on_pods_and_its_death_recorded(
    pods: KubernetesCluster, cluster: SmallCluster
) -> None:
    events: list[Event] = []
    pods.recorder.sink = events.append
    pods.kubectl.create(it for it in pods._objects if not role_of(it))
    strike = KillRedis(after=0)
    strike(pods)
    assert not strike.done, "no pod was seen yet"
    pods._see_deaths(pods._get())
    struck = pods.recorder.clock()
    strike(pods)
    assert strike.done
    pods._see_deaths(pods._get())
    (death,) = events
    assert (death.stage, death.process) == ("death", "redis")
    assert struck <= death.start <= pods.recorder.clock()


# calls that hang


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["get", "exec", "create", "delete"])
def test_a_call_that_hangs_is_asked_again(
    verb: str, pods: KubernetesCluster, cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubectl, "TIMEOUT_S", 4.0)
    monkeypatch.setattr(kubectl, "GONE_S", 1.0)
    monkeypatch.setattr(watcher, "PATIENCE_S", 0.1)  # even then once more
    common = [it for it in pods._objects if not role_of(it)]
    pods.kubectl.create(common[:1])
    cluster.hangs = {verb: 1}
    pods._create(common[1:])
    assert pods._get()
    pods._patiently(lambda: pods.kubectl.time(watcher.FILES))
    pods.close()
    assert cluster.hangs == {verb: 0}
    assert cluster.is_empty


def test_a_call_that_took_effect_before_it_hung_is_no_error(
    pods: KubernetesCluster, cluster: SmallCluster
) -> None:
    common = [it for it in pods._objects if not role_of(it)]
    pods.kubectl.create(common[:3])
    pods._create(common[1:])
    assert len(cluster.objects) == len(common) - 1  # all but the namespace


def test_calls_that_hang_for_ever_end_with_one_clear_error(
    pods: KubernetesCluster, cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubectl, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(watcher, "PATIENCE_S", 0.1)
    cluster.hangs = {"get": 1000}
    with pytest.raises(ToolError, match=r"timed out: .*did not answer within 1 s") as caught:
        pods._get()
    assert len(str(caught.value).splitlines()) == 1
    assert cluster.hangs == {"get": 998}


def test_a_call_has_less_time_than_the_patience_with_it() -> None:
    assert 2 * kubectl.TIMEOUT_S < watcher.PATIENCE_S


# what is reported


def test_the_number_of_blurred_tiles_is_told_now_and_then(
    pods: KubernetesCluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "studyguide.kubernetes")
    pods._tell("tiles blurred 1", 100)
    pods._tell("tiles blurred 2", 100)
    monkeypatch.setattr("time.monotonic", lambda: math.inf)
    pods._tell("tiles blurred 3", 100)
    pods._tell("tiles blurred 3", 100)
    assert [record.message for record in caplog.records] == ["tiles blurred 1", "tiles blurred 3"]


def test_a_report_has_the_versions_of_the_pods_and_not_those_of_the_client() -> None:
    inside = {"python": "3.9.0", "numba": "0.1"}
    events = [
        Event("run", 1, 1, "main", "MainThread", detail={"kubernetes": "v1.36.2"}),
        Event("start", 2, 3, "worker-1", "MainThread", detail={"cpu_s": 1, "machine": inside}),
        Event("start", 2, 3, "old", "MainThread", detail={"cpu_s": 1}),
    ]
    report = RunReport.of("f", "kubernetes", Timeline(events), {"workers": 1})
    assert report.machine == inside | {"kubernetes": "v1.36.2"}


def test_a_pod_that_is_told_to_end_has_not_died(pods: KubernetesCluster) -> None:
    events: list[Event] = []
    pods.recorder.sink = events.append
    before, after = objects("running", "pods"), objects("scale", "pods")
    for pod in [*before, *after]:
        pod["metadata"]["labels"][ROLE] = "worker"
    goes = [pod for pod in after if "deletionTimestamp" in pod["metadata"]]
    stays = [pod for pod in after if pod not in goes]
    dies = [pod for pod in before if pod["metadata"]["name"].startswith("redis")]
    for things in ([*stays, *dies, *_undeleted(goes)], [*stays, *dies, *goes], stays):
        pods._see_deaths(things)
    assert [event.process for event in events] == [dies[0]["metadata"]["name"]]


def _undeleted(pods: list[Object]) -> list[Object]:
    return [
        {**pod, "metadata": {"name": pod["metadata"]["name"], "labels": {ROLE: "worker"}}}
        for pod in pods
    ]


def test_a_pod_whose_container_has_restarted_has_died(pods: KubernetesCluster) -> None:
    events: list[Event] = []
    pods.recorder.sink = events.append
    (before,) = [pod for pod in objects("running", "pods") if "redis" in pod["metadata"]["name"]]
    (after,) = objects("redis restarts", "pods")
    for pod in (before, before, after, after):
        pod["metadata"]["labels"][ROLE] = "worker"
        pods._see_deaths([pod])
    assert [event.process for event in events] == [before["metadata"]["name"]]
