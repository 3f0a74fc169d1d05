"""How time grows with the work, and how far each stage is from the machine's limit.

    python -m benchmarks.growth [--quick]     (`make bench`)

Needs nobody else's tools. Times are CPU times but for that of the threads: what else runs on the
machine hardly moves them.
"""

import io
import math
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import redis
from numba import njit, uint32, uintp
from PIL import Image

import studyguide
from benchmarks.harness import INPUT, main, sample_images, table
from benchmarks.queues import NOBODY, BenchWorker
from studyguide import images, service
from studyguide.blur import gaussian_blur, warm_up
from studyguide.checkpoint import RedisStore
from studyguide.machinery.link import Link
from studyguide.machinery.redis_server import RedisServer
from studyguide.service import Leases
from studyguide.settings import Blur, from_options
from studyguide.streams import StreamQueue
from studyguide.threads import Crew
from studyguide.work import ImageJob, Run

CORES = os.cpu_count() or 1
TILES = (10, 100, 1000, 10_000, 100_000, 1_000_000)
Curve = list[tuple[float, float]]  # (size, seconds)


def best(
    body: Callable[[], object], times: int = 3, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Least seconds of several tries: what the work takes when nothing else runs."""
    seconds = []
    for _ in range(times):
        start = clock()
        body()
        seconds.append(clock() - start)
    return min(seconds)


def exponent(curve: Iterable[tuple[float, float]]) -> float:
    """The p of seconds = c size^p, by least squares on logarithms."""
    sizes, seconds = zip(*curve, strict=True)
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


# --- what grows ----------------------------------------------------------------------------------


def by_pixels(quick: bool) -> Curve:
    """RGBA images of so many megapixels, one thread."""
    sizes = (1, 4, 16) if quick else (1, 4, 16, 64, 144, 400)
    seconds: dict[int, list[float]] = {megapixels: [] for megapixels in sizes}
    for _ in range(3):  # alternately, so that a busy moment does not hit one size alone
        for megapixels in sizes:
            side = math.isqrt(megapixels * 1_000_000)
            image = np.random.default_rng(0).integers(0, 256, (side, side, 4), np.uint8)
            blur = lambda image=image: gaussian_blur(image, 21)  # noqa: E731
            seconds[megapixels].append(best(blur, 2, time.thread_time))
    return [(megapixels, min(times)) for megapixels, times in seconds.items()]


def by_kernel_size(quick: bool) -> dict[str, Curve]:
    """One image of 512 x 512 RGBA, one thread."""
    image = np.ascontiguousarray(sample_images()[0][:512, :512])
    sizes = (3, 9, 21) if quick else (3, 5, 9, 15, 21, 31, 41, 61, 81, 101)
    curves: dict[str, Curve] = {}
    for method in ("direct", "separable-float32", "separable"):
        curves[method] = []
        for k in sizes:
            blur = lambda k=k, method=method: gaussian_blur(image, k, None, method)  # noqa: E731
            blur()  # compiles
            curves[method].append((k, best(blur, 3, time.thread_time)))
    return curves


def by_workers(quick: bool) -> Curve:
    """The sample images, threads 1 to 32."""
    files, counts = sample_images(), (1, 2, 8) if quick else (1, 2, 4, 8, 16, 32)

    def blur(workers: int) -> None:
        for image in files:
            gaussian_blur(image, 21, workers=workers)

    for workers in counts:
        blur(workers)
    return [(n, best(lambda n=n: blur(n), 7)) for n in counts]


def by_images(quick: bool) -> Curve:
    """So many copies of the sample images through c."""
    curve = []
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "in"
        source.mkdir()
        copies = 0
        for count in (1, 2) if quick else (1, 2, 4, 8):
            for copy in range(copies, count):
                for path in sorted(INPUT.glob("*.png")):
                    shutil.copy(path, source / f"{copy}-{path.name}")
            copies = count
            run = lambda: studyguide.run(  # noqa: E731
                "c", images=source, output=Path(name) / "out", method="separable", workers=CORES
            )
            curve.append((5 * count, best(run, 3, time.process_time)))
    return curve


def by_tiles(quick: bool) -> list[dict[str, float]]:
    """No-op tiles through f's queue: one coordinator, one worker, one process."""
    found = []
    for tiles in TILES[:3] if quick else TILES:
        with (
            tempfile.TemporaryDirectory() as folder,
            RedisServer.start(Path(folder), persistent=False) as server,
        ):
            found.append(drain(server.url, tiles))
    return found


def drain(url: str, tiles: int) -> dict[str, float]:
    stop, run, link = threading.Event(), Run(from_options({}), NOBODY), Link(url)
    queue, client = StreamQueue(link), redis.Redis.from_url(url)
    sides = (tiles // 10, 10)
    job = ImageJob("tiny.png", sides, "0", 1, Blur.of(1), str(tiles))
    worker = BenchWorker(run, StreamQueue(Link(url)), RedisStore(link), Leases("worker", 60))
    before, peaks = client.info("memory")["used_memory"], [0]
    with Crew(stop) as crew:
        crew.start("worker", worker.work, stop)
        start = cpu_s(client)
        crew.start("coordinator", service._enqueue, run, queue, job, job.tiles, stop)
        while not (ready := StreamQueue(link).read_ready("bench")):
            peaks.append(client.xlen("{sg}:tasks"))
        seconds = cpu_s(client) - start
        stop.set()
    state = client.info("memory")["used_memory_peak"] - before
    audit_s = best(lambda: queue.audit(job), 1)
    queue.finish(ready[0], "saved")
    return {
        "tiles": tiles,
        "seconds": seconds,
        "backlog": max(peaks),
        "bytes": state,
        "audit_s": audit_s,
    }


def cpu_s(client: redis.Redis) -> float:
    """CPU seconds of this process and of the server so far."""
    server = client.info("cpu")
    return time.process_time() + server["used_cpu_sys"] + server["used_cpu_user"]


# --- the machine's limits ------------------------------------------------------------------------


WEIGHTS = np.array([30011, 20011, 10007, 5003], np.uint32)  # constants, as in the blur


@njit(nogil=True)
def _multiply_add(line: Any, rounds: int) -> None:
    """16 products of 16 bits for each sample, as the blur takes them, with no load in between."""
    for _ in range(rounds):
        for i in range(uintp(line.size)):
            x = line[i]
            for t in range(16):
                product = uint32(x) * WEIGHTS[t % 4]
                x = np.uint16(x + np.uint16(product >> uint32(16)))
            line[i] = x


def limits() -> dict[str, float]:
    """Copy bandwidth in bytes a second, products a second; one thread."""
    source = np.ones(1 << 28, np.uint8)
    target = np.zeros_like(source)
    line = np.ones(2048, np.uint16)
    _multiply_add(line, 1)
    rounds = 20_000
    return {
        "copy": source.size / best(lambda: np.copyto(target, source), 7, time.thread_time),
        "products": 16
        * line.size
        * rounds
        / best(lambda: _multiply_add(line, rounds), 5, time.thread_time),
    }


def stages() -> dict[str, dict[str, float]]:
    """Seconds of each stage on the sample images, one thread, and the bytes that it must move."""
    paths = sorted(INPUT.glob("*.png"))
    pixels = [images.load(path) for path in paths]
    samples = sum(image.size for image in pixels)
    blurred = [gaussian_blur(image) for image in pixels]
    doings: dict[str, Callable[[], object]] = {
        "decode": lambda: [images.load(path) for path in paths],
        "digest": lambda: [images.sha256(image) for image in pixels],
        "blur": lambda: [gaussian_blur(image) for image in pixels],
        "encode": lambda: [images.encode_png(image) for image in blurred],
    }
    return {
        name: {"seconds": best(do, 5, time.thread_time), "samples": samples}
        for name, do in doings.items()
    }


def encoder() -> dict[str, float]:
    """Our encoder's time in percent of Pillow's by default, and its size over Pillow's."""
    blurred = [gaussian_blur(images.load(path)) for path in sorted(INPUT.glob("*.png"))]

    def pillow() -> int:
        files = [io.BytesIO() for _ in blurred]
        for pixels, file in zip(blurred, files, strict=True):
            Image.fromarray(pixels).save(file, "PNG")
        return sum(file.tell() for file in files)

    def mine() -> int:
        return sum(len(images.encode_png(pixels)) for pixels in blurred)

    base, ours = (best(do, 3, time.thread_time) for do in (pillow, mine))
    return {"percent": 100 * ours / base, "size": mine() / pillow()}


def cold_start() -> dict[str, float]:
    """Seconds to the first blur of a new process: compiling, and from numba's cache.

    numba loads scipy.linalg where there is one. The library needs no scipy: it is hidden, but from
    the last runs.
    """
    import subprocess
    import sys

    hide = "import sys; sys.modules['scipy'] = None;"
    code = (
        "import time, numpy as np; from studyguide.blur import gaussian_blur as g;"
        "import numba; s = time.process_time(); g(np.zeros((64, 64, 4), np.uint8));"
        "print(time.process_time() - s)"
    )
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "NUMBA_CACHE_DIR": cache}

        def seconds(program: str) -> float:
            done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True)
            return float(done.stdout)

        return {
            "compile": seconds(hide + code),
            "cached": statistics.median(seconds(hide + code) for _ in range(3)),
            "cached, with scipy": statistics.median(seconds(code) for _ in range(3)),
        }


