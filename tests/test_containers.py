"""The image, built and run for real: one container per role, started as the manifests say.

podman stands in for the cluster (pods.py), on a private network, with a read-only root, no
capabilities and the memory limits of the manifests.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pods import K8S, LIMITS, Node, Pod, podman, require
from support import wait_until

import studyguide
from studyguide import __version__, images
from studyguide.approaches import APPROACHES

# Building takes a minute or two.
pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(900)]

IMAGE = f"docker.io/library/studyguide:{__version__}"
BASE = "localhost/python-base:bookworm"
PACKAGES = "python3,python3-venv,ca-certificates,tar"
QUICK = ("--method=separable",)
SLOW = ("chart.png", 7)  # a tile that takes a second, so that something can happen meanwhile
SLOWLY = "--fault=slow:chart.png:7"
OF_ROOT = 0o750  # claims of some classes: root may write there, our pods may not


@pytest.fixture(scope="session")
def _image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Build the image as `make -C k8s image` does, on a base of Debian's own packages."""
    require("kubectl", "make", "podman", "runc")
    if os.geteuid() != 0:
        pytest.skip("needs root: the pods' folders belong to other users")
    if subprocess.run(["podman", "image", "exists", BASE]).returncode:
        require("mmdebstrap")
        base = tmp_path_factory.mktemp("base") / "base.tar"
        debian = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
        subprocess.run([*debian, "bookworm", str(base)], check=True)
        podman("import", "--quiet", str(base), BASE)
        base.unlink()
    certificates = "--volume /etc/ssl/certs:/etc/ssl/certs:ro"
    arguments = f"--isolation=chroot --network=host {certificates}"
    make("image", f"BASE={BASE}", "ENGINE=podman", f"BUILD_ARGS={arguments}")


def make(*arguments: str, path: str = "") -> str:
    command = ["make", "--directory", str(K8S), *arguments]
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What approach a makes of the sample images."""
    folder = K8S.parent / "images" / "input"
    output = tmp_path_factory.mktemp("a")
    return studyguide.run("a", images=folder, output=output, method="separable").pixels()


@pytest.fixture
def cluster(_image: None, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Make a node for an overlay; it ends with the test."""
    nodes: list[Node] = []
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # the users of the pods come through

    def start(overlay: str, claims: int = 0o777) -> Node:
        nodes.append(Node(tmp_path, overlay, claims))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()


def start_queue(node: Node, *options: str, workers: int = 2) -> tuple[Pod, list[Pod], Pod]:
    """Start all that waits for work: `files`, Redis, the workers, the assembler."""
    node.start("files")
    redis = node.start("redis")
    node.wait_ready(redis)
    team = [node.start("worker", *options) for _ in range(workers)]
    return redis, team, node.start("assembler")


def kept(node: Node, letter: str) -> dict[str, str]:
    """Digests of the pixels that the pod `files` has of an approach."""
    files = node.of("files")
    stem, copy = APPROACHES[letter].stem, node.folder / f"kept-{letter}"
    podman("cp", f"{files.main}:/data/output/{stem}/.", str(copy))
    return {path.name: images.sha256(images.load(path)) for path in copy.iterdir()}


def busy(team: list[Pod]) -> Pod:
    """Wait until one of the workers has the slow tile in hand."""
    return wait_until(
        lambda: next(
            (pod for pod in team if pod.has("wait", *SLOW) and not pod.has("blur", *SLOW)), None
        )
    )


@pytest.mark.usefixtures("_image")
def test_the_image_has_what_kubectl_cp_needs_and_the_samples() -> None:
    look = "id -u; command -v tar; ls /opt/studyguide/images"
    said = podman(
        "--runtime", "runc", "run", "--rm", *LIMITS, "--entrypoint", "sh", IMAGE, "-c", look
    )
    samples = sorted(path.name for path in (K8S.parent / "images" / "input").iterdir())
    assert said.split() == ["1000", "/usr/bin/tar", *samples]


