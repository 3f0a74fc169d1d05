"""What keeps pods from their work.

kubectl says little of what goes wrong later, in the cluster. The state of pods and claims and
events tell it within seconds, and not after a time-out.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from studyguide.kubernetes.kubectl import REMEDIES, Object, remedy_for

DESCRIBE = "Run it with --keep and see kubectl describe pods"
OUT_OF_MEMORY = "Give it more memory in k8s/, or use fewer workers or smaller tiles"
# Events of what no pod can tell, because there is none or it waits for a volume.
TELLING = ("FailedCreate", "FailedCreatePodSandBox", "FailedMount", "ProvisioningFailed")
# Refusals that do not pass by themselves, whatever the cluster is busy with.
LASTING = re.compile(r"violates PodSecurity|exceeded quota")


@dataclass(frozen=True)
class Trouble:
    """Something that keeps a pod from its work.

    `passing` troubles are normal for some seconds after a start; they count if they last.
    """

    where: str  # as kubectl names it: pod/redis-0
    what: str
    remedy: str
    passing: bool = False


def find_trouble(things: Iterable[Object]) -> list[Trouble]:
    """What keeps pods from working, as pods, claims and events tell, one trouble for each.

    Events of what has come right since are passed over.
    """
    things = list(things)
    found: dict[str, Trouble] = {}
    for trouble in (trouble for thing in things for trouble in _of_thing(thing, things)):
        found.setdefault(trouble.where, trouble)
    return list(found.values())


def _of_thing(thing: Object, things: list[Object]) -> Iterator[Trouble]:
    if thing["kind"] == "Pod" and "deletionTimestamp" not in thing["metadata"]:
        yield from _of_pod(thing, things)
    elif thing["kind"] == "PersistentVolumeClaim" and thing["status"]["phase"] == "Pending":
        yield _pending(f"persistentvolumeclaim/{thing['metadata']['name']}", "has no volume")
    elif thing["kind"] == "Event" and thing["reason"] in TELLING:
        about = thing["involvedObject"]
        if _still_waits(about["kind"], about["name"], things):
            yield _pending(f"{about['kind'].lower()}/{about['name']}", thing["message"])


def _still_waits(kind: str, name: str, things: list[Object]) -> bool:
    """Whether a pod or claim is still pending, a workload without a pod: events stay for long."""
    if kind in ("Pod", "PersistentVolumeClaim"):
        named = [it for it in things if (it["kind"], it["metadata"]["name"]) == (kind, name)]
        return any(it["status"]["phase"] == "Pending" for it in named)
    return all(name != owner["name"] for thing in things for owner in _owners(thing))


def _owners(thing: Object) -> list[Object]:
    return list(thing["metadata"].get("ownerReferences", []))


def _of_pod(pod: Object, things: list[Object]) -> Iterator[Trouble]:
    where, status = f"pod/{pod['metadata']['name']}", pod["status"]
    if status.get("reason") == "Evicted":
        if not _is_replaced(pod, things):
            yield _pending(where, status["message"])
        return
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield _pending(where, condition.get("message", "cannot be scheduled"))
    for container in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
        yield from _of_container(where, container)


def _is_replaced(pod: Object, things: list[Object]) -> bool:
    """Whether another pod of the same owner has started: an evicted one stays to be seen."""
    others = [it for it in things if it["kind"] == "Pod" and _owners(it) == _owners(pod)]
    return any(it["status"]["phase"] in ("Running", "Succeeded") for it in others)


def _of_container(where: str, container: Object) -> Iterator[Trouble]:
    state, before = container["state"], container.get("lastState", {})
    end = state.get("terminated") or before.get("terminated") or {}
    waiting, remedies = state.get("waiting", {}), REMEDIES["waiting"]
    if end.get("reason") == "OOMKilled":
        yield Trouble(where, "was killed for using more memory than its limit", OUT_OF_MEMORY)
    elif "running" in state:
        return
    elif waiting.get("reason") in remedies:
        what = f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        yield Trouble(where, what, remedies[waiting["reason"]])
    elif end.get("reason") == "StartError":
        yield Trouble(where, end["message"], remedies["RunContainerError"])
    elif container["restartCount"] and end.get("exitCode"):
        what = f"crashes again and again, the last time with exit code {end['exitCode']}"
        yield Trouble(where, what, "Fix what its log reports", passing=True)


def _pending(where: str, message: str) -> Trouble:
    passing = not LASTING.search(message)
    return Trouble(where, message, remedy_for(f"{where} {message}", DESCRIBE), passing)