def measure(quick: bool) -> dict[str, Any]:
    warm_up()
    return {
        "cores": CORES,
        "pixels": by_pixels(quick),
        "kernel": by_kernel_size(quick),
        "workers": by_workers(quick),
        "images": by_images(quick),
        "tiles": by_tiles(quick),
        "limits": limits(),
        "stages": stages(),
        "encoder": encoder(),
        "cold_start": cold_start(),
    }


def crossing(curves: dict[str, Curve]) -> int:
    """The least kernel for which `separable` is faster than `direct` from there on."""
    slower = [
        k
        for (k, direct), (_, separable) in zip(curves["direct"], curves["separable"], strict=True)
        if direct <= separable
    ]
    return next((int(k) for k, _ in curves["direct"] if k > max(slower, default=0)), 0)


def report(data: dict[str, Any]) -> str:
    def rows(curve: Curve) -> list[tuple[str, str, str]]:
        return [(f"{n:g}", f"{1000 * s:.1f}", f"{1e6 * s / n:.1f}") for n, s in curve]

    kernel, products = data["kernel"], 22  # 11 pairs of taps, twice
    large = {name: [point for point in curve if point[0] >= 9] for name, curve in kernel.items()}
    by_size = [
        (f"{k:g}", *(f"{1000 * curve[n][1]:.2f}" for curve in kernel.values()))
        for n, (k, _) in enumerate(kernel["direct"])
    ]
    tiles = [
        (
            f"{each['tiles']:,}",
            f"{each['seconds']:.3f}",
            f"{1e6 * each['seconds'] / each['tiles']:.0f}",
            int(each["backlog"]),
            f"{each['bytes'] / 1e6:.1f}",
            f"{1000 * each['audit_s']:.1f}",
        )
        for each in data["tiles"]
    ]
    many = [(each["tiles"], each["seconds"]) for each in data["tiles"] if each["tiles"] >= 100]
    copy, rate = data["limits"]["copy"], data["limits"]["products"]
    bounds = {
        name: max(
            2 * each["samples"] / copy, products * each["samples"] / rate if name == "blur" else 0
        )
        for name, each in data["stages"].items()
    }
    roof = [
        (
            name,
            f"{1000 * each['seconds']:.1f}",
            f"{1000 * bounds[name]:.1f}",
            f"{each['seconds'] / bounds[name]:.1f}",
        )
        for name, each in data["stages"].items()
    ]
    cold = data["cold_start"]
    return f"""## How it grows

Each fit is the p of time = c size^p. Times are CPU times but for that of the threads; for the tiles
they include the Redis server's.

**Pixels** (RGBA, kernel 21, one thread): p = {exponent(data["pixels"]):.2f}.

{table(("MP", "ms", "µs / MP"), rows(data["pixels"]))}

**Kernel size** (512 x 512 RGBA, one thread, kernels from 9 on): direct p =
{exponent(large["direct"]):.2f}, float32 p = {exponent(large["separable-float32"]):.2f}, fixed point
p = {exponent(large["separable"]):.2f}. From kernel {crossing(kernel)} on the fixed point is the
faster one.

{table(("kernel", "direct, ms", "float32, ms", "fixed point, ms"), by_size)}

**Workers** (threads on {data["cores"]} cores, the sample images):

{table(("threads", "ms", "µs / thread"), rows(data["workers"]))}

**Images** (copies of the sample images through c): p = {exponent(data["images"]):.2f}.

{table(("images", "ms", "µs / image"), rows(data["images"]))}

**Tiles** (no-ops through f's queue, coordinator and worker in one process, at most 100 waiting):
p = {exponent(many):.2f} from 100 tiles on. The stream is bounded by back-pressure; what grows in
Redis is the checkpoint, three small entries a tile. An audit looks at every tile, but only when
nothing is in flight.

{table(("tiles", "s", "µs / tile", "most waiting", "Redis, MB", "an audit, ms"), tiles)}

## The limit

One thread copies {copy / 1e9:.1f} GB/s and takes {rate / 1e9:.1f} thousand million 16-bit products
a second, both measured here. A stage must read its pixels and write as many; the blur takes
{products} products a sample besides. One thread, sample images:

{table(("stage", "ms", "bound, ms", "times the bound"), roof)}

Decoding, digests and encoding are bound by chains of dependent steps, not by memory. Our encoder
takes {data["encoder"]["percent"]:.1f} % of the time of Pillow's default and writes
{data["encoder"]["size"]:.2f} times as many bytes.

A kernel takes {cold["compile"]:.2f} s to compile, once, and {cold["cached"]:.2f} s to load
from numba's cache in another process; {cold["cached, with scipy"]:.2f} s where scipy is
installed, of which numba then loads a part. The library does not need it.
"""


if __name__ == "__main__":
    main("growth", measure, report)
