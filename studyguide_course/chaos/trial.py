"""One run of the fault matrix: a fault, a seed, and what is left behind."""

import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import redis

from studyguide import images
from studyguide.approaches import APPROACHES
from studyguide.errors import StudyguideError, UsageError
from studyguide.machinery.faults import Fault
from studyguide.machinery.redis_server import find_server, wheel_server
from studyguide.record.report import Ledger
from studyguide.record.timeline import Timeline
from studyguide.settings import START, from_options
from studyguide_course.chaos.site import VISIBILITY_S, NotHere, Site
from studyguide_course.chaos.strikes import ROWS, SLOW, disorder, slow
from studyguide_course.chaos.subject import GRIDS, TILE_SIZE, TILES, pictures
from studyguide_course.chaos.verdict import Outcome, problems

OPTIONS = {"tile_size": TILE_SIZE, "kernel_size": 5, "method": "separable", "quiet_s": 1.0}
OPTIONS |= {"visibility_s": VISIBILITY_S, "backoff_s": 0.05, "patience_s": 20.0, "instances": 2}
DISK_BYTES = 8 << 20


class Trial:
    """One run under one fault; the same seed strikes the same place."""

    def __init__(
        self, approach: str, fault: str, seed: int, server: str = "", start: str = START
    ) -> None:
        self.approach, self.fault, self.seed = approach, fault, seed
        self.server, self.start, self.program = server, start, _program(server)
        self.row, self.rng = ROWS[fault], Random(f"{approach} {fault} {seed}")
        self.payload = self.rng.choice(("file", "redis"))
        planted = [Fault(kind, *self.rng.choice(TILES)) for kind in self.row.plant]
        slowed = self.row.slow or (SLOW, *slow(self.rng.choice(TILES[:-1])))
        self.faults = (*planted, *slowed)

    def run(self) -> Outcome:
        """Perform it and judge it."""
        outcome = Outcome(self.approach, self.fault, self.seed, self.payload, self.server)
        outcome.start, outcome.date = self.start, f"{datetime.now(UTC):%Y-%m-%d}"
        deadly = [fault for fault in self.faults if fault.kind in ("raise", "poison")]
        outcome.planted = [[fault.image, fault.tile] for fault in deadly]
        with tempfile.TemporaryDirectory(prefix="chaos-") as name:
            folder = Path(name)
            try:
                with self._small_disk(folder / "run"):
                    self._perform(folder, outcome)
            except NotHere as error:
                outcome.skipped = str(error)
            except (StudyguideError, redis.RedisError) as error:
                outcome.error = f"{type(error).__name__}: {error}"
        if not outcome.skipped:
            outcome.problems = problems(outcome)
        return outcome

    @contextmanager
    def _small_disk(self, run: Path) -> Iterator[None]:
        """Have pixels and the append-only file on a disk that is easily filled."""
        if not self.row.small_disk:
            yield
            return
        disk = run / "disk"
        disk.mkdir(parents=True)
        options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "chaos", str(disk)]
        done = subprocess.run(["mount", *options], capture_output=True, text=True)
        if done.returncode:
            raise NotHere(f"no small disk can be mounted: {done.stderr.strip()}")
        try:
            for name in ("pixels", "redis"):
                (disk / name).mkdir()
                (run / name).symlink_to(disk / name)
            yield
        finally:
            subprocess.run(["umount", str(disk)], check=True, capture_output=True, text=True)

    def _perform(self, folder: Path, outcome: Outcome) -> None:
        for image, pixels in pictures().items():
            images.save(folder / "images" / image, pixels)
        workers = 4 if APPROACHES[self.approach].pools else 2
        options = {**OPTIONS, "workers": workers, "payload": self.payload, "start": self.start}
        places = {"images": folder / "images", "output": folder / "output"}
        settings = from_options({**options, **self.row.options, **places})
        with Site(self, settings, folder / "run") as site:
            perform = APPROACHES[self.approach].on_cluster
            assert perform
            began = time.monotonic()
            perform(site)
            outcome.seconds = round(time.monotonic() - began, 2)
            outcome.left = site.settle()
            self._look_at_redis(site, outcome)
        outcome.struck, outcome.most_redelivered = site.struck, site.most_redelivered
        self._look_at_events(Timeline(site.events), outcome)
        outcome.counts |= {"resets": site.lost_connections, "forgotten": site.forgotten}
        for image in GRIDS:
            for path in folder.glob(f"output/{Path(image).stem}*.png"):
                if ".mask." not in path.name:
                    outcome.saved[image] = images.sha256(images.load(path))

    def _look_at_redis(self, site: Site, outcome: Outcome) -> None:
        outcome.version = site.server.version
        if not APPROACHES[self.approach].resumable:
            return
        for image in GRIDS:
            outcome.done[image] = sorted(map(int, site.client.smembers(site.key("done", image))))
            outcome.results[image] = sorted(map(int, site.client.hkeys(site.key("res", image))))
        for _, fields in site.client.xrange(site.key("dlq")):
            spec = json.loads(fields.get(b"spec", b"{}"))
            outcome.dead.append([spec.get("image", "?"), int(fields.get(b"tile", -1))])

    def _look_at_events(self, timeline: Timeline, outcome: Outcome) -> None:
        ledger = Ledger.of(timeline)
        stages = Counter(event.stage for event in timeline.events)
        seconds = sum("error" not in event.detail for event in timeline.of("duplicate"))
        outcome.failed = sorted({event.image for event in timeline.of("failed")})
        outcome.counts = {
            "redelivered": ledger.redelivered,
            "duplicates": ledger.duplicates,
            "retries": stages["retry"],
            "dead_letters": ledger.dead_letters,
            "lost": ledger.lost,
            "deaths": stages["death"],
            "commits": stages["transfer"] - seconds,
            "disorder": disorder(timeline.events),
        }


def _program(server: str) -> Path:
    if not server:
        return find_server()
    found = wheel_server() if server == "wheel" else shutil.which(server)
    if not found:
        raise UsageError(f"There is no program {server}", "Name a server, or `wheel` for ours")
    return Path(found)
