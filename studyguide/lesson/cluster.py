"""The part of lessons d to g that is played on Kubernetes, typed as one would type it.

Where no cluster answers, every cell says so in one line; the run that was recorded on one is shown
instead, with its date, versions and machine, if the course has such a recording.
"""

import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from IPython.display import display

from studyguide import course
from studyguide.charts import timeline_figure
from studyguide.errors import ToolError, UsageError
from studyguide.kubectl import Kubectl
from studyguide.lesson import Lesson
from studyguide.report import RunReport, newest_log, read_log

# In the course's folder; `studyguide run f --backend kubernetes --logs logs/kubernetes` writes it.
RECORDINGS = "logs/kubernetes"
# The commands of a lesson name neither context nor namespace; ours must touch no other. CONTEXT is
# for `make -C k8s`.
SHELL = """
export CONTEXT={context}
kubectl() {{ command kubectl --context "$CONTEXT" --namespace {namespace} "$@"; }}
{command}
"""
SECONDS = 120  # for one command


class OnCluster:
    """A lesson's stage on the cluster of kubectl's current context, if that one answers."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        self.course = course.find("images/input").parents[1]
        self.kubectl: Kubectl | None = None
        try:
            kubectl = Kubectl.current()
            kubectl.answers()
        except ToolError as error:
            said = error.stderr.strip().splitlines() or [str(error)]
            self.absence = f"No cluster answers here ({said[-1]})."
            print(self.absence)
        else:
            self.kubectl, self.absence = kubectl, ""
            print(f"context {kubectl.context}, namespace {kubectl.namespace}")

    def shell(self, command: str) -> None:
        """Run a command line in the folder of the course, in the context and namespace shown."""
        if not self.kubectl:
            print(f"$ {command}   (not run: no cluster answers)")
            return
        print(f"$ {command}")
        names = {
            name: shlex.quote(getattr(self.kubectl, name)) for name in ("context", "namespace")
        }
        done = subprocess.run(
            ["bash", "-c", SHELL.format(command=command, **names)],
            cwd=self.course,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        print(done.stdout.rstrip() + (f"\nexit code {done.returncode}" if done.returncode else ""))

    def run(self, **options: Any) -> RunReport | None:
        """Run the approach on pods, each change of which is told, and leave them there.

        Without a cluster: the recorded run, or None if there is no recording.
        """
        if not self.kubectl:
            return self._recorded()
        with _watching(self.kubectl):
            return self.lesson.run(backend="kubernetes", keep=True, **options)

    def _recorded(self) -> RunReport | None:
        print(self.absence)
        try:
            report = read_log(newest_log(self.course / RECORDINGS, self.lesson.approach.stem))
        except UsageError:
            print("There is no recording of a run on a cluster yet, so none is shown.")
            return None
        on = ", ".join(f"{name} {value}" for name, value in report.machine.items())
        print(f"RECORDED, not run here: {report.started}; {on}")
        return report

    def compare(self, local: RunReport, pods: RunReport | None) -> None:
        """Draw the run on this machine and below it the run on pods."""
        if pods is None:
            print("No timeline of pods is drawn: no cluster answers, and no run is recorded.")
            return
        for report in (local, pods):
            display(timeline_figure(report))

    def close(self) -> None:
        """Delete the namespace, and all that is in it."""
        if self.kubectl:
            print(f"$ kubectl delete namespace {self.kubectl.namespace}")
            self.kubectl.delete_namespace()
        else:
            print("Nothing to delete: no cluster answers.")


@contextmanager
def _watching(kubectl: Kubectl) -> Iterator[None]:
    """Tell what `kubectl get pods --watch` tells, with the seconds since the start."""
    start = time.monotonic()
    command = kubectl.command("get", "pods", "--watch")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:

        def tell() -> None:
            for line in watch.stdout or ():
                print(f"{time.monotonic() - start:6.1f} s  {line.rstrip()}")

        print("$ kubectl get pods --watch")
        teller = threading.Thread(target=tell)
        teller.start()
        try:
            yield
        finally:
            watch.terminate()
            teller.join()
