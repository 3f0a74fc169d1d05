"""The entry of every process and pod of d to g."""

import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support import SMALL, failing, temporary_files

from studyguide import roles, service
from studyguide.checkpoint import FileStore
from studyguide.queues import StreamQueue
from studyguide.redis_server import RedisServer
from studyguide.roles import Role
from studyguide.settings import from_options
from studyguide.timeline import Recorder
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
