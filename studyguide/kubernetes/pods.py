"""What the pods of a run are given, and what they show of themselves.

The manifests in k8s/ say which options a role gets. A run fills in their values, in the ConfigMap
`settings`, and adds to each command line only what no manifest can know.
"""

import base64
import json
import secrets
from collections.abc import Iterable
from datetime import datetime

from studyguide.cluster import DONE
from studyguide.errors import UsageError
from studyguide.kubernetes.kubectl import MANAGED_BY, OWNER, RUN, Object, kustomize, owner
from studyguide.machinery import places
from studyguide.plan import Plan
from studyguide.settings import Settings, to_options

INPUT, OUTPUT, KEPT = "/data/input", "/data/output", "/data/run"  # in every pod
ROLE = "studyguide/role"  # label of the pods that run a role
# Why a pod goes without a chance to finish, in the API's words.
LOST = ("DeletionByTaintManager", "DeletionByPodGC", "TerminationByKubelet")


def manifests(plan: Plan, namespace: str) -> list[Object]:
    """Return the objects of k8s/<approach> as a run creates them.

    They have its namespace, its labels, its settings and a password of its own. Raises UsageError
    if PyYAML or the manifests are not to be found, ToolError if there is no kubectl.
    """
    try:
        import yaml
    except ImportError as error:
        remedy = "Install what pods need: pip install studyguide[cluster]"
        raise UsageError(f"{error}", remedy) from error
    text = json.dumps(list(yaml.safe_load_all(kustomize(places.find("k8s") / plan.approach))))
    for secret in (thing for thing in json.loads(text) if thing["kind"] == "Secret"):
        text = text.replace(name_of(secret), f"redis-{plan.run_id}")  # of no other deployment
    things: list[Object] = json.loads(text)
    labels = {MANAGED_BY: "studyguide", RUN: plan.run_id, OWNER: owner()}
    for thing in things:
        which = "name" if thing["kind"] == "Namespace" else "namespace"
        thing["metadata"][which] = namespace
        template = thing.get("spec", {}).get("template")
        for labelled in (thing, template) if template else (thing,):
            labelled["metadata"]["labels"] = labels_of(labelled) | labels
        if thing["kind"] == "Secret":
            password = base64.b64encode(secrets.token_hex(16).encode()).decode()
            thing["data"] = dict.fromkeys(thing["data"], password)
        if thing["kind"] == "ConfigMap":
            values = variables(plan.settings)
            thing["data"] |= {name: values[name] for name in thing["data"].keys() & values.keys()}
        if name_of(thing) == "files" and template:
            container = template["spec"]["containers"][0]  # without samples it waits for images
            container["env"] = [{"name": "SHARE_SAMPLES", "value": "/none"}]
    return things


def variables(settings: Settings) -> dict[str, str]:
    """Return the settings by the names of k8s/base/settings.env: KERNEL_SIZE and so on."""
    options = (option.removeprefix("--").partition("=") for option in to_options(settings))
    return {name.replace("-", "_").upper(): value for name, _, value in options}


def name_of(thing: Object) -> str:
    """Return its name; no two of a kind have the same."""
    return str(thing["metadata"]["name"])


def labels_of(thing: Object) -> Object:
    """Return its labels, if any."""
    labels: Object = thing["metadata"].get("labels", {})
    return labels


def role_of(thing: Object) -> str:
    """Return the role that a workload's pods run; empty for all else."""
    template = thing.get("spec", {}).get("template", {})
    return str(labels_of(template).get(ROLE, "")) if template else ""


def process_of(pod: Object) -> str:
    """Return its name in the timeline; Redis is `redis`, as on one machine."""
    return name_of(pod) if ROLE in labels_of(pod) else str(labels_of(pod)["app"])


def readiness(things: Iterable[Object]) -> str:
    """Say how many of the pods are ready."""
    pods = [thing["status"].get("conditions", []) for thing in things if thing["kind"] == "Pod"]
    ready = {"type": "Ready", "status": "True"}.items()
    count = sum(ready <= condition.items() for pod in pods for condition in pod)
    return f"pods ready {count} of {len(pods)}"


def is_lost(pod: Object) -> bool:
    """Whether its node failed or threw it out."""
    conditions = pod["status"].get("conditions", [])
    return any(it.get("reason") in LOST and it["status"] == "True" for it in conditions)


def is_alive(pod: Object) -> bool:
    """Whether it has neither ended nor been asked to; who is lost is to be missed later."""
    has_ended = pod["status"].get("phase") in ("Succeeded", "Failed")
    return not has_ended and ("deletionTimestamp" not in pod["metadata"] or is_lost(pod))


def count_ends(pod: Object) -> int:
    """Return how often its container has ended, when it should have gone on."""
    states = pod["status"].get("containerStatuses", [])
    codes = [it["state"]["terminated"]["exitCode"] for it in states if "terminated" in it["state"]]
    is_job = any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))
    over = [code for code in codes if not (is_job and code in DONE)]
    restarts: int = sum(state["restartCount"] for state in states)
    return restarts + max(len(over), is_lost(pod))


def ended_at(pod: Object | None) -> float | None:
    """Return when its container last ended, in full seconds since the epoch, if that is known."""
    states = pod["status"].get("containerStatuses", []) if pod else []
    ends = [
        it.get(when, {}).get("terminated", {}) for it in states for when in ("state", "lastState")
    ]
    times = [
        datetime.fromisoformat(it["finishedAt"]).timestamp() for it in ends if it.get("finishedAt")
    ]
    return max(times, default=None)
