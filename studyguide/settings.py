"""All settings of a run, checked once, passed on and never looked up."""

import argparse
import math
import operator
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    SupportsIndex,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from studyguide.errors import UsageError

Method = Literal["direct", "separable", "separable-float32"]
METHODS: tuple[Method, ...] = get_args(Method)
MAX_KERNEL_SIZE = 101


def _require(ok: bool, name: str, value: object, remedy: str) -> None:
    if not ok:
        raise UsageError(f"{name} is {value!r}", remedy)


def whole(value: object) -> int | None:
    """Return a whole number of any kind, numpy's included, as an int; None if it is something else.

    Python takes a bool for a number; we do not.
    """
    with suppress(TypeError):
        return None if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    return None


def _real(value: object) -> float | None:
    """Return a finite number of any kind as a float; None if it is something else."""
    with suppress(OverflowError):
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def _count(settings: object, name: str, label: str, remedy: str) -> None:
    """Check a field that counts something, and keep it as an int."""
    value = getattr(settings, name)
    number = whole(value)
    _require(number is not None and number >= 1, label, value, remedy)
    object.__setattr__(settings, name, number)  # the dataclass is frozen


def _positive(settings: object, name: str, remedy: str) -> None:
    """Check a field that is a positive number, and keep it as an int or a float."""
    value = getattr(settings, name)
    number = _real(value)
    _require(number is not None and number > 0, name, value, remedy)
    object.__setattr__(settings, name, value if type(value) is int else number)


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
        remedy = f"Use an odd number from 1 to {MAX_KERNEL_SIZE}, for example 21"
        _count(self, "kernel_size", "The kernel size", remedy)
        size = self.kernel_size
        _require(size % 2 == 1 and size <= MAX_KERNEL_SIZE, "The kernel size", size, remedy)
        _require(self.method in METHODS, "The method", self.method, f"Use one of {METHODS}")
        _positive(self, "sigma", "Use a positive number of pixels, for example 7.0")

    @classmethod
    def of(
        cls, kernel_size: int = 21, sigma: float | None = None, method: str = "direct"
    ) -> "Blur":
        """Fill in the usual sigma, a third of the kernel size."""
        size = whole(kernel_size)
        usual = size / 3 if size is not None and 0 < size <= MAX_KERNEL_SIZE else 1.0
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
            _positive(self, name, "Use a positive number of seconds")
        _count(self, "max_attempts", "max_attempts", "Use 1 or more")
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
    blur: Blur = field(default_factory=Blur.of)
    delivery: Delivery = field(default_factory=Delivery)
    start: Annotated[
        Literal["warm", "fresh"],
        "how d to g start processes: warm, forked from one that has everything imported, or fresh",
    ] = START

    def __post_init__(self) -> None:
        for name in ("workers", "tile_size", "queue_size", "images_in_memory", "instances"):
            label = f"The setting {name.replace('_', ' ')}"
            _count(self, name, label, "Use a whole number from 1 on")
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
    own |= {name: Path(own[name]) for name in ("images", "output") if name in own}
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
