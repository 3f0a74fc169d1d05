"""Every kustomization of k8s/ as kubectl renders it: valid, locked down, complete, affordable."""

import base64
import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from kubectl_stub import Answer, stub_kubectl
from kubernetes_validate import utils as schemas
from pods import K8S, Object, expand, render, require

from studyguide import __version__
from studyguide.__main__ import _approach_of_role, _parser
from studyguide.approaches import APPROACHES
from studyguide.settings import Settings, describe

APPROACH = ["d", "e", "f", "g"]
OVERLAYS = [*APPROACH, "g-all", "g-autoscaled", *(f"on-host/{letter}" for letter in APPROACH)]
NEWEST = sorted({schemas.major_minor(v) for v in schemas.all_versions()}, key=schemas.Version)[-3:]
CPU, MEMORY = 1.5, 3 * 2**30  # cores and bytes that a whole lesson may ask for
PROBED = ["f", "g", "g-all"]

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@pytest.fixture(autouse=True, scope="module")
def _kubectl() -> None:
    require("kubectl")


rendered = cache(render)


def named(overlay: str, kind: str) -> dict[str, Object]:
    return {
        thing["metadata"]["name"]: thing for thing in rendered(overlay) if thing["kind"] == kind
    }


def workloads(overlay: str) -> list[Object]:
    return [*named(overlay, "Deployment").values(), *named(overlay, "Job").values()]


def pod_specs(overlay: str) -> list[Object]:
    return [thing["spec"]["template"]["spec"] for thing in workloads(overlay)]


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def role_of(thing: Object) -> str:
    return thing["spec"]["template"]["metadata"]["labels"].get("studyguide/role", "")


@pytest.mark.slow
@every_overlay
@pytest.mark.parametrize("version", NEWEST)
def test_every_object_is_valid_in_the_newest_versions_of_kubernetes(
    overlay: str, version: str
) -> None:
    for thing in rendered(overlay):
        schemas.validate(thing, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_noticed() -> None:
    (redis,) = (
        thing for thing in render("e") if thing["kind"] == "Service" and "redis" in str(thing)
    )
    redis["spec"]["prots"] = []
    with pytest.raises(schemas.ValidationError, match="prots"):
        schemas.validate(redis, NEWEST[-1], strict=True)


@every_overlay
def test_everything_is_in_a_namespace_that_enforces_the_restricted_standard(overlay: str) -> None:
    (name, namespace), *others = named(overlay, "Namespace").items()
    assert not others
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for thing in rendered(overlay):
        if thing["kind"] not in ("Namespace", "PersistentVolume"):
            assert thing["metadata"]["namespace"] == name


@every_overlay
def test_pods_meet_the_restricted_standard_and_get_no_token(overlay: str) -> None:
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim"}
    for spec in pod_specs(overlay):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert {key for volume in spec["volumes"] for key in volume} - {"name"} <= allowed
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@every_overlay
def test_all_pods_use_the_one_image_of_this_version(overlay: str) -> None:
    for spec in pod_specs(overlay):
        for container in containers(spec):
            assert container["image"] == f"studyguide:{__version__}"
            assert container.get("imagePullPolicy", "IfNotPresent") == "IfNotPresent"


def test_the_makefile_builds_the_image_that_the_manifests_name() -> None:
    assert (
        f"IMAGE := docker.io/library/studyguide:{__version__}\n" in (K8S / "Makefile").read_text()
    )


# --- resources -----------------------------------------------------------------------------------


def amount(text: str) -> float:
    """Read a quantity: cores, or bytes."""
    number, unit = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "": 1}[unit]


def request(spec: Object, what: str) -> float:
    """What a pod asks for: its containers and sidecars, or an init container if that is more."""
    sidecars, most = 0.0, 0.0
    for container in spec.get("initContainers", []):
        own = amount(container["resources"]["requests"][what])
        most = max(most, sidecars + own)
        sidecars += own if container.get("restartPolicy") == "Always" else 0.0
    mains = sum(amount(item["resources"]["requests"][what]) for item in spec["containers"])
    return max(most, sidecars + mains)


