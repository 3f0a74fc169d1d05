"""The command line: `studyguide` and `python -m studyguide`.

Exit codes: 0 all well; 1 some image failed (the others are saved) or a run could not go on; 2 wrong
usage. A role that cannot go on for now, because Redis is away or a disk full, ends with 75, one
that found an error in this program with 70, and a coordinator that was asked to stop with images
open with 143, so that whoever supervises it starts it again.
"""

import time

STARTED = time.time()  # before the other imports: a process' start is part of its timeline

import signal
import sys

IS_PROGRAM = __name__ == "__main__" or sys.argv[0].endswith("/studyguide")
if IS_PROGRAM and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports ends us at once; from `main` on it is a KeyboardInterrupt again.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from studyguide import __version__
from studyguide.errors import Cancelled, QueueError, StudyguideError, UsageError, printable
from studyguide.settings import OPTIONS, add_options, from_options, redis_url

if TYPE_CHECKING:
    from studyguide.plan import Role

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
OUR_ERROR = 70  # EX_SOFTWARE
STOPPED = 143  # as a shell tells the end by SIGTERM
LINE = "%(levelname)s %(name)s: %(message)s"
INDENT = "\n    "  # of what follows in a message of several lines: no text can forge a line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _open_standard_files()
    try:
        given = sys.argv[1:] if arguments is None else arguments
        return _perform(_parser(*given[:1]).parse_args(given))
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is closed: another one ends us at once
        fault: BaseException | None = stop.__context__
        while fault and not isinstance(fault, StudyguideError):
            fault = fault.__context__
        _say(f"studyguide: {fault}" if fault else "studyguide: stopped")  # what we were ending for
        return 130


def _open_standard_files() -> None:
    """Replace those that are closed, as after `2>&-`; else the next file to be opened is stderr."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _perform(given: argparse.Namespace) -> int:
    as_json = getattr(given, "log_format", "text") == "json"
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else Lines(LINE))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    complain = logging.getLogger("studyguide").error if as_json else _print_error
    if given.command not in (_role, _written_role):
        _clean_up_on_signals()
    try:
        return int(given.command(given))
    except UsageError as error:
        complain(str(error))
        return 2
    except (StudyguideError, OSError) as error:  # OSError: a full disk, for example
        complain(str(error))
        return TRY_AGAIN if given.command in (_role, _written_role) else 1


def _clean_up_on_signals() -> None:
    """Clean up after SIGTERM and a closed terminal as after Ctrl-C. Roles drain instead."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as it is under nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def _print_error(message: str) -> None:
    _say(f"studyguide: {message}")


def _say(text: str) -> None:
    """Print to stderr; its terminal may be closed, which ends nothing that still has to be done."""
    with suppress(OSError):
        print(printable(text, INDENT), file=sys.stderr, flush=True)


class Lines(logging.Formatter):
    """Text for a terminal, whatever names of files a message holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Escape what would control the terminal."""
        return printable(super().format(record), INDENT)


class Parser(argparse.ArgumentParser):
    """A parser whose complaints, which quote arguments, can be shown on a terminal."""

    def error(self, message: str) -> NoReturn:
        """Complain and end with exit code 2."""
        super().error(printable(message))


class JsonLines(logging.Formatter):
    """One JSON object a line, for programs that collect logs; an event's fields are among them."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in seconds since the epoch, level, logger, message, and what is known beyond."""
        line: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if event:
            line["run"] = getattr(record, "run", "")
            line["worker"] = f"{event.process}/{event.lane}"
            names = ("stage", "image", "tile", "attempt", "seconds")
            line |= {name: getattr(event, name) for name in names}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _parser(first: str = "") -> argparse.ArgumentParser:
    """The parser of the command that the first argument names, or of all: that takes 30 ms more."""
    parser = Parser("studyguide", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True)
    for name in (first,) if first in COMMANDS else COMMANDS:
        text, add = COMMANDS[name]
        add(commands.add_parser(name, help=text))
    if first not in COMMANDS or first == "charts":  # to which the course adds an option
        for others in entry_points(group="studyguide.commands"):
            with suppress(ModuleNotFoundError):  # an image of the roles has the library alone
                others.load()(commands)
    return parser


# --- studyguide run ------------------------------------------------------------------------------


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("approaches", nargs="+", metavar="APPROACH", help="a to g, or all")
    add("--logs", type=Path, default=Path("logs"), help="folder for logs")
    add("--backend", default="local", help="where d to g run: local or kubernetes")
    add("--keep", action="store_true", help="leave the pods running at the end")
    add(
        "--namespace",
        default="",
        metavar="NAME",
        help="on Kubernetes (default: one of the run's own)",
    )
    add("--json", action="store_true", help="print the reports as JSON")
    add("--kill-worker-after", type=int, metavar="TILES", help="kill a worker then (e, f, g)")
    add("--resume", default="", metavar="RUN", help="go on with a run of f or g that was cut short")
    _add_settings(parser)
    parser.set_defaults(command=_run)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    options: dict[str, Any] = {"action": "append", "default": [], "metavar": "KIND:IMAGE:TILE"}
    parser.add_argument("--fault", help="plant a fault", **options)
    add_options(parser)


