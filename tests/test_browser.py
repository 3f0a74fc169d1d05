"""The lessons in JupyterLab, in a real browser: all cells run, and widgets answer to the keyboard.

Lesson e has every kind of widget; the others are left to `make verify`, since nbval executes their
cells as well. There two lessons run at once, each in a tab of its own: while one is looked at, the
next one works.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import barriers, chromium
from link_glossary import entries
from playwright.sync_api import Browser, Page
from support import free_port, processes_with, wait_until

from studyguide_course import init

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "build" / "screenshots"
WIDGETS = ["05_e_distributed_queue"]
OTHERS = sorted({path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - {*WIDGETS})
SECONDS = 240  # for one lesson, beside another one on a busy machine
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    # All of a notebook is laid out, not only what is in sight.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
READY = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    const kernel = context?.session?.kernel;
    return context?.isReady && kernel?.status === "idle" && kernel.connectionStatus === "connected";
}"""
RUN_ALL = """() => {
    const all = window.jupyterapp.commands.execute("notebook:run-all-cells");
    all.then((well) => { window.ended = [well]; }, (error) => { window.ended = [`${error}`]; });
}"""
RUN_CELL = """(index) => {
    window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
    return window.jupyterapp.commands.execute("notebook:run-cell");
}"""
CELLS = "() => window.jupyterapp.shell.currentWidget.model.toJSON().cells"
END = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"

IN_SIGHT = """(element) => {
    const box = element.getBoundingClientRect();
    return box.top >= 0 && box.bottom <= window.innerHeight;
}"""

Cell = dict[str, Any]


