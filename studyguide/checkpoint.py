"""Where f and g keep pixels: durable, content-addressed and safe to write twice.

A result's reference is the sha256 of its pixels (64 hex digits), so a damaged one is noticed and a
second one of the same tile is equal to the first. `FileStore` keeps pixels in a folder that all
roles share; `RedisStore` is for roles that share no folder and keeps the pixels in Redis.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from studyguide import images, work
from studyguide.errors import ImageError, MessageError
from studyguide.queues import Link
from studyguide.tiles import Pixels, Tile, window
from studyguide.work import ImageJob

DIGEST = 64  # hex digits of a sha256


class Store(Protocol):
    """What roles need of a store."""

    def put_image(self, job: ImageJob, pixels: Pixels) -> None:
        """Keep an image where workers find its windows; ImageError if there is no room."""

    def holds(self, job: ImageJob) -> bool:
        """Whether the image is there, as far as can be told at a glance."""

    def window(self, job: ImageJob, tile: Tile) -> Pixels:
        """A tile with its halo, uint8, shape `job.window_shape(tile)`; MessageError if absent."""

    def put_result(self, job: ImageJob, tile: Tile, pixels: Pixels) -> bytes:
        """Keep a tile's pixels durably; return the reference to commit."""

    def result(self, job: ImageJob, tile: Tile, reference: bytes) -> Pixels:
        """A tile's pixels, uint8, shape `job.core_shape(tile)`; MessageError if damaged."""


class FileStore:
    """Pixels in files; a name is made of hashes and numbers, never of what a message says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = lru_cache(maxsize=8)(self._open_image)

    def put_image(self, job: ImageJob, pixels: Pixels) -> None:
        """Write the image once, as an array that workers map instead of decoding."""
        path = self._image_path(job)
        try:
            if not path.exists():
                with images.atomic(path) as file:
                    np.save(file, pixels)
        except OSError as error:
            problem = f"The pixels of {job.image} cannot be kept in {self.folder} ({error})"
            raise ImageError(problem, "Free some space, or set TMPDIR to another folder") from error

    def holds(self, job: ImageJob) -> bool:
        """Whether its file is there."""
        return self._image_path(job).exists()

    def window(self, job: ImageJob, tile: Tile) -> Pixels:
        """Copy a window out of the mapped image."""
        return window(self._open(job), tile, job.blur.radius)

    def put_result(self, job: ImageJob, tile: Tile, pixels: Pixels) -> bytes:
        """Write the pixels under their digest."""
        digest = images.sha256(pixels)
        with images.atomic(self._result_path(job, tile, digest)) as file:
            file.write(np.ascontiguousarray(pixels).data)
        return digest.encode()

    def result(self, job: ImageJob, tile: Tile, reference: bytes) -> Pixels:
        """Read the pixels back."""
        digest = _checked_digest(reference)
        try:
            body = self._result_path(job, tile, digest).read_bytes()
        except FileNotFoundError as error:
            raise MessageError(f"The result of tile {tile.index} of {job.image} is gone") from error
        return _checked_pixels(job, tile, digest, body)

    def _image_path(self, job: ImageJob) -> Path:
        return self.folder / f"{job.key}.npy"

    def _result_path(self, job: ImageJob, tile: Tile, digest: str) -> Path:
        return self.folder / job.key / f"{tile.index}-{digest}.raw"

    def _open_image(self, job: ImageJob) -> Pixels:
        try:
            image: Pixels = np.load(self._image_path(job), mmap_mode="r")
        except Exception as error:  # numpy reads a header as Python, and a damaged one raises much
            self._image_path(job).unlink(missing_ok=True)
            raise MessageError(f"The pixels of {job.image} are not in {self.folder}") from error
        if image.shape != job.shape or image.dtype != np.uint8:
            self._image_path(job).unlink(missing_ok=True)  # so that the coordinator writes it again
            raise MessageError(
                f"The pixels of {job.image} have shape {image.shape}, not {job.shape}"
            )
        return image


class RedisStore:
    """Pixels in Redis: `src:<job>` holds the windows, `out:<job>` the results."""

    def __init__(self, link: Link, prefix: str = "{sg}:") -> None:
        self.link = link
        self.prefix = prefix

    def put_image(self, job: ImageJob, pixels: Pixels) -> None:
        """Store all windows of an image."""
        for tile in job.tiles:
            body = window(pixels, tile, job.blur.radius).tobytes()
            self._put("src", job, str(tile.index), body)

    def holds(self, job: ImageJob) -> bool:
        """Whether all of its windows are there: Redis may have lost the last ones only."""
        key = f"{self.prefix}src:{job.key}"
        return bool(self.link(lambda client: client.hlen(key)) == len(job.tiles))

    def window(self, job: ImageJob, tile: Tile) -> Pixels:
        """Fetch one window."""
        body = self._get("src", job, str(tile.index))
        if body is None:
            raise MessageError(f"The window of tile {tile.index} of {job.image} is not in Redis")
        return work.to_pixels(body, job.window_shape(tile))

    def put_result(self, job: ImageJob, tile: Tile, pixels: Pixels) -> bytes:
        """Keep the pixels under their digest."""
        body = pixels.tobytes()
        digest = hashlib.sha256(body).hexdigest()
        self._put("out", job, f"{tile.index}-{digest}", body)
        return digest.encode()

    def result(self, job: ImageJob, tile: Tile, reference: bytes) -> Pixels:
        """Fetch the pixels."""
        digest = _checked_digest(reference)
        body = self._get("out", job, f"{tile.index}-{digest}")
        if body is None:
            raise MessageError(f"The result of tile {tile.index} of {job.image} is gone")
        return _checked_pixels(job, tile, digest, body)

    def _put(self, name: str, job: ImageJob, field: str, body: bytes) -> None:
        self.link(lambda client: client.hset(f"{self.prefix}{name}:{job.key}", field, body))

    def _get(self, name: str, job: ImageJob, field: str) -> bytes | None:
        found = self.link(lambda client: client.hget(f"{self.prefix}{name}:{job.key}", field))
        return cast(bytes | None, found)


def _checked_digest(reference: bytes) -> str:
    digest = reference.decode("ascii", "replace")
    if len(digest) != DIGEST or not set(digest) <= set("0123456789abcdef"):
        raise MessageError(f"{digest[:20]!r} is no sha256")
    return digest


def _checked_pixels(job: ImageJob, tile: Tile, digest: str, body: bytes) -> Pixels:
    if hashlib.sha256(body).hexdigest() != digest:
        raise MessageError(
            f"The pixels of tile {tile.index} of {job.image} are not those of its digest"
        )
    return work.to_pixels(body, job.core_shape(tile))
