"""The explorer in a real browser, on a page of its own: its words, and what keys and fingers do."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser import chromium
from playwright.sync_api import Browser, Locator, Page
from test_charts import Script, faulty, pool

from studyguide.record.looks import FAULTS
from studyguide.record.scene import Scene
from studyguide.record.timeline import Timeline
from studyguide_course import book
from studyguide_course.live import LiveDrawing
from studyguide_course.view import Drawing, RunView

pytestmark = pytest.mark.slow  # starts a browser
PAGE = """<!DOCTYPE html><html lang="en"><title>A run</title><style>{css}</style>
<figure><img alt="a run">{stored}</figure><script>{script}</script></html>"""
SIZES = """(view) => [...view.querySelectorAll("*")].map(
    (node) => parseFloat(getComputedStyle(node).fontSize))"""
Sight = tuple[float, float]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 900, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert errors == []
    context.close()


def show(page: Page, *drawings: Drawing, **traits: Any) -> Locator:
    """Put an explorer on the page, as the book does."""
    stored = book.stored(book.pack(RunView(drawings).stored() | traits))
    css = (book.HERE.parent / "view.css").read_text("utf-8")
    page.set_content(PAGE.format(css=css, stored=stored, script=book.script()))
    return page.locator(".sg-view")


def explored(page: Page, timeline: Timeline) -> Locator:
    return show(page, Drawing("a run", Scene(timeline)))


def press(view: Locator, *keys: str) -> str:
    for key in keys:
        view.locator("canvas").press(key)
    return view.get_by_role("status").text_content() or ""


def sight(view: Locator) -> Sight:
    start, end = (view.locator("canvas").get_attribute("data-sight") or "").split()
    return float(start), float(end)


def words(view: Locator) -> str:
    """What is said of the span under the mouse."""
    tip = view.locator(".sg-tip")
    return (tip.is_visible() and tip.text_content()) or ""


def point(view: Locator, lane: int) -> None:
    """Move the mouse over a lane until it is on a span."""
    box = view.locator("canvas").bounding_box()
    assert box
    y = box["y"] + 22 + 15 * lane + 7
    for x in range(110, int(box["width"]), 7):
        view.page.mouse.move(box["x"] + x, y)
        if words(view):
            return
    raise AssertionError(f"no span on lane {lane}")


def test_the_explorer_takes_the_place_of_the_picture(page: Page) -> None:
    explored(page, faulty())
    assert not page.get_by_role("img", name="a run").is_visible()
    colours = page.evaluate(
        """() => { const c = document.querySelector(".sg-view canvas");
        const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(data.buffer)).size; }"""
    )
    assert colours > 10


def test_the_legend_explains_each_sign_that_is_drawn_and_no_other(page: Page) -> None:
    timeline = faulty()
    entries = explored(page, timeline).locator(".sg-key > div").all_text_contents()
    drawn = {fault.stage for fault in timeline.of(*FAULTS)}
    assert {"death", "reclaim", "retry"} <= drawn
    signs = {stage: sign + label for stage, (sign, label, _) in FAULTS.items()}
    assert {stage for stage in signs if signs[stage] in entries} == drawn
    assert "critical path" in entries


@pytest.mark.parametrize("key", ["+", "-", "ArrowRight", "ArrowDown", "0", "Escape"])
def test_a_key_takes_the_words_of_the_mouse_away(page: Page, key: str) -> None:
    view = explored(page, pool(tiles=40))
    point(view, 2)
    press(view, key)
    assert words(view) == ""


def test_keys_zoom_and_pan_and_show_all_again(page: Page) -> None:
    view = explored(page, pool(tiles=40))
    start, end = whole = sight(view)
    press(view, "+", "+")
    closer = sight(view)
    assert start < closer[0] < closer[1] < end
    press(view, "ArrowRight")
    assert sight(view)[0] > closer[0]
    press(view, "0")
    assert sight(view) == whole


def test_a_tile_is_followed_from_cause_to_effect(page: Page) -> None:
    """The worker's hand-over ends after the assembler has begun to place the tile, as in c."""
    script = Script()
    script.add("p/coordinator", "enqueue", 0.0, 0.1, 3)
    script.add("p/worker", "wait", 0.0, 0.12, 3)
    script.add("p/worker", "blur", 0.12, 0.3, 3)
    script.add("p/worker", "transfer", 0.42, 0.2, 3)
    script.add("p/assembler", "assemble", 0.5, 0.05, 3)
    view = explored(page, script.timeline())
    press(view, "Enter")
    said = press(view, "Enter")
    order = [
        said.find(f"{stage} 0.") for stage in ("enqueue", "wait", "blur", "transfer", "assemble")
    ]
    assert -1 not in order
    assert order == sorted(order)
    stages = [press(view, "Enter").partition(":")[0] for _ in range(5)]
    assert sorted(stages) == sorted(["enqueue", "wait", "blur", "transfer", "assemble"])


