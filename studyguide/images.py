"""Find, load and save images: what people have in folders, in and out of uint8 arrays.

`studyguide.machinery.formats` converts what a file holds to pixels; docs/formats.md says how.
"""

import hashlib
import logging
import os
import stat
import struct
import sys
import unicodedata
import warnings
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from isal import isal_zlib
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    SAMPLEFORMAT,
    STRIPOFFSETS,
    TILEOFFSETS,
    ImageFileDirectory_v2,
)

from studyguide.errors import ImageError, UsageError, explained
from studyguide.machinery import files
from studyguide.machinery.formats import CONVERT_FIRST, Note, to_pixels
from studyguide.tiles import Pixels

log = logging.getLogger(__name__)

FORMATS = {".png": ("PNG",), ".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO")}
FORMATS |= {".webp": ("WEBP",), ".tif": ("TIFF",), ".tiff": ("TIFF",)}
# Pillow refuses beyond this, about 179 million pixels; a small file that claims more is a bomb.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
# Measured beside Pillow's levels and zlib: docs/decisions/0003-png-encoder.md.
PNG_LEVEL = 2
MAX_DPI = 1e6

# What f and g save of an image that lost tiles: `<stem>.partial.png` and `<stem>.mask.png`.
PARTIAL, MASK = ".partial", ".mask"
PNG_COLOURS = {1: 0, 3: 2, 4: 6}  # channels -> colour type


def find(folder: Path) -> tuple[list[Path], list[tuple[Path, ImageError]]]:
    """List a folder's images by name, and those that would overwrite another one's output.

    Skipped are hidden files (macOS keeps thumbnails in ``._IMG.png``) and whatever is not a regular
    file or a link: folders, pipes, sockets.

    Raises UsageError if the folder does not exist, cannot be read or holds no image.
    """
    remedy = "Check its permissions, or name another folder with --images"
    with explained(UsageError, f"The image folder {folder} cannot be read", remedy):
        if folder.is_file():
            raise UsageError(f"{folder} is a file", f"Name its folder: --images {folder.parent}")
        if not folder.is_dir():
            problem = f"The image folder {folder} does not exist"
            raise UsageError(problem, "Name a folder with --images")
        with os.scandir(folder) as entries:
            paths = [folder / name for name in sorted(e.name for e in entries if _is_image(e))]
    if not paths:
        kinds = " ".join(FORMATS)
        raise UsageError(
            f"The folder {folder} holds no image", f"Put files of these kinds in: {kinds}"
        )
    return _without_clashes(paths)


def _is_image(entry: "os.DirEntry[str]") -> bool:
    if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in FORMATS:
        return False
    with suppress(OSError):
        return stat.S_ISREG(entry.stat().st_mode)
    return True  # a broken link, or a folder that may not be entered: `load` reports it


def _without_clashes(paths: list[Path]) -> tuple[list[Path], list[tuple[Path, ImageError]]]:
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(_same_name(path.stem), path)
    chosen, clashes = [], []
    for path in paths:
        name = _same_name(path.stem)
        if why := _clash(path, name, first):
            problem = f"{path} {why} would be saved as {path.stem}.png"
            clashes.append((path, ImageError(problem, "Rename one of them")))
        else:
            chosen.append(path)
    return chosen, clashes


def _clash(path: Path, name: str, first: dict[str, Path]) -> str:
    if first[name] is not path:
        return f"has the same stem as {first[name].name}: both"
    for part in (PARTIAL, MASK):
        base = first.get(name.removesuffix(part))
        if base and name.endswith(part):
            return f"has the name of a part of {base.name}, which is saved if it loses tiles: both"
    return ""


def _same_name(stem: str) -> str:
    """What two names have in common that some file system takes for one.

    Case is ignored, as macOS, Windows and USB sticks do, and so is how an accent is encoded. Only
    macOS takes "ss" for "ß" as well.
    """
    fold = str.casefold if sys.platform == "darwin" else str.lower
    return unicodedata.normalize("NFC", fold(unicodedata.normalize("NFC", stem)))


def output(folder: Path, image: str, part: str = "") -> Path:
    """Return where an image's result is saved, or a part of it: `PARTIAL` or `MASK`."""
    return folder / f"{Path(image).stem}{part}.png"


