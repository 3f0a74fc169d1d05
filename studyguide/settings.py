"""All settings of a run, checked once, passed on and never looked up."""

import argparse
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from studyguide.errors import UsageError

Method = Literal["direct", "separable", "separable-float32"]
METHODS: tuple[Method, ...] = get_args(Method)
MAX_KERNEL_SIZE = 101


def _require(ok: bool, name: str, value: object, remedy: str) -> None:
    if not ok:
        raise UsageError(f"{name} is {value!r}", remedy)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: object) -> bool:
    is_truth = isinstance(value, bool)  # which Python takes for a number
    return isinstance(value, (int, float)) and not is_truth and 0 < value < math.inf


# The text of a setting explains its command-line option.


@dataclass(frozen=True)
class Blur:
    """What is done to each pixel; `sigma` is in pixels."""

    kernel_size: Annotated[int, "side of the square kernel in pixels, odd, 1 to 101"] = 21
    sigma: Annotated[float, "standard deviation in pixels (default: kernel size / 3)"] = 0.0
    method: Annotated[
        Method, "direct, the O(k^2) textbook form, or separable or separable-float32, O(k)"
    ] = "direct"

    def __post_init__(self) -> None:
        size = self.kernel_size
        remedy = f"Use an odd number from 1 to {MAX_KERNEL_SIZE}, for example 21"
        ok = _is_count(size) and size % 2 == 1 and size <= MAX_KERNEL_SIZE
        _require(ok, "The kernel size", size, remedy)
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

    visibility_s: Annotated[float, "seconds without renewal until a tile is redelivered"] = 3.0
    max_attempts: Annotated[int, "failures after which a tile is a dead letter (f, g)"] = 3
    backoff_s: Annotated[float, "seconds before the first retry; doubles each time (f, g)"] = 0.1
    quiet_s: Annotated[float, "seconds of silence after which missing tiles are given up (e)"] = 2.0
    patience_s: Annotated[float, "seconds that Redis may be away until a role gives up"] = 30.0
    payload: Annotated[
        Literal["file", "redis"], "where pixels travel: file, in a shared folder, or redis (f, g)"
    ] = "file"

    def __post_init__(self) -> None:
        for name in ("visibility_s", "backoff_s", "quiet_s", "patience_s"):
            value = getattr(self, name)
            _require(_is_positive(value), name, value, "Use a positive number of seconds")
        _require(_is_count(self.max_attempts), "max_attempts", self.max_attempts, "Use 1 or more")
        _require(self.payload in ("file", "redis"), "payload", self.payload, "Use file or redis")


# A fork is not safe on macOS, whose libraries may run threads of their own.
START: Literal["warm", "fresh"] = "warm" if sys.platform == "linux" else "fresh"


@dataclass(frozen=True)
class Settings:
    """One run: where images come from and go to, and how the work is cut and shared out."""

    images: Annotated[Path, "folder of images to blur"] = Path("images/input")
    output: Annotated[Path, "folder for results, one subfolder each"] = Path("images/output")
    workers: Annotated[int, "threads or processes that blur (default: 10; 4 in e and f)"] = 10
    tile_size: Annotated[int, "side of a tile in pixels, without its halo"] = 256
    queue_size: Annotated[int, "tiles that may wait in a queue before its producers block"] = 100
    images_in_memory: Annotated[int, "decoded images that c holds at once"] = 3
    instances: Annotated[int, "service processes that share the workers out (g)"] = 2
    start: Annotated[
        Literal["warm", "fresh"],
        "how d to g start processes: warm, forked from one that has everything imported, or fresh",
    ] = START
    blur: Blur = field(default_factory=Blur.of)
    delivery: Delivery = field(default_factory=Delivery)

    def __post_init__(self) -> None:
        for name in ("workers", "tile_size", "queue_size", "images_in_memory", "instances"):
            value, label = getattr(self, name), f"The setting {name.replace('_', ' ')}"
            _require(_is_count(value), label, value, "Use a whole number from 1 on")
        ok = self.start == "fresh" or (self.start == "warm" and sys.platform == "linux")
        _require(ok, "start", self.start, "Use fresh, or warm on Linux")


# --- settings as command-line options: for people, processes and pods ----------------------------


def _options(kind: type) -> dict[str, tuple[type, str]]:
    hints = get_type_hints(kind, include_extras=True)
    found = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}
    return {name: (of if isinstance(of, type) else str, text) for name, (of, text) in found.items()}


OPTIONS = _options(Settings) | _options(Blur) | _options(Delivery)  # name -> type, help


def _flag(name: str) -> str:
    return "--" + name.removesuffix("_s").replace("_", "-")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command all settings as options; those not given keep their defaults."""
    for name, (kind, text) in OPTIONS.items():
        parser.add_argument(_flag(name), dest=name, type=kind, default=argparse.SUPPRESS, help=text)


def from_options(given: dict[str, Any]) -> Settings:
    """Settings from flat names; what is missing has its default.

    Raises UsageError if a value is out of its range.
    """
    own, blur, delivery = (
        {name: given[name] for name in _options(kind) if name in given}
        for kind in (Settings, Blur, Delivery)
    )
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
