"""The chapters on latency, on metrics and traces, and on cost: what they compute is right."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import start_http_server
from support import free_port, lane_events

from studyguide.record.metrics import Metrics
from studyguide.record.timeline import Event, Recorder, Timeline
from studyguide.record.trace import chrome_trace
from studyguide.settings import Blur
from studyguide.tiles import window
from studyguide.work import ImageJob, plan
from studyguide_course.chapters.bill import fleet, moved, wanted
from studyguide_course.chapters.latency import arrivals, latencies, makespan, model, offer
from studyguide_course.chapters.seeing import holes, quantile, rate, scrape
from studyguide_course.chapters.strips import strips

BLUR = Blur.of(kernel_size=3, method="direct")
PIXELS = np.arange(40 * 50 * 3, dtype=np.uint32).reshape(40, 50, 3).astype(np.uint8)
JOB = ImageJob.of("a.png", PIXELS, 16, BLUR)

# --- latency -------------------------------------------------------------------------------------


def test_latency_is_from_the_arrival_to_the_end_of_the_blur() -> None:
    run = lane_events("enqueue c 1 2 a 0", "enqueue c 2 3 a 1", "blur w 2 4 a 0", "blur w 4 9 a 1")
    assert latencies(run) == [3, 7]


def test_jobs_go_in_order_to_the_worker_that_is_free_first() -> None:
    assert makespan([5, 4, 3, 3, 3], 2) == 10
    assert makespan([3, 5, 3, 4, 3], 2) == 9
    assert makespan([2, 2, 2, 3, 3], 2) == 7
    assert makespan([4], 3) == 4


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 5))
def test_no_order_ends_before_the_bound_or_after_grahams(jobs: list[int], workers: int) -> None:
    bound = max(sum(jobs) / workers, *jobs, 0)
    assert bound <= makespan(jobs, workers) <= sum(jobs) / workers + max(jobs)


def test_half_the_rate_doubles_every_arrival() -> None:
    assert arrivals(50, 5.0) == pytest.approx([2 * moment for moment in arrivals(50, 10.0)])
    assert arrivals(3, float("inf")) == [0, 0, 0]


def test_every_tile_that_is_offered_arrives_when_it_is_due_and_is_blurred_once() -> None:
    tasks = list(plan(JOB, PIXELS, Recorder(lambda event: None)))
    run = offer(tasks, workers=2, rate=1000.0)
    due = [event.start for event in run.of("enqueue")]
    gaps = [after - before for before, after in pairwise(arrivals(len(tasks), 1000.0))]
    assert [after - before for before, after in pairwise(due)] == pytest.approx(gaps, abs=1e-5)
    assert sorted(event.tile for event in run.of("blur")) == list(range(len(tasks)))
    assert min(latencies(run)) > 0


def test_in_the_model_a_tile_alone_takes_its_blur_and_more_load_never_shortens_a_wait() -> None:
    alike = lane_events("blur w 0 2 a 0", "blur w 2 4 a 1")
    assert model(alike, workers=2, load=1e-6, tiles=20) == pytest.approx([2] * 20)
    scattered = lane_events("blur w 0 2 a 0", "blur w 2 3 a 1", "blur w 3 8 a 2")
    low, high = (np.mean(model(scattered, 2, load, tiles=300)) for load in (0.5, 0.9))
    assert low < high


# --- metrics and trace ---------------------------------------------------------------------------


def test_a_scrape_has_each_sample_under_its_name_and_label() -> None:
    metrics, port = Metrics(), free_port()
    server, thread = start_http_server(port, "127.0.0.1", metrics.registry)
    before = scrape(port)
    for tile in range(3):
        metrics(Event("blur", 10.0, 10.02, "w", "w", "a.png", tile))
    after = scrape(port)
    server.shutdown()
    server.server_close()
    thread.join()
    assert after["studyguide_tiles_total done"] == 3
    assert after["studyguide_service_seconds_bucket 0.03"] == 3
    assert after["studyguide_service_seconds_bucket 0.01"] == 0
    elapsed = after["time"] - before["time"]
    assert rate(before, after, "studyguide_tiles_total done") == pytest.approx(3 / elapsed)


def test_a_scrape_of_nobody_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        scrape(free_port())


@given(st.lists(st.floats(0.01, 9.9), min_size=1), st.floats(0.05, 0.99))
def test_an_estimated_quantile_lies_in_the_bucket_of_the_true_one(
    values: list[float], share: float
) -> None:
    bounds = [1.0, 3.0, 10.0]
    counts = [sum(value <= bound for value in values) for bound in bounds] + [len(values)]
    true = next(b for b, n in zip(bounds, counts, strict=False) if n >= share * len(values))
    below = max([0.0, *(b for b in bounds if b < true)])
    assert below - 1e-9 <= quantile(share, bounds, counts) <= true + 1e-9


def test_beyond_the_last_bound_that_bound_is_the_answer() -> None:
    assert quantile(0.99, [1.0, 2.0], [50, 90, 100]) == 2.0


def test_holes_before_blurs_are_found_on_each_thread() -> None:
    one = ("wait w 0 1 a.png 0", "blur w 4 5 a.png 0", "wait w 5 6 a.png 2", "blur w 6 7 a.png 2")
    other = ("wait v 0 2 a.png 1", "blur v 3 5 a.png 1")
    found = holes(chrome_trace(lane_events(*one, *other)))
    assert found == [(3.0, "a.png", 0), (1.0, "a.png", 1), (0.0, "a.png", 2)]


# --- cost ----------------------------------------------------------------------------------------


def report_of(approach: str, *stages: str, whole: str = "") -> Any:
    """A run in which each tile of JOB meets these stages once, and the image `whole`."""
    events = [Event("load", 0, 1, "m", "m", "a.png", detail={"shape": PIXELS.shape})]
    events += [Event(whole, 1, 1, "m", "m", "a.png")] if whole else []
    for stage in stages:
        events += [Event(stage, 1, 2, "m", "m", "a.png", tile.index) for tile in JOB.tiles]
    settings = {"kernel_size": BLUR.kernel_size, "tile_size": 16}
    return SimpleNamespace(approach=approach, timeline=Timeline(events), settings=settings)


def test_bytes_moved_are_those_of_windows_and_results() -> None:
    windows = sum(window(PIXELS, tile, BLUR.radius).nbytes for tile in JOB.tiles)
    hand_over = ("enqueue", "wait", "transfer", "assemble")
    assert moved(report_of("e", "split", *hand_over, whole="wait")) == 2 * (windows + PIXELS.nbytes)
    stream = moved(report_of("f", *hand_over, whole="split"))
    assert stream == PIXELS.nbytes + windows + 2 * PIXELS.nbytes
    assert moved(report_of("c", "split", *hand_over)) == 0


def test_workers_come_at_once_and_go_after_the_calm() -> None:
    depths = [0, 950, 30, 0]
    assert [wanted(depths[:n], 100, 1, 20, calm=1) for n in range(1, 5)] == [1, 10, 10, 1]
    assert wanted([5000], 100, 1, 20, calm=0) == 20


def test_a_fleet_does_what_its_workers_can_and_the_rest_waits() -> None:
    policy = {"per_worker": 5, "least": 1, "most": 1, "calm": 0}
    depths, workers, wait = fleet([2.0] * 10 + [0.0] * 20, rate=1.0, start_s=0, **policy)
    assert (max(depths), depths[-1], wait) == (10, 0, 10)
    assert set(workers) == {1}


def test_a_worker_of_a_fleet_is_paid_for_from_the_poll_and_works_after_its_start() -> None:
    policy = {"per_worker": 5, "least": 0, "most": 4, "calm": 0}
    depths, workers, wait = fleet([20.0] + [0.0] * 29, rate=5.0, start_s=3, poll_s=10, **policy)
    assert workers == [0] * 10 + [4] * 10 + [0] * 10
    assert depths == [20] * 13 + [0] * 17
    assert wait == 13


def test_a_strip_has_a_line_for_each_name_and_the_legend_names_it_once() -> None:
    lines = {"one": ("-", [0, 1], [1, 2]), "two": ("o", [0, 1], [2, 3])}
    chart = strips("Title", "facts", "across", {"up": lines, "down": lines})
    assert chart.alt == "Title; facts."
    assert [text.get_text() for text in chart.legends[0].get_texts()] == ["one", "two"]
    assert [len(axes.lines) for axes in chart.axes] == [2, 2]
