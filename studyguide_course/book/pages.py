"""A run as one page that anyone can open or mail: `studyguide charts --html`."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template

from studyguide import __version__
from studyguide.errors import UsageError
from studyguide.machinery import files
from studyguide.record.charts import name_of
from studyguide.record.report import RunReport, read_log
from studyguide_course import book
from studyguide_course.view import explore

PLACES = ("images", "output")  # settings that are folders of the machine it ran on


def write_pages(logs: Path, folder: Path) -> list[Path]:
    """Write `<folder>/<log>.html` for each JSON log, and return the pages.

    Raises UsageError if there is no log, MessageError if a file is not a run's log.
    """
    pages = []
    for log in sorted(logs.glob("*.json")):
        pages.append(folder / f"{log.stem}.html")
        with files.atomic(pages[-1]) as file:
            file.write(page(read_log(log)).encode(errors="backslashreplace"))
    if not pages:
        raise UsageError(f"No log in {logs}", "Run `studyguide run all` first")
    return pages


def page(report: RunReport) -> str:
    """Return a page that needs no other file: picture, explorer, ledger, settings, machine."""
    view = explore(report)
    bundle, _ = view._repr_mimebundle_()
    settings = {name: value for name, value in report.settings.items() if name not in PLACES}
    template = Template((book.HERE / "page.html").read_text("utf-8"))
    return template.substitute(
        title=escape(name_of(report)),
        alt=escape(view.alt),
        picture=bundle["image/png"],
        stored=book.stored(bundle[book.MIME]),
        ledger=_rows(report.ledger),
        settings=_rows({**settings, **report.machine}),
        version=__version__,
        log=escape(report.log),
        css=(book.HERE.parent / "view.css").read_text("utf-8"),
        script=book.script(),
    )


def _rows(facts: Mapping[str, object]) -> str:
    """Rows of a table: a name and its value each."""
    row = '<tr><th scope="row">{}</th><td>{}</td></tr>'
    return "\n".join(row.format(escape(name), escape(str(value))) for name, value in facts.items())
