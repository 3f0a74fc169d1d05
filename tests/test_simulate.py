"""The model keeps account of a run: its tiles, its images, and time that adds up."""

import math
from dataclasses import replace

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from studyguide.record.report import RunReport
from studyguide.record.timeline import Event, Timeline
from studyguide.settings import Settings, describe
from studyguide_course.costs import Costs, line, seconds
from studyguide_course.laws import amdahl, bottleneck, bound, demands, gustafson, rate
from studyguide_course.simulate import Host, Machine, Scenario, Steps, simulate

SHAPES = [(512, 512, 4), (300, 200, 4)]
COSTS = Costs(
    load=(0.0, 1e-8),
    save=(0.0, 2e-8),
    split=(0.0, 1e-9),
    enqueue=(1e-4, 0.0),
    blur=(1e-4, 1e-7),
    transfer=(2e-4, 0.0),
    assemble=(0.0, 1e-9),
    pause=1e-4,
    boot=0.05,
    start=0.1,
    warm_up=0.2,
    server=1e-4,
)
TILES = 4 + 2


@pytest.mark.parametrize("approach", "abcdefg")
def test_every_approach_puts_every_tile_in_its_place_and_saves_every_image(approach: str) -> None:
    run = simulate(Scenario(approach, SHAPES), COSTS)
    assert (run.tiles, run.images) == (TILES, len(SHAPES))


def test_a_takes_the_sum_of_its_steps() -> None:
    samples = sum(map(math.prod, SHAPES))
    each = COSTS.load[1] + COSTS.blur[1] + COSTS.save[1]
    expected = each * samples + len(SHAPES) * COSTS.blur[0]
    assert simulate(Scenario("a", SHAPES), COSTS).wall_s == pytest.approx(expected)


def test_d_takes_the_time_of_a_and_the_start_of_one_process() -> None:
    a, d = (simulate(Scenario(letter, SHAPES), COSTS).wall_s for letter in "ad")
    assert d - a == pytest.approx(COSTS.boot + COSTS.start + COSTS.warm_up)


def test_the_same_seed_ends_the_same_and_another_differs() -> None:
    scattered = Costs(blur=(0.01, 0.0), spread=0.5)
    walls = [simulate(Scenario("b", SHAPES, seed=n), scattered).wall_s for n in (1, 1, 2)]
    assert walls[0] == walls[1] != walls[2]


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_no_run_ends_before_the_bound_of_its_busiest_station(workers: int) -> None:
    scenario = Scenario("f", [(1024, 1024, 4)], workers=workers, cores=0)
    samples = 256 * 256 * 4
    assert simulate(scenario, COSTS).wall_s >= bound(COSTS, demands(COSTS, workers, samples), 16)


def burning(machine: Machine, cpu_s: float, ends: list[float]) -> Steps:
    yield from machine.burn(cpu_s)
    ends.append(machine.env.now)


def test_threads_that_could_run_share_the_cores_equally() -> None:
    env, ends = simpy.Environment(), list[float]()
    machine = Machine(env, cores=2)
    for cpu_s in (1.0, 1.0, 2.0):
        env.process(burning(machine, cpu_s, ends))
    env.run()
    assert ends == pytest.approx([1.5, 1.5, 2.5])  # two thirds of a core each, then one alone


def test_python_is_run_by_one_thread_of_a_process_at_a_time_and_pixels_by_all() -> None:
    for cost, wall_s in (((1.0, 0.0), 2.0), ((0.0, 1.0), 1.0), ((0.5, 0.5), 1.5)):
        env = simpy.Environment()
        host = Host(env, Machine(env, cores=2))
        for _ in range(2):
            env.process(host.step(cost, 1))
        env.run()
        assert env.now == pytest.approx(wall_s), cost


FIXED, EACH = 0.01, 1e-6
SIZES = {0: 256 * 200 * 4, 1: 44 * 200 * 4}  # samples of the tiles of an image of 300 x 200


def planted(tile: int, at: float) -> list[Event]:
    """A process' start, and a worker's blur and transfer of one tile, of known CPU seconds."""

    def event(stage: str, start: float, end: float, cpu_s: float) -> Event:
        name = ("worker-0", "w", "a.png", tile, 1)
        return Event(stage, start, end, *name, {"cpu_s": cpu_s})

    cpu_s = FIXED + EACH * SIZES[tile]
    return [event("blur", at, at + 2, cpu_s), event("transfer", at + 2, at + 2.5, 0.3)]


