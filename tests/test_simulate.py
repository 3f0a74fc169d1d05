"""The model keeps the books of a run: tiles, losses, redeliveries, and time that adds up."""

import math

import pytest

from studyguide.report import RunReport
from studyguide.settings import Settings, describe
from studyguide.simulate import (
    Costs,
    Scenario,
    amdahl,
    bound,
    demands,
    gustafson,
    simulate,
)
from studyguide.timeline import Event, Timeline

SHAPES = [(512, 512, 4), (300, 200, 4)]
COSTS = Costs(
    load=1e-8,
    save=2e-8,
    split=1e-9,
    blur=(1e-4, 1e-7),
    assemble=1e-9,
    boot=0.05,
    start=0.3,
    enqueue=1e-4,
    transfer=2e-4,
    server=1e-4,
)
TILES = 4 + 2


@pytest.mark.parametrize("approach", "abcdefg")
def test_every_approach_puts_every_tile_in_its_place_and_saves_every_image(approach: str) -> None:
    outcome = simulate(Scenario(approach, SHAPES), COSTS)
    assert (outcome.tiles, outcome.images) == (TILES, len(SHAPES))
    assert (outcome.lost, outcome.redelivered, outcome.retried) == (0, 0, 0)


def test_a_takes_the_sum_of_its_steps() -> None:
    samples = sum(map(math.prod, SHAPES))
    each = COSTS.load + COSTS.blur[1] + COSTS.save
    expected = each * samples + len(SHAPES) * COSTS.blur[0]
    assert simulate(Scenario("a", SHAPES), COSTS).wall_s == pytest.approx(expected)


def test_d_takes_the_time_of_a_and_the_start_of_one_process() -> None:
    a, d = (simulate(Scenario(letter, SHAPES), COSTS).wall_s for letter in "ad")
    assert d - a == pytest.approx(COSTS.boot + COSTS.start)


def test_e_loses_the_tile_of_a_killed_worker_and_does_not_save_its_image() -> None:
    outcome = simulate(Scenario("e", SHAPES, deaths=1), COSTS)
    assert (outcome.lost, outcome.tiles, outcome.images) == (1, TILES - 1, len(SHAPES) - 1)


@pytest.mark.parametrize("approach", "fg")
@pytest.mark.parametrize("deaths", [1, 3])
def test_f_and_g_redeliver_what_killed_workers_held_and_lose_nothing(
    approach: str, deaths: int
) -> None:
    outcome = simulate(Scenario(approach, SHAPES, deaths=deaths), COSTS)
    assert (outcome.lost, outcome.tiles, outcome.images) == (0, TILES, len(SHAPES))
    assert outcome.redelivered >= deaths


def test_a_tile_of_a_killed_worker_comes_back_after_a_visibility_timeout_and_not_before() -> None:
    calm = simulate(Scenario("f", SHAPES, visibility_s=30), COSTS).wall_s
    killed = simulate(Scenario("f", SHAPES, deaths=1, visibility_s=30), COSTS).wall_s
    assert killed > 30 > calm


def test_a_flaky_tile_is_tried_again_and_counts_once() -> None:
    outcome = simulate(Scenario("f", SHAPES, flaky=1.0), COSTS)
    assert (outcome.retried, outcome.tiles) == (TILES, TILES)


def test_the_same_seed_ends_the_same_and_another_differs() -> None:
    scattered = Costs(load=0, save=0, blur=(0.01, 0.0), spread=0.5)
    walls = [simulate(Scenario("b", SHAPES, seed=n), scattered).wall_s for n in (1, 1, 2)]
    assert walls[0] == walls[1] != walls[2]


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_no_run_ends_before_the_bound_of_its_busiest_station(workers: int) -> None:
    scenario = Scenario("f", [(1024, 1024, 4)], workers=workers, cores=0)
    samples = 256 * 256 * 4
    assert simulate(scenario, COSTS).wall_s >= bound(COSTS, demands(COSTS, workers, samples), 16)


def test_costs_that_were_planted_in_a_run_are_found_by_the_fit() -> None:
    def event(stage: str, tile: int, cpu_s: float, **detail: object) -> Event:
        detail["cpu_s"] = cpu_s
        return Event(stage, tile + 2.0, tile + 3.0, "main", "w", "a.png", tile, 1, detail)

    fixed, each = 0.01, 1e-6
    events = [event("load", -1, 0.24, shape=(300, 200, 4))]
    events += [
        event("blur", tile, fixed + each * rows * 200 * 4) for tile, rows in enumerate((256, 44))
    ]
    report = RunReport.of("b", "local", Timeline(events), describe(Settings()))
    fitted = Costs.fit([report], server=0.5)
    assert fitted.server == 0.5
    assert fitted.load == pytest.approx(0.24 / 240_000)
    assert fitted.blur == pytest.approx((fixed, each))
    assert fitted.spread == pytest.approx(0, abs=1e-9)


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
