"""Every kind of image that people have in folders comes in right, and every bad one is reported."""

import errno
import fcntl
import hashlib
import io
import os
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import png
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support import folder_of_mode, temporary_files

from studyguide import images
from studyguide.errors import ImageError, UsageError
from studyguide.machinery import files, formats
from studyguide.tiles import Pixels

ORIENTATION = 0x0112  # the EXIF tag


def noise(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    """An image of random samples; `channels` 1 gives shape (H, W)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(channels: int) -> Pixels:
    """An image of 24 x 32 pixels that lossy formats change by little."""
    grey = np.add.outer(np.arange(24) * 4, np.arange(32) * 3)
    return np.stack([grey + 10 * n for n in range(channels)], axis=-1).astype(np.uint8)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


# --- formats -------------------------------------------------------------------------------------

LOSSLESS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".PNG": {},
    ".tif": {},
    ".tiff": {"compression": "tiff_lzw"},
    ".webp": {"lossless": True, "exact": True},
}


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("channels", [3, 4])
def test_lossless_formats_give_the_same_samples_alpha_included(
    suffix: str, channels: int, tmp_path: Path
) -> None:
    pixels = noise(9, 13, channels)
    path = saved(Image.fromarray(pixels), tmp_path / f"a{suffix}", **LOSSLESS[suffix])
    np.testing.assert_array_equal(images.load(path), pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_stays_grey(suffix: str, tmp_path: Path) -> None:
    pixels = noise(9, 13, 1)
    path = saved(Image.fromarray(pixels), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(images.load(path), pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.JPG", "a.webp"])
def test_lossy_formats_give_nearly_the_same_samples(name: str, tmp_path: Path) -> None:
    pixels = smooth(3)
    loaded = images.load(saved(Image.fromarray(pixels), tmp_path / name, quality=98))
    assert loaded.shape == pixels.shape
    assert np.abs(loaded.astype(int) - pixels).max() <= 6


def test_a_grey_jpeg_stays_grey(tmp_path: Path) -> None:
    path = saved(Image.fromarray(smooth(1)[..., 0]), tmp_path / "a.jpg")
    assert images.load(path).shape == (24, 32)


def test_a_webp_with_transparency_keeps_its_alpha(tmp_path: Path) -> None:
    pixels = smooth(4)
    loaded = images.load(saved(Image.fromarray(pixels), tmp_path / "a.webp", quality=98))
    np.testing.assert_array_equal(loaded[..., 3], pixels[..., 3])


def test_of_a_jpeg_with_several_pictures_the_first_is_taken(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    path = saved(first, tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert (images.load(path) == 255).all()


def test_of_a_tiff_with_several_pages_the_first_is_taken(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), level) for level in (10, 20)]
    path = saved(pages[0], tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert (images.load(path) == 10).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_images_of_a_single_row_or_column_come_in(
    size: tuple[int, int], channels: int, tmp_path: Path
) -> None:
    pixels = noise(*size, channels)
    np.testing.assert_array_equal(
        images.load(saved(Image.fromarray(pixels), tmp_path / "a.png")), pixels
    )


# --- modes ---------------------------------------------------------------------------------------


def palette_image() -> Image.Image:
    """Two by one pixels: red of index 0, blue of index 1."""
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_palette_becomes_rgb(suffix: str, tmp_path: Path) -> None:
    path = saved(palette_image(), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(images.load(path), [[[255, 0, 0], [0, 0, 255]]])


@pytest.mark.parametrize(("transparency", "alpha"), [(0, (0, 255)), (b"\x80\x40", (128, 64))])
def test_a_palette_with_transparency_becomes_rgba(
    transparency: int | bytes, alpha: tuple[int, int], tmp_path: Path
) -> None:
    path = saved(palette_image(), tmp_path / "a.png", transparency=transparency)
    expected = [[[255, 0, 0, alpha[0]], [0, 0, 255, alpha[1]]]]
    np.testing.assert_array_equal(images.load(path), expected)


def test_grey_with_alpha_becomes_rgba(tmp_path: Path) -> None:
    pixels = noise(5, 6, 3)[..., :2]
    loaded = images.load(saved(Image.fromarray(pixels, "LA"), tmp_path / "a.png"))
    np.testing.assert_array_equal(loaded[..., 3], pixels[..., 1])
    for channel in range(3):
        np.testing.assert_array_equal(loaded[..., channel], pixels[..., 0])


@pytest.mark.parametrize(
    ("colour", "transparency"), [("L", 7), ("RGB", (7, 7, 7))], ids=["grey", "rgb"]
)
def test_a_colour_that_is_declared_transparent_becomes_alpha(
    colour: str, transparency: Any, tmp_path: Path
) -> None:
    image = Image.new(colour, (2, 1), transparency)
    image.putpixel((1, 0), 9 if colour == "L" else (9, 9, 9))
    loaded = images.load(saved(image, tmp_path / "a.png", transparency=transparency))
    assert loaded.shape == (1, 2, 4)
    np.testing.assert_array_equal(loaded[0, :, 3], [0, 255])
    np.testing.assert_array_equal(loaded[0, 1, :3], [9, 9, 9])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_bit_becomes_black_and_white_grey(suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    loaded = images.load(saved(image, tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(loaded, [[0, 255], [255, 0]])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_to_8_bits(suffix: str, tmp_path: Path) -> None:
    samples = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    loaded = images.load(saved(Image.fromarray(samples), tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(loaded, [[0, 0, 1, 1, 128, 254, 255, 255]])


def test_big_endian_16_bit_grey_is_scaled_as_well(tmp_path: Path) -> None:
    samples = np.array([[0, 257, 65535]], ">u2")
    image = Image.frombytes("I;16B", (3, 1), samples.tobytes())
    loaded = images.load(saved(image, tmp_path / "a.tif"))
    np.testing.assert_array_equal(loaded, [[0, 1, 255]])


def test_a_dark_16_bit_image_stays_dark(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.full((2, 2), 255, np.uint16)), tmp_path / "a.png")
    assert (images.load(path) == 1).all()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 255))
    loaded = images.load(saved(image, tmp_path / "a.tif"))
    np.testing.assert_array_equal(loaded, [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]])


@pytest.mark.parametrize(
    ("ink", "colour"), [((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (0, 255, 255))]
)
def test_a_cmyk_jpeg_is_not_inverted(
    ink: tuple[int, ...], colour: tuple[int, ...], tmp_path: Path
) -> None:
    path = saved(Image.new("CMYK", (16, 16), ink), tmp_path / "a.jpg", quality=98)
    assert np.abs(images.load(path).astype(int) - colour).max() <= 3


# --- EXIF rotation -------------------------------------------------------------------------------

TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: np.rot90(pixels, 2),
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_the_rotation_noted_in_exif_is_applied(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    pixels = noise(3, 5, 3)
    options = {**LOSSLESS[suffix], "exif": rotated(orientation)}
    loaded = images.load(saved(Image.fromarray(pixels), tmp_path / f"a{suffix}", **options))
    np.testing.assert_array_equal(loaded, TURNS[orientation](pixels))


def test_a_phone_picture_taken_upright_is_upright(tmp_path: Path) -> None:
    path = saved(Image.fromarray(smooth(3)), tmp_path / "a.jpg", exif=rotated(6), quality=98)
    loaded = images.load(path)
    assert loaded.shape == (32, 24, 3)
    assert np.abs(loaded.astype(int) - np.rot90(smooth(3), -1)).max() <= 6


def test_a_rotated_palette_keeps_its_transparency(tmp_path: Path) -> None:
    path = saved(palette_image(), tmp_path / "a.png", transparency=0, exif=rotated(8))
    np.testing.assert_array_equal(images.load(path), [[[0, 0, 255, 255]], [[255, 0, 0, 0]]])


# --- bad files -----------------------------------------------------------------------------------


def refused(path: Path) -> ImageError:
    """The error of loading it, which names the file and a remedy."""
    with pytest.raises(ImageError) as caught:
        images.load(path)
    assert str(path) in caught.value.problem
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(name: str, part: float, tmp_path: Path) -> None:
    path = saved(Image.fromarray(noise(64, 64, 3)), tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    error = refused(path)
    assert "cannot be read as an image" in error.problem
    assert error.remedy == "Replace or remove the file"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_an_empty_file_is_refused_as_empty(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    assert refused(path).problem == f"{path} is empty"


def test_a_jpeg_that_is_named_png_is_refused_and_the_right_name_is_told(tmp_path: Path) -> None:
    path = saved(Image.fromarray(smooth(3)), tmp_path / "a.png", format="JPEG")
    error = refused(path)
    assert "holds JPEG data though its name says PNG" in error.problem
    assert "Rename it to a.jpg" in error.remedy


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
@pytest.mark.parametrize("data", [b"Dear diary", b"\x89PNG\r\n\x1a\n", b"\0" * 1000])
def test_a_file_that_holds_no_image_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert "cannot be read as an image" in refused(path).problem


def test_a_folder_that_is_named_like_an_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.mkdir()
    refused(path)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of grey pixels whose data ends after a few."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def test_a_small_file_that_claims_a_huge_image_is_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(100_000, 100_000))
    error = refused(path)
    assert "claims more than 179 million pixels" in error.problem
    assert "Scale it down" in error.remedy


def test_an_image_within_the_limit_is_loaded_without_a_warning_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # Pillow warns from 60 on, refuses from 120
    path = saved(Image.fromarray(noise(10, 10, 3)), tmp_path / "a.png")
    assert images.load(path).shape == (10, 10, 3)


def test_a_file_that_vanished_is_told_as_gone(tmp_path: Path) -> None:
    ghost = tmp_path / "ghost.png"
    ghost.symlink_to(tmp_path / "nowhere.png")
    assert images.find(tmp_path) == ([ghost], [])
    error = refused(ghost)
    assert error.problem == f"{ghost} is gone"
    assert "Restore the file" in error.remedy


@pytest.fixture(scope="module")
def seeds() -> list[tuple[str, bytes]]:
    """Small whole files of many kinds."""
    rgb, rgba = Image.fromarray(noise(12, 13, 3)), Image.fromarray(noise(12, 13, 4))
    deep = Image.fromarray(noise(12, 13, 1).astype(np.uint16) * 257)
    return [
        ("a.png", encoded(rgba, "PNG", exif=rotated(6))),
        ("a.png", encoded(rgb.quantize(16), "PNG", transparency=b"\x00\x80")),
        ("a.png", encoded(deep, "PNG")),
        ("a.jpg", encoded(rgb, "JPEG", exif=rotated(6))),
        ("a.jpg", encoded(rgb.convert("CMYK"), "JPEG")),
        ("a.webp", encoded(rgba, "WEBP", exif=rotated(6))),
        ("a.tif", encoded(rgb, "TIFF", compression="tiff_lzw")),
        ("a.tif", encoded(deep, "TIFF")),
    ]


PROFILES = [kinds.rgb_profile("Adobe RGB"), kinds.rgb_profile("sRGB"), kinds.grey_profile(), b"?"]
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


def text_chunks(words: str) -> PngInfo:
    """A rotation as XMP or as ImageMagick's profile, or a comment."""
    info, exif = PngInfo(), rotated(6).tobytes()
    if words == "xmp":
        info.add_itxt("XML:com.adobe.xmp", XMP)
    elif words == "profile":
        info.add_text("Raw profile type exif", f"\nexif\n{len(exif):8d}\n{exif.hex()}\n")
    else:
        info.add_text("Comment", words)
    return info


def by_hand(pixels: np.ndarray, interlaced: bool) -> bytes:
    """A PNG as Pillow does not write it: RGB of 8 or 16 bits, its rows in one go or as Adam7."""
    height, width, _ = pixels.shape
    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    steps = [*steps, (1, 0, 2, 1)] if interlaced else [(0, 0, 1, 1)]
    passes = [pixels[y::down, x::right] for y, x, down, right in steps]
    rows = [b"\0" + row.tobytes() for some in passes if some.size for row in some]
    deep = 8 * pixels.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, deep, 2, 0, 0, int(interlaced))
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(b"".join(rows)), b"IEND": b""}
    sealed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(sealed)


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    """A PNG that people may have, of any kind, sometimes with a bit flipped or its end cut off."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    pixels = noise(height, width, 3, draw(st.integers(0, 99)))
    mode = draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "by hand"]))
    if mode == "by hand":
        deep = draw(st.sampled_from([np.dtype("u1"), np.dtype(">u2")]))
        body = bytearray(by_hand(pixels.astype(deep), draw(st.booleans())))
    else:
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        if mode != "I;16":
            picture = Image.fromarray(pixels).convert(mode)
        words = st.sampled_from(["xmp", "profile", "hello"]).map(text_chunks)
        with_text = st.builds(lambda info: {"pnginfo": info}, words)
        frames: dict[str, Any] = {"save_all": True, "append_images": [picture]}
        plain: list[dict[str, Any]] = [{}, {"optimize": True}, {"exif": rotated(6)}, {"bits": 2}]
        profiles = [{"icc_profile": body} for body in PROFILES]
        options = draw(st.sampled_from([*plain, {"dpi": (72, 72)}, frames, *profiles]) | with_text)
        options = dict(options)
        if draw(st.booleans()) and mode in ("L", "RGB"):
            options["transparency"] = 7 if mode == "L" else (1, 2, 3)
        body = bytearray(encoded(picture, "PNG", **options))
    if draw(st.booleans()):
        body[draw(st.integers(0, len(body) - 1))] ^= 1 << draw(st.integers(0, 7))
        del body[draw(st.sampled_from([len(body), draw(st.integers(0, len(body)))])) :]
    return bytes(body)


def both_ways(body: bytes) -> list[Any]:
    """What `load` makes of a PNG with and without the fast decoder."""
    assert formats.imagecodecs
    outcomes = []
    for codecs in (formats.imagecodecs, None):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(formats, "imagecodecs", codecs)
            patch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
            path = Path(folder) / "a.png"
            path.write_bytes(body)
            try:
                outcomes.append(images.load(path).tolist())
            except ImageError:
                outcomes.append("refused")
    return outcomes


@given(body=pngs())
def test_with_and_without_the_fast_decoder_the_same_files_give_the_same_pixels(
    body: bytes,
) -> None:
    fast, slow = both_ways(body)
    assert fast == slow


@pytest.mark.parametrize("words", ["xmp", "profile"])
def test_a_rotation_that_is_noted_as_text_is_applied(words: str) -> None:
    picture = Image.fromarray(noise(5, 9, 3))
    fast, slow = both_ways(encoded(picture, "PNG", pnginfo=text_chunks(words)))
    assert fast == slow == np.rot90(noise(5, 9, 3), -1).tolist()


@pytest.mark.parametrize("deep", ["u1", ">u2"])
def test_an_interlaced_png_is_as_one_that_is_not(deep: str) -> None:
    pixels = noise(9, 7, 3).astype(deep) * (257 if deep == ">u2" else 1)
    for interlaced in (False, True):
        assert both_ways(by_hand(pixels.astype(deep), interlaced)) == [noise(9, 7, 3).tolist()] * 2


@given(data=st.data())
def test_a_damaged_file_is_refused_with_an_image_error_or_still_gives_pixels(
    seeds: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    name, whole = data.draw(st.sampled_from(seeds))
    damaged = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    places = st.integers(0, min(len(damaged), 100) - 1) | st.integers(0, len(damaged) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        damaged[place] = value
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # damage may make an image huge
        path = Path(folder) / name
        path.write_bytes(damaged)
        with suppress(ImageError):
            pixels = images.load(path)
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 2 or pixels.shape[2] in (3, 4)


def test_a_palette_of_negative_colours_is_refused(tmp_path: Path) -> None:
    """Found by fuzzing: Pillow raises an OverflowError, which is none of its usual errors."""
    whole = encoded(Image.fromarray(noise(12, 13, 3)).quantize(4), "TIFF")
    colours, signed = struct.pack("<HH", 320, 3), struct.pack("<HH", 320, 8)
    assert whole.count(colours) == 1
    path = tmp_path / "a.tif"
    path.write_bytes(whole.replace(colours, signed))
    assert refused(path).problem.startswith(f"{path} cannot be read as an image")


def test_a_file_that_vanishes_while_it_is_read_is_an_image_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(noise(12, 13, 3)), "PNG")[:200])
    convert = images.to_pixels

    def vanish(path: Path, image: Any, note: formats.Note) -> np.ndarray:
        path.unlink()
        return convert(path, image, note)

    monkeypatch.setattr(images, "to_pixels", vanish)
    assert str(path) in refused(path).problem


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (IndexError("list index out of range"), "its data are damaged). Replace or remove"),
        (OSError("image file is truncated"), "image file is truncated). Replace or remove"),
        (OSError(errno.EIO, "Input/output error"), "read (Input/output error). Check its disk"),
        (PermissionError(errno.EACCES, "denied"), "read (denied). Check its permissions"),
    ],
    ids=["decoder", "Pillow", "disk", "permission"],
)
def test_an_error_says_what_is_wrong_with_the_file_and_not_with_a_decoder(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(images, "to_pixels", fail)
    told = str(refused(saved(Image.fromarray(noise(2, 2, 3)), tmp_path / "a.png")))
    assert said in told
    assert "index" not in told


def test_damaged_exif_is_ignored_without_a_warning(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    path = saved(Image.fromarray(smooth(3)), tmp_path / "a.jpg", exif=exif)
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(path) as image:
        image.getexif()
    assert images.load(path).shape == (24, 32, 3)


def test_loaders_on_several_threads_leak_no_warning(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    path = saved(Image.fromarray(smooth(3)), tmp_path / "a.jpg", exif=exif)
    with warnings.catch_warnings(record=True, action="always") as leaked:
        together(8, lambda: [images.load(path) for _ in range(20)])
    assert leaked == []


def together(count: int, action: Callable[[], object]) -> list[Exception]:
    """Do the same on several threads at once; return what went wrong."""
    errors: list[Exception] = []
    barrier = threading.Barrier(count)

    def act() -> None:
        barrier.wait()
        try:
            action()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_the_size_of_an_image_is_height_and_width(name: str, tmp_path: Path) -> None:
    assert images.size(saved(Image.fromarray(smooth(3)), tmp_path / name)) == (24, 32)


def test_a_file_that_tells_no_size_has_none(tmp_path: Path) -> None:
    for name, data in {
        "text.png": b"Dear diary",
        "bomb.png": png_that_claims(10**5, 10**5),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert images.size(tmp_path / name) == (0, 0)
    assert images.size(tmp_path / "gone.png") == (0, 0)


# --- folders -------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_images_are_found_by_name_and_other_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "c.PNG", "a.jpeg", "b.tiff", "d.webp", "notes.txt", "e.gif", ".hidden", "png")
    paths, clashes = images.find(tmp_path)
    assert [path.name for path in paths] == ["a.jpeg", "b.tiff", "c.PNG", "d.webp"]
    assert clashes == []


def test_of_two_images_with_one_stem_the_first_is_done_and_the_other_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "b.png", "a.tif")
    paths, clashes = images.find(tmp_path)
    assert [path.name for path in paths] == ["a.jpg", "b.png"]
    assert [path.name for path, _ in clashes] == ["a.png", "a.tif"]
    for path, error in clashes:
        assert str(path) in error.problem
        assert "a.jpg" in error.problem
        assert "a.png" in error.problem
        assert error.remedy == "Rename one of them"


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        images.find(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in caught.value.problem
    assert "--images" in caught.value.remedy


def test_a_file_in_place_of_the_folder_is_refused_and_its_folder_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match=r"a\.png is a file") as caught:
        images.find(tmp_path / "a.png")
    assert f"--images {tmp_path}" in caught.value.remedy


def test_hidden_files_folders_and_pipes_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".b.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    paths, clashes = images.find(tmp_path)
    assert [path.name for path in paths] == ["a.png", "link.png"]
    assert clashes == []


def test_names_that_some_file_system_takes_for_one_clash(tmp_path: Path) -> None:
    accents = [unicodedata.normalize(form, "né.png") for form in ("NFC", "NFD")]
    touch(tmp_path, "A.png", "a.jpg", *accents)
    paths, clashes = images.find(tmp_path)
    assert len(paths) == len(clashes) == 2
    assert {path.name for path, _ in clashes} == {"a.jpg", accents[0]}


@pytest.mark.parametrize(("system", "clashes"), [("linux", 0), ("darwin", 1)])
def test_a_sharp_s_is_a_double_s_on_macos_only(
    system: str, clashes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    touch(tmp_path, "straße.png", "strasse.png")
    assert len(images.find(tmp_path)[1]) == clashes


def test_the_names_of_an_image_that_lost_tiles_are_kept_for_it(tmp_path: Path) -> None:
    touch(tmp_path, "cat.png", "Cat.mask.jpg", "cat.partial.png", "mask.png", "dog.mask.png")
    paths, clashes = images.find(tmp_path)
    assert [path.name for path in paths] == ["cat.png", "dog.mask.png", "mask.png"]
    assert [path.name for path, _ in clashes] == ["Cat.mask.jpg", "cat.partial.png"]
    for path, error in clashes:
        assert str(path) in error.problem
        assert "a part of cat.png" in error.problem
    parts = {images.output(tmp_path, "cat.png", part) for part in (images.PARTIAL, images.MASK)}
    assert {_.name for _ in parts} == {"cat.partial.png", "cat.mask.png"}


def test_finding_compares_each_image_with_few_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{n}.png" for n in range(200)), *(f"{n}.jpg" for n in range(200)))
    compared = 0
    equal = Path.__eq__

    def count(path: Path, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equal(path, other)

    monkeypatch.setattr(Path, "__eq__", count)
    assert [len(found) for found in images.find(tmp_path)] == [200, 200]
    assert compared <= 400


def test_an_image_in_a_folder_that_may_not_be_entered_is_an_image_error() -> None:
    with folder_of_mode(0o444) as folder:
        paths, clashes = images.find(folder)
        assert (paths, clashes) == ([folder / "a.png"], [])
        error = refused(folder / "a.png")
        assert images.size(folder / "a.png") == (0, 0)
    assert "cannot be read (Permission denied)" in error.problem
    assert "permissions" in error.remedy


@pytest.mark.parametrize(("mode", "below"), [(0o000, "."), (0o111, "."), (0o000, "below")])
def test_a_folder_that_may_not_be_listed_is_refused(mode: int, below: str) -> None:
    with (
        folder_of_mode(mode) as folder,
        pytest.raises(UsageError, match="Permission denied") as caught,
    ):
        images.find(folder / below)
    assert str(folder) in caught.value.problem
    assert "--images" in caught.value.remedy


@pytest.mark.parametrize("names", [[], ["notes.txt", "a.gif"]], ids=["empty", "no image"])
def test_a_folder_without_images_is_refused_and_the_kinds_are_named(
    names: list[str], tmp_path: Path
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(UsageError, match="holds no image") as caught:
        images.find(tmp_path)
    assert str(tmp_path) in caught.value.problem
    assert all(suffix in caught.value.remedy for suffix in images.FORMATS)


# --- saving --------------------------------------------------------------------------------------


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 1000),
)
def test_what_is_saved_is_a_png_that_pillow_reads_back_sample_by_sample(
    height: int, width: int, channels: int, seed: int
) -> None:
    pixels = noise(height, width, channels, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        images.save(path, pixels)
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_pixels_that_lie_scattered_in_memory_are_saved_as_well(tmp_path: Path) -> None:
    pixels = noise(20, 30, 4)[::-1, ::2]
    images.save(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(images.load(tmp_path / "a.png"), pixels)


def test_saving_makes_the_folder_and_leaves_nothing_but_the_image(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.png"
    images.save(path, noise(4, 4, 3))
    assert list(path.parent.iterdir()) == [path]


def test_saving_replaces_an_older_image(tmp_path: Path) -> None:
    images.save(tmp_path / "a.png", noise(40, 40, 3, seed=1))
    images.save(tmp_path / "a.png", noise(4, 4, 1, seed=2))
    np.testing.assert_array_equal(images.load(tmp_path / "a.png"), noise(4, 4, 1, seed=2))


def not_saved(path: Path) -> ImageError:
    """The error of saving there, which names the file and a remedy, and leaves no half file."""
    with pytest.raises(ImageError) as caught:
        images.save(path, noise(200, 200, 4))
    assert str(path) in caught.value.problem
    assert "--output" in caught.value.remedy
    assert temporary_files(path.parent) == []
    return caught.value


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_no_half_file_and_the_older_image_as_it_was(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    images.save(path, noise(4, 4, 3))
    before = path.read_bytes()
    monkeypatch.setattr(call, full_disk)
    error = not_saved(path)
    assert "No space left on device" in error.problem
    assert "Free some space" in error.remedy
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write files beyond this size, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_cuts_short_leaves_no_half_file(tmp_path: Path) -> None:
    with largest_file(1000):
        error = not_saved(tmp_path / "a.png")
    assert "File too large" in error.problem
    assert list(tmp_path.iterdir()) == []


def test_an_image_whose_place_is_taken_by_a_folder_is_not_saved(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    not_saved(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]


def write_atomically(path: Path, body: bytes) -> None:
    with files.atomic(path) as file:
        file.write(body)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_older_file(
    failure: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.raw"
    write_atomically(path, b"old")

    def interrupted() -> None:
        with files.atomic(path) as file:
            file.write(b"half")
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    with files.atomic(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_several_threads_may_write_the_same_file(tmp_path: Path) -> None:
    path, body = tmp_path / "a.raw", bytes(100_000)

    def write() -> None:
        for _ in range(10):
            write_atomically(path, body)

    assert together(8, write) == []
    assert path.read_bytes() == body
    assert list(tmp_path.iterdir()) == [path]


# --- the output folder ---------------------------------------------------------------------------


def test_a_writable_output_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "new" / "output")
    assert list((tmp_path / "new" / "output").iterdir()) == []


def test_an_output_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    folder = tmp_path / "file" / "output"
    with pytest.raises(UsageError, match="cannot be written") as caught:
        files.check_writable(folder)
    assert str(folder) in caught.value.problem
    assert "--output" in caught.value.remedy


def test_looking_for_a_writable_folder_leaves_files_of_the_user_alone(tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("mine")
    (tmp_path / "probe.tmp").mkdir()
    files.check_writable(tmp_path)
    assert (tmp_path / "probe").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probe", "probe.tmp"]


def test_a_folder_with_the_name_of_a_scratch_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "probe").mkdir()
    files.check_writable(tmp_path)


def test_an_output_folder_without_permission_is_refused() -> None:
    with (
        folder_of_mode(0o555) as folder,
        pytest.raises(UsageError, match="Permission denied"),
    ):
        files.check_writable(folder)


# --- temporary files -----------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["a" * 251, "漢" * 83], ids=["ascii", "cjk"])
def test_a_name_as_long_as_the_system_allows_is_saved(stem: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.png"
    images.save(path, noise(2, 2, 3))
    np.testing.assert_array_equal(images.load(path), noise(2, 2, 3))


def test_a_file_that_is_being_written_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer may live in another process-id namespace, so that nobody here has its number."""
    monkeypatch.setattr("os.getpid", lambda: 2**22 + 1)
    path = tmp_path / "a.raw"
    with files.atomic(path) as file:
        [temporary] = temporary_files(tmp_path)
        subprocess.run([sys.executable, "-c", SWEEP, tmp_path], check=True)
        assert temporary_files(tmp_path) == [temporary]
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


