"""Exercises of lesson d: how processes end, what their start costs, and what they may use."""

import re
from collections.abc import Mapping, Sequence
from math import ceil, inf
from typing import NamedTuple

from studyguide_course.exercises import Hints, compare, exercise

compare(
    "d1",
    "the exit code of a killed container",
    cases=[(0,), (1,), (2,), (-9,), (-15,), (-11,)],
    right=lambda code: code if code >= 0 else 128 - code,
    usual={
        "9 is an exit code that a program may choose; a signal counts from 128 on": abs,
        "-9 is Python's own way to tell it; no exit code is below 0": lambda code: code,
        "128 and the signal's number are added, and Python's code is minus that number": (
            lambda code: code if code >= 0 else 128 + code
        ),
        "this is -9 as a byte without sign; a container says 128 + the signal": (
            lambda code: code % 256
        ),
        "only a death by signal counts from 128 on": lambda code: 128 + abs(code),
    },
)


def _next(code: int, over: bool, hopeless: Sequence[int] = (1, 2)) -> str:
    """By the rules of k8s/d: a pod failure policy, and a bound on retries."""
    return "complete" if code == 0 else "failed" if code in hopeless or over else "new pod"


compare(
    "d2",
    "what the Job does next",
    cases=[
        (code, failed, limit)
        for limit in (0, 1, 3)
        for failed in (1, 2, 4)
        for code in (0, 1, 2, 137, 143)
    ],
    right=lambda code, failed, limit: _next(code, failed > limit),
    usual={
        "this would try exit codes 1 and 2 again: another attempt fails as well": (
            lambda code, failed, limit: _next(code, failed > limit, hopeless=())
        ),
        "backoffLimit counts the retries: with 1, one failure is followed by a second pod": (
            lambda code, failed, limit: _next(code, failed >= limit)
        ),
        "it never gives up: that is a Deployment": (
            lambda code, failed, limit: _next(code, over=False)
        ),
        "not a failure is retried, but 0 as well: a Job that has done its work is complete": (
            lambda code, failed, limit: _next(code or 137, failed > limit)
        ),
    },
)

Spent = Sequence[tuple[str, str, float]]  # stage, image, seconds


def _total(spent: Spent) -> float:
    return sum(seconds for *_, seconds in spent)


def _once(spent: Spent) -> float:
    return _total([each for each in spent if each[0] == "start"])


def _per_image(spent: Spent, seconds: float | None = None) -> float:
    seconds = _total(spent) - _once(spent) if seconds is None else seconds
    return seconds / len({image for _, image, _ in spent} - {""})


def _fewest(spent: Spent, share: float) -> int:
    """The least number of images, found by trying."""
    start, image, images = _once(spent), _per_image(spent), 1
    while start > share * (start + images * image):
        images += 1
    return images


def _least(start: float, image: float, share: float) -> int:
    return ceil(start * (1 - share) / share / image)


ONE = [("start", "", 0.61), ("load", "a", 0.1), ("blur", "a", 0.1), ("save", "a", 0.1)]
TWO = [ONE[0], *(("load", i, 0.05) for i in "ab"), *(("blur", i, 0.2) for i in "ab")]
compare(
    "d3",
    "how many images hide the start",
    cases=[(ONE, 0.1), (TWO, 0.1), (TWO, 0.27), ([("start", "", 1.0), ("blur", "a", 0.31)], 0.25)],
    right=_fewest,
    usual={
        "the run is the start and the images: compare the start with their sum": (
            lambda spent, share: ceil(_once(spent) / share / _per_image(spent))
        ),
        "that many are not quite enough: round up": (
            lambda spent, share: _fewest(spent, share) - 1
        ),
        "images come whole: round up": (
            lambda spent, share: _once(spent) * (1 - share) / share / _per_image(spent)
        ),
        "an image has several stages: add them up, and divide by the number of images": (
            lambda spent, share: _least(_once(spent), _total(spent[1:]) / len(spent[1:]), share)
        ),
        "the start is not paid per image: leave it out of an image's seconds": (
            lambda spent, share: _least(_once(spent), _per_image(spent, _total(spent)), share)
        ),
    },
)


class Measured(NamedTuple):
    """What a role was seen to use, and what is asked of its resources."""

    cores_when_busy: float = 1.0
    mib_most_of_the_time: int = 200
    mib_at_the_peak: int = 320
    most_pods_per_core: int = 2


UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@exercise("d4", "requests and limits")
def resources(answer: Mapping[str, Mapping[str, str]]) -> Hints:
    """Judge by what the kernel and the scheduler would do with such a pod."""
    value = {("limits", "cpu"): inf}  # many clusters set no limit of cpu
    for kind in ("requests", "limits"):
        for name in ("cpu", "memory"):
            written = str(answer.get(kind, {}).get(name, "nothing"))
            if (kind, name, written) == ("limits", "cpu", "nothing"):
                continue
            quantity = re.fullmatch(r"([\d.]+)([kMG]i?|Ki|m|)", written)
            if not quantity:
                yield f"{kind}: {name} is {written}; it takes a quantity, like 500m or 256Mi"
                return
            value[kind, name] = float(quantity[1]) * UNITS[quantity[2]]
            if name == "memory" and quantity[2] == "m":
                yield f"{written} of memory are thousandths of a byte; MiB are written Mi"
            if value["requests", name] > value[kind, name]:
                yield f"the request of {name} is above its limit: Kubernetes refuses the pod"
    yield from _too_much_or_too_little(value, Measured())


def _too_much_or_too_little(value: Mapping[tuple[str, str], float], seen: Measured) -> Hints:
    memory, peak = value["limits", "memory"], seen.mib_at_the_peak * 2**20
    if memory < 1.2 * peak:
        fate = "at its peak the pod is killed for it, exit code 137"
        yield f"a memory limit of {memory / peak:.0%} of the peak: {fate}; leave 20 % to spare"
    if memory > 2 * peak:
        yield f"a memory limit of {memory / peak:.1f} times the peak: a leak would hurt neighbours"
    if value["requests", "memory"] < seen.mib_most_of_the_time * 2**20:
        yield "the node is chosen by the request: this one may have less than the pod always needs"
    if value["limits", "cpu"] < seen.cores_when_busy:
        slower = seen.cores_when_busy / value["limits", "cpu"]
        yield f"the cpu limit slows it down: the blur takes {slower:.1f} times as long"
    if value["requests", "cpu"] * seen.most_pods_per_core < 1:
        pods = 1 / value["requests", "cpu"] if value["requests", "cpu"] else float("inf")
        yield f"by this cpu request, {pods:.0f} such pods may be put on one core"
