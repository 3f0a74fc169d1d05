"""Exercises of lesson d: how processes end, what their start costs, and what they may use."""

import re
from collections.abc import Callable, Mapping, Sequence
from math import ceil, inf
from typing import NamedTuple

from studyguide_course.exercises import exercise, judge


@exercise("d1", "the exit code of a killed container")
def exit_code(answer: Callable[[int], int]) -> str | None:
    """Compare with what a container reports for what Python's subprocess reports."""
    cases = [(0,), (1,), (2,), (-9,), (-15,), (-11,)]
    usual: dict[str, Callable[[int], int]] = {
        "9 is an exit code that a program may choose; a signal counts from 128 on": abs,
        "-9 is Python's own way to tell it; no exit code is below 0": lambda code: code,
        "128 and the signal's number are added, and Python's code is minus that number": (
            lambda code: code if code >= 0 else 128 + code
        ),
        "this is -9 as a byte without sign; a container says 128 + the signal": (
            lambda code: code % 256
        ),
        "only a death by signal counts from 128 on": lambda code: 128 + abs(code),
    }
    return judge(answer, cases, lambda code: code if code >= 0 else 128 - code, usual)


Step = Callable[[int, int, int], str]


@exercise("d2", "what the Job does next")
def next_step(answer: Step) -> str | None:
    """Compare with the rules of k8s/d: a pod failure policy, and a bound on retries."""
    codes, limits = (0, 1, 2, 137, 143), (0, 1, 3)
    cases = [(code, failed, limit) for limit in limits for failed in (1, 2, 4) for code in codes]

    def rule(code: int, over: bool, hopeless: Sequence[int] = (1, 2)) -> str:
        return "complete" if code == 0 else "failed" if code in hopeless or over else "new pod"

    usual: dict[str, Step] = {
        "this would try exit codes 1 and 2 again: another attempt fails as well": (
            lambda code, failed, limit: rule(code, failed > limit, hopeless=())
        ),
        "backoffLimit counts the retries: with 1, one failure is followed by a second pod": (
            lambda code, failed, limit: rule(code, failed >= limit)
        ),
        "it never gives up: that is a Deployment": (
            lambda code, failed, limit: rule(code, over=False)
        ),
        "not a failure is retried, but 0 as well: a Job that has done its work is complete": (
            lambda code, failed, limit: rule(code or 137, failed > limit)
        ),
    }
    return judge(answer, cases, lambda code, failed, limit: rule(code, failed > limit), usual)


Spent = Sequence[tuple[str, str, float]]  # stage, image, seconds


@exercise("d3", "how many images hide the start")
def fewest_images(answer: Callable[[Spent, float], int]) -> str | None:
    """Compare with the least number, found by trying."""
    one = [("start", "", 0.61), *((stage, "a", 0.1) for stage in ("load", "blur", "save"))]
    two = [*one[:1], *(("load", i, 0.05) for i in "ab"), *(("blur", i, 0.2) for i in "ab")]
    cases = [(one, 0.1), (two, 0.1), (two, 0.27), ([("start", "", 1.0), ("blur", "a", 0.31)], 0.25)]

    def right(spent: Spent, share: float) -> int:
        start, image, images = _once(spent), _per_image(spent), 1
        while start > share * (start + images * image):
            images += 1
        return images

    def least(start: float, image: float, share: float) -> int:
        return ceil(start * (1 - share) / share / image)

    usual: dict[str, Callable[[Spent, float], float]] = {
        "the run is the start and the images: compare the start with their sum": (
            lambda spent, share: ceil(_once(spent) / share / _per_image(spent))
        ),
        "that many are not quite enough: round up": (lambda spent, share: right(spent, share) - 1),
        "images come whole: round up": (
            lambda spent, share: _once(spent) * (1 - share) / share / _per_image(spent)
        ),
        "an image has several stages: add them up, and divide by the number of images": (
            lambda spent, share: least(_once(spent), _total(spent[1:]) / len(spent[1:]), share)
        ),
        "the start is not paid per image: leave it out of an image's seconds": (
            lambda spent, share: least(_once(spent), _per_image(spent, _total(spent)), share)
        ),
    }
    return judge(answer, cases, right, usual)


def _total(spent: Spent) -> float:
    return sum(seconds for *_, seconds in spent)


def _once(spent: Spent) -> float:
    return _total([each for each in spent if each[0] == "start"])


def _per_image(spent: Spent, seconds: float | None = None) -> float:
    seconds = _total(spent) - _once(spent) if seconds is None else seconds
    return seconds / len({image for _, image, _ in spent} - {""})


class Measured(NamedTuple):
    """What a role was seen to use, and what is asked of its resources."""

    cores_when_busy: float = 1.0
    mib_most_of_the_time: int = 200
    mib_at_the_peak: int = 320
    most_pods_per_core: int = 2


UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@exercise("d4", "requests and limits")
def resources(answer: Mapping[str, Mapping[str, str]]) -> str | None:
    """Judge by what the kernel and the scheduler would do with such a pod."""
    seen, value = Measured(), {("limits", "cpu"): inf}  # many clusters set no limit of cpu
    for kind in ("requests", "limits"):
        for name in ("cpu", "memory"):
            written = str(answer.get(kind, {}).get(name, "nothing"))
            if (kind, name, written) == ("limits", "cpu", "nothing"):
                continue
            quantity = re.fullmatch(r"([\d.]+)([kMG]i?|Ki|m|)", written)
            if not quantity:
                return f"{kind}: {name} is {written}; it takes a quantity, like 500m or 256Mi"
            value[kind, name] = float(quantity[1]) * UNITS[quantity[2]]
            if name == "memory" and quantity[2] == "m":
                return f"{written} of memory are thousandths of a byte; MiB are written Mi"
            if value["requests", name] > value[kind, name]:
                return f"the request of {name} is above its limit: Kubernetes refuses the pod"
    return _too_much_or_too_little(value, seen)


def _too_much_or_too_little(value: Mapping[tuple[str, str], float], seen: Measured) -> str | None:
    memory, peak = value["limits", "memory"], seen.mib_at_the_peak * 2**20
    if memory < 1.2 * peak:
        fate = "at its peak the pod is killed for it, exit code 137"
        return f"a memory limit of {memory / peak:.0%} of the peak: {fate}; leave 20 % to spare"
    if memory > 2 * peak:
        return f"a memory limit of {memory / peak:.1f} times the peak: a leak would hurt neighbours"
    if value["requests", "memory"] < seen.mib_most_of_the_time * 2**20:
        return "the node is chosen by the request: this one may have less than the pod always needs"
    if value["limits", "cpu"] < seen.cores_when_busy:
        slower = seen.cores_when_busy / value["limits", "cpu"]
        return f"the cpu limit slows it down: the blur takes {slower:.1f} times as long"
    if value["requests", "cpu"] * seen.most_pods_per_core < 1:
        pods = 1 / value["requests", "cpu"] if value["requests", "cpu"] else float("inf")
        return f"by this cpu request, {pods:.0f} such pods may be put on one core"
    return None
