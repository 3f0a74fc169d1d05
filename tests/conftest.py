"""What all tests share."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings
from kubectl_stub import stub_kubectl
from pods import require
from small_cluster import SmallCluster
from support import SMALL, make_images, processes_with, wait_until
from xdist.scheduler import LoadScopeScheduling

from studyguide.kubernetes import KubernetesCluster, watcher
from studyguide.machinery.link import Link
from studyguide.machinery.redis_server import RedisServer
from studyguide.machinery.warm import Template
from studyguide.plan import Plan
from studyguide.record.timeline import Recorder
from studyguide.settings import from_options

# What starts in the background of a shell ignores SIGINT, and so would the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)

# `pytest -n 2`: lessons and what else needs the machine run one after the other in one of the two,
# the rest beside it.
CROWDED = {"test_browser", "test_cli", "test_lesson", "test_lesson_live"}
# What else takes long comes first, so that both processes end at about the same time.
LONG = ("test_containers", "test_kubernetes", "test_lesson_cluster", "test_chaos", "test_package")


def scope_of(path: Path) -> str:
    """What must not run beside itself; files share fixtures that are costly."""
    return "crowded" if path.stem in CROWDED or path.suffix == ".ipynb" else path.stem


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the crowded tests before all others, then the long ones."""
    order = {scope: place for place, scope in enumerate(("crowded", *LONG))}
    items.sort(key=lambda item: order.get(scope_of(item.path), len(order)))


class Schedule(LoadScopeScheduling):
    """Gives each process the next scope in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(Path(nodeid.partition("::")[0]))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Schedule:
    """Called by pytest-xdist."""
    config.option.loadscopereorder = False
    return Schedule(config, log)


# An example's first call may compile a kernel, so no example has a deadline.
settings.register_profile("studyguide", settings(), deadline=None)
settings.register_profile("verify", settings(), deadline=None, max_examples=1000)
settings.load_profile("studyguide")


@pytest.fixture(autouse=True, scope="session")
def _no_redis_of_the_user() -> Iterator[None]:
    """Runs start a server of their own, whatever the environment of the tests says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REDIS_URL", raising=False)
        yield


@pytest.fixture(scope="session")
def compiled() -> None:
    """Have the kernels in numba's cache, so that no process of a test compiles them again."""
    from studyguide.blur import warm_up

    warm_up()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One real server for all tests that leave it running."""
    with RedisServer.start(tmp_path_factory.mktemp("redis"), persistent=False) as server:
        yield server


@pytest.fixture
def client(shared_server: RedisServer) -> Iterator[redis.Redis]:
    """Our own look into the shared server, which is empty at first."""
    with redis.Redis.from_url(shared_server.url, decode_responses=True, protocol=2) as client:
        client.flushall()
        yield client


@pytest.fixture
def connect() -> Iterator[Callable[..., Link]]:
    """Make links that are closed when the test has ended."""
    links: list[Link] = []

    def make(*args: object, **options: object) -> Link:
        links.append(Link(*args, **options))
        return links[-1]

    yield make
    for link in links:
        link(redis.Redis.close)


@pytest.fixture(scope="session")
def two_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cloud.png and grain.png; nobody writes to it."""
    return make_images(tmp_path_factory.mktemp("two") / "images")


@pytest.fixture
def cluster(
    tmp_path: Path,
    shared_server: RedisServer,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SmallCluster]:
    """Kubectl's current context is a small cluster, which is empty and which we look at often."""
    require("kubectl")
    Template.current()  # from which pods are forked, before our folder is in the environment
    real_kubectl = shutil.which("kubectl")
    assert real_kubectl
    monkeypatch.setattr(watcher, "POLL_S", 0.1)
    with (
        SmallCluster(tmp_path / "cluster", shared_server.url, real_kubectl) as cluster,
        stub_kubectl(cluster, tmp_path, monkeypatch),
    ):
        yield cluster
    wait_until(lambda: not processes_with(str(tmp_path)))  # a `sleep` of a script ends by itself


@pytest.fixture
def pods(tmp_path: Path, cluster: SmallCluster) -> KubernetesCluster:
    """Approach e on the small cluster, of which nothing is deployed yet."""
    options = {"workers": 2, "visibility_s": 0.5, "backoff_s": 0.01, "quiet_s": 0.5, **SMALL}
    places = {"images": tmp_path, "output": tmp_path / "e_distributed_queue"}
    plan = Plan("e", from_options({**options, **places}), tmp_path, "1")
    return KubernetesCluster(plan, Recorder(lambda event: None))
