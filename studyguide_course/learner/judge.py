"""One submitted notebook, judged: `python -m studyguide_course.learner.judge`.

Reads a `Task` as JSON from stdin, and writes a line for each exercise to stdout: its key and the
verdict. Each runs in a forked process of its own, so that one that hangs or dies costs no other.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from studyguide_course import exercises

MOST_FILE = 16 << 20  # bytes of one file
MOST_PROCESSES = 2048  # and threads; before Linux 5.14 those of the teacher count too
LONGEST = 300  # characters of a verdict


@dataclass(frozen=True)
class Task:
    """What is to be judged, and within which limits."""

    keys: Sequence[str]
    cells: Sequence[str]  # the learner's own, in their order
    seconds: float  # for each exercise
    memory: int  # bytes of address space, for each process
    caged: bool


def answer(task: Task, key: str) -> str:
    """Run the learner's cells, and judge the last answer that they give to this exercise."""
    said, failed = [], "there is no answer to it in the notebook"

    def check(key_of: str, answer: object) -> None:
        if key_of == key:
            said.append(exercises.verdict(key, answer))

    vars(exercises)["check"] = check
    names: dict[str, Any] = {"__name__": "__main__"}
    for source in task.cells:
        try:
            exec(compile(source, "cell", "exec"), names)  # noqa: S102 (what this process is for)
        except BaseException as error:
            if f'"{key}"' in source.replace("'", '"'):
                failed = f"the cell fails with {type(error).__name__}: {error}"
    return said[-1] if said else f"not yet: {failed}"


def limit(task: Task) -> None:
    """Bound what this process and all that it starts may take."""
    bounds = {resource.RLIMIT_AS: task.memory, resource.RLIMIT_FSIZE: MOST_FILE}
    bounds[resource.RLIMIT_CORE] = 0
    if task.caged:  # elsewhere all processes of the teacher would count
        bounds[resource.RLIMIT_NPROC] = MOST_PROCESSES
    for kind, most in bounds.items():
        resource.setrlimit(kind, (most, most))


def judge(task: Task, key: str) -> str:
    """Judge one exercise in a process of its own, and end that process in time."""
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            os.setsid()
            limit(task)
            os.write(writer, answer(task, key)[:LONGEST].encode(errors="replace"))
        finally:
            os._exit(0)
    os.close(writer)
    end = time.monotonic() + task.seconds
    while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.01)
    with suppress(ProcessLookupError):  # also what it started and left behind
        os.killpg(pid, signal.SIGKILL)
    os.set_blocking(reader, False)
    try:
        said = os.read(reader, 4 * LONGEST).decode(errors="replace")
    except BlockingIOError:  # something that it started still holds the pipe
        said = ""
    os.close(reader)
    if not ended[0]:
        os.kill(pid, signal.SIGKILL)  # it may not have come to `setsid`
        os.waitpid(pid, 0)
        return f"not yet: stopped after {task.seconds:g} s"
    code = os.waitstatus_to_exitcode(ended[1])
    return said or f"not yet: its process ended without a verdict, with exit code {code}"


def main() -> None:
    """Judge what stdin has."""
    task, verdicts = Task(**json.load(sys.stdin)), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # what a submission prints goes nowhere
        os.dup2(nowhere, standard)
    for key in task.keys:
        exercises.find(key)  # imported before foreign code runs
    for key in task.keys:
        os.write(verdicts, json.dumps([key, judge(task, key)]).encode() + b"\n")


if __name__ == "__main__":
    main()
