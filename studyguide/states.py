"""How each image ended, in the keys `state:<job>` of Redis: what both queues share."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from studyguide.machinery.link import Link
from studyguide.work import ImageJob


@dataclass
class Queue:
    """What both queues share: how each image ended, in the keys `state:<job>`."""

    link: Link
    prefix: str = "{sg}:"

    def set_state(self, job: ImageJob, state: str) -> None:
        """Say how the image ended: saved, partial or failed."""
        self.link(lambda client: client.set(f"{self.prefix}state:{job.key}", state))

    def state(self, job: ImageJob) -> str:
        """How the image ended; empty while it has not."""
        (found,) = self.states([job])
        return found

    def states(self, jobs: Sequence[ImageJob]) -> list[str]:
        """How each of these images ended, in one call however many they are."""
        keys = [f"{self.prefix}state:{job.key}" for job in jobs]
        found = self.link(lambda client: client.mget(keys)) if keys else []
        return [(state or b"").decode() for state in found]

    def unfinished(self, jobs: list[ImageJob]) -> list[ImageJob]:
        """Those of these jobs whose images have not ended."""
        return [job for job, state in zip(jobs, self.states(jobs), strict=True) if not state]


def reopen(link: Link, prefix: str, intact: Collection[str]) -> None:
    """Forget how all images ended but those in `intact`: a resumed run ends them anew."""

    def forget(client: Any) -> None:
        for image, job in client.hgetall(f"{prefix}jobs").items():
            if json.loads(image) not in intact:
                client.delete(f"{prefix}state:{job.decode()}")

    link(forget)
