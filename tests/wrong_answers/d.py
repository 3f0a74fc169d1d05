"""Usual wrong answers to the exercises of lesson d, each with a part of the hint that must come."""

from math import ceil


def pod(code, failed, limit):
    return "complete" if code == 0 else "failed" if code in (1, 2) or failed > limit else "new pod"


def start_of(spent):
    return sum(seconds for stage, _, seconds in spent if stage == "start")


def per(spent, number):
    return (sum(seconds for *_, seconds in spent) - start_of(spent)) / number


def images(spent):
    return len({image for _, image, _ in spent if image})


def least(start, image, share):
    return ceil(start * (1 - share) / share / image)


def memory(request, limit, cpu=("500m", "1")):
    requests, limits = {"cpu": cpu[0], "memory": request}, {"cpu": cpu[1], "memory": limit}
    return {"requests": requests, "limits": limits}


WRONG = {
    "d1": [
        (abs, "counts from 128 on"),
        (lambda code: code, "no exit code is below 0"),
        (lambda code: code if code >= 0 else 128 + code, "minus that number"),
        (lambda code: code % 256, "a byte without sign"),
        (lambda code: 128 + abs(code), "only a death by signal"),
        (lambda code: 137, "for (0) the answer is 0, and yours is 137"),
    ],
    "d2": [
        (
            lambda code, failed, limit: pod(code and 137, failed, limit),
            "another attempt fails",
        ),
        (lambda code, failed, limit: pod(code, failed + 1, limit), "a second pod"),
        (lambda code, failed, limit: pod(code, 0, limit), "a Deployment"),
        (lambda code, failed, limit: pod(code or 137, failed, limit), "0 as well"),
        (lambda code, failed, limit: "restart", "yours is 'restart'"),
    ],
    "d3": [
        (
            lambda spent, share: ceil(start_of(spent) / share / per(spent, images(spent))),
            "compare the start with their sum",
        ),
        (
            lambda spent, share: least(start_of(spent), per(spent, images(spent)), share) - 1,
            "not quite enough",
        ),
        (
            lambda spent, share: start_of(spent) * (1 - share) / share / per(spent, images(spent)),
            "come whole",
        ),
        (
            lambda spent, share: least(start_of(spent), per(spent, len(spent) - 1), share),
            "several stages",
        ),
        (
            lambda spent, share: least(
                start_of(spent), sum(s for *_, s in spent) / images(spent), share
            ),
            "not paid per image",
        ),
    ],
    "d4": [
        (memory("256m", "512m"), "thousandths of a byte"),
        (memory("512Mi", "256Mi"), "refuses the pod"),
        (memory("200Mi", "256Mi"), "exit code 137"),
        (memory("320M", "320M"), "exit code 137"),
        (memory("256Mi", "4Gi"), "a leak"),
        (memory("64Mi", "512Mi"), "the node is chosen"),
        (memory("256Mi", "512Mi", cpu=("250m", "500m")), "2.0 times as long"),
        (memory("256Mi", "512Mi", cpu=("100m", "1")), "10 such pods"),
        ({"requests": {"cpu": "1", "memory": "256Mi"}}, "limits: memory is nothing"),
        (memory("256 MB", "512 MB"), "it takes a quantity"),
    ],
}
