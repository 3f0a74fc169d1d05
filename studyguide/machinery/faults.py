"""Faults planted on purpose, so that lessons and tests can watch what an approach makes of them.

`raise:chart.png:7` makes tile 7 of chart.png fail every time, `flaky:` only at its first attempt,
`poison:` kills the process that touches it, `slow:` takes a second longer.
"""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from studyguide.errors import StudyguideError, UsageError

KINDS = ("raise", "flaky", "poison", "slow")


class PlantedError(StudyguideError):
    """The error of a planted fault."""


@dataclass(frozen=True)
class Fault:
    """What happens to one tile."""

    kind: str
    image: str
    tile: int

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read `KIND:IMAGE:TILE`. Raises UsageError if it is not of that form."""
        kind, _, rest = text.partition(":")
        image, _, tile = rest.rpartition(":")
        if kind not in KINDS or not image or not tile.isdecimal():
            raise UsageError(f"The fault is {text!r}", f"Use KIND:IMAGE:TILE with KIND of {KINDS}")
        return cls(kind, image, int(tile))

    def __str__(self) -> str:
        return f"{self.kind}:{self.image}:{self.tile}"


def strike(faults: Sequence[Fault], image: str, tile: int, attempt: int) -> None:
    """Let the faults planted on this tile happen. Raises PlantedError if one of them says so."""
    for fault in faults:
        if (fault.image, fault.tile) == (image, tile):
            if fault.kind == "poison":
                os.kill(os.getpid(), signal.SIGKILL)
                os._exit(137)  # the first process of a container is immune to its own signals
            if fault.kind == "slow":
                time.sleep(1.0)
            if fault.kind == "raise" or (fault.kind == "flaky" and attempt == 1):
                raise PlantedError(f"Planted fault {fault}")
