"""Every kind of file in tests/data/images becomes what independent decoders and formulas say."""

import re
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import kinds
import numpy as np
import png
import pytest
import tifffile
from kinds import KINDS, Kind

from studyguide import images
from studyguide.errors import ImageError
from studyguide.machinery import formats

READ = [kind for kind in KINDS if kind.becomes != "refused"]
REFUSED = [kind for kind in KINDS if kind.becomes == "refused"]
every_read = pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.file)

Levels = np.ndarray  # float, 0 to 1, shape (H, W, C)


# --- what is right: decoded without Pillow -------------------------------------------------------


def of_png(path: Path) -> Levels:
    width, height, rows, info = png.Reader(bytes=path.read_bytes()).asDirect()
    samples = np.array([list(row) for row in rows]).reshape(height, width, -1)
    return samples / ((1 << info["bitdepth"]) - 1)


def of_tiff(path: Path) -> Levels:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        samples, full = page.asarray(), (1 << page.bitspersample) - 1
        if page.photometric == 3:
            return page.colormap.T[samples] / 65535
        if page.planarconfig == 2:
            samples = np.moveaxis(samples, 0, -1)
        levels = samples.reshape(*samples.shape[:2], -1) / full
        if page.photometric == 0:
            levels = 1 - levels
        if tuple(page.extrasamples) == (1,):  # associated alpha
            levels[..., :-1] /= levels[..., -1:]
        return levels


def of_jpeg(path: Path) -> Levels:
    samples = imagecodecs.jpeg8_decode(path.read_bytes())
    levels = samples.reshape(*samples.shape[:2], -1) / 255
    return 1 - levels if levels.shape[2] == 4 else levels  # Adobe stores the paper, not the ink


def of_webp(path: Path) -> Levels:
    return imagecodecs.webp_decode(path.read_bytes()) / 255