def _run(given: argparse.Namespace) -> int:
    from studyguide.record.report import RunReport, comparison

    for name in ("cluster", "kubernetes"):  # the name that --resume takes; how far a deployment is
        logging.getLogger(f"studyguide.{name}").setLevel(logging.INFO)
    reports: list[RunReport] = []
    failed = False
    for letter in _letters(given):
        try:
            reports.append(_run_one(letter, given))
        except UsageError:
            raise
        except (StudyguideError, OSError) as error:
            _print_error(f"approach {letter}: {error}")
            failed = True
    if reports:
        print(comparison(reports), file=sys.stderr if given.json else sys.stdout)
    notes = [note for report in reports for note in report.notes]
    for report in reports:
        for item in report.failed_images:
            _say(printable(f"failed in {report.approach}: {item['error']}"))
    for image, note in dict.fromkeys((each["image"], each["note"]) for each in notes):
        _say(printable(f"note on {image}: {note}"))  # the same in all approaches
    if given.json:
        print(json.dumps([report.to_dict() for report in reports], indent=1))
    return 1 if failed or not all(report.ok for report in reports) else 0


def _letters(given: argparse.Namespace) -> list[str]:
    from studyguide.approaches import APPROACHES, queued

    names = given.approaches
    for name in names:
        if name != "all" and name not in APPROACHES:
            choices = " ".join(APPROACHES)
            raise UsageError(f"The approach is {name!r}", f"Use any of {choices}, or all")
    letters = list(dict.fromkeys(APPROACHES if "all" in names else names))
    if given.kill_worker_after and not set(letters) & set(queued()):
        problem = f"--kill-worker-after {given.kill_worker_after} finds no worker process to kill"
        raise UsageError(problem, f"Run one of {' '.join(queued())} with it")
    return letters


def _run_one(letter: str, given: argparse.Namespace) -> Any:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from studyguide.approaches import queued
    from studyguide.cluster import KillWorker
    from studyguide.record.timeline import Event
    from studyguide.runs import expected_blurs, run

    killing = given.kill_worker_after and letter in queued()
    chaos = [KillWorker(given.kill_worker_after)] if killing else []
    shown = sys.stderr.isatty()
    known = shown and not given.resume  # a resumed run has settings of its own
    total = expected_blurs(letter, _settings(given)) if known else None
    bar = tqdm(desc=letter, unit=" blurs", total=total, disable=not shown, leave=False)

    def count(event: Event) -> None:
        with suppress(OSError):  # the terminal is closed
            bar.update(event.stage == "blur")

    try:
        with logging_redirect_tqdm():
            return run(
                letter,
                logs=given.logs,
                backend=given.backend,
                keep=given.keep,
                namespace=given.namespace,
                on_event=count,
                chaos=chaos,
                faults=given.fault,
                resume=given.resume,
                **_settings(given),
            )
    finally:
        with suppress(OSError):
            bar.close()


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(given, name) for name in OPTIONS if hasattr(given, name)}


# --- the roles of d to g -------------------------------------------------------------------------