SWEEP = "import sys; from pathlib import Path; from studyguide.machinery import files\n"
SWEEP += "files.sweep(Path(sys.argv[1]))"
WRITE = "import sys, time; from pathlib import Path; from studyguide.machinery import files\n"
WRITE += "with files.atomic(Path(sys.argv[1])): print(flush=True); time.sleep(60)"


def test_what_a_killed_process_was_writing_is_swept_and_nothing_of_the_user(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", WRITE, tmp_path / "a.png"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.kill()
    assert len(temporary_files(tmp_path)) == 1
    touch(tmp_path, ".mine.tmp", ".a.png.1-1.tmp", "b.tmp", "a.png")
    files.sweep(tmp_path)
    names = [".a.png.1-1.tmp", ".mine.tmp", "b.tmp"]
    assert [path.name for path in temporary_files(tmp_path)] == names


def test_a_writer_that_a_sweeper_overtakes_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def sweep_first(file: Any, how: int) -> None:
        monkeypatch.setattr("fcntl.flock", lock)
        files.sweep(tmp_path)
        lock(file, how)

    monkeypatch.setattr("fcntl.flock", sweep_first)
    write_atomically(tmp_path / "a.raw", b"whole")
    assert (tmp_path / "a.raw").read_bytes() == b"whole"
    assert temporary_files(tmp_path) == []


def test_where_files_cannot_be_locked_they_are_written_and_never_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)
    with files.atomic(tmp_path / "a.raw") as file:
        files.sweep(tmp_path)
        assert len(temporary_files(tmp_path)) == 1
        file.write(b"whole")
    assert (tmp_path / "a.raw").read_bytes() == b"whole"


