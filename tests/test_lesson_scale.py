"""Charts with sliders: what they say follows the sliders, and readers without widgets see them."""

import re
from base64 import b64decode
from pathlib import Path

import ipywidgets
import pytest
from support import SMALL, TILES, make_images

from studyguide.record.looks import Chart
from studyguide.runs import run
from studyguide_course.costs import Costs
from studyguide_course.scale import Explorer, ServerProbe, explore_scale, explore_speed_up, steps

COSTS = Costs(
    load=(0.0, 1e-9),
    save=(0.0, 2e-9),
    blur=(1e-4, 4e-8),
    transfer=(1e-4, 0.0),
    start=0.2,
    warm_up=0.3,
    server=1e-4,
)
SAMPLES = 256 * 256 * 4


@pytest.fixture(scope="module")
def scale() -> Explorer:
    return explore_scale(COSTS, SAMPLES)


def test_steps_go_up_by_about_two_to_the_top() -> None:
    assert steps(100) == [1, 2, 5, 10, 20, 50, 100]


@pytest.mark.parametrize(
    ("workers", "others", "bottleneck"),
    [(1, 1, "workers"), (10_000, 1, "assembler"), (10_000, 100, "Redis")],
)
def test_the_chart_names_the_bottleneck_at_which_the_sliders_stand(
    scale: Explorer, workers: int, others: int, bottleneck: str
) -> None:
    scale.sliders["workers"].value, scale.sliders["others"].value = workers, others
    assert f"{workers:,} workers" in scale.chart.alt
    assert f"bottleneck: {bottleneck};" in scale.chart.alt


def test_slider_shows_the_numbers_that_it_offers() -> None:
    offered = [0.05, 0.3, 1, 1.5, 9.96, 10, 1_000_000]
    explorer = Explorer(lambda n: Chart(1.0, f"{n}", "", ""), {"n": (offered, 10)})
    labels = [label for label, _ in explorer.sliders["n"].options]
    assert labels == ["0.05", "0.3", "1", "1.5", "9.96", "10", "1,000,000"]


def test_a_moved_slider_draws_the_picture_anew_and_its_alt_text(scale: Explorer) -> None:
    scale.sliders["tiles"].value = 1000
    before = picture(scale)
    scale.sliders["tiles"].value = 10_000_000
    assert picture(scale) != before
    assert picture(scale).startswith(b"\x89PNG")
    assert re.search(r'alt="[^"]*10,000,000 tiles', scale.image.value)


def picture(explorer: Explorer) -> bytes:
    return b64decode(explorer.image.value.partition("base64,")[2].partition('"')[0])


def test_a_reader_without_widgets_sees_the_picture_and_a_widget_has_its_sliders() -> None:
    explorer = explore_speed_up(0.2, 2, {1: 1.0, 2: 1.6})
    bundle, metadata = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == "Speed-up by workers"
    assert "image/png" in bundle
    assert "never more than 5.0 times" in metadata["image/png"]["alt"]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert isinstance(explorer.sliders["serial_share"], ipywidgets.SelectionSlider)


@pytest.mark.slow
def test_costs_of_a_run_are_fitted_with_what_redis_used_for_a_tile(tmp_path: Path) -> None:
    probe = ServerProbe()
    options = SMALL | {"images": make_images(tmp_path / "in"), "output": tmp_path / "out"}
    report = run("e", workers=2, chaos=[probe], **options)
    costs = Costs.fit([report], server=probe.cpu_s / report.tiles)
    assert report.tiles == sum(TILES.values())
    assert 0 < costs.server < report.wall_s
    assert "tiles" in explore_scale(costs, 256).chart.alt
