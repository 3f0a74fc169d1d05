"""The exercise of the page on the network: a write that survives a failover."""

import threading
from pathlib import Path
from typing import Any

from studyguide.machinery.run_folder import TemporaryFolder
from studyguide_course.exercises import Answer, Hints, exercise
from studyguide_course.network.failover import pair

EARLY_S, LONG_S = 0.1, 6.0  # how long the replica is out of reach; and what is as good as for ever
UNTRUE = "you say True for a write that no replica has: what does Redis answer, and when?"


@exercise("n1", "a write that survives a failover")
def durable(answer: Answer) -> Hints:
    """`answer(client, key, value)` -> whether a replica has the write, after 2 s at the latest."""
    with TemporaryFolder("replica") as folder, pair(Path(folder)) as (_, proxy, primary, replica):
        proxy.cut()
        asking, said = _asked(answer, primary, "near")
        asking.join(EARLY_S)
        yield UNTRUE if said == [True] else None
        proxy.heal()
        asking.join(LONG_S)
        if isinstance(said[0] if said else None, Exception):
            yield f"your answer fails with {type(said[0]).__name__}: {said[0]}"
        if said != [True]:
            yield "the replica answers in time, and you do not say True: let Redis wait for it"
        primary.set("last", "value")
        primary.wait(1, int(1000 * LONG_S))  # what came before it has arrived, too
        if replica.get("near") != b"value":
            yield "you say True, and the replica does not have the value under that key"
        proxy.cut()
        asking, said = _asked(answer, primary, "far")
        asking.join(LONG_S)
        if not said:
            yield "the replica is out of reach, and you wait for ever: a wait of 0 has no end"
        yield UNTRUE if said != [False] else None


def _asked(answer: Answer, client: Any, key: str) -> tuple[threading.Thread, list[object]]:
    """Have the answer called in a thread; what it says, or the error that it raises, is listed."""
    said: list[object] = []

    def ask() -> None:
        try:
            said.append(bool(answer(client, key, "value")))
        except Exception as error:
            said.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    return asking, said
