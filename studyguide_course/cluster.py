"""The part of lessons d to g that runs on Kubernetes, with commands as one types them.

Where no cluster answers, the same cells replay what was recorded on one. With RECORD=1 in the
environment, a cluster is required and what the cells do becomes the new recording.
"""

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from IPython.display import display

from studyguide.errors import ToolError, UsageError
from studyguide.kubernetes.kubectl import Kubectl
from studyguide.machinery import places
from studyguide.record.charts import timeline_figure
from studyguide.record.report import RunReport
from studyguide_course.lesson import Lesson
from studyguide_course.recording import Mask, NewRecording, Recording, Step, host_names

RECORDINGS = "logs/kubernetes"  # in the course's folder; a folder for each lesson
# The commands of a lesson name neither context nor namespace; they must touch no other. CONTEXT is
# for `make -C k8s`.
SHELL = """
export CONTEXT={context}
kubectl() {{ command kubectl --context "$CONTEXT" --namespace {namespace} "$@"; }}
{command}
"""
SECONDS = 120  # for one command


class OnCluster:
    """A lesson on the cluster of kubectl's current context, or its recording where none answers.

    Raises ToolError if no cluster answers and RECORD=1.
    """

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        self.course = places.find("images/input").parents[1]
        self.kubectl: Kubectl | None = None
        self.recording: Recording | None = None
        self._new: NewRecording | None = None
        self._during: list[Step] | None = None  # commands typed during the run that goes on
        self._start = 0.0  # of that run
        records, folder = os.environ.get("RECORD") == "1", self._folder()
        try:
            kubectl = Kubectl.current(f"studyguide-{time.time_ns():x}")
            kubectl.answers()
        except ToolError as error:
            if records:
                raise
            said = error.stderr.strip().splitlines() or [str(error)]
            with suppress(UsageError):
                self.recording = Recording(folder)
            what = self.recording.origin if self.recording else f"There is no recording in {folder}"
            print(f"No cluster answers here ({said[-1]}).\n{what}.")
        else:
            self.kubectl = kubectl
            print("A cluster answers. Each run names its context and namespace.")
            if records:
                self._new = NewRecording(folder, Mask(self._folders(), _names(kubectl)))

    def _folder(self) -> Path:
        return self.course / RECORDINGS / self.lesson.approach.stem

    def _folders(self) -> list[tuple[Path, str]]:
        """Folders of this machine, and what a recording has instead."""
        return [
            (self.lesson.images, "images/input"),
            (self.lesson.folder / "output", "images/output"),
            (self.lesson.folder, "lesson"),
            (self.course, "studyguide"),
            (Path.home(), "~"),
        ]

    def shell(self, command: str) -> None:
        """Run a command line in the folder of the course, in the context and namespace shown."""
        if not self.kubectl:
            self._replay(command)
            return
        print(f"$ {command}")
        names = {
            name: shlex.quote(getattr(self.kubectl, name)) for name in ("context", "namespace")
        }
        start = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", SHELL.format(command=command, **names)],
            cwd=self.course,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        step = {"kind": "shell", "command": command, "exit": done.returncode, "output": done.stdout}
        step["seconds"] = round(time.monotonic() - start, 2)
        _print_answer(step)
        if self._during is not None:
            self._during.append(step | {"at": round(start - self._start, 1)})
        elif self._new:
            self._new.add(step)

    def _replay(self, command: str) -> None:
        step = self.recording and self.recording.command(command)
        if self.recording and step:
            print(f"$ {step['command']}   (RECORDED {self.recording.date})")
            _print_answer(step)
        elif self.recording:
            print(f"$ {command}   (not in the recording of {self.recording.date})")
        else:
            print(f"$ {command}   (no cluster answers, and there is no recording)")

    def run(self, **options: Any) -> RunReport | None:
        """Run the approach on pods, print each change of a pod, and leave the pods there.

        Without a cluster: the recorded run, or None if there is no recording.
        """
        if not self.kubectl:
            return self._replay_run()
        _delete_namespace(self.kubectl)  # that of an earlier run of this lesson
        step: Step = {"kind": "run", "commands": []}
        step["options"] = {name: _plain(value) for name, value in options.items()}
        self._during, self._start = step["commands"], time.monotonic()
        try:
            with _watching(self.kubectl, self._start) as step["watch"]:
                report = self.lesson.run(
                    backend="kubernetes",
                    keep=True,
                    namespace=self.kubectl.namespace,
                    **options,
                )
        finally:
            self._during = None
        if self._new:
            self._new.add_run(step, report)
        return report

    def _replay_run(self) -> RunReport | None:
        if not self.recording:
            print("No cluster answers, and there is no recording of a run.")
            return None
        step = self.recording.run()
        print(f"{self.recording.origin}, not run here.\n$ kubectl get pods --watch")
        lines = [(at, f"{at:6.1f} s  {line}") for at, line in step["watch"]]
        for typed in step["commands"]:
            at = typed["at"]
            when = f"{at:6.1f} s" if at is not None else "during the run"
            text = f"{when}  $ {typed['command']}\n{typed['output'].rstrip()}"
            lines.append((at or 0.0, text))
        for _, line in sorted(lines, key=lambda item: item[0]):
            print(line)
        return self.recording.report(step)

    def compare(self, local: RunReport, pods: RunReport | None) -> None:
        """Draw the run on this machine and below it the run on pods."""
        if pods is None:
            print("No timeline of pods is drawn: no cluster answers, and no run is recorded.")
            return
        display(timeline_figure(local))
        if self.recording:
            print(self.recording.origin)
        display(timeline_figure(pods))

    def close(self) -> None:
        """Delete the namespace with everything in it; store the recording, if this makes one."""
        if not self.kubectl:
            print("Nothing to delete: no cluster was used.")
            return
        print(f"$ kubectl delete namespace {self.kubectl.namespace}")
        _delete_namespace(self.kubectl)
        if self._new:
            self._new.store()
            print(f"recorded in {RECORDINGS}/{self.lesson.approach.stem}")


def _delete_namespace(kubectl: Kubectl) -> None:
    """Delete the namespace, if a run has created it, and wait until it is gone."""
    kubectl.delete("namespaces", f"kubernetes.io/metadata.name={kubectl.namespace}")


def _print_answer(step: Step) -> None:
    """Print the output of a command, and its exit code if that is not 0."""
    print(step["output"].rstrip() + (f"\nexit code {step['exit']}" if step["exit"] else ""))


def _plain(value: Any) -> Any:
    """An option of a run as JSON has it: an object by the name of its class."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float) else type(value).__name__


def _names(kubectl: Kubectl) -> list[str]:
    """Names of this machine, of the context and of the nodes as far as one may ask."""
    names = [*host_names(), kubectl.context]
    with suppress(ToolError):
        names += [node["metadata"]["name"] for node in kubectl.get("nodes")]
    return names


@contextmanager
def _watching(kubectl: Kubectl, start: float) -> Iterator[list[tuple[float, str]]]:
    """Print and collect what `kubectl get pods --watch` prints, with the seconds since `start`."""
    command = kubectl.command("get", "pods", "--watch")
    lines: list[tuple[float, str]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:

        def tell() -> None:
            for line in watch.stdout or ():
                lines.append((round(time.monotonic() - start, 1), line.rstrip()))
                print("{:6.1f} s  {}".format(*lines[-1]))

        print("$ kubectl get pods --watch")
        teller = threading.Thread(target=tell)
        teller.start()
        try:
            yield lines
        finally:
            watch.terminate()
            teller.join()
