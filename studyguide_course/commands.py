"""What the course adds to the command line `studyguide`; each command imports what it needs."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from studyguide.errors import UsageError, printable
from studyguide.settings import START


def add(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands of the course: the entry point of the group `studyguide.commands`."""
    init = commands.add_parser("init", help="make a folder with the notebooks and sample images")
    text = "made if it is not there, else brought up to date; default: %(default)s"
    init.add_argument("folder", type=Path, nargs="?", default=Path("build/course"), help=text)
    init.set_defaults(command=_init)
    progress = commands.add_parser("progress", help="show which exercises are right")
    progress.add_argument("folder", type=Path, nargs="?", help="default: build/course, or this one")
    progress.set_defaults(command=_progress)
    _add_grade(commands.add_parser("grade", help="judge the notebooks that learners handed in"))
    _add_chaos(commands.add_parser("chaos", help="break runs on purpose and check what is left"))
    doctor = commands.add_parser("doctor", help="show what is installed and what will be used")
    doctor.set_defaults(command=_doctor)
    charts = commands.choices["charts"]
    text = "write a page for each log there instead, which any browser opens"
    charts.add_argument("--html", type=Path, metavar="FOLDER", help=text)
    charts.set_defaults(command=partial(_charts, charts.get_default("command")))


def _init(given: argparse.Namespace) -> int:
    from studyguide_course import init

    folder = given.folder
    if not init.is_copy(folder):
        init.copy(folder)
        print(printable(f"{folder} is made. Next: cd {folder} && jupyter lab"))
        return 0
    for name, new in init.update(folder).items():
        print(printable(f"{name} has your work and stays as it is; its new version: {new}"))
    print(printable(f"{folder} is up to date. Next: cd {folder} && jupyter lab"))
    return 0


def _progress(given: argparse.Namespace) -> int:
    from studyguide_course.learner import progress

    return progress.command(given)


def _add_grade(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="with notebooks, also in folders inside it")
    add("--csv", type=Path, default=Path("grades.csv"), help="the table; default: %(default)s")
    add("--seconds", type=float, default=30.0, help="for each exercise; default: %(default)g")
    add("--memory", type=int, default=4096, help="MiB for each process; default: %(default)s")
    add("--no-cage", action="store_true", help="even where files and network stay open to it")
    parser.set_defaults(command=_grade)


def _grade(given: argparse.Namespace) -> int:
    from studyguide_course.learner import grade

    return grade.command(given)


def _add_chaos(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--approach",
        default="",
        help="default: those with a stream, and a list where killed; "
        "a file of yours that ends in .py climbs the ladder",
    )
    add("--rung", type=int, metavar="N", help="judge your file on this rung alone")
    add("--fault", default="all", metavar="ROW", help="a row of the matrix, or all")
    add("--seeds", type=int, default=1, metavar="N", help="runs of each row")
    add("--first-seed", type=int, default=0, metavar="SEED", help="default: 0")
    add("--redis", action="append", metavar="PROGRAM", help="servers, in turn; `wheel` is ours")
    add("--start", choices=("warm", "fresh"), default=START, help="how roles start: see run")
    add("--json", action="store_true", help="print a JSON object for each run")
    add("--ledger", type=Path, help="append to this file; skip what is in it")
    add("--report", type=Path, help="write the ledger as a page")
    parser.set_defaults(command=_chaos)


def _chaos(given: argparse.Namespace) -> int:
    if given.approach.endswith(".py"):
        from studyguide_course.ladder import climb

        return climb.command(given)
    if given.rung is not None:
        raise UsageError("--rung judges a file of yours", "Name it with --approach my_queue.py")
    from studyguide_course import chaos

    return chaos.command(given)


def _doctor(_: argparse.Namespace) -> int:
    from studyguide_course.doctor import describe, kernel_cache

    found = {**describe(), "kernel cache": kernel_cache()}
    print("\n".join(printable(f"{name:12} {value}") for name, value in found.items()))
    return 0


def _charts(draw: Callable[[argparse.Namespace], int], given: argparse.Namespace) -> int:
    if not given.html:
        return draw(given)
    from studyguide_course.book.pages import write_pages

    print("\n".join(printable(str(path)) for path in write_pages(given.logs, given.html)))
    return 0
