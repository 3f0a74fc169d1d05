"""What view.js is given to draw: all spans, or shares of time where they are too many."""

from typing import Any

import numpy as np
import pytest
from test_charts import faulty, pool, report_of, sequential

from studyguide.record.charts import MAX_BARS, timeline_figure
from studyguide.record.scene import Scene
from studyguide.record.timeline import Timeline
from studyguide_course.book import MIME, pack, unpack
from studyguide_course.view import KINDS, Drawing, RunView, explore, side_by_side

EVERYTHING = (0.0, float("inf"))


def seen(timeline: Timeline, start: float = 0.0, end: float = float("inf")) -> dict[str, Any]:
    return Drawing("a run", Scene(timeline)).seen(start, end)


@pytest.mark.slow
def test_readers_without_widgets_see_the_static_chart_with_its_words() -> None:
    run, other = report_of(faulty()), report_of(sequential())
    for view, chart in (
        (explore(run), timeline_figure(run)),
        (explore(run, other), side_by_side([run, other])),
    ):
        bundle, about = view._repr_mimebundle_()
        picture, words = chart._repr_mimebundle_()
        assert picture.items() <= bundle.items()
        assert words.items() <= about.items()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert view.alt == chart.alt
        assert unpack(bundle[MIME])["alt"] == chart.alt


def test_what_is_stored_of_an_explorer_is_what_the_browser_would_be_sent() -> None:
    view = RunView([Drawing("f", Scene(faulty())), Drawing("a", Scene(sequential()))])
    stored = unpack(pack(view.stored()))
    for sent, kept in zip(view.runs, stored["runs"], strict=True):
        assert kept.keys() == sent.keys()
        assert [mark["text"] for mark in kept["marks"]] == [mark["text"] for mark in sent["marks"]]
        assert np.array(kept["bars"]) == pytest.approx(np.array(sent["bars"]), abs=1e-5)
        assert [lane for lane, *_ in kept["path"]] == [lane for lane, *_ in sent["path"]]
    assert stored["looks"] == view.looks
    assert {mark["stage"] for mark in stored["runs"][0]["marks"]} <= stored["signs"].keys()


def test_the_workers_of_a_run_are_the_lanes_that_blur() -> None:
    run = seen(pool(tiles=40))
    blur = KINDS.index("blur")
    assert set(run["workers"]) == {lane for kind, lane, *_ in run["bars"] if kind == blur}
    assert 0 < run["blurring"] <= 100


def test_a_retry_is_signed_with_the_number_of_its_attempt() -> None:
    (retry,) = [mark for mark in seen(faulty())["marks"] if mark["stage"] == "retry"]
    assert retry["sign"] == "\u21bb1"


def test_each_span_is_sent_with_its_lane_its_times_and_its_tile() -> None:
    timeline = pool(tiles=40)
    run = seen(timeline)
    sent = {
        (KINDS[int(kind)], run["lanes"][int(lane)], int(tile), round(end - start, 3))
        for kind, lane, start, end, _, tile, _ in run["bars"]
    }
    blurs = timeline.of("blur")
    assert sent >= {("blur", event.lane, event.tile, round(event.seconds, 3)) for event in blurs}
    assert run["shares"] is None


def test_a_reclaim_is_sent_as_an_arrow_from_the_lane_that_died() -> None:
    run = seen(faulty())
    (arrow,) = [mark for mark in run["marks"] if mark["from"]]
    (death,) = [mark for mark in run["marks"] if mark["stage"] == "death"]
    assert arrow["from"] == [death["lane"], death["at"]]
    assert arrow["lane"] != death["lane"]


def test_the_critical_path_reaches_from_the_start_to_the_end_without_going_back() -> None:
    timeline = pool()
    path = seen(timeline)["path"]
    assert path[0][1] == pytest.approx(0.0)
    assert path[-1][2] == pytest.approx(timeline.seconds)
    times = [time for _, start, end in path for time in (start, end)]
    assert times == sorted(times)


MANY = pool(10, 4000, blur=0.01)


def test_too_many_spans_become_shares_that_add_up_to_the_time_spent() -> None:
    run = seen(MANY)
    assert not run["bars"]
    shares = run["shares"]
    blurred = sum(np.sum(share) for _, kind, share in shares["of"] if KINDS[kind] == "blur")
    width = (shares["end"] - shares["start"]) / len(shares["of"][0][2])
    spent = sum(event.seconds for event in MANY.of("blur"))
    assert blurred * width == pytest.approx(spent, rel=0.01)


def test_a_close_look_shows_spans_again_and_follows_their_tiles_out_of_sight() -> None:
    middle = MANY.seconds / 2
    run = seen(MANY, middle, middle + 0.05)
    assert 0 < len(run["bars"]) < MAX_BARS
    outside = [bar for bar in run["bars"] if bar[3] < middle or bar[2] > middle + 0.05]
    inside = {bar[5] for bar in run["bars"] if bar not in outside}
    assert outside
    assert {bar[5] for bar in outside} <= inside


def test_the_longest_queue_is_never_binned_away() -> None:
    run = seen(MANY)
    assert len(run["queue"]) < len(MANY.queue_depth())
    assert max(n for _, n in run["queue"]) == max(n for _, n in MANY.queue_depth())


def test_what_the_browser_looks_at_is_what_it_is_sent() -> None:
    view = RunView([Drawing("many", Scene(MANY))])
    assert view.runs[0]["shares"]
    view.window = [1.0, 1.05]
    assert view.runs[0]["bars"]
    assert view.runs[0]["dense"]


def test_a_run_without_events_can_be_looked_at() -> None:
    assert seen(Timeline([]))["bars"] == []
