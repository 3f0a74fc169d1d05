"""A `kubectl` first on PATH that hands every call to a function of the test, and a replay."""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import pytest

Object = dict[str, Any]
TRANSCRIPTS = Path(__file__).parent / "data" / "kubectl" / "transcripts.jsonl"

SCRIPT = """#!{python} -IS
import sys
from multiprocessing.connection import Client

with Client({address!r}) as connection:
    connection.send((sys.argv[1:], sys.stdin.buffer.read()))
    exit_code, stdout, stderr = connection.recv()
sys.stdout.buffer.write(stdout)
sys.stderr.buffer.write(stderr)
sys.exit(exit_code)
"""


@dataclass(frozen=True)
class Answer:
    """What one call of kubectl ends with."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


Answerer = Callable[[list[str], bytes], Answer | None]


@contextmanager
def stub_kubectl(answer: Answerer, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have `answer(arguments, stdin)` speak for kubectl; None is silence that does not end."""

    def serve(connection: Connection) -> None:
        with connection, suppress(EOFError, ConnectionError):
            said = answer(*connection.recv())
            if said is None:
                connection.recv()  # until it is killed
            else:
                connection.send((said.exit_code, said.stdout, said.stderr))

    def accept() -> None:
        with suppress(OSError):  # closed below
            while True:
                threading.Thread(target=serve, args=[listener.accept()], daemon=True).start()

    (folder / "bin").mkdir()
    patch.setenv("PATH", str(folder / "bin"), prepend=":")
    with Listener(family="AF_UNIX") as listener:
        script = folder / "bin" / "kubectl"
        script.write_text(SCRIPT.format(python=sys.executable, address=listener.address))
        script.chmod(0o755)
        threading.Thread(target=accept, daemon=True).start()
        yield


# --- replay --------------------------------------------------------------------------------------


def transcripts(scenario: str) -> list[Object]:
    """The recorded calls of a scenario."""
    lines = TRANSCRIPTS.read_text("utf-8").splitlines()
    return [call for call in map(json.loads, lines) if call["scenario"] == scenario]


def recorded(scenario: str, *words: str) -> Object:
    """The recorded call of a scenario that has these words."""
    return next(call for call in transcripts(scenario) if set(words) <= set(call["argv"]))


def objects(scenario: str, kinds: str) -> list[Object]:
    """What `get kinds` gave in a scenario."""
    found: list[Object] = recorded(scenario, "get", kinds)["stdout"]["items"]
    return found


class Replay:
    """Answers as kubectl did in a scenario when it was asked for the same."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        self.calls: list[list[str]] = []

    def __call__(self, arguments: list[str], stdin: bytes) -> Answer:
        """Look the call up; where it is sent to may differ."""
        self.calls.append(arguments)
        for call in transcripts(self.scenario):
            if _essence(call["argv"][1:]) == _essence(arguments):
                stdout = call["stdout"]
                text = stdout if isinstance(stdout, str) else json.dumps(stdout)
                return Answer(call["exit"], text.encode(), call["stderr"].encode())
        raise AssertionError(f"not recorded in {self.scenario!r}: kubectl {' '.join(arguments)}")


def _essence(arguments: Sequence[str]) -> list[str]:
    """Without where it goes, how long it may take and how the output looks."""
    rest, words = iter(arguments), []
    for word in rest:
        if word in ("--context", "--namespace", "-n", "--output", "-o"):
            next(rest)
        elif not word.startswith(("--server", "--as", "--request-timeout", "--stdin", "--pod-")):
            words.append(word)
    return words