DECODERS = {".png": of_png, ".tif": of_tiff, ".jpg": of_jpeg, ".webp": of_webp}
TURNS: dict[int, Callable[[Levels], Levels]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: np.rot90(pixels, 2),
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


def from_light(light: Levels) -> Levels:
    """SRGB levels of linear light. Source: IEC 61966-2-1."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def from_xyz(xyz: np.ndarray) -> Levels:
    return from_light(xyz @ np.linalg.inv(kinds.matrix("sRGB")).T)


def from_lab(lab: np.ndarray) -> Levels:
    """Source: ISO/CIE 11664-4."""
    height = (lab[..., 0] + 16) / 116
    roots = np.stack([height + lab[..., 1] / 500, height, height - lab[..., 2] / 200], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29))
    return from_xyz(xyz * kinds.D50)


def in_srgb(colours: Levels, space: str) -> Levels:
    """Convert by the formulas from which the profiles of `kinds` are made."""
    if space == "press":
        inks = colours.round().astype(int)
        return from_lab(np.array([[kinds.cmyk_lab(*ink) for ink in row] for row in inks]))
    if space == "Lab":
        signed = (colours[..., 1:] * 255).round().astype(np.uint8).view(np.int8)
        return from_lab(np.concatenate([colours[..., :1] * 100, signed], axis=2))
    if space == "grey of gamma 1.8":
        return from_light(colours**1.8)
    if colours.shape[2] == 4:
        return (1 - colours[..., :3]) * (1 - colours[..., 3:])
    gamma = kinds.SPACES[space][2] if space else 0
    light = colours**gamma if gamma else kinds.linear(colours)
    return from_light(light) if colours.shape[2] == 1 else from_xyz(light @ kinds.matrix(space).T)


def expected(kind: Kind) -> np.ndarray:
    levels = DECODERS[kind.path.suffix](kind.path)
    has_alpha = kind.becomes == "RGBA"
    colours, alpha = (levels[..., :-1], levels[..., -1:]) if has_alpha else (levels, None)
    if kind.space:  # converted after scaling to 8 bits
        colours = np.floor(colours * 255 + 0.5) / 255
    if kind.space or colours.shape[2] == 4:
        colours = in_srgb(colours, kind.space)
    if has_alpha:
        colours = np.concatenate([np.broadcast_to(colours, (*colours.shape[:2], 3)), alpha], axis=2)
    pixels = np.floor(TURNS[kind.orientation](colours) * 255 + 0.5).astype(np.uint8)
    return pixels[..., 0] if kind.becomes == "grey" else pixels


def tolerance(kind: Kind) -> int:
    """Levels by which rounding may differ: conversions start from 8 bits."""
    lossy = kind.path.suffix == ".jpg" or "lossy" in kind.file
    rounded = "associated" in kind.file or "palette-8" in kind.file or "cmyk" in kind.file
    rounded = rounded or "16-planar" in kind.file  # Pillow gives the high bytes only
    return 2 if kind.space or lossy else 1 if rounded else 0


# --- files ---------------------------------------------------------------------------------------


@every_read
@pytest.mark.parametrize("fast", [True, False], ids=["imagecodecs", "Pillow"])
def test_pixels_are_those_of_an_independent_decoder(
    kind: Kind, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        monkeypatch.setattr(formats, "imagecodecs", None)
    loaded, right = images.load(kind.path), expected(kind)
    assert loaded.shape == right.shape
    assert np.abs(loaded.astype(int) - right).max() <= tolerance(kind)


@every_read
def test_what_is_left_out_is_noted_once(kind: Kind) -> None:
    notes: list[str] = []
    images.load(kind.path, notes.append)
    assert len(notes) == bool(kind.note)
    assert all(note.startswith(kind.note) for note in notes)


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.file)
def test_what_is_refused_says_why_and_how_to_convert_it(kind: Kind) -> None:
    with pytest.raises(ImageError) as caught:
        images.load(kind.path)
    assert str(kind.path) in caught.value.problem
    assert kind.note in caught.value.problem
    assert "docs/formats.md" in caught.value.remedy


def test_the_folder_holds_the_files_of_the_table_and_is_small() -> None:
    files = sorted(kinds.FOLDER.iterdir())
    assert files == sorted(kind.path for kind in KINDS)
    assert sum(file.stat().st_size for file in files) < 300_000
    assert images.find(kinds.FOLDER) == (files, [])


def test_the_files_hold_what_the_table_says() -> None:
    """The script writes the same pixels; bytes depend on the versions of encoders."""
    for kind in (kind for kind in READ if kind.path.suffix == ".png"):
        written = png.Reader(bytes=kind.body).asDirect()
        stored = png.Reader(bytes=kind.path.read_bytes()).asDirect()
        assert [list(row) for row in written[2]] == [list(row) for row in stored[2]]


def test_a_key_makes_transparent_what_has_all_of_its_bits_and_nothing_else() -> None:
    for kind in (kind for kind in KINDS if kind.file.endswith("-key.png")):
        alpha = images.load(kind.path)[..., 3]
        assert 0 < (alpha == 0).sum() == (expected(kind)[..., 3] == 0).sum() < alpha.size
    assert (images.load(kinds.FOLDER / "png-rgb-16-key.png")[0, :2, 3] == [0, 255]).all()


# --- the page ------------------------------------------------------------------------------------


def test_the_page_is_that_of_the_table() -> None:
    assert kinds.PAGE.read_text("utf-8") == kinds.page()


def test_the_conversion_that_the_page_shows_makes_a_file_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", kinds.PAGE.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    samples = np.linspace(-1, 3, 35, dtype=np.float32).reshape(5, 7)
    tifffile.imwrite("scan.tif", samples, photometric="minisblack")
    exec(code, {})
    right = np.floor(np.linspace(0, 255, 35).reshape(5, 7) + 0.5)
    loaded = images.load(tmp_path / "scan-16.tif")
    assert np.abs(loaded.astype(int) - right).max() <= 1
