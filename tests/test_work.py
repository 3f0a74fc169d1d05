"""Plan, process, assemble; and a wire format that refuses whatever is not one of its messages."""

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studyguide import images
from studyguide.blur import blur_whole
from studyguide.errors import ImageError, MessageError
from studyguide.record.timeline import Event, Recorder
from studyguide.settings import METHODS, Blur, Settings
from studyguide.tiles import Pixels
from studyguide.work import (
    Canvas,
    ImageJob,
    Run,
    TileResult,
    TileTask,
    decode_result,
    decode_task,
    encode,
    find_tile,
    parse_job,
    plan,
    process,
    process_whole,
    to_pixels,
)


def noise(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    """An image of random samples; `channels` 1 gives shape (H, W)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


PIXELS = noise(10, 14, 3)
JOB = ImageJob.of("chart.png", PIXELS, 4, Blur.of(5), "run-1")  # 3 x 4 tiles
SILENT = Recorder(lambda event: None)

names = st.text(min_size=1).filter(
    lambda name: Path(name).name == name and name != ".." and "\0" not in name
)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[ImageJob, Pixels]:
    """A small image and what is to be done with it.

    The fixed-point kernel is compiled for its weights and channels, so these are few.
    """
    side, method = st.integers(1, 12), draw(st.sampled_from(METHODS))
    fixed = method == "separable"
    channels = draw(st.sampled_from([1, 4] if fixed else [1, 3, 4]))
    pixels = noise(draw(side), draw(side), channels, draw(st.integers(0, 9)))
    radius = 2 if fixed else draw(st.sampled_from([0, 2, 6]))
    sigma = None if fixed else draw(st.none() | st.floats(0.1, 50))
    blur = Blur.of(2 * radius + 1, sigma, method)
    job = ImageJob.of(draw(names), pixels, draw(st.integers(1, 15)), blur, draw(st.text()))
    return job, pixels


@st.composite
def tasks(draw: st.DrawFn) -> TileTask:
    job, pixels = draw(jobs())
    task = draw(st.sampled_from(list(plan(job, pixels, SILENT))))
    return replace(task, attempt=draw(st.integers(1, 100)))


# --- the job -------------------------------------------------------------------------------------


def test_a_job_knows_shape_and_digest_of_its_pixels() -> None:
    assert JOB.shape == (10, 14, 3)
    assert JOB.source == images.sha256(PIXELS)
    assert len(JOB.tiles) == 12


def test_the_key_of_a_job_is_the_hash_of_its_canonical_json() -> None:
    text = (
        '{"blur":{"kernel_size":5,"method":"direct","sigma":1.6666666666666667},'
        f'"image":"chart.png","run":"run-1","shape":[10,14,3],"source":"{JOB.source}",'
        '"tile_size":4}'
    )
    assert JOB.to_json() == text
    assert JOB.key == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_key_of_a_job_is_the_same_in_every_process() -> None:
    code = (
        "import sys; from studyguide.work import parse_job; print(parse_job(sys.stdin.read()).key)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=JOB.to_json(),
            capture_output=True,
            check=True,
            env=environment,
            text=True,
        )
        assert done.stdout.strip() == JOB.key


@pytest.mark.parametrize(
    "change",
    [
        {"image": "other.png"},
        {"shape": (14, 10, 3)},
        {"source": "0" * 64},
        {"tile_size": 5},
        {"blur": Blur.of(7)},
        {"blur": Blur.of(5, method="separable")},
        {"run": "run-2"},
    ],
    ids=str,
)
def test_jobs_that_differ_have_different_keys(change: dict[str, Any]) -> None:
    assert replace(JOB, **change).key != JOB.key


@given(made=jobs())
def test_a_job_comes_back_from_its_json_with_its_key(made: tuple[ImageJob, Pixels]) -> None:
    job, _ = made
    assert parse_job(job.to_json()) == job
    assert parse_job(job.to_json()).key == job.key


def test_equal_texts_give_the_same_job_object() -> None:
    assert parse_job(JOB.to_json()) is parse_job(JOB.to_json())


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(JOB.to_json()), **fields})


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../chart.png", "a/b.png", "chart.png/", "", ".", "..", "a\0.png", 7, None],
    ids=repr,
)
def test_an_image_name_that_is_a_path_or_no_name_is_refused(name: object) -> None:
    with pytest.raises(MessageError):
        parse_job(changed(image=name))


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": []},
        {"shape": [10]},
        {"shape": [10, 14, 2]},
        {"shape": [10, 14, 3.0]},
        {"shape": [10, 14, 3, 1]},
        {"shape": [0, 14]},
        {"shape": [10, -14]},
        {"shape": [10, 1 << 40]},
        {"shape": [10, "14"]},
        {"shape": "10"},
        {"shape": None},
        {"shape": [1 << 17, 1 << 17], "tile_size": 1},
        {"tile_size": 0},
        {"tile_size": 2.5},
        {"source": 5},
        {"run": None},
        {"blur": None},
        {"blur": {"kernel_size": 4, "sigma": 1.0, "method": "direct"}},
        {"blur": {"kernel_size": 5, "sigma": "x", "method": "direct"}},
        {"blur": {"kernel_size": 5, "sigma": 1.0, "method": "exec"}},
        {"blur": {"radius": 5}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_job_with_a_field_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="Not an image job"):
        parse_job(changed(**fields))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "{}", b"\xff\xfe"])
def test_a_text_that_is_no_job_is_refused(text: str | bytes) -> None:
    with pytest.raises(MessageError, match="Not an image job"):
        parse_job(text)


# --- plan, process, assemble ---------------------------------------------------------------------


@given(made=jobs(), order=st.randoms())
def test_tiles_processed_and_assembled_in_any_order_give_the_blurred_image(
    made: tuple[ImageJob, Pixels], order: Any
) -> None:
    job, pixels = made
    tasks = list(plan(job, pixels, SILENT))
    twice = tasks + order.sample(tasks, len(tasks) // 2)
    order.shuffle(twice)
    canvas, seen = Canvas(job), set()
    for task in twice:
        complete = canvas.add(process(task, SILENT), SILENT)
        seen.add(task.tile.index)
        assert complete == (len(seen) == len(tasks))
        assert canvas.missing == {tile.index for tile in job.tiles} - seen
    np.testing.assert_array_equal(canvas.pixels, blur_whole(pixels, job.blur))
    np.testing.assert_array_equal(process_whole(job, pixels, SILENT), canvas.pixels)


def test_a_plan_is_made_one_tile_at_a_time() -> None:
    events: list[Event] = []
    tasks = plan(JOB, PIXELS, Recorder(events.append))
    assert events == []
    task = next(tasks)
    assert [(event.stage, event.image, event.tile) for event in events] == [
        ("split", "chart.png", 0)
    ]
    assert task.window.shape == JOB.window_shape(task.tile) == (8, 8, 3)


def test_processing_records_the_blur_of_its_tile_and_attempt_with_its_cpu_time() -> None:
    events: list[Event] = []
    task = replace(next(plan(JOB, PIXELS, SILENT)), attempt=3)
    result = process(task, Recorder(events.append))
    assert (result.job, result.tile, result.attempt) == (JOB, task.tile, 3)
    (event,) = events
    assert (event.stage, event.image, event.tile, event.attempt) == ("blur", "chart.png", 0, 3)
    assert event.detail["cpu_s"] >= 0


def test_assembling_records_each_result() -> None:
    events: list[Event] = []
    canvas = Canvas(JOB)
    for task in plan(JOB, PIXELS, SILENT):
        canvas.add(process(task, SILENT), Recorder(events.append))
    assert [(event.stage, event.tile) for event in events] == [("assemble", n) for n in range(12)]


# --- the wire format -----------------------------------------------------------------------------


def same(one: TileTask, other: TileTask) -> bool:
    alike = (one.job, one.tile, one.attempt) == (other.job, other.tile, other.attempt)
    return alike and np.array_equal(one.window, other.window)


@given(task=tasks())
def test_a_task_comes_back_from_its_message(task: TileTask) -> None:
    assert same(decode_task(encode(task)), task)


@given(task=tasks())
def test_a_result_comes_back_from_its_message(task: TileTask) -> None:
    result = process(task, SILENT)
    back = decode_result(encode(result))
    assert (back.job, back.tile, back.attempt) == (result.job, result.tile, result.attempt)
    np.testing.assert_array_equal(back.pixels, result.pixels)


def test_pixels_that_lie_scattered_in_memory_come_back_as_well() -> None:
    tile = JOB.tiles[0]
    pixels = noise(4, 8, 3)[:, ::2]
    back = decode_result(encode(TileResult(JOB, tile, pixels)))
    np.testing.assert_array_equal(back.pixels, pixels)


@given(task=tasks(), data=st.data())
def test_a_truncated_message_is_refused(task: TileTask, data: st.DataObject) -> None:
    message = encode(task)
    length = data.draw(st.integers(0, len(message) - 1))
    with pytest.raises(MessageError):
        decode_task(message[:length])


@given(task=tasks(), more=st.binary(min_size=1))
def test_a_message_with_something_after_it_is_refused(task: TileTask, more: bytes) -> None:
    with pytest.raises(MessageError):
        decode_task(encode(task) + more)


@given(task=tasks(), flips=st.lists(st.tuples(st.integers(0), st.integers(0, 7)), min_size=1))
def test_flipped_bits_give_a_message_error_or_a_task_whose_window_fits_its_job(
    task: TileTask, flips: list[tuple[int, int]]
) -> None:
    message = bytearray(encode(task))
    header = 4 + struct.unpack_from(">I", message)[0]
    for number, (place, bit) in enumerate(flips):
        where = place % len(message) if number % 2 else place % header
        message[where] ^= 1 << bit
    try:
        back = decode_task(bytes(message))
    except MessageError:
        return
    assert back.window.shape == back.job.window_shape(back.tile)
    assert back.window.size == task.window.size
    assert Path(back.job.image).name == back.job.image


def test_no_single_flipped_bit_of_a_header_gives_anything_but_an_error_or_a_fitting_task() -> None:
    task = next(plan(JOB, PIXELS, SILENT))
    message = encode(task)
    (length,) = struct.unpack_from(">I", message)
    refused = 0
    for place in range((4 + length) * 8):
        damaged = bytearray(message)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert decode_task(bytes(damaged)).window.shape == task.window.shape
        except MessageError:
            refused += 1
    assert refused > 4 * length  # the rest hits the digits and names, which no format can tell


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


sides = st.lists(st.integers(-3, 300), min_size=2, max_size=3)


@given(field=st.sampled_from(sorted(json.loads(JOB.to_json()))), value=values | sides)
def test_a_job_with_any_field_changed_is_refused_or_its_tiles_cover_its_image_once(
    field: str, value: object
) -> None:
    try:
        job = parse_job(json.dumps({**json.loads(JOB.to_json()), field: value}))
    except MessageError:
        return
    assert min(*job.shape, job.tile_size) > 0
    height, width = job.shape[:2]
    assert sum(math.prod(job.core_shape(tile)[:2]) for tile in job.tiles) == height * width


@given(message=st.binary())
def test_random_bytes_are_refused(message: bytes) -> None:
    for decode in (decode_task, decode_result):
        with pytest.raises(MessageError):
            decode(message)


def with_header(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + bytes(8 * 8 * 3)


GOOD_HEADER = {"tile": 0, "attempt": 1, "job": JOB.to_json()}


@pytest.mark.parametrize(
    "header",
    [
        None,
        [],
        {},
        {**GOOD_HEADER, "tile": 12},
        {**GOOD_HEADER, "tile": -1},
        {**GOOD_HEADER, "tile": "0"},
        {**GOOD_HEADER, "tile": None},
        {**GOOD_HEADER, "attempt": None},
        {**GOOD_HEADER, "attempt": "second"},
        {**GOOD_HEADER, "attempt": float("inf")},
        {**GOOD_HEADER, "job": json.loads(JOB.to_json())},
        {**GOOD_HEADER, "job": 7},
        {**GOOD_HEADER, "job": changed(image="../../evil.png")},
    ],
    ids=str,
)
def test_a_message_whose_header_is_wrong_is_refused(header: object) -> None:
    decode_task(with_header(GOOD_HEADER))
    with pytest.raises(MessageError):
        decode_task(with_header(header))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"job":' * 50_000], ids=["lists", "objects"])
def test_a_message_that_is_nested_too_deep_is_refused(text: str) -> None:
    with pytest.raises(MessageError):
        parse_job(text)
    with pytest.raises(MessageError):
        decode_task(struct.pack(">I", len(text)) + text.encode())


def test_a_task_is_no_result() -> None:
    with pytest.raises(MessageError, match="bytes of pixels where shape"):
        decode_result(encode(next(plan(JOB, PIXELS, SILENT))))


@pytest.mark.parametrize("index", [12, -1, 0.0, "0", None])
def test_a_tile_that_a_job_has_not_is_refused_and_the_range_is_told(index: object) -> None:
    with pytest.raises(MessageError, match=r"no tile .*, only 0 to 11"):
        find_tile(JOB, index)


def test_samples_of_another_number_than_the_shape_wants_are_refused() -> None:
    assert to_pixels(bytes(12), (2, 2, 3)).shape == (2, 2, 3)
    with pytest.raises(MessageError, match="11 bytes"):
        to_pixels(bytes(11), (2, 2, 3))


# --- what every approach does around the tiles ---------------------------------------------------


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def run(tmp_path: Path, events: list[Event]) -> Run:
    """A run over a folder with two images of one stem."""
    settings = Settings(
        images=tmp_path / "in", output=tmp_path / "out", tile_size=4, blur=Blur.of(5)
    )
    settings.images.mkdir()
    for name in ("a.png", "a.tif", "b.png"):
        images.save(settings.images / name, PIXELS)
    return Run(settings, Recorder(events.append), "run-1")


def test_of_two_images_with_one_stem_the_second_is_recorded_as_failed(
    run: Run, events: list[Event]
) -> None:
    assert [path.name for path in run.paths()] == ["a.png", "b.png"]
    assert [(event.stage, event.image) for event in events] == [("failed", "a.tif")]
    assert "Rename one of them" in events[0].detail["error"]


def test_loading_describes_the_job_and_records_itself(run: Run, events: list[Event]) -> None:
    job, pixels = run.load(run.settings.images / "b.png")
    np.testing.assert_array_equal(pixels, PIXELS)
    assert job == replace(JOB, image="b.png")
    assert [(event.stage, event.image) for event in events] == [("load", "b.png")]


def test_saving_writes_a_png_by_the_images_stem_and_records_path_and_digest(
    run: Run, events: list[Event]
) -> None:
    run.save("chart.tiff", PIXELS)
    path = run.settings.output / "chart.png"
    np.testing.assert_array_equal(images.load(path), PIXELS)
    (event,) = events
    assert (event.stage, event.image) == ("save", "chart.tiff")
    assert event.detail.pop("cpu_s") >= 0
    assert event.detail == {"path": str(path), "pixels_sha256": images.sha256(PIXELS)}


def test_what_is_left_out_of_an_image_is_recorded_with_its_load(
    run: Run, events: list[Event]
) -> None:
    pages = [Image.fromarray(PIXELS)] * 3
    path = run.settings.images / "pages.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    run.load(path)
    assert events[0].detail["notes"] == ["first of 3 frames"]


def test_an_output_has_the_resolution_of_its_input(run: Run) -> None:
    Image.fromarray(PIXELS).save(run.settings.images / "scan.tif", dpi=(300, 300))
    run.save("scan.tif", PIXELS)
    with Image.open(run.settings.output / "scan.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)


def test_an_image_error_fails_its_image_alone(run: Run, events: list[Event]) -> None:
    with run.guarded("a.png"):
        raise ImageError("a.png is empty", "Remove it")
    (event,) = events
    assert (event.stage, event.image) == ("failed", "a.png")
    assert event.detail == {"error": "a.png is empty. Remove it."}


def test_any_other_error_ends_the_run(run: Run, events: list[Event]) -> None:
    with pytest.raises(ZeroDivisionError), run.guarded("a.png"):
        raise ZeroDivisionError
    assert events == []
