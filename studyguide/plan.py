"""What is to be done, in objects that are checked once and passed on.

A `Plan` says all about one run on a cluster. A `Role` says all about one process of it; a local
cluster writes it as one JSON document, which `studyguide role FILE` reads in the process.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from studyguide.errors import DAMAGE, UsageError
from studyguide.machinery.faults import Fault
from studyguide.machinery.run_folder import key_prefix
from studyguide.settings import Settings, describe, from_options

RoleName = Literal["sequential", "coordinator", "worker", "assembler", "all"]


@dataclass(frozen=True)
class Plan:
    """One run on a cluster."""

    approach: str
    settings: Settings
    folder: Path  # on this machine; its folder `events` holds what the processes write
    run_id: str
    faults: tuple[Fault, ...] = ()
    chaos: tuple[Callable[[Any], None], ...] = ()  # each is called with the cluster, to strike it

    @property
    def prefix(self) -> str:
        """How the keys of the run begin in Redis."""
        return key_prefix(self.run_id)

    def role(self, role: RoleName, name: str, threads: int | None = None) -> "Role":
        """The role of one process of this run; the setting `workers` of a role is its threads."""
        workers = self.settings.workers if threads is None else threads
        settings = replace(self.settings, workers=workers)
        return Role(
            name,
            role,
            self.approach,
            settings,
            self.folder,
            prefix=self.prefix,
            run_id=self.run_id,
            faults=self.faults,
        )


@dataclass(frozen=True)
class Role:
    """One process of a run, and where it finds what it shares with the others."""

    name: str  # of this process or pod: its group in the timeline
    role: RoleName
    approach: str
    settings: Settings
    folder: Path  # events and, for f and g, pixels: shared by all roles of a run
    redis_url: str = field(default="", repr=False)  # it may hold a password
    prefix: str = "{sg}:"
    run_id: str = ""
    started: float = 0.0  # seconds since the epoch: when this process began
    faults: tuple[Fault, ...] = ()
    metrics: str = ""  # [HOST:]PORT where metrics and health are served, if anywhere

    @property
    def alive(self) -> Path:
        """The file that the heart of this process touches."""
        return self.folder / "alive" / self.name

    @property
    def path(self) -> Path:
        """Where `write` writes it."""
        return self.folder / f"{self.name}.json"

    def write(self) -> None:
        """Write the role into its folder, without the address of Redis: it may hold a password."""
        noted: dict[str, Any] = {name: getattr(self, name) for name in DOCUMENTED}
        noted |= {"folder": str(self.folder), "settings": describe(self.settings)}
        noted |= {"faults": [str(fault) for fault in self.faults]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(noted))

    @classmethod
    def read(cls, path: Path, redis_url: str, started: float) -> "Role":
        """Read what `write` wrote. Raises UsageError if it is not there, or something else."""
        try:
            noted = json.loads(path.read_bytes())
            noted |= {"folder": Path(noted["folder"]), "settings": from_options(noted["settings"])}
            noted |= {"faults": tuple(map(Fault.parse, noted["faults"]))}
            return cls(redis_url=redis_url, started=started, **noted)
        except (OSError, UsageError, *DAMAGE) as error:
            raise UsageError(f"{path} describes no role ({error})", "Start a run again") from error


DOCUMENTED = ("name", "role", "approach", "prefix", "run_id")
