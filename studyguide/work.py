"""The job itself: plan an image's tiles, process one, assemble the results.

A tile meets each of these once, whichever road it takes. Only the hand-over differs: a call, a
thread queue, a Redis list or a Redis stream.
"""

import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from studyguide import images
from studyguide.errors import DAMAGE, ImageError, MessageError, UsageError
from studyguide.record.timeline import Recorder
from studyguide.settings import Blur, Settings
from studyguide.tiles import Pixels, Tile, grid, window

MAX_TILES = 1 << 22  # of one image; a message that asks for more would fill our memory
MAX_SIDE = 1 << 17  # pixels; no image that `images.load` accepts is larger in a message we trust


@dataclass(frozen=True)
class ImageJob:
    """What is to be done with one image, and all that a worker needs to know of it.

    `image` is the name of the input file, `shape` (H, W) or (H, W, C), `source` the sha256 of its
    pixels, `run` names the run. Equal specifications are the same job.
    """

    image: str
    shape: tuple[int, ...]
    source: str
    tile_size: int
    blur: Blur
    run: str = ""

    @classmethod
    def of(
        cls, image: str, pixels: Pixels, tile_size: int, blur: Blur, run: str = ""
    ) -> "ImageJob":
        """Describe the job of blurring these pixels."""
        return cls(image, pixels.shape, images.sha256(pixels), tile_size, blur, run)

    @cached_property
    def key(self) -> str:
        """Short hash of the specification: a restarted coordinator finds its job again."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @cached_property
    def tiles(self) -> list[Tile]:
        """The image's tiles, in order of their index."""
        return grid(self.shape[0], self.shape[1], self.tile_size)

    def window_shape(self, tile: Tile) -> tuple[int, ...]:
        """Shape of a tile with its halo."""
        halo = 2 * self.blur.radius
        return (tile.height + halo, tile.width + halo, *self.shape[2:])

    def core_shape(self, tile: Tile) -> tuple[int, ...]:
        """Shape of a tile without its halo."""
        return (tile.height, tile.width, *self.shape[2:])

    def to_json(self) -> str:
        """Canonical JSON: equal jobs give equal text."""
        return self._json

    @cached_property
    def _json(self) -> str:  # every call of the queue's script sends it
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=64)
def parse_job(text: str | bytes) -> ImageJob:
    """Read a job that came over the wire; equal texts give the same object.

    Raises MessageError if it is damaged or out of range.
    """
    try:
        raw = json.loads(text)
        job = ImageJob(**{**raw, "shape": tuple(raw["shape"]), "blur": Blur(**raw["blur"])})
        _check_job(job)
        return job
    except (*DAMAGE, UsageError) as error:
        raise MessageError(f"Not an image job: {text[:80]!r} ({error})") from error


