"""The judgement of a run: what it left behind against what the sequential run gives."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from studyguide.approaches import APPROACHES
from studyguide.record.report import machine
from studyguide.settings import START
from studyguide_course.chaos.site import BOUND_S, VISIBILITY_S
from studyguide_course.chaos.strikes import KILLS, ROWS, WITH_LISTS
from studyguide_course.chaos.subject import GRIDS, TILES, expected


@dataclass
class Outcome:
    """What a run left behind, as far as `problems` judges it; fit for JSON."""

    approach: str
    fault: str
    seed: int
    payload: str
    program: str = ""  # the server as it was asked for
    version: str = ""  # and what it turned out to be
    seconds: float = 0.0
    struck: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    most_redelivered: int | None = None
    saved: dict[str, str] = field(default_factory=dict)  # image -> digest
    failed: list[str] = field(default_factory=list)  # images reported as failed
    done: dict[str, list[int]] = field(default_factory=dict)
    results: dict[str, list[int]] = field(default_factory=dict)
    dead: list[list[Any]] = field(default_factory=list)  # what is in the dead-letter queue
    planted: list[list[Any]] = field(default_factory=list)  # what has to be there
    left: dict[str, int] = field(default_factory=dict)
    error: str = ""
    skipped: str = ""
    problems: list[str] = field(default_factory=list)
    start: str = START  # how its roles started
    date: str = ""  # UTC, when it was run
    cause: str = ""  # of a failure: what people found out, noted in the ledger

    @property
    def command(self) -> str:
        """What repeats the run."""
        server = f" --redis {self.program}" if self.program else ""
        what = f"--approach {self.approach} --fault {self.fault} --first-seed {self.seed}"
        start = f" --start {self.start}" if self.start != START else ""
        return f"studyguide chaos {what}{server}{start}"


def problems(outcome: Outcome) -> list[str]:
    """Every invariant that does not hold, in words; none if all is well."""
    row, counts = ROWS[outcome.fault], outcome.counts
    if outcome.error:
        return [outcome.error]
    found = [] if outcome.struck else ["the fault found no place to strike"]
    resumable = APPROACHES[outcome.approach].resumable
    due = [name for name in row.bites if resumable or name == "deaths"]
    found += [f"the fault did not bite: no {name}" for name in due if not counts[name]]
    found += [f"{counts[name]} {name}, and none was due" for name in row.spares if counts[name]]
    if outcome.seconds > BOUND_S:
        found.append(f"it took {outcome.seconds:.0f} s, more than {BOUND_S:g}")
    if not resumable:
        return found + _problems_of_e(outcome)
    for image, (down, across) in GRIDS.items():
        dead = {tile for name, tile in outcome.planted if name == image}
        tiles = sorted(set(range(down * across)) - dead)
        if outcome.saved.get(image) != expected(image, frozenset(dead)):
            found.append(f"{image} is not what the sequential run gives")
        if (image in outcome.failed) != bool(dead):
            found.append(f"{image} is reported as failed, or should be")
        for name, have in (("done", outcome.done), ("res", outcome.results)):
            kept = have.get(image, [])
            if kept != tiles and not (row.forgets and set(kept) < set(tiles)):
                found.append(f"{name} of {image} holds {kept}")
    if sorted(outcome.dead) != sorted(outcome.planted):
        found.append(f"dead letters are {outcome.dead}, planted were {outcome.planted}")
    found += [f"{count} left in {name}" for name, count in outcome.left.items() if count]
    most = outcome.most_redelivered
    if most is not None and counts["redelivered"] > most:
        found.append(f"{counts['redelivered']} redelivered, at most {most} were in flight")
    firsts, tiles_ = counts["commits"], len(TILES) - len(outcome.planted)
    if (firsts < tiles_ and row.commits != "<") or (firsts > tiles_ and row.commits != ">"):
        found.append(f"{firsts} first commits of {tiles_} tiles")
    return found


def _problems_of_e(outcome: Outcome) -> list[str]:
    """It may lose tiles, but every image is saved right or reported as failed, and never both."""
    found = []
    for image in GRIDS:
        saved = outcome.saved.get(image)
        if (saved is None) != (image in outcome.failed):
            found.append(f"{image} is both saved and reported as failed, or neither")
        if saved not in (None, expected(image, frozenset())):
            found.append(f"{image} is not what the sequential run gives")
    return found


def line(outcome: Outcome) -> str:
    """One run in one line."""
    what = f"{outcome.approach} {outcome.fault:16} seed {outcome.seed:3} {outcome.payload:5}"
    if outcome.skipped:
        return f"{what} skipped: {outcome.skipped}"
    counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items() if count)
    verdict = f"FAILED: {'; '.join(outcome.problems)}" if outcome.problems else "ok"
    return f"{what} {outcome.version:13} {outcome.seconds:5.1f} s  {verdict} ({counts})"


ROW = re.compile(r"^\| ([\w-]+) \| (\w) \| .*$", re.MULTILINE)
REMARK = re.compile(r"^- ([\w-]+), (\w): .*$", re.MULTILINE)
PAGE = """# The fault matrix