def test_d_blurs_soon_after_its_start_and_leaves_its_images_with_files(
    cluster: Callable[..., Node], expected: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    node = cluster("d")
    node.start("files")
    job = node.start("sequential", *QUICK)
    assert node.finish(job) == 0
    assert kept(node, "d") == expected
    assert (claim_of(node) / "output" / APPROACHES["d"].stem / "night.png").exists()
    started = float(podman("inspect", "--format", "{{.State.StartedAt.UnixMilli}}", job.main)) / 1e3
    first = min(event.start for event in job.events if event.stage == "blur")
    megabytes = int(podman("image", "inspect", "--format", "{{.Size}}", IMAGE)) / 1e6
    with capsys.disabled():
        print(f"\nimage {megabytes:.0f} MB; first blur {first - started:.2f} s after process start")


def claim_of(node: Node) -> Path:
    return node.folder / "claims" / "images"


def test_e_works_where_only_root_may_write_to_claims_and_make_fetch_brings_all_home(
    cluster: Callable[..., Node], expected: dict[str, str], tmp_path: Path
) -> None:
    node = cluster("e", OF_ROOT)
    start_queue(node)
    assert node.finish(node.start("coordinator", *QUICK)) == 0
    wait_until(lambda: kept(node, "e") == expected)
    assert not list(claim_of(node).iterdir())
    place = f"IMAGES={tmp_path}/images"
    said = make("fetch", "CONTEXT=none", place, path=stub_kubectl(node, tmp_path))
    assert said.count(": OK") == 5
    fetched = (tmp_path / "images" / APPROACHES["e"].stem).iterdir()
    assert {path.name: images.sha256(images.load(path)) for path in fetched} == expected


def stub_kubectl(node: Node, folder: Path) -> str:
    """A folder with a `kubectl` whose `exec` goes to the container of `files`."""
    script = folder / "bin" / "kubectl"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/bash\n"
        'case "$*" in\n'
        "*readyz*) exit ;;\n"
        "*\\ exec\\ *) ;;\n"
        "*) exit 1 ;;\n"
        "esac\n"
        'while [ "$1" != -- ]; do shift; done; shift\n'
        f'exec podman exec {node.of("files").main} "$@"\n'
    )
    script.chmod(0o755)
    return str(script.parent)


@pytest.mark.parametrize(("letter", "claims"), [("f", 0o777), ("g", OF_ROOT)])
def test_f_and_g_lose_nothing_when_a_worker_and_redis_are_killed(
    letter: str, claims: int, cluster: Callable[..., Node], expected: dict[str, str]
) -> None:
    node = cluster(letter, claims)
    redis, team, assembler = start_queue(node, SLOWLY, "--visibility=1")
    job = node.start("coordinator", *QUICK)
    victim = busy(team)
    podman("kill", "--signal", "KILL", victim.main, redis.main)
    podman("wait", victim.main, redis.main)
    podman("start", redis.main, victim.main)
    assert node.finish(job) == 0
    wait_until(lambda: kept(node, letter) == expected)
    assert any(pod.has("reclaim", *SLOW) for pod in team)
    assert {node.end(pod) for pod in (*team, assembler)} == {0}


def test_g_with_all_roles_in_one_pod_does_the_whole_job(
    cluster: Callable[..., Node], expected: dict[str, str]
) -> None:
    node = cluster("g-all")
    node.start("files")
    node.wait_ready(node.start("redis"))
    assert node.finish(node.start("coordinator", *QUICK)) == 0
    assert kept(node, "g") == expected


def test_a_worker_that_is_told_to_stop_finishes_its_tile_first(
    cluster: Callable[..., Node],
) -> None:
    node = cluster("f")
    _, (worker,), _ = start_queue(node, SLOWLY, workers=1)
    node.start("coordinator", *QUICK)
    busy([worker])
    assert node.end(worker) == 0
    assert worker.has("transfer", *SLOW)


def test_probes_tell_a_frozen_worker_from_one_that_cannot_reach_redis(
    cluster: Callable[..., Node],
) -> None:
    node = cluster("f")
    redis, (worker,), _ = start_queue(node, workers=1)
    node.wait_ready(worker)
    wait_until(lambda: node.probe(worker, "liveness"))
    assert "\nstudyguide_queue_depth 0.0\n" in node.get(worker, "/metrics", 5)[1]
    podman("kill", "--signal", "STOP", redis.main)
    assert not node.probe(worker, "readiness")
    assert node.probe(worker, "liveness")
    podman("kill", "--signal", "STOP", worker.main)
    assert not node.probe(worker, "liveness")


def test_what_a_pod_says_is_json_that_names_run_worker_image_tile_and_attempt(
    cluster: Callable[..., Node],
) -> None:
    node = cluster("f")
    _, (worker,), _ = start_queue(node, "--log-format=json", workers=1)
    assert node.finish(node.start("coordinator", *QUICK)) == 0
    lines = [json.loads(line) for line in podman("logs", worker.main).splitlines()]
    blur = next(line for line in lines if line.get("stage") == "blur")
    assert blur["worker"] == f"{worker.name}/worker-0"
    assert (blur["image"], blur["tile"], blur["attempt"]) == ("bubbles.png", 0, 1)
    assert not [line for line in lines if "blurred-lines" in str(line)]


def test_a_poison_tile_kills_its_process_also_in_a_container(cluster: Callable[..., Node]) -> None:
    node = cluster("f")
    _, (worker,), _ = start_queue(node, "--fault=poison:chart.png:7", workers=1)
    node.start("coordinator", *QUICK)
    assert podman("wait", worker.main) == "137"