def test_a_saved_file_has_the_permissions_that_others_have(tmp_path: Path) -> None:
    images.save(tmp_path / "a.png", noise(2, 2, 3))
    touch(tmp_path, "b.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b.png").stat().st_mode


# --- what an output says of itself ---------------------------------------------------------------


def with_density(suffix: str, folder: Path, **options: Any) -> Path:
    image = Image.fromarray(noise(4, 6, 3))
    return saved(image, folder / f"a{suffix}", dpi=(300, 150), **options)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize(("orientation", "right"), [(1, (300, 150)), (6, (150, 300))])
def test_the_resolution_is_that_of_the_upright_image(
    suffix: str, orientation: int, right: tuple[int, int], tmp_path: Path
) -> None:
    path = with_density(suffix, tmp_path, exif=rotated(orientation))
    assert images.density(path) == pytest.approx(right, rel=1e-3)


def test_the_resolution_of_a_webp_is_that_of_its_exif(tmp_path: Path) -> None:
    exif = rotated(1)
    exif[282], exif[283], exif[296] = 100.0, 100.0, 3  # a centimetre
    path = saved(Image.fromarray(noise(4, 6, 3)), tmp_path / "a.webp", exif=exif)
    assert images.density(path) == pytest.approx((254, 254))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_a_file_without_a_resolution_has_none(suffix: str, tmp_path: Path) -> None:
    assert images.density(saved(Image.fromarray(noise(4, 6, 3)), tmp_path / f"a{suffix}")) is None
    assert images.density(tmp_path / "gone.png") is None


