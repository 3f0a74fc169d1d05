"""The eight rungs: what strikes on each, its target, and its one hint."""

import os
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files

from studyguide_course.ladder import TILES, WINDOW_S
from studyguide_course.ladder.trial import Trial

MOST_ATTEMPTS = 5  # of a tile that fails or kills
PAUSE_S = 0.1  # the least pause before the second attempt; it doubles with each further one


def nothing(trial: Trial) -> Iterator[None]:
    """What is planted on tiles strikes by itself."""
    yield from ()


def kill(trial: Trial) -> Iterator[None]:
    """SIGKILL of the worker that holds the victim."""
    name = yield from trial.held()
    trial.strike(f"kills {name}")
    trial.kill(name)
    while not trial.record.of("death"):
        yield


def freeze(trial: Trial) -> Iterator[None]:
    """A worker is frozen with the victim in hand until another has done it, then goes on."""
    name, tile = (yield from trial.held()), trial.record.victims[0]
    trial.strike(f"freezes {name}")
    trial.child(name).pause()
    while tile not in trial.record.results():
        yield
    trial.release()
    trial.strike(f"wakes {name}")
    trial.child(name).resume()
    yield from _late(trial, name)


def cut_off(trial: Trial) -> Iterator[None]:
    """The worker that holds the victim cannot reach Redis for two windows."""
    name, tile = (yield from trial.held()), trial.record.victims[0]
    trial.strike(f"cuts {name} off")
    trial.proxies[name].cut()
    trial.release()
    yield from trial.windows(2)
    while tile not in trial.record.results():
        yield
    trial.strike(f"joins {name} again")
    trial.proxies[name].heal()
    yield from _late(trial, name)


def _late(trial: Trial, name: str) -> Iterator[None]:
    """Wait until a worker has ended the victim, and for what it makes of it."""
    while trial.record.holds(name) == trial.record.victims[0]:
        yield
    yield from trial.windows(2)


def kill_server(trial: Trial) -> Iterator[None]:
    """SIGKILL of the server while a tile is held; it is back after a window."""
    yield from trial.held()
    trial.strike("kills Redis")
    trial.kill_server()
    trial.release()
    yield from trial.windows(1)
    trial.strike("starts Redis")
    trial.server.restart()


def tear(trial: Trial) -> Iterator[None]:
    """SIGKILL of the server, and its append-only file ends just before the last result."""
    yield from trial.held()
    while len(trial.record.results()) < TILES - 1:
        yield
    trial.strike("kills Redis, tears its file")
    trial.kill_server()
    texts = [text.encode() for text in trial.record.results().values()]
    for file in (trial.folder / "redis").rglob("*.aof"):
        body = file.read_bytes()
        at = max(map(body.rfind, texts))
        if at > 0:
            os.truncate(file, at)
    trial.release()
    trial.strike("starts Redis")
    trial.server.restart()


@dataclass(frozen=True)
class Row:
    """One trial of a rung: what strikes, and what is allowed."""

    name: str
    strike: Callable[[Trial], Iterator[None]] = nothing
    plant: tuple[str, ...] = ()  # kinds of faults, each on a victim that the seed chooses
    most: int = 0  # begins of a tile without a fault; 0: any number
    most_victim: int = 0  # and of the first victim
    recover_s: float = 0.0  # until a victim whose worker died is begun again; 0: any time
    stable: bool = True  # a result that is there stays as it is
    same_name: bool = False  # a worker that died is started again under its own name
    proxied: bool = False


@dataclass(frozen=True)
class Rung:
    """One step of the ladder; what is said of it is in `rungs.toml`."""

    title: str
    target: str
    hint: str
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, number: str, said: dict[str, str]) -> "Rung":
        """Join the texts of a rung, in which lines are folded, and its trials."""
        texts = {name: " ".join(text.split()) for name, text in said.items()}
        return cls(**texts, rows=ROWS[int(number)])


KILLED = Row("a killed worker", kill, ("hold",), recover_s=2 * WINDOW_S, most=1)
BACK = Row("a killed worker that comes back", kill, ("hold",), same_name=True, stable=False)
ROWS = {
    1: (Row("a calm run", most=1),),
    2: (BACK,),
    3: (Row("a calm run", most=1), KILLED),
    4: (Row("a long tile", plant=("slow",), most=1, most_victim=1), KILLED),
    5: (Row("a zombie", freeze, ("hold",), most=1, most_victim=2),),
    6: (Row("a flaky tile and one that raises", plant=("flaky", "raise"), most=1),),
    7: (Row("a poison tile", plant=("poison",)), KILLED),
    8: (
        Row("a killed server", kill_server, ("hold",)),
        Row("a partition", cut_off, ("hold",), most_victim=2, proxied=True),
        Row("a torn file", tear, ("hold",), stable=False),
    ),
}
TEXTS = tomllib.loads(files("studyguide_course.ladder").joinpath("rungs.toml").read_text())
RUNGS = {int(number): Rung.of(number, said) for number, said in TEXTS.items()}
