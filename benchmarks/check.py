"""Has anything become slower? Ratios of this machine against the stored ones, in under a minute.

    python -m benchmarks.check [--store]     (CI)

Times differ from machine to machine; how many times as fast as something else on the same machine
a thing is differs less. What is below half of its stored ratio in the best of several tries fails.
"""

import io
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import redis
from PIL import Image, ImageFilter
from scipy import ndimage

from benchmarks.growth import best
from benchmarks.harness import RESULTS, sample_images
from benchmarks.queues import NOBODY, BenchWorker, job_of
from studyguide import images
from studyguide.blur import gaussian_blur, warm_up
from studyguide.checkpoint import RedisStore
from studyguide.machinery.link import Link
from studyguide.machinery.redis_server import RedisServer
from studyguide.service import ENQUEUE_BATCH, Leases
from studyguide.settings import from_options
from studyguide.streams import StreamQueue
from studyguide.work import Run

FILE = RESULTS / "check.json"
LEAST = 0.5  # of a stored ratio: noise of a shared machine stays above it
TRIES = 4
Doing = Callable[[], object]


def pixels() -> dict[str, tuple[Doing, Doing]]:
    """What we compare with, and ours."""
    image = np.ascontiguousarray(sample_images()[0][:768, :768])
    wide, picture = image.astype(np.float32), Image.fromarray(image)
    small = np.ascontiguousarray(image[:256, :256])

    def scipy() -> None:
        for axis in (0, 1):
            ndimage.gaussian_filter1d(wide, 7.0, axis, mode="nearest")

    return {
        "fixed point / scipy": (scipy, lambda: gaussian_blur(image)),
        "fixed point / Pillow": (
            lambda: picture.filter(ImageFilter.GaussianBlur(7)),
            lambda: gaussian_blur(image),
        ),
        "fixed point / float32": (
            lambda: gaussian_blur(image, method="separable-float32"),
            lambda: gaussian_blur(image),
        ),
        "direct / scipy": (
            lambda: ndimage.convolve(small.astype(np.float32), np.ones((21, 21, 1)) / 441),
            lambda: gaussian_blur(small, method="direct"),
        ),
        "encoder / Pillow": (
            lambda: picture.save(io.BytesIO(), "PNG"),
            lambda: images.encode_png(image),
        ),
    }


def queue_ratio(url: str, tiles: int = 1000) -> float:
    """Round trips to Redis in the time that f's queue takes for a tile, upside down."""
    client, stop, queue = redis.Redis.from_url(url), threading.Event(), StreamQueue(Link(url))
    run = Run(from_options({}), NOBODY)
    worker = BenchWorker(run, StreamQueue(Link(url)), RedisStore(Link(url)), Leases("w", 60))
    job = job_of("no-op", tiles)
    pings = best(lambda: [client.ping() for _ in range(tiles)], 1)
    start = time.perf_counter()
    for at in range(0, tiles, ENQUEUE_BATCH):
        queue.enqueue(job, job.tiles[at : at + ENQUEUE_BATCH])
    thread = threading.Thread(target=worker.work, args=(stop,))
    thread.start()
    while not (ready := queue.read_ready("bench")):
        pass
    seconds = time.perf_counter() - start
    stop.set()
    thread.join()
    queue.finish(ready[0], "saved")
    return pings / seconds


def measure() -> dict[str, float]:
    ratios = {}
    for name, doings in pixels().items():  # all on this thread: its CPU time knows no neighbours
        base, mine = (best(do, 3, time.thread_time) for do in doings)
        ratios[name] = base / mine
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer.start(Path(folder), persistent=False) as server,
    ):
        ratios["f's queue / PING"] = max(queue_ratio(server.url) for _ in range(3))
    return ratios


def slower(found: dict[str, float], stored: dict[str, float]) -> list[str]:
    return [name for name, ratio in stored.items() if found[name] < LEAST * ratio]


def main() -> int:
    warm_up()
    found = measure()
    if "--store" in sys.argv:
        FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    stored = json.loads(FILE.read_text())
    for _ in range(TRIES - 1):
        if slower(found, stored):
            found = {name: max(ratio, found[name]) for name, ratio in measure().items()}
    for name, ratio in found.items():
        print(f"{name:24} {ratio:7.2f}  stored {stored[name]:7.2f}")
    for name in slower(found, stored):
        print(f"{name} is slower than half of what is stored in {FILE.name}")
    return 1 if slower(found, stored) else 0


if __name__ == "__main__":
    sys.exit(main())
