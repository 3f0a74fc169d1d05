"""Debian's chromium, driven by playwright: no browser is downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from playwright.sync_api import Browser, Page, sync_playwright
from pods import require

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-renderer-backgrounding"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser with a fresh profile; skip where there is none, fail in CI."""
    require("chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS.split())
        yield browser
        browser.close()


AXE = files("axe_playwright_python").joinpath("axe.min.js")  # axe-core, as the package brings it
LOOK = """async (scope) => {
    const found = await axe.run(scope, { resultTypes: ["violations"] });
    const serious = found.violations.filter((each) => /^(serious|critical)$/.test(each.impact));
    const parts = serious.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
    return parts.filter((part) => !part.includes("noUi-handle")); // ipywidgets gives it no name
}"""


def barriers(page: Page, scope: str = "body") -> list[str]:
    """What axe-core finds that keeps people out."""
    page.evaluate(AXE.read_text("utf-8"))
    found: list[str] = page.evaluate(LOOK, scope)
    return found