def _add_role(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    add = parser.add_argument
    add("--approach", default="", help="default: the last that has this role")
    add("--name", default=socket.gethostname(), help="name of this process")
    add("--folder", type=Path, default=Path("run"), help="shared by all roles")
    add("--run", default="", help="name of the run; equal names go on with it")
    add("--prefix", default="{sg}:", help="prefix of all keys in Redis")
    if defaults.get("role") != "sequential":
        add("--redis", default=redis_url(), help="address; default: $REDIS_URL")
        text = "tell /metrics, /healthz and /readyz there (default: nowhere)"
        add("--metrics-port", default="", metavar="[HOST:]PORT", help=text)
    add("--verbose", action="store_true", help="tell every event on stderr")
    add("--log-format", choices=("text", "json"), default="text")
    _add_settings(parser)
    parser.set_defaults(command=_role, **defaults)


def _add_service(parser: argparse.ArgumentParser) -> None:
    modes = ("coordinator", "worker", "assembler", "all")
    parser.add_argument("--mode", dest="role", choices=modes, default="all")
    _add_role(parser, streams=True)


def _add_written_role(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a JSON file in the folder of the run")
    parser.set_defaults(command=_written_role)


def _role(given: argparse.Namespace) -> int:
    from studyguide.machinery.faults import Fault
    from studyguide.plan import Role

    given.approach = _approach_of_role(given)
    if given.role != "sequential" and not given.redis:
        raise UsageError("No Redis is named", "Use --redis URL or set REDIS_URL")
    if given.verbose:
        logging.getLogger("studyguide").setLevel(logging.INFO)
    role = Role(
        **{name: getattr(given, name) for name in ("name", "role", "approach", "folder")},
        settings=from_options(_settings(given)),
        redis_url=getattr(given, "redis", ""),
        prefix=given.prefix,
        run_id=given.run,
        started=STARTED,
        faults=tuple(Fault.parse(text) for text in given.fault),
        metrics=getattr(given, "metrics_port", ""),
    )
    return _serve(role)


def _written_role(given: argparse.Namespace) -> int:
    from studyguide.plan import Role

    return _serve(Role.read(given.file, redis_url() or "", STARTED))


def _serve(role: "Role") -> int:
    from studyguide.roles import serve

    try:
        return serve(role)
    except Cancelled:  # told to stop while Redis was away, or while images were open
        return 0 if role.role in ("worker", "assembler") else STOPPED
    except (UsageError, QueueError, OSError):
        raise
    except Exception as error:
        trace = not isinstance(error, StudyguideError)
        logging.getLogger(__name__).error("%s ends: %s", role.name, error, exc_info=trace)
        return OUR_ERROR


def _approach_of_role(given: argparse.Namespace) -> str:
    """The approach that was given. Raises UsageError if it has no such role."""
    from studyguide.approaches import APPROACHES, queued

    if given.role == "sequential":
        fitting = "".join(it.letter for it in APPROACHES.values() if it.on_cluster and not it.tiled)
    else:
        fitting = queued("stream") if "streams" in given else queued()
    approach: str = given.approach or fitting[-1]
    if approach not in fitting:
        remedy = f"Use one of {' '.join(fitting)}"
        raise UsageError(f"The approach {approach!r} has no role {given.role}", remedy)
    return approach


# --- studyguide clusters -------------------------------------------------------------------------


def _add_clusters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--namespace",
        default="",
        metavar="NAME",
        help="look there (default: for namespaces of runs)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--delete", metavar="RUN", help="delete what this run left")
    which.add_argument("--all", action="store_true", help="delete what all your runs left")
    parser.set_defaults(command=_clusters)


def _clusters(given: argparse.Namespace) -> int:
    from studyguide.kubernetes.kubectl import MANAGED_BY, OWNER, RESOURCES, RUN, Kubectl, owner

    kubectl = Kubectl.current(given.namespace or "default")
    _say(f"context {kubectl.context}")
    if given.delete or given.all:
        labels = f"{RUN}={given.delete}" if given.delete else f"{RUN},{OWNER}={owner()}"
        kubectl.delete(RESOURCES if given.namespace else "namespaces", labels)
    kinds, mine = "deployments" if given.namespace else "namespaces", f"{MANAGED_BY}=studyguide"
    left = kubectl("get", kinds, "--selector", mine, "--label-columns", f"{RUN},{OWNER}")
    print(printable(left.decode(), "\n"))
    return 0


# --- studyguide charts, trace, log ---------------------------------------------------------------


def _add_charts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--logs", type=Path, default=Path("logs"), help="folder of logs")
    add("--charts", type=Path, default=Path("visualize"), help="folder of charts")
    parser.set_defaults(command=_charts)


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", type=Path, help="a run's JSON log")
    parser.add_argument("trace", type=Path, help="the trace to write, for example trace.json")
    parser.set_defaults(command=_trace)


def _add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("approach", help="of the run")
    parser.add_argument("events", type=Path, help="events, one JSON object a line")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="folder for logs")
    parser.set_defaults(command=_log)


def _charts(given: argparse.Namespace) -> int:
    from studyguide.approaches import APPROACHES
    from studyguide.record.charts import draw_all

    drawn = draw_all(given.logs, given.charts, [each.stem for each in APPROACHES.values()])
    for path in drawn:
        print(printable(str(path)))
    return 0 if drawn else 1


def _trace(given: argparse.Namespace) -> int:
    from studyguide.record.report import read_log
    from studyguide.record.trace import chrome_trace

    given.trace.write_text(json.dumps(chrome_trace(read_log(given.log).timeline)))
    print(printable(f"{given.trace} is written. Open it at https://ui.perfetto.dev"))
    return 0


def _log(given: argparse.Namespace) -> int:
    from studyguide.record.report import comparison
    from studyguide.runs import import_events

    report = import_events(given.approach, given.events, given.logs)
    print(comparison([report]))
    return 0 if report.ok else 1


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": ("blur a folder of images in one or more of the ways", _add_run),
    "charts": ("redraw the charts from the newest logs", _add_charts),
    "trace": ("write a run as a trace for ui.perfetto.dev", _add_trace),
    "log": ("write the log of a cluster's run from its events", _add_log),
    "clusters": ("show what runs left on Kubernetes", _add_clusters),
    **{
        name: (f"run the role {name} in this process", partial(_add_role, role=name))
        for name in ("sequential", "coordinator", "worker", "assembler")
    },
    "role": ("run the role that a local run has written down", _add_written_role),
    "service": ("run roles of g in this process", _add_service),
}


if __name__ == "__main__":
    sys.exit(main())
