"""An attempt at a rung: its trials, what is printed of them, and what is kept for tomorrow."""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from textwrap import wrap
from typing import Any

from studyguide.errors import UsageError, printable
from studyguide.machinery import files
from studyguide.record.looks import Chart
from studyguide_course.ladder import TILES, verdict
from studyguide_course.ladder.rungs import RUNGS
from studyguide_course.ladder.trial import Record, Trial
from studyguide_course.ladder.verdict import Problem
from studyguide_course.learner.progress import known, note

SCORES = ("tiles lost", "tiles done twice", "time to recover", "commands per tile", "lines of code")
# Approach f in the fault matrix: rows `none` and `kill-worker`, seeds 0 to 2, 12 tiles of two
# images, a window of 0.8 s. Its lines are those of the trail in docs/architecture.md.
F = ("0", "0", "2.0 s", "34", "1,053")


@dataclass(frozen=True)
class Attempt:
    """What became of a rung's trials: all of them, or those up to the first that failed."""

    file: Path
    rung: int
    records: list[Record]
    problem: Problem | None
    seed: int = 0  # of the last trial

    @property
    def verdict(self) -> str:
        """One line: passed or not yet."""
        outcome = "not yet" if self.problem else "passed"
        return f"rung {self.rung}, {RUNGS[self.rung].title}: {outcome}"

    @property
    def scores(self) -> tuple[str, ...]:
        """The values of `SCORES`, over all trials."""
        recovered = max(map(verdict.recovery_s, self.records))
        commands = sum(record.commands for record in self.records) / len(self.records) / TILES
        return (
            str(sum(map(verdict.lost, self.records))),
            str(sum(map(verdict.done_twice, self.records))),
            f"{recovered:.1f} s" if recovered else "-",
            f"{commands:.0f}",
            str(verdict.code_lines(self.file)),
        )

    def lines(self, hint: bool = True) -> Iterator[str]:
        """The scoreboard; then what is wrong, the events that show it, and the hint if wanted."""
        rung = RUNGS[self.rung]
        yield f"target: {rung.target}"
        yield f"{'':18} {'yours':>8} {'f':>8}"
        for name, mine, ours in zip(SCORES, self.scores, F, strict=True):
            yield f"{name:18} {mine:>8} {ours:>8}"
        if self.problem:
            record = self.records[-1]
            yield f"{record.row.name}, seed {self.seed}: {self.problem.text}"
            yield from verdict.story(record, self.problem.tile)
            if hint:
                yield f"hint: {rung.hint}"

    def show(self, hint: bool = True) -> None:
        """Print the verdict and all that it rests on."""
        print("\n".join(map(printable, (self.verdict, *self.lines(hint)))), flush=True)

    def figure(self) -> Chart:
        """The timeline of the trial that failed, or of the last one, with the strikes marked."""
        return verdict.picture(self.records[-1], self.rung)


def attempt(file: str | Path, rung: int, seeds: int = 1, first_seed: int = 0) -> Attempt:
    """Judge a learner's file on one rung, and note the outcome in `progress.json` beside it.

    Raises UsageError if there is no such file or rung, or no seed.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"There is no file {path}", "Write your queue first, or give its path")
    if rung not in RUNGS:
        raise UsageError(f"The rung is {rung}", f"Use one of 1 to {max(RUNGS)}")
    if seeds < 1:
        raise UsageError(f"There are {seeds} seeds", "Use one or more")
    records, problem = [], None
    for seed, row in product(range(first_seed, first_seed + seeds), RUNGS[rung].rows):
        records.append(Trial(path, row, seed).run())
        if problem := next(verdict.problems(records[-1]), None):
            break
    done = Attempt(path, rung, records, problem, seed)
    _note(done)
    return done


def hint(rung: int) -> None:
    """Print the one hint of a rung."""
    print("\n".join(wrap(RUNGS[rung].hint, 96)))


def _note(done: Attempt) -> None:
    """Keep the outcome of an attempt, beside those of other rungs and other files."""
    scores = dict(zip(SCORES, done.scores, strict=True))
    note(done.file.parent, done.file.name, str(done.rung), done.problem is None, **scores)


def progress(file: str | Path) -> dict[str, dict[str, Any]]:
    """What is known of a learner's file: rung -> whether it passed last, when, and its scores."""
    return known(Path(file).parent, Path(file).name)


def command(given: argparse.Namespace) -> int:
    """Carry out `studyguide chaos --approach FILE.py`: climb until a rung fails; 1 if one does."""
    path, passed = Path(given.approach), True
    for rung in sorted(RUNGS) if given.rung is None else [given.rung]:
        done = attempt(path, rung, given.seeds, given.first_seed)
        if given.json:
            said = {"rung": rung, "passed": not done.problem, "lines": list(done.lines())}
            print(json.dumps(said), flush=True)
        else:
            done.show()
        if done.problem:
            passed = False
            picture = path.with_name(f"{path.stem}-timeline.png")
            with files.atomic(picture) as file:
                file.write(done.figure().png())
            print(printable(f"its timeline: {picture}"), file=sys.stderr)
            break
    return 0 if passed else 1
