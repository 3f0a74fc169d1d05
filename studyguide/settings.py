"""All settings of a run, checked once, passed on and never looked up."""

import argparse
import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from studyguide.errors import UsageError

Method = Literal["direct", "separable", "separable-float32"]
METHODS: tuple[Method, ...] = get_args(Method)
MAX_KERNEL_SIZE = 101


def _require(ok: bool, name: str, value: object, remedy: str) -> None:
    if not ok:
        raise UsageError(f"{name} is {value!r}", remedy)


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf


@dataclass(frozen=True)
class Blur:
    """What is done to each pixel.

    Parameters
    ----------
    kernel_size : int
        Side of the square kernel in pixels; odd, 1 to 101.
    sigma : float, optional
        Standard deviation in pixels; a third of the kernel size when not given.
    method : {"direct", "separable", "separable-float32"}
        The O(k^2) textbook form, or two passes of O(k), in fixed point or in float32.
    """

    kernel_size: int = 21
    sigma: float = 0.0
    method: Method = "direct"

    def __post_init__(self) -> None:
        size = self.kernel_size
        _require(
            _is_count(size) and size % 2 == 1 and size <= MAX_KERNEL_SIZE,
            "The kernel size",
            size,
            f"Use an odd number from 1 to {MAX_KERNEL_SIZE}, for example 21",
        )
        _require(self.method in METHODS, "The method", self.method, f"Use one of {METHODS}")
        remedy = "Use a positive number of pixels, for example 7.0"
        _require(_is_positive(self.sigma), "sigma", self.sigma, remedy)

    @classmethod
    def of(
        cls, kernel_size: int = 21, sigma: float | None = None, method: str = "direct"
    ) -> "Blur":
        """Fill in the usual sigma, a third of the kernel size."""
        usual = kernel_size / 3 if isinstance(kernel_size, int) and kernel_size > 0 else 1.0
        return cls(kernel_size, usual if sigma is None else sigma, cast(Method, method))

    @property
    def radius(self) -> int:
        """Pixels of halo that a tile needs on each side."""
        return self.kernel_size // 2


@dataclass(frozen=True)
class Delivery:
    """How the queues of e, f and g deliver. All times in seconds."""

    visibility_s: float = 3.0  # a tile that nobody renewed for so long is given to another worker
    max_attempts: int = 3  # failures after which a tile is a dead letter
    backoff_s: float = 0.1  # the first wait before a retry; doubles with each further one
    quiet_s: float = 2.0  # e only: silence after which missing tiles are given up as lost
    patience_s: float = 30.0  # how long Redis may be away before a role gives up
    payload: Literal["file", "redis"] = "file"  # where f and g keep pixels; e has them in messages

    def __post_init__(self) -> None:
        for name in ("visibility_s", "backoff_s", "quiet_s", "patience_s"):
            value = getattr(self, name)
            _require(_is_positive(value), name, value, "Use a positive number of seconds")
        _require(_is_count(self.max_attempts), "max_attempts", self.max_attempts, "Use 1 or more")
        _require(self.payload in ("file", "redis"), "payload", self.payload, "Use file or redis")


@dataclass(frozen=True)
class Settings:
    """One run: where images come from and go to, and how the work is cut and shared out."""

    images: Path = Path("images/input")
    output: Path = Path("images/output")
    workers: int = 10
    tile_size: int = 256  # side of a tile's core in pixels, without its halo
    queue_size: int = 100  # tiles that may wait in a queue before its producers block
    images_in_memory: int = 3  # decoded images that c holds at once
    instances: int = 2  # g only: service processes that share the workers out
    blur: Blur = field(default_factory=Blur.of)
    delivery: Delivery = field(default_factory=Delivery)

    def __post_init__(self) -> None:
        for name in ("workers", "tile_size", "queue_size", "images_in_memory", "instances"):
            value = getattr(self, name)
            label = name.replace("_", " ")
            _require(
                _is_count(value), f"The setting {label}", value, "Use a whole number from 1 on"
            )


# --- settings as command-line options: one table for people, processes and pods ------------------

OPTIONS: dict[str, tuple[type, str]] = {
    "images": (Path, "folder of images to blur"),
    "output": (Path, "folder for blurred images, one subfolder per approach"),
    "workers": (int, "threads or processes that blur (default: 10; 4 in e and f)"),
    "tile_size": (int, "side of a tile in pixels, without its halo"),
    "queue_size": (int, "tiles that may wait in a queue"),
    "images_in_memory": (int, "decoded images that c holds at once"),
    "instances": (int, "service processes that share the workers out (g)"),
    "kernel_size": (int, "side of the kernel in pixels, odd"),
    "sigma": (float, "standard deviation in pixels (default: a third of the kernel size)"),
    "method": (str, "direct, the O(k^2) textbook form, or separable or separable-float32, O(k)"),
    "visibility_s": (float, "seconds without renewal after which a tile is redelivered (f, g)"),
    "max_attempts": (int, "failures after which a tile is a dead letter (f, g)"),
    "backoff_s": (float, "seconds before the first retry; doubles each time (f, g)"),
    "quiet_s": (float, "seconds of silence after which missing tiles are given up (e)"),
    "patience_s": (float, "seconds that Redis may be away before a role gives up (e, f, g)"),
    "payload": (str, "where pixels travel: file, in a shared folder, or redis (f, g)"),
}


def _flag(name: str) -> str:
    return "--" + name.removesuffix("_s").replace("_", "-")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command all settings as options; those not given keep their defaults."""
    for name, (kind, text) in OPTIONS.items():
        parser.add_argument(_flag(name), dest=name, type=kind, default=argparse.SUPPRESS, help=text)


def from_options(given: dict[str, Any]) -> Settings:
    """Settings from flat names; what is missing has its default.

    Raises
    ------
    UsageError
        If a value is out of its range.
    """
    blur = {name: given[name] for name in BLUR_NAMES if name in given}
    delivery = {name: given[name] for name in _names(Delivery) if name in given}
    own = {name: given[name] for name in _names(Settings) if name in given}
    return Settings(**own, blur=Blur.of(**blur), delivery=Delivery(**delivery))


def describe(settings: Settings) -> dict[str, Any]:
    """All settings by name, fit for JSON."""
    flat = {**vars(settings.blur), **vars(settings.delivery), **vars(settings)}
    return {
        name: str(flat[name]) if kind is Path else flat[name] for name, (kind, _) in OPTIONS.items()
    }


def to_options(settings: Settings) -> list[str]:
    """The command-line options that give these settings again."""
    return [f"{_flag(name)}={value}" for name, value in describe(settings).items()]


def redis_url() -> str | None:
    """The server that the environment names, if any: the one place that looks there."""
    return os.environ.get("REDIS_URL") or None


BLUR_NAMES = ("kernel_size", "sigma", "method")


def _names(kind: type) -> list[str]:
    return [item.name for item in fields(kind) if item.name in OPTIONS]