Made by `make chaos`; what each row does is described in `studyguide_course/chaos/strikes.py`.
Each run blurs two images of {tiles} tiles in all on real processes. The seed says
where the fault strikes, and whether pixels travel through files or through Redis. A run
passes if the fault bit and every invariant of `studyguide_course/chaos/verdict.py`
holds. e loses tiles by design: it passes if each image is saved right or reported as failed.

The last ledger has {runs} runs, {failed} failed: {here};
servers: {servers}. Rows that it does not have are those of the report before.
The last column says when a row was run.

| fault | approach | runs | passed | redelivered | duplicates | dead | lost | median time | worst time | run on |
|---|---|---|---|---|---|---|---|---|---|---|
{rows}

{remarks}

## Failures

{failures}
"""  # noqa: E501


def page(outcomes: list[Outcome], before: str = "") -> str:
    """The report in Markdown: a row for each fault and approach, then each failure by name.

    Rows and remarks that `outcomes` do not give are kept from the report `before`.
    """
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: (list(ROWS).index(o.fault), o.approach)):
        groups.setdefault((outcome.fault, outcome.approach), []).append(outcome)
    here, failed = machine(), [outcome for outcome in outcomes if outcome.problems]
    packages = ", ".join(f"{name} {here[name]}" for name in ("python", "numpy", "numba", "redis"))
    told = [
        f"- `{o.command}` ({o.version}): {'; '.join([*o.problems, o.cause]).strip('; ')}"
        for o in failed
    ]
    return PAGE.format(
        tiles=len(TILES),
        here=f"{here['system']}, {here['cores']} cores, {packages}",
        servers=", ".join(sorted({outcome.version for outcome in outcomes if outcome.version})),
        runs=len(outcomes),
        failed=len(failed),
        rows=_by_row(ROW, before, {what: _row(group) for what, group in groups.items()}),
        remarks=_by_row(REMARK, before, dict(_remarks(groups))),
        failures="\n".join(told) or "None.",
    )


def _by_row(kept: re.Pattern[str], before: str, made: dict[tuple[str, str], str]) -> str:
    """A line for each fault and approach: what was made now, else what the report before had."""
    lines = {(found[1], found[2]): found[0] for found in kept.finditer(before)} | made
    order = {fault: n for n, fault in enumerate(ROWS)}
    there = sorted((order[fault], letter, fault) for fault, letter in lines if fault in order)
    return "\n".join(lines[fault, letter] for _, letter, fault in there)


def _row(group: list[Outcome]) -> str:
    done = [outcome for outcome in group if not outcome.skipped]
    if not done:
        return f"| {group[0].fault} | {group[0].approach} | skipped: {group[0].skipped} ||||||||"
    passed = sum(not outcome.problems for outcome in done)
    counts = ("redelivered", "duplicates", "dead_letters", "lost")
    sums = [sum(outcome.counts.get(name, 0) for outcome in done) for name in counts]
    times = [f"{of(outcome.seconds for outcome in done):.1f} s" for of in (median, max)]
    dates = " to ".join(sorted({outcome.date for outcome in done if outcome.date}))
    cells = [group[0].fault, group[0].approach, len(done), passed, *sums, *times, dates or "?"]
    return f"| {' | '.join(map(str, cells))} |"


def _remarks(groups: dict[tuple[str, str], list[Outcome]]) -> Iterator[tuple[tuple[str, str], str]]:
    """How much longer a run takes in which Redis pauses: a storm of reclaims would show there.

    And what becomes of images where a worker was cut off, or acknowledged results were lost.
    """
    for (fault, letter), group in groups.items():
        fine = groups.get(("none", letter))
        if fault == "redis-paused" and fine:
            longer = median(o.seconds for o in group) - median(o.seconds for o in fine)
            windows = f"{longer / VISIBILITY_S:.1f} visibility windows"
            text = f"a pause costs {windows} at the median; 3 are allowed."
            yield (fault, letter), f"- {fault}, {letter}: {text}"
        elif fault in WITH_LISTS and fault not in KILLS:
            names = ("forgotten", "lost", "redelivered")
            gone, lost, again = (sum(o.counts.get(name, 0) for o in group) for name in names)
            unsaved, images = sum(len(o.failed) for o in group), len(GRIDS) * len(group)
            text = f"{gone} acknowledged results forgotten, {again} tiles delivered again, "
            text += f"{lost} tiles lost; {unsaved} of {images} images not saved."
            yield (fault, letter), f"- {fault}, {letter}: {text}"
