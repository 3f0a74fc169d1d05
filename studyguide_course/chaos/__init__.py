"""The fault matrix: break a run of e, f or g on purpose, then check that nothing was lost.

Every row of `ROWS` strikes real processes around a real server. A strike is a generator that the
cluster resumes at each step: it waits for progress, never for a clock (only how long something
stays frozen is time), and the seed says where it hits. When the run is over, `problems` compares
what is on disk and in Redis with what the sequential run gives.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from studyguide.approaches import queued
from studyguide.blur import warm_up
from studyguide.errors import UsageError, printable
from studyguide.settings import START
from studyguide_course.chaos.strikes import ROWS, WITH_LISTS
from studyguide_course.chaos.subject import BLUR
from studyguide_course.chaos.trial import Trial
from studyguide_course.chaos.verdict import Outcome, line, page


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
        remedy = f"Use one of {', '.join(WITH_LISTS)}, or another approach"
        raise UsageError(f"The fault {fault!r} does not fit approach {approach}", remedy)
    for seed in seeds:
        for row in rows:
            for letter in approach or _with(row):
                yield Trial(letter, row, seed, servers[seed % len(servers)], start)


def _with(row: str) -> Sequence[str]:
    """The approaches that a row strikes: most need a stream."""
    return queued() if row in WITH_LISTS else queued("stream")


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
        before = given.report.read_text() if given.report.exists() else ""
        given.report.write_text(page(known, before))
    return 1 if any(outcome.problems for outcome in known) else 0


def _what(it: Trial | Outcome) -> tuple[str, str, int, str, str]:
    server = it.server if isinstance(it, Trial) else it.program
    return it.approach, it.fault, it.seed, it.start, server


def read_ledger(path: Path) -> list[Outcome]:
    """Outcomes that were written one JSON object a line."""
    return [Outcome(**json.loads(text)) for text in path.read_text().splitlines()]
