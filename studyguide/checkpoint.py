"""Where f and g keep pixels: durable, content-addressed and safe to write twice.

A result's reference is the sha256 of its pixels (64 hex digits), so a damaged one is noticed and a
second one of the same tile is equal to the first. `FileStore` keeps pixels in a folder that all
roles share; `RedisStore` is for roles that share no folder and keeps the pixels in Redis.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from studyguide.errors import ImageError, MessageError, explained
from studyguide.machinery import files
from studyguide.machinery.link import Link
from studyguide.tiles import Pixels, Tile, window
from studyguide.work import ImageJob, to_pixels


class Store(ABC):
    """Images on their way to the workers, and results on their way back."""

    @abstractmethod
    def put_image(self, job: ImageJob, pixels: Pixels) -> None:
        """Keep an image where workers find its windows; ImageError if there is no room."""

    @abstractmethod
    def holds(self, job: ImageJob) -> bool:
        """Whether the image is there, as far as a glance can tell."""

    @abstractmethod
    def window(self, job: ImageJob, tile: Tile) -> Pixels:
        """A tile with its halo, uint8, shape `job.window_shape(tile)`; MessageError if absent."""

    @abstractmethod
    def _write(self, job: ImageJob, name: str, body: bytes) -> None:
        """Keep the samples of a result under this name."""

    @abstractmethod
    def _read(self, job: ImageJob, name: str) -> bytes | None:
        """What was kept under this name, if anything."""

    def put_result(self, job: ImageJob, tile: Tile, pixels: Pixels) -> bytes:
        """Keep a tile's pixels durably under their digest; return the reference to commit."""
        body = pixels.tobytes()
        digest = hashlib.sha256(body).hexdigest()
        self._write(job, f"{tile.index}-{digest}", body)
        return digest.encode()

    def result(self, job: ImageJob, tile: Tile, reference: bytes) -> Pixels:
        """A tile's pixels, uint8, shape `job.core_shape(tile)`; MessageError if damaged."""
        digest, which = reference.decode("ascii", "replace"), f"tile {tile.index} of {job.image}"
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise MessageError(f"{digest[:20]!r} is no sha256")
        body = self._read(job, f"{tile.index}-{digest}")
        if body is None:
            raise MessageError(f"The result of {which} is gone")
        if hashlib.sha256(body).hexdigest() != digest:
            raise MessageError(f"The pixels of {which} are not those of its digest")
        return to_pixels(body, job.core_shape(tile))


class FileStore(Store):
    """Pixels in files; a name is made of hashes and numbers, never of what a message says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = lru_cache(maxsize=8)(self._open_image)

    def put_image(self, job: ImageJob, pixels: Pixels) -> None:
        """Write the image once, as an array that workers map instead of decoding."""
        problem = f"The pixels of {job.image} cannot be kept in {self.folder}"
        with explained(ImageError, problem, "Free some space, or set TMPDIR to another folder"):
            if not self.holds(job):
                with files.atomic(self._image_path(job)) as file:
                    np.save(file, pixels)

    def holds(self, job: ImageJob) -> bool:
        """Whether its file is there."""
        return self._image_path(job).exists()

    def window(self, job: ImageJob, tile: Tile) -> Pixels:
        """Copy a window out of the mapped image."""
        return window(self._open(job), tile, job.blur.radius)

    def _write(self, job: ImageJob, name: str, body: bytes) -> None:
        with files.atomic(self._result_path(job, name)) as file:
            file.write(body)

    def _read(self, job: ImageJob, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self._result_path(job, name).read_bytes()
        return None

    def _image_path(self, job: ImageJob) -> Path:
        return self.folder / f"{job.key}.npy"

    def _result_path(self, job: ImageJob, name: str) -> Path:
        return self.folder / f"{job.key}-{name}.raw"

    def _open_image(self, job: ImageJob) -> Pixels:
        problem = f"The pixels of {job.image} are not in {self.folder}"
        try:
            image: Pixels = np.load(self._image_path(job), mmap_mode="r")
            if image.shape != job.shape or image.dtype != np.uint8:
                problem = f"The pixels of {job.image} have shape {image.shape}, not {job.shape}"
                raise ValueError
        except Exception as error:  # numpy reads a header as Python, and a damaged one raises much
            self._image_path(job).unlink(missing_ok=True)  # so that the coordinator writes it again
            raise MessageError(problem) from error
        return image


@dataclass
class RedisStore(Store):
    """Pixels in Redis: `src:<job>` holds the windows, `out:<job>` the results."""

    link: Link
    prefix: str = "{sg}:"

    def put_image(self, job: ImageJob, pixels: Pixels) -> None:
        """Store all windows of an image."""
        for tile in job.tiles:
            body = window(pixels, tile, job.blur.radius).tobytes()
            self._write(job, str(tile.index), body, "src")

    def holds(self, job: ImageJob) -> bool:
        """Whether all of its windows are there: Redis may have lost the last ones only."""
        key = f"{self.prefix}src:{job.key}"
        return bool(self.link(lambda client: client.hlen(key)) == len(job.tiles))

    def window(self, job: ImageJob, tile: Tile) -> Pixels:
        """Fetch one window."""
        body = self._read(job, str(tile.index), "src")
        if body is None:
            raise MessageError(f"The window of tile {tile.index} of {job.image} is not in Redis")
        return to_pixels(body, job.window_shape(tile))

    def _write(self, job: ImageJob, name: str, body: bytes, kind: str = "out") -> None:
        self.link(lambda client: client.hset(f"{self.prefix}{kind}:{job.key}", name, body))

    def _read(self, job: ImageJob, name: str, kind: str = "out") -> bytes | None:
        key = f"{self.prefix}{kind}:{job.key}"
        found: bytes | None = self.link(lambda client: client.hget(key, name))
        return found