def test_costs_that_were_planted_in_a_run_are_found_by_the_fit() -> None:
    where = ("a.png", -1, 1)
    events = [
        Event("run", 1.0, 1.0, "main", "main"),
        Event("load", 1.0, 1.5, "main", "main", *where, {"shape": (300, 200, 4), "cpu_s": 0.24}),
        Event("start", 1.1, 1.9, "coordinator-0", "main", detail={"cpu_s": 0.3}),
        Event("start", 1.1, 1.9, "worker-0", "main", detail={"cpu_s": 0.7}),
        *planted(0, at=2.0),
        *planted(1, at=4.6),  # 0.5 s of transfer and 0.1 s more after the first blur
    ]
    report = RunReport.of("e", "local", Timeline(events), describe(Settings()))
    fitted = Costs.fit([report], server=0.5)
    assert fitted.server == 0.5
    assert seconds(fitted.load, 240_000) == pytest.approx(0.24)
    assert fitted.blur == pytest.approx((FIXED, EACH))
    assert fitted.spread == pytest.approx(0, abs=1e-9)
    assert seconds(fitted.transfer, SIZES[0]) + fitted.pause == pytest.approx(0.6)
    assert (fitted.boot, fitted.start, fitted.warm_up) == pytest.approx((0.1, 0.3, 0.4))


def test_a_line_through_times_has_no_negative_part_however_they_fall() -> None:
    assert line([(1.0, 10), (1.0, 20)]) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert line([(2.0, 10), (1.0, 20)])[1] == 0.0
    assert line([(1.0, 10), (4.0, 20)])[0] == 0.0
    assert line([]) == (0.0, 0.0)


def test_more_workers_move_the_bottleneck_to_who_cannot_be_shared_out() -> None:
    few, many = (demands(COSTS, workers, 256 * 256 * 4) for workers in (1, 10_000))
    assert max(few, key=few.__getitem__) == "workers"
    assert max(many, key=many.__getitem__) in ("coordinator", "assembler")
    most = demands(COSTS, 10_000, 256 * 256 * 4, others=1000)
    assert max(most, key=most.__getitem__) == "Redis"


def test_laws_agree_on_one_worker_and_part_on_many() -> None:
    assert amdahl(0.1, 1) == gustafson(0.1, 1) == 1
    assert amdahl(0.1, 1e9) == pytest.approx(10)
    assert gustafson(0.1, 101) == pytest.approx(91)


def cost(most: float) -> st.SearchStrategy[float]:
    """Nothing, or at least a picosecond: the inverse of less may be infinite."""
    return st.just(0.0) | st.floats(1e-12, most)


step_costs = st.tuples(cost(1e-2), cost(1e-6))
any_costs = st.builds(
    Costs,
    **dict.fromkeys(
        ("load", "save", "split", "enqueue", "blur", "transfer", "assemble"), step_costs
    ),
    **dict.fromkeys(("pause", "server"), cost(1e-2)),
    **dict.fromkeys(("boot", "start", "warm_up", "spread"), cost(2)),
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    costs=any_costs,
    workers=st.integers(1, 6),
    samples=st.integers(1, 100_000),
    tiles=st.integers(1, 20),
)
def test_no_simulated_rate_exceeds_the_bound_whatever_the_steps_cost(
    costs: Costs, workers: int, samples: int, tiles: int
) -> None:
    busiest = max(demands(costs, workers, samples, tiles=tiles).values())
    assert rate(costs, workers, samples, tiles) * busiest <= 1 + 1e-9 or not busiest


@settings(max_examples=40, deadline=None)
@given(costs=any_costs, workers=st.integers(1, 6), tiles=st.integers(1, 20))
def test_no_simulated_run_ends_before_its_bound(costs: Costs, workers: int, tiles: int) -> None:
    costs = replace(costs, spread=0.0)
    scenario = Scenario("f", [(1, tiles * 1000)] * 4, workers, tile_size=1000, cores=0)
    busy = demands(costs, workers, 1000, tiles=tiles)
    least = bound(costs, busy, 4 * tiles)
    assert simulate(scenario, costs).wall_s >= least * (1 - 1e-9)


def test_the_bottleneck_is_the_busiest_station_and_its_rate() -> None:
    assert bottleneck({"workers": 0.1, "Redis": 0.5}) == ("Redis", 2.0)
    assert bottleneck({"workers": 0.0}) == ("workers", math.inf)


def test_a_fixed_cost_of_an_image_is_shared_by_its_tiles() -> None:
    costs = Costs(load=(1.0, 0.0), save=(2.0, 0.0))
    assert demands(costs, 1, 100, tiles=10)["coordinator"] == pytest.approx(0.1)
    assert demands(costs, 1, 100, tiles=10)["assembler"] == pytest.approx(0.2)