@pytest.mark.parametrize("dpi", [(0, 0), (1e9, 1e9), (float("nan"), 1.0), (-72, -72)])
def test_an_impossible_resolution_is_none(dpi: tuple[float, float], tmp_path: Path) -> None:
    with Image.open(with_density(".png", tmp_path)) as image, pytest.MonkeyPatch.context() as patch:
        image.info["dpi"] = dpi
        patch.setattr(images, "_open", lambda path: image)
        assert images.density(tmp_path / "a.png") is None


def test_an_output_is_marked_as_srgb_and_keeps_the_resolution(tmp_path: Path) -> None:
    path = tmp_path / "b.png"
    images.save(path, noise(4, 6, 3), images.density(with_density(".tif", tmp_path)))
    with Image.open(path) as image:
        assert image.info["srgb"] == 1
        assert image.info["dpi"] == pytest.approx((300, 150), rel=1e-3)
    chunks = [kind for kind, _ in png.Reader(bytes=path.read_bytes()).chunks()]
    assert chunks == [b"IHDR", b"sRGB", b"pHYs", b"IDAT", b"IEND"]
    assert images.density(path) == pytest.approx((300, 150), rel=1e-3)


def test_an_output_without_a_resolution_has_no_chunk_for_it(tmp_path: Path) -> None:
    images.save(tmp_path / "b.png", noise(4, 6, 3))
    with Image.open(tmp_path / "b.png") as image:
        assert image.info == {"srgb": 1}


def test_what_is_left_out_is_logged_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = Image.new("L", (8, 8))
    path = saved(page, tmp_path / "a.tif", save_all=True, append_images=11 * [page])
    images.load(path)
    [record] = caplog.records
    assert record.getMessage() == f"{path}: first of 12 frames"


def test_damaged_later_pages_do_not_lose_the_first(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), level) for level in (10, 20)]
    path = saved(pages[0], tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        second = file.pages[1].offset
    for end in (second, second + 20):
        path.write_bytes(whole[:end])
        assert (images.load(path, [].append) == 10).all()


# --- digests -------------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_samples_in_c_order_however_they_lie_in_memory() -> None:
    pixels = noise(5, 6, 3)
    expected = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert images.sha256(pixels) == expected
    assert images.sha256(np.asfortranarray(pixels)) == expected
    assert images.sha256(pixels[::-1][::-1]) == expected
    assert images.sha256(noise(5, 6, 3, seed=1)) != expected
