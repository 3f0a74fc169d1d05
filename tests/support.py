"""What several test modules do: wait for a condition, make images, look for left-overs."""

import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from studyguide.machinery.places import MARK, PARTS
from studyguide.record.timeline import Event, Timeline
from studyguide.settings import Blur
from studyguide.tiles import Pixels
from studyguide.work import ImageJob

# Where a machine keeps its things: nothing of it may be stored with the project.
MACHINE_PATH = re.compile(
    r"(?<![\w.~*-])/(?:home|Users|root|tmp|private|var|usr|opt|mnt|srv|nix)/|\b[A-Z]:\\|site-packages|"
    + re.escape(f"{Path(__file__).resolve().parents[1]}/")
)

T = TypeVar("T")
WAIT_S = 60.0  # a bound for slow machines; the waits end as soon as they can
TILE_SIZE = 32
TILES = {"cloud.png": 4, "grain.png": 12}
SMALL = {"tile_size": TILE_SIZE, "kernel_size": 5, "method": "separable"}


def wait_until(condition: Callable[[], T], within_s: float = WAIT_S) -> T:
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "what the test waits for does not happen"
        time.sleep(0.01)
    return value


def grey() -> Pixels:
    """A soft gradient of 40 x 50 pixels: 4 tiles."""
    return np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8) * 2


def noise() -> Pixels:
    """Noise of 96 x 100 pixels, RGBA: 12 tiles."""
    return np.random.default_rng(7).integers(0, 256, (96, 100, 4), dtype=np.uint8)


def make_images(folder: Path) -> Path:
    """Save the two images of `TILES` in a folder of their own."""
    folder.mkdir(parents=True)
    Image.fromarray(grey()).save(folder / "cloud.png")
    Image.fromarray(noise()).save(folder / "grain.png")
    return folder


def noise_job(kernel_size: int = 5, run: str = "") -> ImageJob:
    """What approaches make of grain.png."""
    return ImageJob.of("grain.png", noise(), TILE_SIZE, Blur.of(kernel_size), run)


def processes_with(marker: str) -> list[str]:
    """Others whose command, environment or working folder holds `marker`, zombies left out."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with suppress(OSError):  # it may end while we look
            command = (process / "cmdline").read_bytes()
            seen = command + (process / "environ").read_bytes()
            if marker in f"{seen.decode(errors='replace')} {(process / 'cwd').readlink()}":
                found.append(f"{process.name} {command.replace(bytes(1), b' ').decode()}")
    return found


def free_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def temporary_files(folder: Path) -> list[Path]:
    """Half-written files below a folder."""
    return sorted(folder.rglob("*.tmp"))


@contextmanager
def folder_of_mode(mode: int) -> Iterator[Path]:
    """A folder with the image a.png and these permissions, for a user who is not root."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        Image.fromarray(grey()).save(folder / "a.png")
        Path(name).chmod(0o777)
        folder.chmod(mode)
        if user == 0:
            os.seteuid(65534)  # the superuser may read everything
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o700)


def lane_events(*spans: str, cpu: float = 1.0) -> Timeline:
    """A timeline from lines such as "load main 0 1 a.png": stage, lane, start, end, image, tile.

    `cpu` is the CPU seconds of each wall second.
    """
    events = []
    for span in spans:
        stage, lane, start, end, *what = span.split()
        image, tile = [*what, "", "-1"][0], int([*what, "-1", "-1"][1])
        spent = {"cpu_s": cpu * (float(end) - float(start))}
        events.append(Event(stage, float(start), float(end), "main", lane, image, tile, 1, spent))
    return Timeline(events)


def failing(function: Callable[..., Any], nth: int, error: BaseException) -> Callable[..., Any]:
    """The same function, which fails at its nth call on whatever thread."""
    calls, lock = 0, threading.Lock()

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            fails = calls == nth
        if fails:
            raise error
        return function(*args, **kwargs)

    return stand_in


def make_course(folder: Path) -> None:
    """Make a folder the course, without lessons: it has the mark and all parts."""
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
