"""The book in a real browser: its explorers work without Python, and its pages have no barriers."""

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import barriers, chromium
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
EXPLORED = ["02_b_tile_parallel", "05_e_distributed_queue", "compare"]
KINDS = [
    *("docs/index.html", "README.html", "docs/glossary.html", "docs/performance.html"),
    f"notebooks/{EXPLORED[0]}.html",
]
SMALLEST = """() => Math.min(...[...document.querySelectorAll(".sg-view *")].map(
    (node) => parseFloat(getComputedStyle(node).fontSize)))"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(ConnectionError):  # the page was left meanwhile
            super().copyfile(source, outputfile)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the whole book, built as `make book` does."""
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    subprocess.run([*command, "-c", ROOT / "docs", ROOT, folder], check=True)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def opened(browser: Browser, url: str, width: int = 1280, **options: object) -> Page:
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    page.set_default_timeout(120_000)  # on a busy machine
    page.goto(url)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("lesson", EXPLORED)
def test_a_stored_run_is_explored_without_python(
    book: str, browser: Browser, lesson: str, width: int, scheme: str
) -> None:
    page = opened(browser, f"{book}/notebooks/{lesson}.html", width, color_scheme=scheme)
    view = page.locator(".sg-view").first
    canvas, said = view.locator("canvas"), view.get_by_role("status")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    assert box["width"] <= width
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(SMALLEST) >= 11
    dark = view.evaluate("(view) => getComputedStyle(view).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    whole = canvas.get_attribute("data-sight")
    for key in ("ArrowDown", "ArrowDown", "+"):
        canvas.press(key)
    assert (said.text_content() or "").strip()
    assert canvas.get_attribute("data-sight") != whole
    canvas.press("0")
    assert canvas.get_attribute("data-sight") == whole
    tip = view.locator(".sg-tip")
    for x in range(int(0.35 * box["width"]), int(box["width"]), 4):  # somewhere on the first lane
        canvas.hover(position={"x": x, "y": 30})
        if tip.is_visible():
            break
    assert " s from " in (tip.text_content() or "")
    page.context.close()


def test_without_scripts_the_picture_stands_there_with_its_words(
    book: str, browser: Browser
) -> None:
    url = f"{book}/notebooks/{EXPLORED[0]}.html"
    page = opened(browser, url, java_script_enabled=False)
    picture = page.locator(".cell_output:has(.sg-stored) img")
    assert picture.is_visible()
    assert (picture.get_attribute("alt") or "").startswith("b tile parallel: ")
    assert page.locator(".sg-view").count() == 0
    page.context.close()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(1280, "light", marks=pytest.mark.verify), (390, "dark")],
)
def test_a_kind_of_page_has_no_barrier(
    book: str, browser: Browser, width: int, scheme: str
) -> None:
    page = opened(browser, book, width, color_scheme=scheme)
    found = {}
    for name in KINDS:
        page.goto(f"{book}/{name}")
        found[name] = barriers(page)
    assert {name: each for name, each in found.items() if each} == {}
    page.context.close()
