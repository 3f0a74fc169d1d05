"""Pixels of f and g: what comes back is what was put in, or an error."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from support import noise, noise_job, temporary_files

from studyguide import images
from studyguide.checkpoint import FileStore, RedisStore, Store
from studyguide.errors import ImageError, MessageError
from studyguide.machinery.link import Link
from studyguide.machinery.redis_server import RedisServer
from studyguide.tiles import Pixels, window
from studyguide.work import ImageJob, find_tile, parse_job

JOB = noise_job()
TILE = JOB.tiles[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "pixels"


@pytest.fixture
def files(folder: Path) -> FileStore:
    return FileStore(folder)


@pytest.fixture
def in_redis(
    shared_server: RedisServer, client: redis.Redis, connect: Callable[..., Link]
) -> RedisStore:
    return RedisStore(connect(shared_server.url))


@pytest.fixture(params=["file", "redis"])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue("files" if request.param == "file" else "in_redis")
    return made


def core(job: ImageJob = JOB) -> Pixels:
    return noise()[job.tiles[0].core]


# both


def test_every_window_comes_back_with_its_halo(store: Store) -> None:
    store.put_image(JOB, noise())
    for tile in JOB.tiles:
        found = store.window(JOB, tile)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, window(noise(), tile, JOB.blur.radius))


def test_every_result_comes_back(store: Store) -> None:
    references = [store.put_result(JOB, tile, noise()[tile.core]) for tile in JOB.tiles]
    for tile, reference in zip(JOB.tiles, references, strict=True):
        np.testing.assert_array_equal(store.result(JOB, tile, reference), noise()[tile.core])


def test_putting_the_same_twice_changes_nothing(store: Store) -> None:
    for _ in range(2):
        store.put_image(JOB, noise())
    np.testing.assert_array_equal(store.window(JOB, TILE), window(noise(), TILE, 2))
    first, second = (store.put_result(JOB, TILE, core()) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal(store.result(JOB, TILE, first), core())


def test_a_reference_begins_with_the_digest_of_the_pixels(store: Store) -> None:
    reference = store.put_result(JOB, TILE, core())
    assert reference[:64].decode() == hashlib.sha256(core().tobytes()).hexdigest()


def test_pixels_need_not_be_contiguous(store: Store) -> None:
    flipped = core()[:, ::-1]
    reference = store.put_result(JOB, TILE, flipped)
    np.testing.assert_array_equal(store.result(JOB, TILE, reference), flipped)


def test_a_grey_image_stays_two_dimensional(store: Store) -> None:
    pixels = noise()[..., 0]
    job = ImageJob.of("grey.png", pixels, JOB.tile_size, JOB.blur)
    store.put_image(job, pixels)
    np.testing.assert_array_equal(store.window(job, TILE), window(pixels, TILE, 2))
    reference = store.put_result(job, TILE, pixels[TILE.core])
    np.testing.assert_array_equal(store.result(job, TILE, reference), pixels[TILE.core])


def test_the_window_of_an_unknown_image_is_an_error_that_names_it(store: Store) -> None:
    with pytest.raises(MessageError, match=r"grain\.png"):
        store.window(JOB, TILE)


def test_a_store_that_lost_some_windows_does_not_hold_the_image(
    in_redis: RedisStore, client: redis.Redis
) -> None:
    assert not in_redis.holds(JOB)
    in_redis.put_image(JOB, noise())
    assert in_redis.holds(JOB)
    client.hdel(f"{{sg}}:src:{JOB.key}", str(JOB.tiles[-1].index))
    assert not in_redis.holds(JOB)


def test_jobs_do_not_share_pixels(store: Store) -> None:
    store.put_image(JOB, noise())
    with pytest.raises(MessageError):
        store.window(noise_job(run="another"), TILE)


def test_a_result_of_another_shape_is_refused(store: Store) -> None:
    reference = store.put_result(JOB, TILE, core()[:16])
    with pytest.raises(MessageError, match="bytes of pixels where shape"):
        store.result(JOB, TILE, reference)


@pytest.mark.parametrize(
    "reference",
    [
        b"",
        b"0" * 63,
        b"F" * 64,
        b"g" * 64,
        b"../../../../" + b"0" * 52,
        b"/etc/passwd" + bytes(53),
        "\N{ARABIC-INDIC DIGIT ONE}".encode() * 32,
    ],
)
def test_a_reference_that_holds_no_digest_is_refused(store: Store, reference: bytes) -> None:
    with pytest.raises(MessageError, match="is no sha256"):
        store.result(JOB, TILE, reference)


# FileStore


def result_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.raw")
    return path


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "a bit flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + core_tail()),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
}


def core_tail() -> bytes:
    return core().tobytes()[1:]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_result_file_is_refused_until_it_is_written_again(
    damage: Damage, files: FileStore, folder: Path
) -> None:
    reference = files.put_result(JOB, TILE, core())
    damage(result_file(folder))
    with pytest.raises(MessageError, match=r"tile 0 of grain\.png"):
        files.result(JOB, TILE, reference)
    assert files.put_result(JOB, TILE, core()) == reference
    np.testing.assert_array_equal(files.result(JOB, TILE, reference), core())


@pytest.mark.parametrize(
    "content", [noise()[:40], noise().astype(np.uint16), np.array(["text"])], ids=str
)
def test_an_image_file_of_another_shape_or_type_is_refused(
    content: np.ndarray, files: FileStore, folder: Path
) -> None:
    folder.mkdir(parents=True)
    np.save(folder / f"{JOB.key}.npy", content)
    with pytest.raises(MessageError, match=r"grain\.png"):
        files.window(JOB, TILE)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"what is this?"])
def test_an_image_file_that_is_no_array_is_refused(
    content: bytes, files: FileStore, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / f"{JOB.key}.npy").write_bytes(content)
    with pytest.raises(MessageError, match=r"grain\.png"):
        files.window(JOB, TILE)


edits = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8)


def edited(body: bytes, changes: list[tuple[int, int]], length: int) -> bytes:
    damaged = bytearray(body)
    for place, value in changes:
        damaged[place % min(200, len(body))] = value  # the header of an array, or its first pixels
    return bytes(damaged[: length % (len(body) + 1)] if length else damaged)


@given(changes=edits, length=st.just(0) | st.integers(1))
def test_whatever_became_of_its_file_a_result_is_refused_or_as_it_was(
    changes: list[tuple[int, int]], length: int
) -> None:
    with TemporaryDirectory() as name:
        files = FileStore(Path(name))
        reference = files.put_result(JOB, TILE, core())
        path = result_file(Path(name))
        path.write_bytes(edited(path.read_bytes(), changes, length))
        with suppress(MessageError):
            np.testing.assert_array_equal(files.result(JOB, TILE, reference), core())


@given(changes=edits, length=st.just(0) | st.integers(1))
def test_whatever_became_of_its_file_a_window_is_refused_or_of_the_right_shape(
    changes: list[tuple[int, int]], length: int
) -> None:
    with TemporaryDirectory() as name:
        files = FileStore(Path(name))
        files.put_image(JOB, noise())
        path = Path(name) / f"{JOB.key}.npy"
        path.write_bytes(edited(path.read_bytes(), changes, length))
        with suppress(MessageError):
            found = files.window(JOB, TILE)
            assert (found.shape, found.dtype) == (JOB.window_shape(TILE), np.uint8)


def test_an_image_that_was_damaged_is_not_there_any_more(files: FileStore, folder: Path) -> None:
    """So that the coordinator puts it there again."""
    assert not files.holds(JOB)
    files.put_image(JOB, noise())
    assert files.holds(JOB)
    (folder / f"{JOB.key}.npy").write_bytes(b"damage")
    with pytest.raises(MessageError):
        files.window(JOB, TILE)
    assert not files.holds(JOB)


def test_an_image_file_that_holds_code_is_not_run(files: FileStore, folder: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (folder / "trapped",)

    folder.mkdir(parents=True)
    np.save(folder / f"{JOB.key}.npy", np.array([Trap()]), allow_pickle=True)
    with pytest.raises(MessageError):
        files.window(JOB, TILE)
    assert not (folder / "trapped").exists()


def test_nothing_half_written_and_nothing_outside_is_left(files: FileStore, folder: Path) -> None:
    files.put_image(JOB, noise())
    for tile in JOB.tiles:
        files.put_result(JOB, tile, noise()[tile.core])
    assert temporary_files(folder) == []
    kept = [path for path in folder.parent.parent.rglob("*") if path.is_file()]
    assert len(kept) == 1 + len(JOB.tiles)
    assert all(path.is_relative_to(folder) for path in kept)


def test_an_image_for_which_there_is_no_room_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FileStore(tmp_path / "file" / "pixels")
    with pytest.raises(ImageError, match=r"grain\.png cannot be kept in .*file/pixels") as caught:
        store.put_image(JOB, noise())
    assert "TMPDIR" in caught.value.remedy


# names that come in messages


@pytest.mark.parametrize(
    "name", ["../escaped.png", "/etc/passwd", "sub/a.png", "..", ".", "", "a\0.png"]
)
def test_a_job_whose_image_is_no_file_name_is_refused(name: str) -> None:
    text = json.dumps({**json.loads(JOB.to_json()), "image": name})
    with pytest.raises(MessageError):
        parse_job(text)


def test_a_name_from_a_message_never_becomes_a_path(files: FileStore, folder: Path) -> None:
    """Even a job that was not checked: its files are named by its hash."""
    job = replace(JOB, image="../../escaped.png", run="/escaped/", source="../escaped")
    files.put_image(job, noise())
    reference = files.put_result(job, TILE, core())
    np.testing.assert_array_equal(files.result(job, TILE, reference), core())
    assert not list(folder.parent.parent.rglob("*escaped*"))


@pytest.mark.parametrize("index", [-1, 12, "0", "../0", None, 0.0])
def test_a_tile_that_the_job_does_not_have_is_refused(index: object) -> None:
    with pytest.raises(MessageError, match="only 0 to 11"):
        find_tile(JOB, index)


# RedisStore


def test_a_result_whose_pixels_were_damaged_in_redis_is_refused(
    in_redis: RedisStore, client: redis.Redis
) -> None:
    reference = in_redis.put_result(JOB, TILE, core())
    key, field = f"{{sg}}:out:{JOB.key}", f"0-{reference.decode()}"
    for damaged in (b"", b"short", core().tobytes()[:-1] + b"x"):
        client.hset(key, field, damaged)
        with pytest.raises(MessageError, match=r"tile 0 of grain\.png"):
            in_redis.result(JOB, TILE, reference)
    client.hdel(key, field)
    with pytest.raises(MessageError, match="is gone"):
        in_redis.result(JOB, TILE, reference)


def test_a_window_of_another_size_in_redis_is_refused(
    in_redis: RedisStore, client: redis.Redis
) -> None:
    in_redis.put_image(JOB, noise())
    client.hset(f"{{sg}}:src:{JOB.key}", "0", "short")
    with pytest.raises(MessageError, match="5 bytes of pixels where shape"):
        in_redis.window(JOB, TILE)


def test_both_stores_name_a_result_alike(files: FileStore, in_redis: RedisStore) -> None:
    digest = images.sha256(core()).encode()
    assert [store.put_result(JOB, TILE, core()) for store in (files, in_redis)] == [digest] * 2