def _check_job(job: ImageJob) -> None:
    sides = (*job.shape, job.tile_size)
    ok = all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides)
    ok = ok and (len(job.shape) == 2 or (len(job.shape) == 3 and job.shape[2] in (3, 4)))
    texts = (job.image, job.source, job.run)
    if not ok or not all(isinstance(text, str) for text in texts):
        raise ValueError("a field is out of range")
    if -(-job.shape[0] // job.tile_size) * -(-job.shape[1] // job.tile_size) > MAX_TILES:
        raise ValueError(f"more than {MAX_TILES} tiles")
    if Path(job.image).name != job.image or job.image in ("", "..") or "\0" in job.image:
        raise ValueError(f"{job.image!r} is not the name of a file")


@dataclass(frozen=True)
class TileTask:
    """One tile to be blurred: its window is what the worker needs."""

    job: ImageJob
    tile: Tile
    window: Pixels
    attempt: int = 1


@dataclass(frozen=True)
class TileResult:
    """One tile blurred: the pixels of its core."""

    job: ImageJob
    tile: Tile
    pixels: Pixels
    attempt: int = 1


def plan(job: ImageJob, pixels: Pixels, recorder: Recorder) -> Iterator[TileTask]:
    """Cut an image into tasks, one at a time."""
    for tile in job.tiles:
        with recorder.span("split", job.image, tile.index):
            task = TileTask(job, tile, window(pixels, tile, job.blur.radius))
        yield task


def process(task: TileTask, recorder: Recorder) -> TileResult:
    """Blur one tile."""
    from studyguide.blur import blur_window  # numba takes half a second that only workers need

    with recorder.span("blur", task.job.image, task.tile.index, task.attempt):
        return TileResult(
            task.job, task.tile, blur_window(task.window, task.job.blur), task.attempt
        )


def process_whole(job: ImageJob, pixels: Pixels, recorder: Recorder) -> Pixels:
    """Blur one image in one piece."""
    from studyguide.blur import blur_whole

    with recorder.span("blur", job.image):
        return blur_whole(pixels, job.blur)


class Canvas:
    """An image under assembly: results may come in any order and more than once."""

    def __init__(self, job: ImageJob) -> None:
        self.job = job
        self.pixels: Pixels = np.zeros(job.shape, np.uint8)
        self.missing = {tile.index for tile in job.tiles}

    def add(self, result: TileResult, recorder: Recorder) -> bool:
        """Put a tile in its place; say whether the image is complete."""
        with recorder.span("assemble", self.job.image, result.tile.index, result.attempt):
            self.pixels[result.tile.core] = result.pixels
            self.missing.discard(result.tile.index)
        return not self.missing


# --- what every approach does around the tiles ---------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One run of an approach, or one role's part in it.

    `settings.output` is the folder of this approach alone; `recorder` is where its events go.
    """

    settings: Settings
    recorder: Recorder
    id: str = ""

    def paths(self, stop: threading.Event | None = None) -> Iterator[Path]:
        """The images of the run, until `stop`; names that clash are reported as failed."""
        paths, clashes = images.find(self.settings.images)
        for path, error in clashes:
            self.recorder.mark("failed", path.name, error=str(error))
        return takewhile(lambda _: not (stop and stop.is_set()), paths)

    def load(self, path: Path) -> tuple[ImageJob, Pixels]:
        """Load an image and describe its job."""
        with self.recorder.span("load", path.name) as detail:
            notes: list[str] = []
            pixels = images.load(path, notes.append)
            detail["shape"] = pixels.shape
            if notes:
                detail["notes"] = notes
            settings = self.settings
            job = ImageJob.of(path.name, pixels, settings.tile_size, settings.blur, self.id)
            return job, pixels

    def save(self, image: str, pixels: Pixels) -> None:
        """Save an image that is whole as `<output>/<stem>.png`."""
        path = images.output(self.settings.output, image)
        with self.recorder.span("save", image) as detail:
            images.save(path, pixels, images.density(self.settings.images / image))
            detail.update(path=str(path), pixels_sha256=images.sha256(pixels))

    @contextmanager
    def guarded(self, image: str) -> Iterator[None]:
        """Let one image fail without taking the others with it."""
        try:
            yield
        except ImageError as error:
            self.recorder.mark("failed", image, error=str(error))


# --- the wire format of e: a header of JSON, then raw pixels ----------------------------------


def encode(item: TileTask | TileResult) -> bytes:
    """Serialise a task or a result with its pixels.

    Layout: 4 bytes length of the header (big-endian), the header (the job's JSON with tile and
    attempt), then the samples in C order.
    """
    pixels = item.window if isinstance(item, TileTask) else item.pixels
    header: dict[str, Any] = {"tile": item.tile.index, "attempt": item.attempt}
    text = json.dumps({**header, "job": item.job.to_json()}).encode()
    return struct.pack(">I", len(text)) + text + np.ascontiguousarray(pixels).tobytes()


def decode_task(message: bytes) -> TileTask:
    """Read a task back. Raises MessageError if the message is damaged."""
    job, tile, attempt, body = _decode(message)
    return TileTask(job, tile, to_pixels(body, job.window_shape(tile)), attempt)


def decode_result(message: bytes) -> TileResult:
    """Read a result back; raises MessageError as `decode_task` does."""
    job, tile, attempt, body = _decode(message)
    return TileResult(job, tile, to_pixels(body, job.core_shape(tile)), attempt)


def _decode(message: bytes) -> tuple[ImageJob, Tile, int, memoryview]:
    try:
        (length,) = struct.unpack_from(">I", message)
        header = json.loads(message[4 : 4 + length])
        job = parse_job(header["job"])
        return (
            job,
            find_tile(job, header["tile"]),
            int(header["attempt"]),
            memoryview(message)[4 + length :],
        )
    except (*DAMAGE, struct.error) as error:
        raise MessageError(f"Not a tile message: {message[:40]!r} ({error})") from error


def find_tile(job: ImageJob, index: object) -> Tile:
    """The tile of that index. Raises MessageError if the job has no such tile."""
    if not isinstance(index, int) or not 0 <= index < len(job.tiles):
        raise MessageError(f"{job.image} has no tile {index!r}, only 0 to {len(job.tiles) - 1}")
    return job.tiles[index]


def to_pixels(body: bytes | memoryview, shape: tuple[int, ...]) -> Pixels:
    """View raw samples as an array of this shape; MessageError if their number is another."""
    if len(body) != int(np.prod(shape)):
        raise MessageError(
            f"{len(body)} bytes of pixels where shape {shape} wants {np.prod(shape)}"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)
