"""Recordings of a lesson's cluster cells: each command with its output, each run with its log.

`logs/kubernetes/<stem>/steps.jsonl` has one JSON object a line, in the order of the lesson:

- a command: `kind` "shell", `command`, `exit`, `output`, `seconds`;
- a run: `kind` "run", `options`, `watch` (pairs: seconds, a line of `kubectl get pods --watch`),
  `commands` (typed during the run, each with the second `at` which it was typed, or null), `log`
  (name of the run's log, which lies beside the file).

What tells of people and machines is masked when a recording is stored: folders, names, addresses.
"""

import difflib
import ipaddress
import json
import re
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studyguide.errors import DAMAGE, MessageError, UsageError, explained
from studyguide.record.report import RunReport, read_log, write_log

Step = dict[str, Any]

STEPS = "steps.jsonl"
SIMILAR = 0.9  # how alike two commands are, by difflib, if one is a later wording of the other
NAMESPACE_OPTION = re.compile(r"\s(?:--namespace|-n)[ =]\S+")
ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d+(?:\.\d+){3}(?!\w|\.\d)|[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F.:]*(?!\w))( *)"
)


class Recording:
    """The stored steps of one lesson, found again in their order.

    Raises UsageError if there is none in `folder`; MessageError if it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / STEPS
        if not path.exists():
            raise UsageError(f"{folder} has no recording", "Record one: make record-cluster")
        with explained(MessageError, f"{path} is not a recording", "Record it again", *DAMAGE):
            lines = path.read_text("utf-8").rstrip("\n").split("\n")
            self.steps: list[Step] = [json.loads(line) for line in lines]
            runs = [step for step in self.steps if step["kind"] == "run"]
            first = self.report(runs[0])
            self.date = first.started[:10]
            on = {name: first.machine.get(name, "unknown") for name in ("kubernetes", "nodes")}
        self.origin = f"RECORDED {self.date}, Kubernetes {on['kubernetes']}, nodes {on['nodes']}"
        self._next = 0  # where the lesson has got to

    def report(self, step: Step) -> RunReport:
        """Read the log of a recorded run."""
        return read_log(self.folder / step["log"])

    def run(self) -> Step:
        """Return the next run; the last one when there is no further one."""
        found: Step = self._following([step for step in self.steps if step["kind"] == "run"])
        return found

    def command(self, typed: str) -> Step | None:
        """Return the next recording of a command, or of one that differs by a word or two."""
        shells = [step for step in self.steps if step["kind"] == "shell"]
        by_text: dict[str, list[Step]] = {}
        for step in shells:
            by_text.setdefault(_normal(step["command"]), []).append(step)
        close = difflib.get_close_matches(_normal(typed), by_text, n=1, cutoff=SIMILAR)
        return self._following(by_text[close[0]]) if close else None

    def _following(self, steps: list[Step]) -> Step:
        """The first of these steps that is ahead, or else their last: a cell may be run twice."""
        places = [n for n, step in enumerate(self.steps) if any(step is one for one in steps)]
        place = next((n for n in places if n >= self._next), places[-1])
        self._next = place + 1
        return self.steps[place]


def _normal(command: str) -> str:
    """A command as it is compared: blanks and the namespace make no difference."""
    return " ".join(NAMESPACE_OPTION.sub("", command).split())


class NewRecording:
    """The steps of a lesson that runs now; they replace the stored recording when it ends."""

    def __init__(self, folder: Path, mask: "Mask") -> None:
        self.folder = folder
        self.mask = mask
        self._steps: list[Step] = []
        self._reports: list[RunReport] = []

    def add(self, step: Step) -> None:
        """Keep a command."""
        self._steps.append(step)

    def add_run(self, step: Step, report: RunReport) -> None:
        """Keep a run."""
        self._steps.append(step)
        self._reports.append(report)

    def store(self) -> None:
        """Replace the recording in `folder`, unless nothing was run: then it has no date."""
        if not self._reports:
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".recording-") as name:
            new = Path(name) / "new"
            logs = [write_log(report, new, self.folder.name).name for report in self._reports]
            for step, log in zip((s for s in self._steps if s["kind"] == "run"), logs, strict=True):
                step["log"] = log
            lines = [json.dumps(step, ensure_ascii=False) for step in self._steps]
            (new / STEPS).write_text("\n".join([*lines, ""]), encoding="utf-8")
            for path in new.iterdir():
                path.write_text(self.mask(path.read_text("utf-8")), encoding="utf-8")
            if self.folder.exists():
                self.folder.rename(Path(name) / "old")
            new.rename(self.folder)


class Mask:
    """Replaces what tells of people and machines in a text.

    Parameters
    ----------
    folders : pairs of Path and str
        Folders of this machine, and what stands for each.
    names : iterable of str
        Names of hosts, nodes and contexts, of which whole words are replaced.
    """

    def __init__(self, folders: Iterable[tuple[Path, str]], names: Iterable[str]) -> None:
        texts = {str(way): as_ for path, as_ in folders for way in (path, path.resolve())}
        self._folders = sorted(texts.items(), key=lambda item: -len(item[0]))
        self._names = {name: f"name-{n}" for n, name in enumerate(dict.fromkeys(names), 1) if name}
        self._addresses: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """Return the text without folders, names and addresses."""
        for folder, instead in self._folders:
            for way in (json.dumps(folder)[1:-1], folder):
                text = text.replace(way, instead)
        for name, instead in self._names.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", instead, text)
        return ADDRESS.sub(self._address, text)

    def _address(self, found: re.Match[str]) -> str:
        """One of the addresses that are reserved for documentation; columns stay aligned."""
        try:
            address = ipaddress.ip_address(found[0].strip())
        except ValueError:
            return found[0]
        if address.is_loopback or address.is_unspecified:
            return found[0]
        form = "192.0.2.{}" if address.version == 4 else "2001:db8::{:x}"
        new = self._addresses.setdefault(str(address), form.format(len(self._addresses) + 1))
        return new.ljust(max(len(found[0]), len(new) + 1)) if found[1] else new


def host_names() -> list[str]:
    """The names of this machine."""
    name = socket.gethostname()
    return [name, name.partition(".")[0]] if name != "localhost" else []