class Lab:
    """JupyterLab on a copy of the course, and a browser that looks at it."""

    def __init__(self, url: str, browser: Browser) -> None:
        self.url, self.browser = url, browser
        self.pages: dict[str, Page] = {}

    def page(self, notebook: str) -> Page:
        """Have a notebook open in a tab of its own, with all of its cells on their way."""
        if notebook not in self.pages:
            context = self.browser.new_context(viewport={"width": 1280, "height": 1000})
            self.pages[notebook] = page = context.new_page()
            page.set_default_timeout(1000 * SECONDS)
            page.goto(f"{self.url}/lab/workspaces/{notebook}/tree/notebooks/{notebook}.ipynb?reset")
            page.wait_for_function(READY)
            page.evaluate(RUN_ALL)
        return self.pages[notebook]

    def run(self, notebook: str) -> Page:
        """Wait until all cells of a notebook have run; the next notebook starts meanwhile."""
        lessons = WIDGETS if notebook in WIDGETS else OTHERS
        place = lessons.index(notebook)
        page, *_ = [self.page(name) for name in lessons[place : place + 2]]
        page.wait_for_function("() => window.ended")
        return page


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    init.copy(folder / "course")
    (folder / "settings").mkdir()
    (folder / "settings" / "overrides.json").write_text(json.dumps(SETTINGS))
    port = free_port()
    command = [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *("--IdentityProvider.token=", "--ServerApp.password="),
        *(f"--ServerApp.root_dir={folder / 'course'}", "--LabApp.expose_app_in_browser=True"),
        f"--LabApp.app_settings_dir={folder / 'settings'}",
    ]
    own = {"JUPYTER_CONFIG_DIR": str(folder), "JUPYTER_DATA_DIR": str(folder / "data")}
    url = f"http://127.0.0.1:{port}"
    with chromium() as browser, (folder / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
        try:
            wait_until(lambda: answers(f"{url}/api"))
            yield Lab(url, browser)
        finally:
            server.terminate()
            server.wait()
    wait_until(lambda: not processes_with(str(folder)))  # no kernel is left, and no worker


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize(
    "notebook",
    [
        *(pytest.param(notebook, marks=pytest.mark.slow) for notebook in WIDGETS),
        *(pytest.param(notebook, marks=pytest.mark.verify) for notebook in OTHERS),
    ],
)
def test_a_lesson_runs_in_jupyterlab_and_answers_to_the_keyboard(lab: Lab, notebook: str) -> None:
    page = lab.run(notebook)
    cells: list[Cell] = [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"]
    assert [error for cell in cells for error in errors(cell)] == []
    assert all(cell["execution_count"] for cell in cells)
    assert page.get_by_text("javascript error").count() == 0  # in place of a widget
    if any(".predict(" in "".join(cell["source"]) for cell in cells):
        guess(page)
    if any("LiveRun(" in "".join(cell["source"]) for cell in cells):
        kill(page, SCREENSHOTS / f"{notebook}-killed.png")
    if page.locator(".jp-OutputArea-output .widget-box, .sg-view").count():
        assert barriers(page, ".jp-OutputArea-output:has(.widget-box, .sg-view)") == []
    for n, view in enumerate(page.locator(".sg-view").all()):
        view.scroll_into_view_if_needed()
        view.screenshot(path=SCREENSHOTS / f"{notebook}-{n}.png")
    tall = page.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    page.set_viewport_size({"width": 1280, "height": min(16000, tall + 200)})
    page.screenshot(path=SCREENSHOTS / f"{notebook}.png")
    page.evaluate(END)
    page.context.close()


def errors(cell: Cell) -> Iterator[str]:
    if "raises-exception" in cell["metadata"].get("tags", []):
        return
    for output in cell["outputs"]:
        if output["output_type"] == "error":
            yield f"{output['ename']}: {output['evalue']}"


def guess(page: Page) -> None:
    """Guess anew, without the mouse: the run has locked the first guess."""
    cells: list[Cell] = page.evaluate(CELLS)
    index = next(n for n, cell in enumerate(cells) if ".predict(" in "".join(cell["source"]))
    assert page.evaluate(RUN_CELL, index)
    cell = page.locator(".jp-Notebook .jp-Cell").nth(index)
    number = cell.locator(".widget-readout")
    before = number.text_content()
    cell.locator("[role=slider]").press("ArrowRight")
    wait_until(lambda: number.text_content() != before)
    cell.get_by_role("button", name="Lock my guess").press("Enter")
    cell.get_by_role("button", name="Locked").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("term", ["pipeline", "GIL"])
def test_a_term_shows_its_definition_and_leads_to_it(lab: Lab, term: str) -> None:
    page = lab.browser.new_context(viewport={"width": 1280, "height": 500}).new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.goto(
        f"{lab.url}/lab/workspaces/{term}/tree/notebooks/03_c_tile_image_parallel.ipynb?reset"
    )
    page.wait_for_function(READY)
    link = page.locator(".jp-RenderedMarkdown a", has_text=re.compile(f"^{term}$")).first
    assert link.get_attribute("title") == entries()[term]
    link.click()
    heading = page.locator(".jp-MarkdownViewer h2", has_text=re.compile(f"^{term}"))
    heading.wait_for()
    page.wait_for_function(IN_SIGHT, arg=heading.element_handle())
    page.context.close()


def kill(page: Page, screenshot: Path) -> None:
    """Start the live run again, kill a worker in the middle of its tile, and watch the ledger.

    Each run keeps the order until one of its workers is busy, so that none has ended before.
    """
    start = page.get_by_role("button", name="Start", exact=True)
    view = page.locator(".widget-vbox:has(.sg-view)", has=start).first
    view.get_by_role("button", name="Start", exact=True).press("Enter")
    kill = view.get_by_role("button", name="Kill", exact=True, disabled=False)
    kill.wait_for()
    assert view.get_by_label("whom:").input_value() == "a busy worker"
    kill.press("Enter")
    view.get_by_role("status").get_by_text("death on worker").wait_for()
    view.screenshot(path=screenshot)
    view.get_by_role("button", name="Start", exact=True, disabled=False).wait_for()

    def ledger(name: str) -> dict[str, int]:
        rows = view.locator("table tr:has(td)").all()
        return {
            str(row.locator("td").first.text_content())[-1]: int(
                row.locator(f"td[data-name={name}]").text_content() or ""
            )
            for row in rows
        }

    lost, redelivered = ledger("lost"), ledger("redelivered")
    assert lost.pop("e", 1) == 1
    assert set(lost.values()) <= {0}
    assert redelivered.pop("e", 0) == 0
    assert all(redelivered.values())
