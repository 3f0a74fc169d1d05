"""Figures of a run follow from its events, and no run beats the bound that is printed for it."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SMALL, make_images

from studyguide.record.report import RunReport, recovery_s
from studyguide.record.timeline import MARKS, SPANS, Event, Timeline
from studyguide.runs import run
from studyguide_course.measures import (
    Payoff,
    added,
    after_starts_s,
    beside_blur_s,
    cores_at_work,
    covered,
    cpu_share,
    gain_of_threads,
    idle_s,
    in_memory,
    little,
    lower_bound,
    overlap_s,
    path_s,
    payoff,
    peak,
    spans,
    stage_cpu_s,
    start_s,
    start_share,
    starts_s,
    tile_cpu_s,
    tile_cycle_s,
    tile_s,
    tiles_in_flight,
    versus,
    with_starts_of,
)
from studyguide_course.recovery import Fate, Retry, fates, outage_s, retries, silence_s


def event(stage: str, start: float, end: float, image: str = "a", **fields: Any) -> Event:
    """A span whose CPU seconds are half of its wall seconds, where nothing else is said."""
    detail = {"cpu_s": fields.pop("cpu_s", (end - start) / 2)}
    lane = fields.pop("lane", "main")
    return Event(stage, start, end, lane, lane, image, detail=detail, **fields)


def one_image(image: str = "a", at: float = 0.0, tiles: int = 2) -> list[Event]:
    """Load for 1 s, blur each tile for 4 s beside the others, place it for 1 s, save for 2 s."""
    found = [event("load", at, at + 1, image)]
    for tile in range(tiles):
        found.append(event("enqueue", at + 1, at + 1 + tile, image, tile=tile))
        found.append(event("wait", at + 1, at + 1 + tile, image, tile=tile, lane=f"w{tile}"))
        begun = at + 1 + tile
        found.append(event("blur", begun, begun + 4, image, tile=tile, lane=f"w{tile}"))
        found.append(event("transfer", begun + 4, begun + 4, image, tile=tile, lane=f"w{tile}"))
        found.append(event("assemble", begun + 4, begun + 5, image, tile=tile, lane="asm"))
    return [*found, event("save", at + 5 + tiles, at + 7 + tiles, image, lane="asm")]


RUN = Timeline(one_image())
NOTHING = Timeline([])


def test_share_of_a_stage_is_of_cpu_seconds() -> None:
    assert cpu_share(RUN, "blur") == 4 / 7
    assert cpu_share(RUN, "split") == cpu_share(NOTHING, "blur") == 0


def test_tiles_in_flight_are_those_between_enqueue_and_the_end_of_their_blur() -> None:
    assert tiles_in_flight(RUN) == 2
    assert tiles_in_flight(Timeline([*one_image(), *one_image("b", at=20)])) == 2
    assert tiles_in_flight(NOTHING) == 0


def test_cpu_seconds_are_summed_by_stage_and_waits_are_left_out() -> None:
    expected = {"load": 0.5, "enqueue": 0.5, "blur": 4, "transfer": 0, "assemble": 1, "save": 1}
    assert stage_cpu_s(RUN) == expected
    assert stage_cpu_s(NOTHING) == {}


def test_a_span_uses_no_more_cpu_than_it_lasts_and_none_that_is_not_recorded() -> None:
    rounded = event("blur", 0, 1, cpu_s=1.0000004)
    assert stage_cpu_s(Timeline([rounded])) == {"blur": 1.0}
    assert stage_cpu_s(Timeline([Event("blur", 0, 1, "p", "l")])) == {"blur": 0.0}


def test_the_bound_is_the_shared_work_or_the_longest_chain_in_cpu_seconds() -> None:
    bound = lower_bound(RUN, cores=2)
    assert (bound.work_s, bound.shared_s) == (7.0, 3.5)
    assert (bound.image, bound.chain_s) == ("a", 0.5 + 2 + 0.5 + 1)
    assert bound.seconds == 4.0
    assert lower_bound(RUN, cores=1).seconds == 7.0
    assert lower_bound(NOTHING, cores=2).seconds == 0.0


def test_spans_that_oversubscription_stretches_do_not_raise_the_bound() -> None:
    stretched = [event("blur", 0, 10, tile=n, lane=f"w{n}", cpu_s=1.0) for n in range(10)]
    assert lower_bound(Timeline(stretched), cores=1).seconds == 10.0
    assert lower_bound(Timeline(stretched), cores=2).seconds == 5.0


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[Event], int]:
    """Events of a job on some cores: each step runs on one core after what it needs."""
    cores = draw(st.integers(1, 4))
    chance = random.Random(draw(st.integers(0, 10**6)))
    free = [0.0] * cores
    found: list[Event] = []

    def step(stage: str, image: str, tile: int, after: float) -> float:
        core = chance.randrange(cores)
        begun = max(free[core], after) + chance.choice((0.0, 0.3))
        cpu_s = chance.uniform(0, 1)
        free[core] = end = begun + cpu_s * chance.uniform(1, 2)
        lane = f"core {core}"
        found.append(event(stage, begun, end, image, tile=tile, lane=lane, cpu_s=cpu_s))
        return end

    for image in map(str, range(draw(st.integers(0, 3)))):
        loaded = step("load", image, -1, 0.0)
        over = [
            step("assemble", image, tile, step("blur", image, tile, again))
            for tile in range(draw(st.integers(1, 3)))
            for again in [loaded, *[loaded] * chance.randrange(2)]  # some are done twice
        ]
        step("save", image, -1, max(over))
    return found, cores


@given(schedule=schedules())
def test_no_schedule_ends_before_its_own_bound(schedule: tuple[list[Event], int]) -> None:
    found, cores = schedule
    timeline = Timeline(found)
    assert lower_bound(timeline, cores).seconds <= timeline.end + 1e-9


@pytest.mark.parametrize("approach", "abc")
def test_no_run_ends_before_its_own_bound(approach: str, tmp_path: Path) -> None:
    report = _run(approach, tmp_path, workers=4)
    bound = lower_bound(report.timeline, report.machine["cores"])
    assert 0 < bound.seconds <= report.timeline.seconds
    assert bound.image in ("cloud.png", "grain.png")


def _run(approach: str, folder: Path, **options: Any) -> RunReport:
    places = {"images": make_images(folder / "in"), "output": folder / "out"}
    return run(approach, **SMALL | places | options)


def test_a_payoff_divides_cpu_seconds_by_cpu_seconds() -> None:
    alone = Timeline([event("load", 0, 2), event("blur", 2, 18), event("save", 18, 20)])
    start = event("start", 0, 8, "", lane="w0")
    gain = payoff(alone, Timeline([start, *one_image()]), cores=2)
    assert gain == Payoff(alone_s=10.0, fixed_s=2.0, shared_s=3.5)
    assert gain.speed_up == 10 / 5.5
    assert gain.limit == 10 / 3.5
    assert gain.pays_from == 2 / 6.5


def test_a_payoff_does_not_change_when_a_busy_machine_doubles_all_wall_times() -> None:
    def slow(events: list[Event]) -> Timeline:
        return Timeline(
            event(e.stage, 2 * e.start, 2 * e.end, e.image, tile=e.tile, lane=e.lane, **e.detail)
            for e in events
        )

    work = [event("start", 0, 8, "", lane="w0"), *one_image()]
    assert payoff(slow(one_image()), slow(work), 2) == payoff(RUN, Timeline(work), 2)


def test_blurs_are_shared_by_no_more_cores_than_there_are_workers() -> None:
    lone = [event("blur", 0, 4), event("blur", 4, 8)]
    assert payoff(RUN, Timeline(lone), cores=8).shared_s == 4.0


def test_what_gains_nothing_never_pays() -> None:
    assert Payoff(1.0, 0.5, 1.0).pays_from == float("inf")
    assert payoff(NOTHING, NOTHING, 2).limit == float("inf")


@given(schedule=schedules())
def test_on_some_cores_nothing_is_more_than_so_many_times_as_fast_as_its_own_work(
    schedule: tuple[list[Event], int],
) -> None:
    timeline = Timeline(schedule[0])
    gain = payoff(timeline, timeline, schedule[1])
    assert gain.limit == float("inf") or gain.limit <= schedule[1] + 1e-9
    assert gain.speed_up == gain.limit  # without a start


def test_steps_of_the_critical_path_are_summed_by_stage() -> None:
    assert path_s(RUN) == {"blur": 4, "save": 2, "load": 1, "enqueue": 1, "assemble": 1} | {
        "wait": 0,
        "transfer": 0,
    }


streams = st.lists(
    st.builds(
        Event,
        st.sampled_from(SPANS + MARKS),
        st.floats(0, 100),
        st.floats(0, 100),
        st.sampled_from("pq"),
        st.sampled_from("lm"),
        st.sampled_from("ab"),
        st.integers(-1, 2),
    ),
    max_size=20,
).map(lambda found: [e for e in found if e.start <= e.end])


@given(found=streams)
def test_whatever_the_events_say_the_path_is_no_longer_than_the_run(found: list[Event]) -> None:
    timeline = Timeline(found)
    assert sum(path_s(timeline).values()) <= timeline.seconds + 1e-9


def test_overlaps_count_once_and_a_peak_counts_them_all() -> None:
    times = [(0.0, 2.0), (1.0, 3.0), (3.0, 4.0)]
    assert (covered(times), peak(times)) == (4.0, 2)
    assert (covered([]), peak([])) == (0.0, 0)
    assert spans(RUN, "load", "save", image="a") == [(0, 1), (7, 9)]
    assert spans(RUN, "load", image="b") == []


def test_two_stages_overlap_where_both_are_under_way() -> None:
    assert overlap_s(RUN, "blur", "assemble") == 1.0
    assert overlap_s(RUN, "load", "save") == 0.0


def test_an_image_is_in_memory_from_its_load_to_the_end_of_its_save() -> None:
    two = Timeline([*one_image("a"), *one_image("b", at=20.0), event("load", 30, 31, "c")])
    assert in_memory(two) == [(0, 9), (20, 29)]


def test_a_run_is_idle_while_nothing_is_blurred() -> None:
    assert idle_s(RUN) == 9 - 5


def test_a_start_takes_until_the_last_process_is_up_and_restarts_do_not_count() -> None:
    starts = [event("start", 1, 3, lane="p"), event("start", 1, 4, lane="q")]
    again = event("start", 8, 9, lane="p")
    assert start_s(Timeline([Event("run", 0, 0, "m", "m"), *starts, again])) == 4
    assert start_s(RUN) == 0


def test_starts_are_listed_by_role_and_shared_by_cpu_seconds() -> None:
    starts = [event("start", 1, 3, "", lane="worker-0"), event("start", 1, 5, "", lane="asm")]
    timeline = Timeline([Event("run", 0, 0, "m", "m"), *starts, *one_image(at=5)])
    assert starts_s(timeline, "worker") == [2]
    assert starts_s(timeline) == [2, 4]
    assert start_share(timeline) == 3 / 10
    assert start_share(NOTHING) == 0
    assert after_starts_s(timeline) == 9
    assert with_starts_of(RUN, timeline) == 5 + 9
    assert with_starts_of(timeline, RUN) == 9
    assert cores_at_work(RUN) == 4 / 5
    assert cores_at_work(NOTHING) == 0


@pytest.mark.parametrize(("cores", "gain"), [(1, 1), (2, 1), (3, 1.5), (8, 2)])
def test_threads_gain_only_the_cores_that_were_idle(cores: int, gain: float) -> None:
    assert gain_of_threads(4, 2, cores) == gain


def test_two_runs_are_compared_by_wall_seconds() -> None:
    slow = versus(Timeline([event("load", 0, 9)]), Timeline([event("load", 0, 6)]))
    assert (slow.extra_s, slow.times_as_long, slow.times_as_fast) == (3, 1.5, 6 / 9)
    assert added([1, 3, 7.5]) == [1, 2, 4.5]


def mark(stage: str, at: float, tile: int = -1, who: str = "w0", **detail: Any) -> Event:
    return Event(stage, at, at, who, "t0", "a", tile, detail=detail)


def test_a_tile_of_a_killed_worker_is_taken_over_or_in_its_place_or_lost() -> None:
    found = [mark("death", 2, tile) for tile in (0, 1, 2)]
    found.append(mark("reclaim", 3.5, 0, who="w1", from_worker="w0/t0"))
    found.append(mark("reclaim", 3.5, 7, who="w1", from_worker="w0/t1"))  # taken and not begun
    found.append(event("assemble", 4, 5, tile=1))
    assert fates(Timeline(found)) == [
        Fate("a", 0, "w0/t0", "w1/t0", 1.5),
        Fate("a", 7, "w0/t1", "w1/t0", 1.5),
        Fate("a", 1, "w0/t0", placed=True),
        Fate("a", 2, "w0/t0"),
    ]
    assert fates(Timeline(found))[0].timeouts(visibility_s=0.5) == 3
    assert fates(RUN) == []


def test_a_tile_of_a_worker_that_did_not_die_counts_from_its_reclaim() -> None:
    stalled = Timeline([mark("reclaim", 3, 0, who="w1", from_worker="w0/t0")])
    assert fates(stalled) == [Fate("a", 0, "w0/t0", "w1/t0")]


def test_silence_is_what_comes_between_the_last_tile_and_giving_up() -> None:
    assert silence_s(Timeline([event("assemble", 0, 4), mark("lost", 6, 1)])) == 2
    assert silence_s(RUN) == 0


def test_an_outage_lasts_until_the_next_result_is_handed_on() -> None:
    found = [event("transfer", 0, 1), event("transfer", 1, 4), event("transfer", 4, 6)]
    assert outage_s(Timeline([*found, mark("death", 3, who="redis")])) == 1
    assert outage_s(Timeline([*found, mark("death", 7, who="redis")])) == 0
    assert outage_s(Timeline([*found, mark("death", 3)])) == 0


def test_a_retry_waits_for_its_jittered_delay_and_for_its_next_delivery() -> None:
    retry = Event("retry", 2, 2, "w0", "t0", "a", 5, 2, {"delay_s": 1.3})
    found = [event("wait", 0, 1, tile=5), retry]
    again = [event("wait", 0, 2.5, tile=6), event("wait", 3, 4, tile=5)]
    assert retries(Timeline([*found, *again]), backoff_s=0.5) == [Retry(5, 2, 1.0, 1.3, 2)]
    assert retries(Timeline(found), backoff_s=0.5) == [Retry(5, 2, 1.0, 1.3, 0)]


def test_what_a_worker_does_beside_its_blurs_is_measured_from_result_to_result() -> None:
    found = []
    for tile, end in enumerate((4.0, 10.0, 17.0)):
        found.append(event("blur", end - 4, end - 1, tile=tile, lane="w0"))
        found.append(event("transfer", end - 1, end, tile=tile, lane="w0"))
    assert beside_blur_s(Timeline(found)) == 3.5  # 6 - 3 and 7 - 3
    assert tile_cycle_s(Timeline(found)) == 3.5 + 1.5
    assert beside_blur_s(RUN) == 0


def test_a_run_has_recovered_when_the_last_tile_of_a_dead_thread_is_done_again() -> None:
    def death(at: float, tile: int) -> Event:
        return Event("death", at, at, "w", "w", "a", tile)

    assert recovery_s(RUN) == 0
    again = event("transfer", 12, 14, tile=1)
    assert recovery_s(Timeline([*one_image(), death(8, 1)])) == float("inf")
    assert recovery_s(Timeline([*one_image(), death(8, 1), again])) == 14 - 8
    assert recovery_s(Timeline([*one_image(), death(8, -1)])) == 0


def test_medians_of_a_tile_leave_whole_images_out() -> None:
    times = [event("blur", 0, n, tile=n) for n in (2, 4, 6)] + [event("blur", 0, 100)]
    assert (tile_s(Timeline(times), "blur"), tile_cpu_s(Timeline(times), "blur")) == (4, 2)
    assert (tile_s(NOTHING, "blur"), tile_cpu_s(NOTHING, "blur")) == (0, 0)


def test_both_sides_of_littles_law_agree_and_are_measured_apart() -> None:
    queue = [event("enqueue", 0, n, tile=n) for n in range(4)]
    queue += [event("wait", 0, n + 2.0, tile=n, lane="w") for n in range(4)]
    found = little(Timeline(queue))
    assert (found.depth, found.rate, found.wait_s) == (8 / 5, 4 / 5, 2.0)
    assert found.depth == pytest.approx(found.rate * found.wait_s)
    assert found.wait_at(4) == 5
    assert little(NOTHING).depth == little(NOTHING).wait_at(4) == 0.0


def test_littles_law_holds_where_tiles_are_taken_before_put_returns() -> None:
    ends = [(3.0, 1.0), (4.0, 2.0), (2.0, 6.0), (1.0, 7.0)]  # of enqueue, of wait
    queue = [event("enqueue", 0, put, tile=n, lane=f"c{n}") for n, (put, _) in enumerate(ends)]
    queue += [event("wait", 0, got, tile=n, lane="w") for n, (_, got) in enumerate(ends)]
    found = little(Timeline(queue))
    assert found.depth == pytest.approx(found.rate * found.wait_s)
    assert found.wait_s == (0 + 0 + 4 + 6) / 4
