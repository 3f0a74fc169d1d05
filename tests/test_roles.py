"""The entry of every process and pod of d to g."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from support import SMALL, failing, free_port, temporary_files

from studyguide import roles, service
from studyguide.checkpoint import FileStore
from studyguide.errors import QueueError
from studyguide.machinery.redis_server import RedisServer
from studyguide.plan import Role
from studyguide.record.timeline import Recorder
from studyguide.settings import from_options
from studyguide.streams import StreamQueue
from studyguide.work import Run

TO_A_THREAD = """
import signal, threading, time
from studyguide.roles import _set_on_signals

stop = threading.Event()
_set_on_signals(stop)

def be_hit():
    time.sleep(0.2)  # the main thread sleeps by now
    signal.pthread_kill(threading.get_ident(), signal.{name})
    time.sleep({rest})

threading.Thread(target=be_hit, daemon=True).start()
stop.wait()
print("stopped")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_is_heard_whichever_thread_the_kernel_gives_it_to(name: str) -> None:
    program = TO_A_THREAD.format(name=name, rest=60)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("stopped\n", "")


# liveness


def a_role(folder: Path, port: int, **options: Any) -> Role:
    settings = from_options({"images": folder, "output": folder / "out", **options})
    return Role("worker-0", "worker", "f", settings, folder, f"redis://127.0.0.1:{port}/0")


def test_a_process_that_waits_for_redis_shows_life_all_the_time(tmp_path: Path) -> None:
    role = a_role(tmp_path, free_port(), patience_s=1.0)
    link, seen = roles._link(role, threading.Event()), set[int]()

    def ask(client: Any) -> None:
        if role.alive.exists():
            seen.add(role.alive.stat().st_mtime_ns)
        client.ping()

    with pytest.raises(QueueError, match="did not answer for 1 s"):
        link(ask)
    assert len(seen) >= 2


@pytest.mark.parametrize(("visibility_s", "alive_s"), [(3.0, 60.0), (300.0, 300.0)])
def test_a_heart_may_be_silent_for_a_whole_visibility_timeout(
    visibility_s: float, alive_s: float, tmp_path: Path
) -> None:
    """It touches its file three times in each."""
    port = free_port()
    role = replace(a_role(tmp_path, port, visibility_s=visibility_s), metrics=str(port))
    roles._show_life(role)
    roles._serve_metrics(role)
    codes = []
    for age_s in (alive_s - 20, alive_s + 20):
        then = time.time() - age_s
        os.utime(role.alive, (then, then))
        try:
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
                codes.append(answer.status)
        except HTTPError as error:
            codes.append(error.code)
    assert codes == [200, 503]


# the threads of g


STAGES = [
    (FileStore, "put_image"),
    (StreamQueue, "enqueue"),
    (StreamQueue, "read"),
    (StreamQueue, "promote"),
    (StreamQueue, "beat"),
    (service.StreamAssembler, "_finish"),
    (StreamQueue, "finish"),
]


@pytest.mark.usefixtures("compiled", "client")
@pytest.mark.parametrize(("home", "name"), STAGES, ids=[name for _, name in STAGES])
@pytest.mark.parametrize("seed", range(4))
def test_an_error_in_any_thread_of_g_ends_the_service_with_that_error(
    home: Any,
    name: str,
    seed: int,
    two_images: Path,
    tmp_path: Path,
    shared_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = Random(seed)
    monkeypatch.setattr(
        home, name, failing(getattr(home, name), rng.randint(1, 2), RuntimeError("planted"))
    )
    places = {"images": two_images, "output": tmp_path / "out"}
    options = {"workers": rng.randint(1, 4), "queue_size": rng.randint(1, 4), "visibility_s": 0.3}
    settings = from_options({**SMALL, **options, **places})
    role = Role("all-0", "all", "g", settings, tmp_path / "run", shared_server.url)
    before, interval = set(threading.enumerate()), sys.getswitchinterval()
    sys.setswitchinterval(10 ** rng.uniform(-6, -2))
    try:
        with pytest.raises(RuntimeError, match="planted"):
            roles._serve_stream(role, Run(settings, Recorder(lambda _: None)), threading.Event())
    finally:
        sys.setswitchinterval(interval)
    assert set(threading.enumerate()) == before
    assert temporary_files(tmp_path) == []
