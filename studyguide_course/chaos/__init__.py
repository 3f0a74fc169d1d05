"""The fault matrix: break a run of e, f or g on purpose, then check that nothing was lost.

Every row of `ROWS` strikes real processes around a real server. A strike is a generator that the
cluster resumes at each step: it waits for progress, never for a clock (only how long something
stays frozen is time), and the seed says where it hits. When the run is over, `problems` compares
what is on disk and in Redis with what the sequential run gives.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random

import redis

from studyguide import images
from studyguide.approaches import APPROACHES, queued
from studyguide.blur import warm_up
from studyguide.errors import StudyguideError, UsageError, printable
from studyguide.machinery.faults import Fault
from studyguide.machinery.redis_server import find_server, wheel_server
from studyguide.record.report import Ledger
from studyguide.record.timeline import Timeline
from studyguide.settings import START, from_options
from studyguide_course.chaos.strikes import (
    KILLS,
    ROWS,
    SLOW,
    VISIBILITY_S,
    Attack,
    NotHere,
    Site,
    disorder,
    slow,
)
from studyguide_course.chaos.subject import BLUR, GRIDS, TILE_SIZE, TILES, pictures
from studyguide_course.chaos.verdict import Outcome, line, page, problems

OPTIONS = {"tile_size": TILE_SIZE, "kernel_size": 5, "method": "separable", "quiet_s": 1.0}
OPTIONS |= {"visibility_s": VISIBILITY_S, "backoff_s": 0.05, "patience_s": 20.0, "instances": 2}
DISK_BYTES = 8 << 20


class Trial:
    """One run under one fault; the same seed strikes the same place."""

    def __init__(
        self, approach: str, fault: str, seed: int, server: str = "", start: str = START
    ) -> None:
        self.approach, self.fault, self.seed, self.server = approach, fault, seed, server
        self.start = start
        row, rng = ROWS[fault], Random(f"{approach} {fault} {seed}")
        self.payload = rng.choice(("file", "redis"))
        planted = [Fault(kind, *rng.choice(TILES)) for kind in row.plant]
        slowed = row.slow or (SLOW, *slow(rng.choice(TILES[:-1])))
        self.attack = Attack(approach, row, rng, (*planted, *slowed), _program(server))
        self.doomed = [[it.image, it.tile] for it in planted if it.kind in ("raise", "poison")]

    def run(self) -> Outcome:
        """Perform it and judge it."""
        outcome = Outcome(self.approach, self.fault, self.seed, self.payload, self.server)
        outcome.start = self.start
        outcome.planted = self.doomed
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
        if not self.attack.row.small_disk:
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
        settings = from_options({**options, **self.attack.row.options, **places})
        with Site(self.attack, settings, folder / "run") as site:
            perform = APPROACHES[self.approach].on_cluster
            assert perform
            began = time.monotonic()
            perform(site)
            outcome.seconds = round(time.monotonic() - began, 2)
            outcome.left = site.settle()
            self._look_at_redis(site, outcome)
        outcome.struck, outcome.most_redelivered = site.struck, site.most_redelivered
        self._look_at_events(Timeline(site.events), outcome)
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


# --- many trials ---------------------------------------------------------------------------------


def trials(
    approach: str, fault: str, seeds: range, servers: list[str], start: str = START
) -> Iterator[Trial]:
    """All trials that were asked for: seed by seed, so that a part of them covers every row.

    Raises UsageError if there is no such row, or the approach has no queue or not this row.
    """
    if fault != "all" and fault not in ROWS:
        raise UsageError(f"The fault is {fault!r}", f"Use all or one of {', '.join(ROWS)}")
    if approach not in ("", *queued()):
        raise UsageError(f"The approach is {approach!r}", f"Use one of {' '.join(queued())}")
    rows = [row for row in (ROWS if fault == "all" else (fault,)) if approach in ("", *_with(row))]
    if not rows:
        remedy = f"Use one of {', '.join(KILLS)}, or another approach"
        raise UsageError(f"The fault {fault!r} does not fit approach {approach}", remedy)
    for seed in seeds:
        for row in rows:
            for letter in approach or _with(row):
                yield Trial(letter, row, seed, servers[seed % len(servers)], start)


def _with(row: str) -> Sequence[str]:
    """The approaches that a row strikes: most need a stream."""
    return queued() if row in KILLS else queued("stream")


def _program(server: str) -> Path:
    if not server:
        return find_server()
    found = wheel_server() if server == "wheel" else shutil.which(server)
    if not found:
        raise UsageError(f"There is no program {server}", "Name a server, or `wheel` for ours")
    return Path(found)


def command(given: argparse.Namespace) -> int:
    """Carry out `studyguide chaos`; 1 if any run failed."""
    path, seeds = given.ledger, range(given.first_seed, given.first_seed + given.seeds)
    known = read_ledger(path) if path and path.exists() else []
    over = {_what(outcome) for outcome in known}
    warm_up(BLUR)  # once, so that no run waits for its workers to compile
    for trial in trials(given.approach, given.fault, seeds, given.redis or [""], given.start):
        if _what(trial) in over:
            continue
        outcome = trial.run()
        known.append(outcome)
        text = json.dumps(asdict(outcome))
        print(text if given.json else printable(line(outcome)), flush=True)
        if outcome.problems:
            print(f"  repeat it: {outcome.command}", file=sys.stderr)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(text + "\n")
    if given.report:
        given.report.write_text(page(known))
    return 1 if any(outcome.problems for outcome in known) else 0


def _what(it: Trial | Outcome) -> tuple[str, str, int, str]:
    return it.approach, it.fault, it.seed, it.start


def read_ledger(path: Path) -> list[Outcome]:
    """Outcomes that were written one JSON object a line."""
    return [Outcome(**json.loads(text)) for text in path.read_text().splitlines()]