def test_fingers_pinch_and_drag(browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    view = explored(page, pool(tiles=40))
    box = view.locator("canvas").bounding_box()
    assert box
    y, start = box["y"] + 40, sight(view)
    fingers = context.new_cdp_session(page)

    def touch(kind: str, *places: float) -> None:
        points = [{"x": x, "y": y, "id": n} for n, x in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 200, 260)
    for apart in (10, 20, 30, 40):
        touch("touchMove", 200 - apart, 260 + apart)
    touch("touchEnd")
    closer = sight(view)
    assert start[0] < closer[0] < closer[1] < start[1]
    touch("touchStart", 300)
    for by in (10, 20, 30):
        touch("touchMove", 300 - by)
    touch("touchEnd")
    assert sight(view)[0] > closer[0]
    assert sight(view)[1] - sight(view)[0] == pytest.approx(closer[1] - closer[0], rel=0.01)
    context.close()


def test_before_its_start_a_live_run_has_no_axis(page: Page) -> None:
    view = show(page, LiveDrawing("f", Timeline([]), ended=False), said="Press Start.")
    box = view.locator("canvas").bounding_box()
    assert box
    assert box["height"] < 30  # its name
    assert press(view, "ArrowDown") == "Press Start."


def test_the_ledger_has_a_dash_for_what_the_approach_does_not_have(page: Page) -> None:
    drawings = [LiveDrawing(letter, pool(tiles=8), ended=True) for letter in "ef"]
    view = show(page, *drawings)
    e, f = (row.text_content() for row in view.locator("td[data-name=acknowledged]").all())
    assert (e, f) == ("\u2013", "8")


@pytest.mark.parametrize("width", [390, 600, 1250])
def test_nothing_is_cut_off_and_no_word_is_small(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    drawings = [LiveDrawing(letter, pool(tiles=8), ended=True) for letter in "ef"]
    view = show(page, *drawings)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert min(view.evaluate(SIZES)) >= 11


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_takes_the_colours_of_its_page(page: Page, scheme: str) -> None:
    view = explored(page, pool(tiles=40))
    dark = {"--color-background-primary": "#131416", "--color-foreground-primary": "#E3E5E8"}
    if scheme == "dark":
        page.evaluate(
            """(colours) => { document.body.dataset.theme = "dark";
            for (const [name, colour] of Object.entries(colours))
                document.body.style.setProperty(name, colour); }""",
            dark,
        )
        page.wait_for_timeout(100)
    light = view.evaluate(
        """(view) => { const c = view.querySelector("canvas"), pen = c.getContext("2d");
        const inks = pen.getImageData(0, 0, 100, 20).data; // the run's name
        let sum = 0, n = 0;
        for (let i = 0; i < inks.length; i += 4) if (inks[i + 3] > 200) { sum += inks[i]; n += 1; }
        return sum / n; }"""
    )
    assert (light > 128) == (scheme == "dark")


def test_a_name_with_markup_stays_a_name(page: Page) -> None:
    script = Script()
    script.add("p/worker", "blur", 0.0, 0.3, 3)
    run = Drawing("</script><b>bold</b>", Scene(script.timeline()))
    view = show(page, run)
    assert view.locator("canvas").is_visible()
    assert page.locator("b", has_text="bold").count() == 0
    assert (
        json.loads(page.locator(".sg-stored").text_content() or "")["runs"][0]["name"] == run.name
    )


def test_a_widget_is_drawn_before_it_has_a_place_on_the_page(page: Page) -> None:
    """JupyterLab renders it first: it has no colours yet."""
    script = (book.HERE.parent / "view.js").read_bytes()
    module = base64.b64encode(script).decode()
    traits = RunView([Drawing("a run", Scene(pool(tiles=8)))]).stored()
    leave = page.evaluate(
        """async ([module, traits]) => {
            const { default: view } = await import(`data:text/javascript;base64,${module}`);
            const model = { get: (name) => traits[name], on() {}, off() {} };
            const el = document.createElement("div"), leave = view.render({ model, el });
            document.body.append(el);
            return typeof leave; }""",
        [module, traits],
    )
    assert leave == "function"
    assert page.locator(".sg-view canvas").is_visible()