def total(overlay: str, what: str, workers: int | None = None) -> float:
    scaled = named(overlay, "HorizontalPodAutoscaler")
    whole = 0.0
    for thing in workloads(overlay):
        copies = thing["spec"].get("replicas", 1)
        if thing["metadata"]["name"] == "worker":
            copies = scaled["worker"]["spec"]["maxReplicas"] if scaled else workers or copies
        whole += copies * request(thing["spec"]["template"]["spec"], what)
    return whole


@every_overlay
def test_every_container_has_requests_and_limits(overlay: str) -> None:
    for spec in pod_specs(overlay):
        for container in containers(spec):
            asked, most = (container["resources"][key] for key in ("requests", "limits"))
            for what in ("cpu", "memory"):
                assert 0 < amount(asked[what]) <= amount(most[what])


@every_overlay
@pytest.mark.parametrize("workers", [None, 8])
def test_a_whole_lesson_fits_a_small_node_also_when_scaled(
    overlay: str, workers: int | None
) -> None:
    assert total(overlay, "cpu", workers) <= CPU
    assert total(overlay, "memory", workers) <= MEMORY


# --- references ----------------------------------------------------------------------------------


def covers(selector: dict[str, str], thing: Object) -> bool:
    return selector.items() <= thing["spec"]["template"]["metadata"]["labels"].items()