def load(path: Path, note: Note | None = None) -> Pixels:
    """Read an image file: upright, in sRGB, 8 bits a sample.

    `note` is called with each thing that is left out, for example other frames; by default a
    warning is logged.

    Raises ImageError if the file is not an intact image of the kind that its name says, if it is
    too large, or if it does not say which value is white.

    Returns
    -------
    uint8 array, shape (H, W), (H, W, 3) or (H, W, 4)
    """
    try:
        note = note or partial(log.warning, "%s: %s", path)
        with _open(path) as image:
            _check_format(path, image.format or "no image")
            pixels = to_pixels(path, image, note)
            if (count := _frames(image)) > 1:
                note(f"first of {count} frames")
            return pixels
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        limit = f"{MAX_PIXELS / 1e6:.0f} million pixels"
        raise ImageError(f"{path} claims more than {limit}", "Scale it down first") from error
    except FileNotFoundError as error:
        raise ImageError(f"{path} is gone", "Restore the file and run again") from error
    except Exception as error:  # whatever a decoder makes of it: OverflowError has been seen
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ImageError:
    """Say why a file cannot be read: the system refuses, its kind is not supported, or damage."""
    if isinstance(error, OSError) and error.errno:
        remedy = "Check its permissions" if isinstance(error, PermissionError) else "Check its disk"
        return ImageError(f"{path} cannot be read ({error.strerror})", remedy)
    remedy = "Replace or remove the file"
    with suppress(OSError):
        if path.stat().st_size == 0:
            return ImageError(f"{path} is empty", remedy)
    if isinstance(error, UnidentifiedImageError):
        said = _unsupported_tiff(path) or "it begins like no image"
        remedy = CONVERT_FIRST if said.startswith("TIFF") else remedy
    else:  # what Python says of a decoder's own mistakes, such as an index, helps nobody
        said = str(error) if isinstance(error, (OSError, ValueError)) else "its data are damaged"
    return ImageError(f"{path} cannot be read as an image ({said})", remedy)


def _unsupported_tiff(path: Path) -> str:
    """Describe an intact TIFF of a kind that Pillow does not know; empty if it is damaged."""
    with suppress(Exception), path.open("rb") as file:
        head = file.read(8)
        tags = ImageFileDirectory_v2(head + (file.read(8) if head[2] == 43 else b""))
        file.seek(tags.next)
        tags.load(file)
        bits, kind = tags[BITSPERSAMPLE], tags.get(SAMPLEFORMAT, (1,))
        file.seek(max(tags.get(STRIPOFFSETS) or tags[TILEOFFSETS]))
        if file.read(1):  # the last part of the data is there
            names = {1: "unsigned", 2: "signed", 3: "float"}
            samples = f"{len(bits)} x {bits[0]} bits, {names.get(kind[0], 'of another type')}"
            return f"TIFF with samples that are not supported: {samples}"
    return ""


def size(path: Path) -> tuple[int, int]:
    """Height and width in pixels as the file's header tells; (0, 0) if it tells nothing."""
    try:
        with _open(path) as image:
            return image.height, image.width
    except Exception:  # `load` will tell
        return 0, 0


def _open(path: Path) -> ImageFile:
    # Pillow warns of flaws that are fixed or refused here. Filters belong to the process, not to a
    # thread, so this one stays: two loaders that restored the former ones would do it out of order.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image.open(path)


def _frames(image: Image.Image) -> int:
    with suppress(Exception):  # a TIFF's other pages may be damaged
        return int(getattr(image, "n_frames", 1))
    return 1


def density(path: Path) -> tuple[float, float] | None:
    """Read how many pixels an inch an upright image has, across and down; None if unknown."""
    with suppress(Exception), _open(path) as image:
        dpi = image.info.get("dpi") or _exif_density(image)
        across, down = (float(value) for value in dpi)
        if across != down and image.getexif().get(Base.Orientation, 1) >= 5:  # on its side
            across, down = down, across
        if min(across, down) > 1 and max(across, down) < MAX_DPI:  # 1 is Pillow's "unknown"
            return across, down
    return None


def _exif_density(image: Image.Image) -> tuple[float, float]:
    exif = image.getexif() if "exif" in image.info else {}
    inches = {2: 1.0, 3: 2.54}[exif.get(Base.ResolutionUnit, 2)]
    return exif[Base.XResolution] * inches, exif[Base.YResolution] * inches


def _check_format(path: Path, found: str) -> None:
    expected = FORMATS.get(path.suffix.lower(), (found,))
    if found not in expected:
        suffix = next((end for end, names in FORMATS.items() if found in names), None)
        remedy = f"Rename it to {path.stem}{suffix}" if suffix else "Export it as PNG"
        raise ImageError(f"{path} holds {found} data though its name says {expected[0]}", remedy)


def sha256(pixels: Pixels) -> str:
    """Digest of an image's pixels in C order: equal for equal pixels, whatever the file format."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def save(path: Path, pixels: Pixels, dpi: tuple[float, float] | None = None) -> None:
    """Write a PNG atomically, in sRGB; `dpi` is what `density` returns.

    Raises ImageError if it cannot be written, for example to a full disk.
    """
    remedy = "Free some space or choose another folder with --output"
    with explained(ImageError, f"{path} cannot be saved", remedy), files.atomic(path) as file:
        file.write(encode_png(pixels, dpi))


def encode_png(pixels: Pixels, dpi: tuple[float, float] | None = None) -> bytes:
    """Encode an image as PNG: each row less the one above it, then compressed.

    Source: Portable Network Graphics (PNG) Specification, W3C, sections 5 and 9.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    rows = pixels.reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # the filter Up
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOURS[channels], 0, 0, 0)
    body = isal_zlib.compress(filtered.data, PNG_LEVEL)
    chunks = {b"IHDR": header, b"sRGB": b"\x01"}  # relative colorimetric
    if dpi:
        chunks[b"pHYs"] = struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)
    chunks |= {b"IDAT": body, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks.items())


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