@every_overlay
def test_selectors_match_the_pods_that_they_mean(overlay: str) -> None:
    for deployment in named(overlay, "Deployment").values():
        assert covers(deployment["spec"]["selector"]["matchLabels"], deployment)
    for name, service in named(overlay, "Service").items():
        (target,) = (w for w in workloads(overlay) if covers(service["spec"]["selector"], w))
        assert target["metadata"]["name"] == name
        ports = target["spec"]["template"]["spec"]["containers"][0]["ports"]
        assert service["spec"]["ports"][0]["targetPort"] in [port["name"] for port in ports]
    for budget in named(overlay, "PodDisruptionBudget").values():
        assert any(covers(budget["spec"]["selector"]["matchLabels"], w) for w in workloads(overlay))
    for scaler in named(overlay, "HorizontalPodAutoscaler").values():
        target = named(overlay, "Deployment")[scaler["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"]


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector means a thing with these labels, as Kubernetes reads it."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    for item in selector.get("matchExpressions", []):
        assert item["operator"] == "Exists", "the test knows no other"
        wanted = wanted and item["key"] in labels
    return wanted


def admits(overlay: str, sender: tuple[str, dict[str, str]], pod: Object, port: str) -> bool:
    """Whether the policies let a pod of (namespace, labels) connect to a port of another pod."""
    policies = [thing["spec"] for thing in named(overlay, "NetworkPolicy").values()]
    mine = [policy for policy in policies if selects(policy["podSelector"], pod["labels"])]
    assert all(policy["policyTypes"] == ["Ingress"] for policy in mine)
    rules = [rule for policy in mine for rule in policy.get("ingress", [])]
    return not mine or any(
        {"port": port} in rule["ports"] and any(is_peer(peer, sender) for peer in rule["from"])
        for rule in rules
    )


def is_peer(peer: Object, sender: tuple[str, dict[str, str]]) -> bool:
    namespace, labels = sender
    here = {"matchLabels": {"kubernetes.io/metadata.name": "studyguide"}}
    return selects(
        peer.get("namespaceSelector", here), {"kubernetes.io/metadata.name": namespace}
    ) and selects(peer.get("podSelector", {}), labels)


@every_overlay
def test_only_our_roles_reach_redis_and_files_and_only_prometheus_reaches_our_roles(
    overlay: str,
) -> None:
    pods = [thing["spec"]["template"] for thing in workloads(overlay)]
    ours = [("studyguide", pod["metadata"]["labels"]) for pod in pods]
    roles = [sender for sender in ours if "studyguide/role" in sender[1]]
    strangers = [("default", {"studyguide/role": "worker"}), ("studyguide", {"app": "stranger"})]
    scraper = ("monitoring", {"app": "prometheus"})
    allowed = {"http": roles, "redis": roles, "metrics": [scraper]}
    tried = 0
    for pod in pods:
        for port in pod["spec"]["containers"][0].get("ports", []):
            for sender in (*ours, *strangers, scraper):
                reached = admits(overlay, sender, pod["metadata"], port["name"])
                assert reached == (sender in allowed[port["name"]]), (sender, pod, port)
                tried += 1
        assert not admits(overlay, roles[0], pod["metadata"], "another")
    assert tried


@every_overlay
def test_other_pods_of_the_namespace_are_neither_cut_off_nor_taken_for_ours(overlay: str) -> None:
    for pod in (thing["spec"]["template"]["metadata"]["labels"] for thing in workloads(overlay)):
        stranger = {"app": pod["app"]}
        for policy in named(overlay, "NetworkPolicy").values():
            assert not selects(policy["spec"]["podSelector"], stranger)
        for service in named(overlay, "Service").values():
            assert not service["spec"]["selector"].items() <= stranger.items()
        for budget in named(overlay, "PodDisruptionBudget").values():
            assert not selects(budget["spec"]["selector"], stranger)


@every_overlay
def test_everything_says_whose_it_is(overlay: str) -> None:
    labels = {"app.kubernetes.io/part-of": "studyguide", "app.kubernetes.io/managed-by": "kubectl"}
    for thing in rendered(overlay):
        if thing["kind"] != "PersistentVolume":
            assert labels.items() <= thing["metadata"]["labels"].items(), thing


def test_a_node_that_fails_does_not_count_against_a_job_that_can_go_on() -> None:
    for overlay in ("d", "f", "g", "g-all", "g-autoscaled"):
        for job in named(overlay, "Job").values():
            *_, last = job["spec"]["podFailurePolicy"]["rules"]
            assert last == {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
    (job,) = named("e", "Job").values()
    assert job["spec"]["backoffLimit"] == 0
    assert "podFailurePolicy" not in job["spec"]


@every_overlay
def test_every_mounted_volume_and_its_source_exist(overlay: str) -> None:
    for spec in pod_specs(overlay):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for container in containers(spec):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in named(overlay, "ConfigMap")
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in named(overlay, "PersistentVolumeClaim")


def environment(overlay: str, container: Object) -> dict[str, str]:
    """The variables of a container, each from a source that exists; in their order."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= named(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    for item in container.get("env", []):
        origin = item.get("valueFrom", {})
        if "secretKeyRef" in origin:
            ref = origin["secretKeyRef"]
            found[item["name"]] = named(overlay, "Secret")[ref["name"]]["data"][ref["key"]]
        elif "fieldRef" in origin:
            found[item["name"]] = origin["fieldRef"]["fieldPath"]
        else:
            found[item["name"]] = expand(item["value"], found)
    return found


def arguments(overlay: str, container: Object) -> list[str]:
    variables = environment(overlay, container)
    return [expand(part, variables) for part in container.get("args", [])]


def roles(overlay: str) -> Iterator[tuple[Object, Object]]:
    """(workload, its role's container) of each role."""
    for thing in workloads(overlay):
        if role_of(thing):
            yield thing, thing["spec"]["template"]["spec"]["containers"][0]


@every_overlay
def test_every_role_is_started_with_options_that_it_knows(overlay: str) -> None:
    for thing, container in roles(overlay):
        given = arguments(overlay, container)
        assert not [part for part in given if "$(" in part]
        parsed = _parser().parse_args(given)
        assert parsed.role == ("all" if overlay == "g-all" else role_of(thing))
        assert _approach_of_role(parsed) == overlay.rpartition("/")[2][0]
        assert "$(" not in environment(overlay, container).get("REDIS_URL", "")


@every_overlay
def test_settings_are_the_librarys_own_unless_changed(overlay: str) -> None:
    usual = {
        name.upper().removesuffix("_S"): str(value) for name, value in describe(Settings()).items()
    }
    (settings,) = (m["data"] for n, m in named(overlay, "ConfigMap").items() if "settings" in n)
    own = ("APPROACH", "STEM", "THREADS", "LOG_FORMAT")
    given = {key: value for key, value in settings.items() if key not in own}
    assert {key: float(value) if value[0].isdigit() else value for key, value in given.items()} == {
        key: float(usual[key]) if usual[key][0].isdigit() else usual[key] for key in given
    }
    assert settings["STEM"] == APPROACHES[overlay.rpartition("/")[2][0]].stem


@pytest.mark.parametrize("overlay", [*APPROACH, "g-all"])
def test_a_job_is_one_run_whichever_of_its_pods_does_it(overlay: str) -> None:
    for job in named(overlay, "Job").values():
        container = job["spec"]["template"]["spec"]["containers"][0]
        uid = "metadata.labels['batch.kubernetes.io/controller-uid']"
        if overlay != "d":
            assert environment(overlay, container)["RUN"] == uid
            assert "--run=$(RUN)" in container["args"]


# --- what sets the approaches apart --------------------------------------------------------------


def test_each_approach_has_its_workloads() -> None:
    assert {overlay: sorted(f"{w['kind']} {w['metadata']['name']}" for w in workloads(overlay))
            for overlay in ("d", "e", "g-all")} == {
        "d": ["Deployment files", "Job sequential"],
        "e": ["Deployment assembler", "Deployment files", "Deployment redis", "Deployment worker",
              "Job coordinator"],
        "g-all": ["Deployment files", "Deployment redis", "Job coordinator"],
    }  # fmt: skip
    assert named("e", "Deployment")["worker"]["spec"]["replicas"] == 4
    for overlay in ("f", "g", "g-autoscaled"):
        assert {w["metadata"]["name"] for w in workloads(overlay)} == {
            w["metadata"]["name"] for w in workloads("e")
        }


@pytest.mark.parametrize("overlay", PROBED)
def test_roles_of_f_and_g_have_probes_and_time_to_drain(overlay: str) -> None:
    for thing, container in roles(overlay):
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        assert container["ports"] == [{"name": "metrics", "containerPort": 9100}]
        annotations = thing["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == "9100"
        assert "--metrics-port=0.0.0.0:9100" in arguments(overlay, container)
        assert thing["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 20
        if thing["kind"] == "Deployment":
            assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
        else:
            assert thing["spec"]["backoffLimit"] > 0
            assert thing["spec"]["podFailurePolicy"]["rules"][0]["action"] == "FailJob"


def redis_config(overlay: str) -> str:
    (data,) = (m["data"] for n, m in named(overlay, "ConfigMap").items() if "redis" in n)
    return str(data["redis.conf"])


def test_redis_forgets_in_e_and_remembers_in_f_and_g() -> None:
    assert "appendonly no" in redis_config("e")
    assert list(named("e", "PersistentVolumeClaim")) == ["images"]
    for overlay in PROBED:
        assert "appendonly yes" in redis_config(overlay)
        assert "redis" in named(overlay, "PersistentVolumeClaim")


@pytest.mark.parametrize("overlay", ["e", *PROBED])
def test_redis_asks_for_a_password_that_is_nowhere_but_in_a_secret(overlay: str) -> None:
    redis = named(overlay, "Deployment")["redis"]["spec"]["template"]["spec"]["containers"][0]
    assert 'echo "requirepass $REDIS_PASSWORD" >> /tmp/redis.conf' in redis["command"][-1]
    assert "exec valkey-server /tmp/redis.conf" in redis["command"][-1]
    (secret,) = named(overlay, "Secret").values()
    (password,) = secret["data"].values()
    for shown in (password, base64.b64decode(password).decode()):
        assert shown not in str([thing for thing in rendered(overlay) if thing["kind"] != "Secret"])
    for container in (c for spec in pod_specs(overlay) for c in containers(spec)):
        assert "REDIS_PASSWORD" not in str(container.get("args", []))


# --- the commands --------------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Within `make test` a make would say that it is the second, and where.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    outside.pop("MFLAGS", None)
    command = ["make", "-C", str(K8S), *arguments]
    return subprocess.run(command, env=outside, capture_output=True, text=True)


def test_make_help_lists_a_counterpart_of_each_of_the_predecessors_tasks() -> None:
    listed = set(re.findall(r"make -C k8s (\S+) ", make("help").stdout))
    assert listed >= {
        "image", "load", "deploy", "run", "status", "logs", "logs-coordinator", "logs-workers",
        "logs-assembler", "scale", "chaos-test", "fetch", "clean",
    }  # fmt: skip


def test_make_says_which_cluster_it_means_or_that_there_is_none() -> None:
    lost = make("status", "CONTEXT=")
    assert lost.returncode == 2
    assert "kubectl has no context" in lost.stderr
    shown = make("--dry-run", "deploy", "A=f", "CONTEXT=somewhere")
    calls = [line for line in shown.stdout.splitlines() if line.startswith("kubectl")]
    assert calls
    assert all("--context somewhere --namespace studyguide" in call for call in calls)


REFUSED = (
    b"E1127 13:42:34 memcache.go:265] couldn't get current server API group list\n" * 3
    + b"The connection to the server localhost:8080 was refused\n"
)


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Answer]]:
    """What kubectl answers to calls with these words; to all others that they went well."""
    known: dict[str, Answer] = {}

    def answer(arguments: list[str], stdin: bytes) -> Answer:
        said = " ".join(arguments)
        return next((it for words, it in known.items() if words in said), Answer())

    with stub_kubectl(answer, tmp_path, monkeypatch):
        yield known


@pytest.mark.parametrize("target", ["deploy", "status", "logs", "scale", "fetch", "clean"])
def test_make_says_in_one_line_that_no_cluster_answers(
    target: str, answers: dict[str, Answer]
) -> None:
    answers["--context here"] = Answer(1, stderr=REFUSED)
    done = make("--no-print-directory", target, "CONTEXT=here")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    refused = "The connection to the server localhost:8080 was refused"
    assert said == [f"The cluster does not answer: {refused}"]
    assert done.stdout == "context here, namespace studyguide\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["run", "A=g-all", "CONTEXT=here"], "A run is of d, e, f or g, not of g-all: deploy it"),
        (["chaos-test", "A=on-host/e", "CONTEXT=here"], "A run is of d, e, f or g, not of on-host"),
        (["chaos-test", "A=d", "CONTEXT=here"], "chaos-test kills a worker of e, f or g, not of d"),
        (["run", "CONTEXT=there"], "studyguide uses kubectl's current context: kubectl config use"),
    ],
)
def test_make_says_in_one_line_what_has_to_come_first(
    arguments: list[str], problem: str, answers: dict[str, Answer]
) -> None:
    answers["current-context"] = Answer(stdout=b"here\n")
    done = make("--no-print-directory", *arguments)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1
    assert said[0].startswith(problem)


@pytest.mark.slow
def test_make_fetch_takes_files_that_are_replaced_meanwhile_and_checks_their_digests(
    tmp_path: Path, answers: dict[str, Answer]
) -> None:
    stem, digest = APPROACHES["e"].stem, hashlib.sha256(b"image").hexdigest()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        item = tarfile.TarInfo(f"{stem}/a.png")
        item.size = 5
        tar.addfile(item, io.BytesIO(b"image"))
    changed = b"tar: a.png: file changed as we read it\ncommand terminated with exit code 1\n"
    answers["-- tar"] = Answer(1, archive.getvalue(), changed)
    answers["sha256sum"] = Answer(stdout=f"{digest}  ./{stem}/a.png\n".encode())
    place = f"IMAGES={tmp_path}/images"
    done = make("fetch", "CONTEXT=here", place)
    assert (done.returncode, "a.png: OK" in done.stdout) == (0, True)
    assert (tmp_path / "images" / stem / "a.png").read_bytes() == b"image"
    answers["sha256sum"] = Answer(stdout=f"{digest[::-1]}  ./{stem}/a.png\n".encode())
    done = make("fetch", "CONTEXT=here", place)
    assert (done.returncode, "a.png: FAILED" in done.stdout) == (2, True)


@pytest.mark.parametrize(
    ("context", "command"),
    [
        ("minikube", "minikube --profile minikube image load"),
        ("kind-mine", "kind load image-archive --name mine"),
        ("k3d-mine", "k3d image import --cluster mine"),
        ("local", "ctr --namespace k8s.io images import -"),
    ],
)
def test_make_load_finds_out_what_kind_of_cluster_it_is(context: str, command: str) -> None:
    assert command in make("--dry-run", "load", f"CONTEXT={context}", "ENGINE=podman").stdout


def test_nothing_in_k8s_is_left_out_of_the_kustomizations() -> None:
    known = {path.parent for path in K8S.rglob("kustomization.yaml")}
    shared = {K8S / name for name in ("base", "redis", "roles")} | set(
        (K8S / "components").iterdir()
    )
    assert known == shared | {K8S / overlay for overlay in OVERLAYS}
